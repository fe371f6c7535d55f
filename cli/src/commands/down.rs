//! `vipool down`: removes the addresses and ports that `vipool up` added.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use vipool::Tick;
use vipool::map::{CloseError, Map, MapError, SessionRow};

use super::audit;
use crate::assigner::reserved_ports::set_reserved_ports;
use crate::assigner::state::{AssignedResources, AssignerState};
use crate::assigner::{PortSet, format_address_count, remove_addresses};
use crate::history::AdminAction;
use crate::maps::client::remove_stale_client_files;
use crate::maps::{last_users, unusable};
use crate::system::disk_space;
use crate::text::escape;

/// Remove the addresses and ports that 'vipool up' added
///
/// If sessions are open, the command keeps their addresses and the map, and no new session gets an
/// address. Run the command again after the sessions have closed, or use --force.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool down")]
pub struct Down {
    /// The directory of the map
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/vipool")]
    map: PathBuf,
    /// Close and print the open sessions, and remove their addresses too
    #[arg(long)]
    force: bool,
}

impl Down {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let has_directory = self.map.try_exists();
        if !has_directory.with_context(|| format!("cannot examine {}", self.map.display()))? {
            outln!("there is no map in {}: nothing to remove", self.map.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut state = AssignerState::open(&self.map)?;
        let mut has_open_sessions = false;
        let session_addresses = match Map::open(&self.map) {
            Ok(map) => {
                // Drain the server before listing the sessions, so that no session opens after the
                // list was made. `write_subset` does not fail if the file system is full, so this
                // command can still remove the map and free its space.
                state
                    .write_subset(AssignedResources { draining: true, ..state.assigned.clone() })?;
                map.drain_server(true)?;
                if self.force {
                    for row in map.sessions()? {
                        match map.close_session(row.session, Tick::now()) {
                            // If standard output is closed or full, still remove the addresses.
                            Ok(_) => _ = outln!("closed {}", describe_session(&row)),
                            // The session has closed since the list was made.
                            Err(CloseError::NotOpen(_)) => {}
                            Err(error) => {
                                return Err(error)
                                    .context(format!("cannot close session {}", row.session));
                            }
                        }
                    }
                }
                // Copy the events to the history now, because the map may be removed below.
                if let Err(error) = audit::record_events(&self.map, None) {
                    errln!("vipool: {error:#}");
                }
                let saved_users = last_users::save(&map, &self.map);
                remove_stale_client_files(&map, &self.map);
                let leased_addresses = leased_addresses(&map)?;
                if let Err(error) = saved_users {
                    // Only the map has the last users. If the file system is full, remove the map
                    // nevertheless, because that frees space.
                    let must_keep_map = !self.force && !disk_space::is_exhausted(&error);
                    if leased_addresses.is_none() && must_keep_map {
                        return Err(error.context("the map was not removed (--force removes it)"));
                    }
                    errln!("vipool: {error:#}");
                }
                match leased_addresses {
                    None => {
                        map.remove()?;
                        BTreeSet::new()
                    }
                    Some(addresses) => {
                        has_open_sessions = true;
                        addresses
                    }
                }
            }
            Err(MapError::Missing(_) | MapError::OtherBoot(_)) => BTreeSet::new(),
            Err(error) if self.force => {
                errln!("vipool: {error}: open sessions are ignored");
                BTreeSet::new()
            }
            Err(error) => {
                return Err(error)
                    .context("cannot determine the open sessions (--force ignores them)");
            }
        };
        let (removed_addresses, kept_addresses) =
            remove_addresses(&mut state, |entry| session_addresses.contains(&entry.address))?;
        outln!("removed from the interfaces: {}", format_address_count(removed_addresses.len()))?;
        if has_open_sessions {
            outln!(
                "open sessions keep {} (run 'vipool down' again later, or with --force)",
                format_address_count(kept_addresses.len())
            )?;
        } else {
            set_reserved_ports(&mut state, &PortSet::default())?;
            state.write(AssignedResources::default())?;
            unusable::write(&self.map, &BTreeMap::new())?;
        }
        audit::record_or_warn(&self.map, AdminAction::Down);
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the session with its user and its addresses as text.
fn describe_session(row: &SessionRow) -> String {
    let user = row.user.as_ref().map(|user| format!(" of {}", escape(user))).unwrap_or_default();
    let addresses: Vec<_> = row.leases.iter().map(|lease| lease.address.to_string()).collect();
    format!("session {}{user} ({})", row.session, addresses.join(", "))
}

/// Returns the addresses of the open sessions, or `None` if no session is open.
///
/// # Errors
/// The sessions of the map cannot be read.
pub fn leased_addresses(map: &Map) -> anyhow::Result<Option<BTreeSet<IpAddr>>> {
    let rows = map.sessions()?;
    let addresses = rows.iter().flat_map(|row| row.leases.iter()).map(|lease| lease.address);
    Ok((!rows.is_empty()).then(|| addresses.collect()))
}
