//! `vipool session open|close|list`: opens, closes and lists sessions. A session that `open` opens
//! stays open after the command exits. With `--leader`, `vipool gc` closes the session after the
//! leader has exited.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use vipool::Tick;
#[cfg(unix)]
use vipool::map::OpenError;
use vipool::map::{CloseError, ExhaustionPolicy, Leader, Map, OpenOptions};
use vipool::session::SessionId;
use vipool::system;

use super::status;
#[cfg(unix)]
use crate::event_log;
use crate::exit_status;
use crate::maps::client::{remove_client_file, write_client_file};
use crate::maps::private;
use crate::maps::report::{Report, missing_address};
use crate::maps::selection::{MapArgs, MapSelection};
use crate::output::print_json;
use crate::remedy;
use crate::system::caller;

/// Open, close and list sessions
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

/// Open a session, which holds its addresses until it is closed
///
/// If the session is already open, it keeps its user and its addresses, and gets each kind of
/// address that it lacks. --client and --leader replace its client and its leader. A --user or
/// --address that differs from the session's is an error.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status: 0 the session is open; 75 the session did not get the addresses that the farm file demands
(when-exhausted), a limit of sessions is reached, or the groups of the user are unknown; 1 any other failure

Examples:
  vipool session open 7 --user alice
  vipool session open audit:3 --leader $$
  vipool run --session 7 -- PROGRAM"
)]
struct Open {
    /// The session: a number, or a kind and a value (audit:7, logind:c1)
    session: SessionId,
    /// The user of the session [default: you]
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// The farm file for your private map
    #[arg(long, value_name = "FILE")]
    farm: Option<PathBuf>,
    /// Name of the pool for the virtual IP
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Require this address; fail if it is not available
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// The address of the user's client, for the history and for programs with the feature
    /// client-ip. Other users can see --client in the output of ps, but not VIPOOL_CLIENT
    #[arg(long, value_name = "ADDRESS", env = "VIPOOL_CLIENT", hide_env_values = true)]
    client: Option<IpAddr>,
    /// The session leader: 'vipool gc' closes the session after this process has exited
    #[arg(long, value_name = "PID")]
    leader: Option<u32>,
    #[command(flatten)]
    map: MapArgs,
}

/// Close a session and release its addresses
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool session close 7")]
struct Close {
    /// The session
    session: SessionId,
    /// Succeed even if the session is not open
    #[arg(long)]
    if_open: bool,
    #[command(flatten)]
    map: MapArgs,
}

/// List the open sessions
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool session list --json | jq -r '.[].session'")]
struct List {
    /// Print JSON: the array 'sessions' of 'vipool status --json'
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    map: MapArgs,
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
        // A private map has a loopback block. This command claims the block only until it exits.
        // The next 'vipool run' claims the same block again.
        let (map, directory, _claim) = match self.map.selection() {
            MapSelection::Private => {
                let farm = self.farm.or_else(private::default_farm_file);
                let private_map = private::open(farm.as_deref(), None)?;
                (private_map.map, private_map.directory, Some(private_map.claim))
            }
            MapSelection::Directory(_) if self.farm.is_some() => {
                bail!(
                    "--farm applies only to a private map; the system's map uses the farm file of \
                     'vipool up' (add --private, or omit --farm)"
                )
            }
            MapSelection::Directory(directory) => (Map::open(&directory)?, directory, None),
        };
        let is_open = map.find(self.session)?.is_some();
        let user = self.user.clone().unwrap_or_else(caller::user_name);
        // An open session keeps its user. If --user is set, the map compares it with the session's
        // user. The default user is not compared.
        let required_user = if is_open { self.user.as_deref() } else { Some(user.as_str()) };
        let choose_pool = || match &self.pool {
            Some(pool) => Ok(Some(pool.clone())),
            None => map.choose_pool(&user, None),
        };
        let options = OpenOptions::new()
            .with_user(required_user)
            .with_address(self.address)
            .with_client(self.client)
            .with_leader(self.leader.map(identify_leader).transpose()?);
        let result = choose_pool().and_then(|pool| {
            map.open_session(self.session, &options.with_pool(pool.as_deref()), Tick::now())
        });
        let opened = match result {
            Ok(opened) => opened,
            Err(error) if error.is_decided_by_exhaustion_policy() => {
                errln!("vipool: {}", remedy::describe_open_error(&error));
                #[cfg(unix)]
                if matches!(error, OpenError::UnknownGroups { .. })
                    && directory == system::map_directory()
                {
                    event_log::log_unknown_pool(&error.to_string());
                }
                return Ok(ExitCode::from(exit_status::NO_ADDRESS));
            }
            Err(error) => {
                return Err(error).context(format!("cannot open session {}", self.session));
            }
        };
        if let Some(shortage) = &opened.shortage {
            let missing =
                missing_address(&map.reader()?, &opened.leases).unwrap_or("further address");
            let shortage = remedy::describe_shortage(shortage);
            errln!("vipool: session {} got no {missing}: {shortage}", self.session);
            if map.settings()?.on_exhausted == ExhaustionPolicy::Refuse {
                if !opened.already_open {
                    map.close_by_handle(&opened.handle, Tick::now())?;
                }
                return Ok(ExitCode::from(exit_status::NO_ADDRESS));
            }
        }
        if let Some(client) = self.client {
            write_client_file(&directory, &opened.handle, client, Some(&user));
        }
        let addresses: Vec<_> =
            opened.leases.iter().map(|lease| lease.address.to_string()).collect();
        let state = if opened.already_open { "was already open" } else { "is open" };
        outln!("Session {} {state}: {}", self.session, addresses.join(", "))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn identify_leader(pid: u32) -> anyhow::Result<Leader> {
    system::identify_process(pid)
        .with_context(|| format!("cannot find the process {pid} (--leader)"))
}

impl Close {
    fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.map.existing_directory()?;
        let map = Map::open(&directory)?;
        if let Some((handle, _)) = map.find(self.session)? {
            remove_client_file(&directory, &handle);
        }
        match map.close_session(self.session, Tick::now()) {
            Ok(closed) => {
                let addresses: Vec<_> =
                    closed.leases.iter().map(|lease| lease.address.to_string()).collect();
                outln!("Session {} is closed, released {}", self.session, addresses.join(", "))?;
            }
            Err(CloseError::NotOpen(_)) if self.if_open => {}
            Err(error) => return Err(error.into()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let report = Report::read(&self.map.existing_directory()?)?;
        if self.json {
            print_json(&report.sessions)?;
        } else {
            out!("{}", status::render_sessions(&report))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
