//! `vipool drain`, `undrain`, `reserve` and `unreserve`: control which addresses new sessions may
//! get.

use std::net::IpAddr;
#[cfg(unix)]
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use vipool::Tick;
#[cfg(unix)]
use vipool::map::ChangeError;
use vipool::map::{AdminChange, Map};
use vipool::range::Range;

#[cfg(unix)]
use super::audit;
#[cfg(unix)]
use crate::history::{AdminAction, AdminState};
use crate::maps::selection::MapArgs;
use crate::text::{escape, pluralize};

/// Take addresses out of use
///
/// No new session gets a drained address. A session that holds a drained address keeps it. With
/// --all, no new session gets any address. Use --all before maintenance. A drain lasts until
/// 'vipool undrain' or the next restart of the machine, also across 'vipool down' and 'vipool up'.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool drain 10.0.5.17
  vipool drain 10.0.5.0/28 10.0.5.100-10.0.5.120
  vipool drain --all")]
pub struct Drain {
    #[command(flatten)]
    target: DrainTarget,
}

/// Put drained addresses back into use
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool undrain 10.0.5.17
  vipool undrain --all")]
pub struct Undrain {
    #[command(flatten)]
    target: DrainTarget,
}

#[derive(clap::Args)]
struct DrainTarget {
    /// Addresses, CIDR prefixes or first-last ranges
    #[arg(value_name = "ADDRESSES", required_unless_present = "all")]
    ranges: Vec<Range>,
    /// Drain or undrain the whole server. Addresses that were drained individually stay drained
    #[arg(long, conflicts_with = "ranges")]
    all: bool,
    #[command(flatten)]
    map: MapArgs,
}

/// Reserve an address for a user
///
/// If the address is free, the user's next session gets it. New sessions of other users do not get
/// it. A session that already holds the address keeps it.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool reserve 10.0.5.20 alice

This reservation lasts until 'vipool unreserve' or the next restart of the machine, also across
'vipool down' and 'vipool up'. Reservations in farm.toml are permanent. 'vipool reservations' lists
both.")]
pub struct Reserve {
    /// The address
    address: IpAddr,
    /// The user
    user: String,
    #[command(flatten)]
    map: MapArgs,
}

/// Remove the reservation of an address
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool unreserve 10.0.5.20")]
pub struct Unreserve {
    /// The address
    address: IpAddr,
    #[command(flatten)]
    map: MapArgs,
}

impl Drain {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.target.set_drained(true)
    }
}

impl Undrain {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.target.set_drained(false)
    }
}

impl DrainTarget {
    fn set_drained(self, should_drain: bool) -> anyhow::Result<ExitCode> {
        let directory = self.map.existing_directory()?;
        let map = Map::open(&directory)?;
        let mut changed_ranges = Vec::new();
        let result = self.change_map(&map, should_drain, &mut changed_ranges);
        #[cfg(unix)]
        {
            let action = |range| match should_drain {
                true => AdminAction::Drain(range),
                false => AdminAction::Undrain(range),
            };
            let actions: Vec<_> = changed_ranges.into_iter().map(action).collect();
            let recorded = audit::record_change(&directory, &actions);
            match &result {
                Ok(()) => recorded?,
                Err(_) => _ = recorded.inspect_err(|error| errln!("vipool: {error:#}")),
            }
        }
        result.map(|()| ExitCode::SUCCESS)
    }

    /// Changes the map and prints the changes. Adds each changed range to `changed_ranges`; `None`
    /// is the whole server.
    fn change_map(
        self,
        map: &Map,
        should_drain: bool,
        changed_ranges: &mut Vec<Option<Range>>,
    ) -> anyhow::Result<()> {
        if self.all {
            map.drain_server(should_drain)?;
            changed_ranges.push(None);
            outln!(
                "{}",
                if should_drain {
                    "The server is drained: no new session gets an address"
                } else {
                    "New sessions get addresses again"
                }
            )?;
        }
        for range in self.ranges {
            let now = Tick::now();
            let change =
                if should_drain { map.drain(&range, now) } else { map.undrain(&range, now) }?;
            if change.addresses == 0 {
                bail!(
                    "no pool of this server contains {range} ('vipool addresses' shows the pools)"
                );
            }
            changed_ranges.push(Some(range));
            outln!("{}", describe_change(&change, should_drain))?;
        }
        Ok(())
    }
}

fn describe_change(change: &AdminChange, should_drain: bool) -> String {
    let addresses = pluralize(change.addresses, "address is", "addresses are");
    let state = if should_drain { "drained" } else { "back in use" };
    let lease_note = match change.held {
        0 => String::new(),
        held_count => format!(" (leased until the sessions close: {held_count})"),
    };
    format!("{addresses} {state}{lease_note}")
}

impl Reserve {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.map.existing_directory()?;
        let map = Map::open(&directory)?;
        let change = map.reserve(self.address, &self.user, Tick::now())?;
        let lease_note =
            if change.held > 0 { "; the session that holds the address keeps it" } else { "" };
        #[cfg(unix)]
        audit::record_change(&directory, &[AdminAction::Reserve(self.address, &self.user)])?;
        outln!("{} is reserved for {}{lease_note}", self.address, escape(&self.user))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns whether the history contains a reservation of the address that was not removed.
#[cfg(unix)]
fn is_reserved_in_history(directory: &Path, map: &Map, address: IpAddr) -> anyhow::Result<bool> {
    let state = AdminState::read(directory, map.reader()?.boot())?;
    Ok(state.reservations.contains_key(&address))
}

impl Unreserve {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.map.existing_directory()?;
        let map = Map::open(&directory)?;
        match map.unreserve(self.address, Tick::now()) {
            // An earlier run changed the map, but could not write the history.
            #[cfg(unix)]
            Err(ChangeError::NotReserved(_))
                if is_reserved_in_history(&directory, &map, self.address)? => {}
            result => _ = result?,
        }
        #[cfg(unix)]
        audit::record_change(&directory, &[AdminAction::Unreserve(self.address)])?;
        outln!("{} is no longer reserved", self.address)?;
        Ok(ExitCode::SUCCESS)
    }
}
