//! `vipool up`: adds this server's addresses to its interfaces and creates the map.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use indicatif::HumanBytes;
use serde::Serialize;
use tempfile::TempDir;
use vipool::Tick;
use vipool::map::{JOURNAL_FILE, MAP_FILE, Map, MapError, SESSIONS_FILE};
use vipool::system::SystemProbe;

use super::audit;
use super::down::leased_addresses;
use super::plan_args::PlanArgs;
use crate::assigner::plan::{
    check_not_halved, desired_addresses, planned_sizes, probe_destinations,
    without_unusable_addresses,
};
use crate::assigner::reserved_ports::{set_reserved_ports, would_change_reserved_ports};
use crate::assigner::state::{AssignedResources, AssignerState, STATE_FILE};
use crate::assigner::{
    InterfaceAddress, PortSet, Step, StepTimer, add_addresses, format_address_count,
    preview_addition, preview_removal, remove_addresses,
};
use crate::event_log;
use crate::history::{AdminAction, AdminState};
use crate::maps::client::remove_stale_client_files;
use crate::maps::{last_users, unusable};
use crate::output::print_json;

/// Add this server's addresses to its interfaces and create the map
///
/// For each range of this server, the command finds the interface whose subnet contains the range.
/// It adds the addresses in a form that the host never uses as its own source address, and creates
/// the map. It checks that no other host uses one of the addresses: by ARP before it adds an IPv4
/// address, and by the kernel's duplicate address detection when it adds an IPv6 address. The
/// checks take about eight seconds for any number of addresses. The command prints each step with
/// its duration.
///
/// Run this command again after a change of farm.toml. Open sessions keep their addresses. If the
/// farm file removes more than half of the server's virtual IPs or loopback addresses, the command
/// fails and changes nothing, unless you use --allow-shrink.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool up
  vipool up --dry-run
  vipool up ./farm.toml --server ts1 --no-probe")]
pub struct Up {
    #[command(flatten)]
    plan: PlanArgs,
    /// The directory for the map
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/vipool")]
    map: PathBuf,
    /// Do not probe the network by ARP. IPv6 duplicate address detection still runs
    #[arg(long)]
    no_probe: bool,
    /// Accept a farm file that removes more than half of the virtual IPs or loopback addresses
    #[arg(long)]
    allow_shrink: bool,
    /// Change nothing and show what the command would change. The network is not probed
    #[arg(long)]
    dry_run: bool,
    /// Print JSON (docs/json.md describes the fields)
    #[arg(long)]
    json: bool,
}

/// From this size, `up` reports the size of a map before it creates the map. Creating a map of this
/// size takes about a second.
const LARGE_MAP_BYTES: u64 = 64 << 20;

/// Version of the JSON format.
const SCHEMA: u32 = 1;

/// The changes of a run, or the changes that a dry run predicts.
#[derive(Serialize)]
struct Outcome {
    schema: u32,
    dry_run: bool,
    /// Whether anything changed.
    changed: bool,
    /// Whether the map was created or replaced.
    map_changed: bool,
    /// Number of virtual IPs that are on the interfaces and that sessions can lease.
    usable: usize,
    added: Vec<IpAddr>,
    removed: Vec<IpAddr>,
    unusable: Vec<unusable::UnusableAddress>,
    /// The steps of the run. Empty for a dry run.
    steps: Vec<Step>,
}

impl Up {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let outcome = if self.dry_run {
            let copy_directory = copy_map_files(&self.map)
                .with_context(|| format!("cannot copy the map in {}", self.map.display()))?;
            self.apply(copy_directory.path())?
        } else {
            self.apply(&self.map)?
        };
        for entry in &outcome.unusable {
            if !self.dry_run {
                event_log::log_conflict(entry.address, &entry.reason);
            }
            errln!("vipool: cannot lease {}: {}", entry.address, entry.reason);
        }
        if self.json {
            print_json(&outcome)?;
        } else {
            outln!("{}", summary(&outcome))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Applies the plan in `directory`: the directory of the map or, in a dry run, a copy of it. A
    /// dry run changes neither the interfaces nor the reserved ports.
    fn apply(&self, directory: &Path) -> anyhow::Result<Outcome> {
        let mut timer = StepTimer::start(!self.json && !self.dry_run);
        let (farm, server_plan, interfaces) = self.plan.load()?;
        let mut state = AssignerState::open(directory)?;
        let new_sizes = planned_sizes(&server_plan.plan);
        if !self.allow_shrink {
            check_not_halved(state.assigned.planned, new_sizes).with_context(|| {
                format!(
                    "{} removes addresses; nothing was changed (check the file, or use \
                     --allow-shrink)",
                    self.plan.farm.path().display()
                )
            })?;
        }
        let pool_addresses = desired_addresses(&server_plan)?;
        timer.end_step(format!("read {}", self.plan.farm.path().display()));
        let result = if self.dry_run {
            preview_addition(&state, &pool_addresses)?
        } else {
            let destinations = probe_destinations(&server_plan, &interfaces);
            add_addresses(&mut state, &pool_addresses, !self.no_probe, &destinations, &mut timer)?
        };
        let had_map = match Map::open(directory) {
            Err(error @ MapError::Io { .. }) => return Err(error.into()),
            result => result.is_ok(),
        };
        if !had_map {
            // If this command fails after it has created the map, the next one restores.
            state.write(AssignedResources { restoring: true, ..state.assigned.clone() })?;
        }
        let map_inode_before = map_file_inode(directory);
        // If the map was lost, the sockets show which addresses running sessions still use.
        let mut probe = SystemProbe::new().context("cannot read the kernel's socket tables")?;
        let plan = without_unusable_addresses(
            server_plan.plan,
            &result.conflict_reasons.keys().copied().collect(),
        );
        if plan.file_bytes() >= LARGE_MAP_BYTES {
            let (size, directory) = (HumanBytes(plan.file_bytes()), directory.display());
            errln!("vipool: the map takes {size} in {directory}: creating it takes a while");
        }
        let map =
            Map::create_after_loss(directory, &plan, Tick::now(), &mut probe).map_err(|error| {
                match error {
                    MapError::Damaged { .. } => anyhow!("{error} (run 'vipool repair')"),
                    error => error.into(),
                }
            })?;
        let map_changed = map_file_inode(directory) != map_inode_before;
        let was_draining = state.assigned.draining;
        let is_restored = self.restore(&map, directory, &state.assigned)?;
        remove_stale_client_files(&map, directory);
        timer.end_step(if map_changed { "created the map" } else { "kept the map" });
        let assigned = state.assigned.clone();
        state.write(AssignedResources {
            draining: false,
            restoring: !is_restored,
            planned: new_sizes,
            ..assigned
        })?;
        unusable::write(directory, &result.conflict_reasons)?;
        let leased_by_sessions = leased_addresses(&map)?.unwrap_or_default();
        let is_needed = |entry: &InterfaceAddress| {
            result.usable_addresses.contains(entry)
                || leased_by_sessions.contains(&entry.address)
                || !had_map && probe.has_sockets(entry.address)
        };
        let removed = if self.dry_run {
            preview_removal(&state, is_needed)?
        } else {
            remove_addresses(&mut state, is_needed)?.0
        };
        timer.end_step(format!(
            "removed from the interfaces: {}",
            format_address_count(removed.len())
        ));
        let fixed_ports = farm.fixed_ports();
        let fixed_ports =
            PortSet(fixed_ports.iter().flat_map(|range| range.first..=range.last).collect());
        let is_port_change_needed = would_change_reserved_ports(&state, &fixed_ports)?;
        if !self.dry_run {
            set_reserved_ports(&mut state, &fixed_ports)?;
        }
        timer.end_step("reserved the fixed ports");
        if !self.dry_run {
            audit::record_or_warn(directory, AdminAction::Up);
        }

        let lingering_count: u32 = map.reader()?.pools().iter().map(|pool| pool.lingering).sum();
        if !had_map && lingering_count > 0 {
            errln!(
                "vipool: {lingering_count} addresses are in use without a session, as after the \
                 loss of a map: no session gets them before 'vipool gc' finds no sockets on them"
            );
        }
        let added: Vec<IpAddr> = result.added_addresses.iter().map(|entry| entry.address).collect();
        let removed: Vec<IpAddr> = removed.iter().map(|entry| entry.address).collect();
        Ok(Outcome {
            schema: SCHEMA,
            dry_run: self.dry_run,
            changed: map_changed
                || was_draining
                || is_port_change_needed
                || !added.is_empty()
                || !removed.is_empty(),
            map_changed,
            usable: result.usable_addresses.len(),
            added,
            removed,
            unusable: unusable::from_reasons(result.conflict_reasons),
            steps: if self.dry_run { Vec::new() } else { timer.into_steps() },
        })
    }

    /// Restores what the map does not contain: in a new map, the last users, the drains and the
    /// reservations. In a map that `down` drained, the drain of the server by an administrator.
    /// Returns false after a warning if a file cannot be read.
    fn restore(
        &self,
        map: &Map,
        directory: &Path,
        assigned: &AssignedResources,
    ) -> anyhow::Result<bool> {
        let mut is_restored = true;
        let mut warn = |failure: &str, error: anyhow::Error| {
            errln!("vipool: {failure}: {error:#} (run 'vipool up' again)");
            is_restored = false;
        };
        if assigned.restoring
            && let Err(error) = last_users::restore(map, directory)
        {
            warn("users may get different addresses than before", error.into());
        }
        if assigned.restoring || assigned.draining {
            // A dry run also reads the history of `self.map`, because the copy has no history.
            match AdminState::read(&self.map, map.reader()?.boot()) {
                Ok(admin_state) if assigned.restoring => admin_state.apply(map)?,
                Ok(admin_state) => map.drain_server(admin_state.is_server_drained)?,
                Err(error) => {
                    map.drain_server(false)?;
                    warn("cannot restore drains and reservations", error);
                }
            }
        }
        Ok(is_restored)
    }
}

/// Copies the files of the map and the assigner's state to a temporary directory, for a dry run.
fn copy_map_files(directory: &Path) -> anyhow::Result<TempDir> {
    let copy_directory = tempfile::tempdir()?;
    for name in [MAP_FILE, SESSIONS_FILE, JOURNAL_FILE, STATE_FILE] {
        match fs::copy(directory.join(name), copy_directory.path().join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(copy_directory)
}

/// Returns the inode of the map file. A replaced map has another inode.
fn map_file_inode(directory: &Path) -> Option<u64> {
    fs::metadata(directory.join(MAP_FILE)).ok().map(|metadata| metadata.ino())
}

fn summary(outcome: &Outcome) -> String {
    let Outcome { added, removed, usable, unusable, .. } = outcome;
    let (added, removed, unusable) = (added.len(), removed.len(), unusable.len());
    match (outcome.dry_run, outcome.changed) {
        (true, false) => "nothing would change".to_owned(),
        (true, true) => format!(
            "{} would be usable ({added} to add, {removed} to remove, {unusable} not usable); the \
             map would {}",
            format_address_count(*usable),
            if outcome.map_changed { "be replaced" } else { "stay in place" }
        ),
        (false, _) => format!(
            "usable: {} ({added} added, {removed} removed, {unusable} not usable)",
            format_address_count(*usable)
        ),
    }
}
