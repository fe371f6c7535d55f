//! `vipool drain|undrain|reserve|unreserve`: taking addresses out of use, and keeping them for a
//! user.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::bail;
use vipool::map::{AdminChange, Map};
use vipool::os::clock;
use vipool::range::Range;

use crate::place::Place;

/// Take addresses out of use
///
/// No session is given a drained address; sessions that have one keep it. With --all no new
/// session gets an address at all, as before a maintenance.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool drain 10.0.5.17
  vipool drain 10.0.5.0/28 10.0.5.100-10.0.5.120
  vipool drain --all")]
pub struct Drain {
    #[command(flatten)]
    which: WhichAddresses,
}

/// Put drained addresses back into use
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool undrain 10.0.5.17
  vipool undrain --all")]
pub struct Undrain {
    #[command(flatten)]
    which: WhichAddresses,
}

#[derive(clap::Args)]
struct WhichAddresses {
    /// Addresses, CIDR prefixes or first-last
    #[arg(value_name = "ADDRESSES", required_unless_present = "all")]
    ranges: Vec<Range>,
    /// The whole server; addresses that were drained by themselves stay so
    #[arg(long, conflicts_with = "ranges")]
    all: bool,
    #[command(flatten)]
    place: Place,
}

/// Keep an address for a user
///
/// The user's next session is given it; nobody else is. A session that has it keeps it.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool reserve 10.0.5.20 alice

A reservation made here lasts until the next start of the machine; in farm.toml it is for good.")]
pub struct Reserve {
    /// The address
    address: IpAddr,
    /// The user
    user: String,
    #[command(flatten)]
    place: Place,
}

/// Keep an address for nobody any more
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool unreserve 10.0.5.20")]
pub struct Unreserve {
    /// The address
    address: IpAddr,
    #[command(flatten)]
    place: Place,
}

impl Drain {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.which.change(true)
    }
}

impl Undrain {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        self.which.change(false)
    }
}

impl WhichAddresses {
    fn change(self, drain: bool) -> anyhow::Result<ExitCode> {
        let map = Map::open(&self.place.directory()?)?;
        let done = if drain { "drained" } else { "back in use" };
        if self.all {
            map.drain_server(drain)?;
            println!(
                "{}",
                if drain { "No new session gets an address" } else { "New sessions get addresses" }
            );
        }
        for range in self.ranges {
            let now = clock::now();
            let changed = if drain { map.drain(&range, now) } else { map.undrain(&range, now) }?;
            if changed.addresses == 0 {
                bail!("{range}: none of these is in a pool of this server");
            }
            println!("{}", said(&changed, done));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn said(changed: &AdminChange, done: &str) -> String {
    let kept = match changed.held {
        0 => String::new(),
        held => format!(" ({held} of them held by sessions, which keep them)"),
    };
    let plural = if changed.addresses == 1 { " is" } else { "es are" };
    format!("{} address{plural} {done}{kept}", changed.addresses)
}

impl Reserve {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let map = Map::open(&self.place.directory()?)?;
        let changed = map.reserve(self.address, &self.user, clock::now())?;
        let held = if changed.held > 0 { "; the session that has it keeps it" } else { "" };
        println!("{} is reserved for {}{held}", self.address, self.user);
        Ok(ExitCode::SUCCESS)
    }
}

impl Unreserve {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let map = Map::open(&self.place.directory()?)?;
        map.unreserve(self.address, clock::now())?;
        println!("{} is reserved for nobody", self.address);
        Ok(ExitCode::SUCCESS)
    }
}
