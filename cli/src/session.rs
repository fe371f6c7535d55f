//! `vipool session open|close|list`: sessions that outlive one program.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use vipool::map::{CloseError, Leader, Map, OpenError, OpenOptions};
use vipool::os::{clock, process};
use vipool::session::SessionId;

use crate::place::{Place, Which};
use crate::private;
use crate::report::Report;
use crate::{EXHAUSTED, run, status};

/// Open, close and list sessions.
#[derive(clap::Args)]
pub struct Session {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Open(Open),
    Close(Close),
    List(List),
}

/// Open a session: it gets its addresses and keeps them until it is closed.
///
/// A session that is open already keeps what it has, and gets what it lacks.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 open; 75 no address was left; 1 any other failure

Examples:
  vipool session open 7 --user alice
  vipool session open audit:3 --leader $$
  vipool run --session 7 -- PROGRAM")]
struct Open {
    /// The session: a number, or a kind and a value (audit:7, logind:c1)
    session: SessionId,
    /// The user, to whom the session is recorded [default: you]
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// The farm file that your private map is to follow
    #[arg(long, value_name = "FILE")]
    farm: Option<PathBuf>,
    /// Name of the pool to take a virtual IP from
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// This very address, or an error
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// The address of the user's client: recorded, and told to programs with the feature client-ip
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// The process that stands for the session: 'vipool gc' closes it when that is gone
    #[arg(long, value_name = "PID")]
    leader: Option<u32>,
    #[command(flatten)]
    place: Place,
}

/// Close a session: its addresses go back to the pools.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool session close 7")]
struct Close {
    /// The session
    session: SessionId,
    /// Do nothing, successfully, if it is not open
    #[arg(long)]
    if_open: bool,
    #[command(flatten)]
    place: Place,
}

/// List the open sessions.
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool session list --json | jq -r '.[].session'")]
struct List {
    /// Print JSON: the `sessions` of 'vipool status --json'
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Session {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Open(open) => open.run(),
            Command::Close(close) => close.run(),
            Command::List(list) => list.run(),
        }
    }
}

impl Open {
    fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.place.directory()?;
        // The claim on private addresses is that of this process: see private/block.rs.
        let (map, _claim) = match self.place.which() {
            Which::Private => {
                let farm = self.farm.or_else(private::farm_of_user);
                let private = private::open(farm.as_deref(), None)?;
                (private.map, Some(private.claim))
            }
            Which::At(_) if self.farm.is_some() => {
                bail!("--farm is for a private map: the system's follows that of 'vipool up'")
            }
            Which::At(_) => (Map::open(&directory)?, None),
        };
        let user = self.user.unwrap_or_else(run::own_name);
        let pool = self.pool.or_else(|| map.choose_pool(&user, None));
        let options = OpenOptions {
            user: Some(&user),
            pool: pool.as_deref(),
            address: self.address,
            client: self.client,
            leader: self.leader.map(leader).transpose()?,
        };
        let opened = match map.open_session(self.session, &options, clock::now()) {
            Ok(opened) => opened,
            Err(
                error @ (OpenError::Shortage(_)
                | OpenError::Quota { .. }
                | OpenError::TooManySessions(_)),
            ) => {
                eprintln!("vipool: {error}");
                return Ok(ExitCode::from(EXHAUSTED));
            }
            Err(error) => return Err(error).context(format!("session {}", self.session)),
        };
        if let Some(shortage) = opened.shortage {
            eprintln!("vipool: session {} holds less than it could: {shortage}", self.session);
        }
        if let (false, Some(client)) = (opened.already_open, self.client) {
            run::tell_client(&directory, &opened.handle, client, Some(&user));
        }
        let addresses: Vec<_> =
            opened.leases.iter().map(|lease| lease.address.to_string()).collect();
        let already = if opened.already_open { "was open already" } else { "is open" };
        println!("Session {} {already}: {}", self.session, addresses.join(", "));
        Ok(ExitCode::SUCCESS)
    }
}

fn leader(pid: u32) -> anyhow::Result<Leader> {
    process::identify(pid).with_context(|| format!("--leader {pid}: cannot find that process"))
}

impl Close {
    fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.place.directory()?;
        let map = Map::open(&directory)?;
        if let Some((handle, _)) = map.find(self.session)? {
            // Without the lease it is worth nothing to anybody.
            let _ = vipool::os::client::remove(&directory, &handle);
        }
        match map.close_session(self.session, clock::now()) {
            Ok(closed) => {
                let addresses: Vec<_> =
                    closed.leases.iter().map(|lease| lease.address.to_string()).collect();
                println!("Session {} is closed: {} given back", self.session, addresses.join(", "));
            }
            Err(CloseError::NotOpen(_)) if self.if_open => {}
            Err(error) => return Err(error.into()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let report = Report::read(&self.place.directory()?, run::own_session().ok())?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report.sessions)?);
        } else {
            print!("{}", status::sessions(&report.sessions));
        }
        Ok(ExitCode::SUCCESS)
    }
}
