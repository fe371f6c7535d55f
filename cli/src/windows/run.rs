//! `vipool run` on Windows: a program in a session, started by `vipool-launch.exe`.

use std::ffi::{CString, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use vipool::EXHAUSTED_MESSAGE;
use vipool::map::{CloseError, ExhaustionPolicy, Map, OpenError, OpenOptions};
use vipool::os::{client, clock, process, users};
use vipool::session::{Handle, SessionId};

use crate::EXHAUSTED;
use crate::place::{self, Place};

/// vipool failed before it could start the program, as in 'vipool run' elsewhere.
const FAILED: u8 = 125;

/// Run a program in a session.
///
/// Opens the session if it is not open, runs the program with the hook layer, and closes what it
/// opened when the program has ended. A program finds its session by that of Windows; another one
/// (--session) is followed only where the farm file says 'session-override = true'.
#[derive(clap::Args)]
#[command(after_help = "Exit status:
  that of the program, or
   75  no address was left and the farm (or --require) refuses the session
  125  vipool failed

Example:
  vipool run --session 1 -- C:\\app\\server.exe --port 8000")]
pub struct Run {
    /// The session: a number, or a kind and a value (windows:2). Default: the one of your logon
    #[arg(long, short, value_name = "SESSION")]
    session: Option<SessionId>,
    /// Name of the pool to take a virtual IP from
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// The address of the user's client: recorded, and told to programs with the feature client-ip
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Do not run the program outside the session
    #[arg(long)]
    require: bool,
    #[command(flatten)]
    place: Place,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let code = match self.try_run() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("vipool: {error:#}");
                FAILED.into()
            }
        };
        // A program's code has 32 bits, an ExitCode holds a byte.
        std::process::exit(code)
    }

    fn try_run(&self) -> anyhow::Result<i32> {
        let directory = self.place.directory()?;
        let map = Map::open(&directory)?;
        let session = self.session.map_or_else(own_session, Ok)?;
        let options = OpenOptions {
            user: Some(&own_name()),
            pool: self.pool.as_deref(),
            client: self.client,
            leader: Some(process::identify(std::process::id())?),
            ..OpenOptions::default()
        };
        let mut command = Command::new(launcher()?);
        command.args(&self.program).env_remove("VIPOOL_LEASE").env_remove("VIPOOL_MAP");
        let mut opened = None;
        match map.open_session(session, &options, clock::now()) {
            Ok(found) => {
                command.env("VIPOOL_LEASE", found.handle.to_string());
                if let Some(directory) = place::told(&directory) {
                    command.env("VIPOOL_MAP", directory);
                }
                opened = (!found.already_open).then_some(found.handle);
                if let (Some(handle), Some(client)) = (opened, self.client) {
                    tell_client(&directory, &handle, client, None);
                }
            }
            Err(OpenError::Shortage(why)) => {
                eprintln!("{EXHAUSTED_MESSAGE}\nvipool: {why}");
                if self.require || map.settings().on_exhausted == ExhaustionPolicy::Refuse {
                    return Ok(EXHAUSTED.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        let ended = command.status().context("cannot start vipool-launch.exe");
        if let Some(handle) = opened {
            // Without the lease it is worth nothing to anybody.
            _ = client::remove(&directory, &handle);
            match map.close_by_handle(&handle, clock::now()) {
                Ok(_) | Err(CloseError::NotOpen(_) | CloseError::Stale(_)) => {}
                Err(error) => eprintln!("vipool: cannot close session {session}: {error}"),
            }
        }
        Ok(ended?.code().unwrap_or(FAILED.into()))
    }
}

/// The launcher, which is installed beside this program, or where `VIPOOL_HOOK` says.
fn launcher() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let directory = match std::env::var_os("VIPOOL_HOOK") {
        Some(directory) => directory.into(),
        None => own.parent().map(PathBuf::from).unwrap_or_default(),
    };
    let launcher = directory.join("vipool-launch.exe");
    if !launcher.exists() {
        bail!("{} is not there: install it beside vipool.exe", launcher.display());
    }
    Ok(launcher)
}

/// The session of this logon: the one we were started in, else that of Windows.
pub fn own_session() -> anyhow::Result<SessionId> {
    let lease = std::env::var("VIPOOL_LEASE").ok();
    if let Some(handle) = lease.and_then(|text| Handle::parse(text.as_bytes())) {
        return Ok(handle.session);
    }
    process::session_of(std::process::id()).context("this process is in no session")
}

/// Lets the programs of a session, and nobody else's, know where its client is (`client-ip`).
/// `user` is whose session it is.
pub fn tell_client(directory: &Path, lease: &Handle, address: IpAddr, user: Option<&str>) {
    // A session may be recorded to somebody whom Windows does not know; then it is ours.
    let owner = user.and_then(|user| users::id_of(&CString::new(user).ok()?));
    if let Err(error) = client::write(directory, lease, address, owner) {
        eprintln!("vipool: programs of the session are not told of its client: {error}");
    }
}

/// The user's name.
pub fn own_name() -> String {
    std::env::var("USERNAME").unwrap_or_default()
}
