//! `vipool run`: runs a program in a session.
//!
//! If the program cannot join the session, vipool prints the reason and runs the program with the
//! host's addresses. If the farm file or `--require` forbids the host's addresses, vipool fails.
//! With `allocate = "first-use"`, a program that is not on the process list opens no session, and
//! vipool runs it with the host's addresses without a message. If this process opened the session,
//! it closes the session after the program has ended.

mod args;
mod as_user;
mod enter;
mod signals;
mod status;

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, ExitCode, ExitStatus};

use anyhow::Context;
use nix::unistd::Uid;
use vipool::EXHAUSTED_MESSAGE;
use vipool::map::OpenError;
use vipool::system::map_directory;

pub use args::Run;
pub use as_user::AsUser;
use enter::{EnterError, EnteredSession};
use signals::{Signals, WakeReason};
use status::{VIPOOL_FAILED, report_exec_failure};

use crate::maps::selection::MapSelection;
use crate::{event_log, exit_status, remedy};

impl Run {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let result = self.try_run();
        Ok(result.unwrap_or_else(|error| {
            errln!("vipool: {}", remedy::describe(&error));
            ExitCode::from(VIPOOL_FAILED)
        }))
    }

    fn try_run(&self) -> anyhow::Result<ExitCode> {
        // Catch signals before opening the session: an uncaught signal would end this process
        // without closing the session.
        let mut signals = Signals::catch()?;
        if let Some(user) = &self.user {
            as_user::check_may_become(user)?;
        }
        let mut entered = match enter::enter(self, &mut signals) {
            Ok(entered) => Some(entered),
            Err(EnterError::NotListed) => None,
            Err(EnterError::Interrupted(signal)) => return Ok(signals::kill_self(signal as i32)),
            Err(EnterError::NoAddress { error, is_refused }) => {
                errln!("{EXHAUSTED_MESSAGE}");
                if error.to_string() != EXHAUSTED_MESSAGE {
                    errln!("vipool: {}", remedy::describe_open_error(&error));
                }
                if matches!(error, OpenError::UnknownGroups { .. }) && self.uses_system_map() {
                    event_log::log_unknown_pool(&error.to_string());
                }
                if is_refused || self.require {
                    return Ok(ExitCode::from(exit_status::NO_ADDRESS));
                }
                None
            }
            Err(EnterError::Failed(error)) if self.require => return Err(error),
            Err(EnterError::Failed(error)) => {
                if self.uses_system_map() {
                    let program = self.program[0].to_string_lossy();
                    event_log::log_not_rewritten(&program, &format!("{error:#}"));
                }
                errln!("vipool: {}", remedy::describe(&error));
                errln!(
                    "vipool: {} runs outside the session, with the host's addresses",
                    self.program[0].display()
                );
                None
            }
        };
        let program_exit = self.run_program(&mut signals, entered.as_mut());
        // Close the session before this process kills itself with the signal that killed the
        // program.
        if let Some(Err(error)) = entered.map(EnteredSession::leave) {
            errln!("vipool: {error:#}");
        }
        Ok(match program_exit? {
            ProgramExit::Exited(status) => signals::exit_like(status),
            ProgramExit::NotStarted(error) => report_exec_failure(&self.program[0], &error),
        })
    }

    fn uses_system_map(&self) -> bool {
        self.map.selection() == MapSelection::Directory(map_directory())
    }

    /// Starts the program and waits for it to exit.
    fn run_program(
        &self,
        signals: &mut Signals,
        entered: Option<&mut EnteredSession>,
    ) -> anyhow::Result<ProgramExit> {
        match self.command(entered.as_deref())?.spawn() {
            Ok(child) => wait(child, signals, entered).map(ProgramExit::Exited),
            Err(error) => Ok(ProgramExit::NotStarted(error)),
        }
    }

    /// Returns the command that starts the program: in the session, or with the host's addresses.
    fn command(&self, entered: Option<&EnteredSession>) -> anyhow::Result<Command> {
        let environment = entered.map(EnteredSession::environment).unwrap_or_default();
        let user = self.user.as_ref().filter(|_| Uid::effective().is_root());
        let mut command = match user {
            None => Command::new(&self.program[0]),
            Some(user) => {
                let own_executable =
                    std::env::current_exe().context("cannot find this program's own file")?;
                let mut command = Command::new(own_executable);
                command.arg("as-user").arg(user);
                // The helper sets the variables only for the program, because the helper itself
                // must not load the hook.
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
        // The program must not inherit the session in which this process was started.
        for name in ["VIPOOL_LEASE", "VIPOOL_MAP", "VIPOOL_CLIENT"] {
            command.env_remove(name);
        }
        if user.is_none() {
            command.envs(environment);
        }
        Ok(command)
    }
}

/// The exit status of the program, or the reason why it did not start.
enum ProgramExit {
    Exited(ExitStatus),
    NotStarted(io::Error),
}

/// Waits for the program to exit, and forwards signals to the program. Calls `Claim::serve` when
/// the socket that holds the loopback block of a private map becomes readable.
fn wait(
    mut child: Child,
    signals: &mut Signals,
    mut entered: Option<&mut EnteredSession>,
) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the program")? {
            return Ok(status);
        }
        let claim = entered.as_mut().and_then(|entered| entered.claim());
        match signals.wait(claim.as_ref().and_then(|claim| claim.fd()), None)? {
            WakeReason::Signal(signal) => signals::forward(&child, signal),
            WakeReason::ExtraReadable => {
                if !claim.is_some_and(|claim| claim.serve().unwrap_or(false)) {
                    errln!("vipool: another user has taken the loopback addresses of this session");
                }
            }
            WakeReason::ChildChanged | WakeReason::TimedOut => {}
        }
    }
}
