//! `vipool run`: a program in a session.
//!
//! Whatever goes wrong on the way into the session is said, and the program runs all the same,
//! untouched, unless the farm or `--require` says otherwise. What this process opened it closes,
//! however the program ends.

mod enter;
mod hook;
mod signals;
mod user;

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::Context;
use nix::unistd::Uid;
use vipool::EXHAUSTED_MESSAGE;
use vipool::os::place::map_directory;
use vipool::session::SessionId;

use crate::place::{Place, Which};
use crate::{EXHAUSTED, events};
use enter::{Entered, NotEntered};
pub use enter::{find as find_program, own_session};
pub use hook::OBJECT as HOOK;
use signals::{Signals, Woken};
pub use user::{AsUser, own_name, tell_client};

/// vipool failed before it could start the program; the custom of env(1) and timeout(1).
const FAILED: u8 = 125;
/// The program is there and cannot be run.
const CANNOT_RUN: u8 = 126;
/// There is no such program.
const NOT_FOUND: u8 = 127;

/// Run a program in a session.
///
/// Opens the session if it is not open, runs the program with the hook layer, and closes what it
/// opened when the program has ended. Signals are handed on to the program; its exit status, or
/// its death by a signal, becomes that of this command.
///
/// Without root, the system's map (made by 'vipool up') is only read: the program joins the
/// session of your logon. Where the system has none, or with --private, the session is in a map
/// of your own, with loopback addresses; it follows the farm file given by --farm or
/// ~/.config/vipool/farm.toml, and without one every program you run is on the process list.
///
/// When no address is left the program runs with the host's addresses, or not at all, as the farm
/// says. The same holds for every other reason that keeps it out of the session; the reason is
/// said.
#[derive(clap::Args)]
#[command(after_help = "Exit status:
  that of the program, or
   75  no address was left and the farm (or --require) refuses the session
  125  vipool failed, with --require or before the program could be chosen
  126  the program cannot be run
  127  there is no such program

Examples:
  vipool run --session 1 -- python3 -m http.server --bind 127.0.0.1 8000
  vipool run --session 2 -- python3 -m http.server --bind 127.0.0.1 8000
  vipool run --session 1 -- curl http://127.0.0.1:8000/
  vipool run --session 7 --user alice -- /opt/app/server")]
pub struct Run {
    /// The session: a number, or a kind and a value (audit:7, logind:c1). Default: the one of
    /// your logon
    #[arg(long, short, value_name = "SESSION")]
    session: Option<SessionId>,
    /// Run the program as this user, to whom the session is recorded (needs root)
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
        let result = self.try_run();
        Ok(result.unwrap_or_else(|error| {
            eprintln!("vipool: {error:#}");
            ExitCode::from(FAILED)
        }))
    }

    fn try_run(&self) -> anyhow::Result<ExitCode> {
        // Before anything is opened: from here on no signal skips the closing.
        let mut signals = Signals::catch()?;
        if let Some(user) = &self.user {
            user::may_become(user)?;
        }
        let mut entered = match enter::enter(self, &mut signals) {
            Ok(entered) => Some(entered),
            Err(NotEntered::Unlisted) => None,
            Err(NotEntered::Killed(signal)) => return Ok(signals::die_by(signal as i32)),
            Err(NotEntered::NoAddress { why, refuse }) => {
                eprintln!("{EXHAUSTED_MESSAGE}");
                if why.to_string() != EXHAUSTED_MESSAGE {
                    eprintln!("vipool: {why}");
                }
                if refuse || self.require {
                    return Ok(ExitCode::from(EXHAUSTED));
                }
                None
            }
            Err(NotEntered::Failed(error)) if self.require => return Err(error),
            Err(NotEntered::Failed(error)) => {
                if self.place.which() == Which::At(map_directory()) {
                    let program = self.program[0].to_string_lossy();
                    events::not_rewritten(&program, &format!("{error:#}"));
                }
                eprintln!("vipool: {error:#}");
                eprintln!(
                    "vipool: {} runs outside the session, with the host's addresses",
                    self.program[0].display()
                );
                None
            }
        };
        let ended = self.run_program(&mut signals, entered.as_mut());
        // Before this process may die as the program died.
        if let Some(Err(error)) = entered.map(Entered::leave) {
            eprintln!("vipool: {error:#}");
        }
        Ok(match ended? {
            Ended::Program(status) => signals::end_as(status),
            Ended::NotStarted(error) => exec_failure(&self.program[0], &error),
        })
    }

    /// Starts the program and waits for it to end.
    fn run_program(
        &self,
        signals: &mut Signals,
        entered: Option<&mut Entered>,
    ) -> anyhow::Result<Ended> {
        match self.command(entered.as_deref())?.spawn() {
            Ok(child) => wait(child, signals, entered).map(Ended::Program),
            Err(error) => Ok(Ended::NotStarted(error)),
        }
    }

    /// The program as it is to be started: in the session, or untouched.
    fn command(&self, entered: Option<&Entered>) -> anyhow::Result<Command> {
        let environment = entered.map(Entered::environment).unwrap_or_default();
        let user = self.user.as_ref().filter(|_| Uid::effective().is_root());
        let mut command = match user {
            None => Command::new(&self.program[0]),
            Some(user) => {
                let own = std::env::current_exe().context("cannot find this program's own file")?;
                let mut command = Command::new(own);
                command.arg("as-user").arg(user);
                // The helper itself is not to be hooked: it sets these for the program only.
                for (name, value) in &environment {
                    let mut pair = OsString::from(name);
                    pair.push("=");
                    pair.push(value);
                    command.arg("--env").arg(pair);
                }
                command.arg("--").arg(&self.program[0]);
                command
            }
        };
        command.args(&self.program[1..]);
        // A session we were started in is not the program's.
        command.env_remove("VIPOOL_LEASE").env_remove("VIPOOL_MAP");
        if user.is_none() {
            command.envs(environment);
        }
        Ok(command)
    }
}

/// What became of the program.
enum Ended {
    Program(ExitStatus),
    NotStarted(io::Error),
}

/// Waits for the program to end, handing on signals to it and our addresses' claim to others.
fn wait(
    mut child: Child,
    signals: &mut Signals,
    mut entered: Option<&mut Entered>,
) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the program")? {
            return Ok(status);
        }
        let claim = entered.as_mut().and_then(|entered| entered.claim());
        match signals.wait(claim.as_ref().and_then(|claim| claim.fd()), None)? {
            Woken::Signal(signal) => signals::send(&child, signal),
            Woken::Other => {
                if !claim.is_some_and(|claim| claim.serve().unwrap_or(false)) {
                    eprintln!(
                        "vipool: the loopback addresses of this session are another user's now"
                    );
                }
            }
            Woken::Child | Woken::Timeout => {}
        }
    }
}

/// Says why a program was not started.
fn exec_failure(program: &OsStr, error: &io::Error) -> ExitCode {
    eprintln!("vipool: cannot run {}: {error}", program.display());
    let missing = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if missing { NOT_FOUND } else { CANNOT_RUN })
}
