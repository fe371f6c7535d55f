//! Waiting for the program while handing signals on to it.
//!
//! Invariants: from [`Signals::block`] on no signal that can be caught ends this process by
//! surprise, so what was opened is closed; a signal that the terminal sent to the whole process
//! group is not sent a second time; a program that died by a signal is died after.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// What is handed on. SIGTSTP, SIGCONT and the like keep their meaning for this process: the
/// terminal stops and continues the whole group.
const FORWARDED: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// `si_code` of signals that the kernel itself made, such as those of a terminal's keys
/// (sigaction(2)).
const FROM_KERNEL: i32 = 0x80;

/// Signals taken from a descriptor instead of being delivered.
pub struct Signals {
    fd: SignalFd,
}

/// What a wait ended with.
pub enum Woken {
    /// A signal for the program.
    Signal(Signal),
    /// A child changed its state.
    Child,
    /// The other descriptor can be read.
    Other,
    /// The time was up.
    Timeout,
}

impl Signals {
    /// Blocks the signals for this process. Programs started by `std` begin with none blocked.
    pub fn block() -> anyhow::Result<Self> {
        let mut set: SigSet = FORWARDED.into_iter().collect();
        set.add(Signal::SIGCHLD);
        set.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).context("cannot make a signalfd")?;
        Ok(Self { fd })
    }

    /// Waits for a signal, for `other` to become readable, or for some milliseconds.
    pub fn wait(
        &self,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<u16>,
    ) -> anyhow::Result<Woken> {
        let timeout = timeout.map_or(PollTimeout::NONE, PollTimeout::from);
        loop {
            let mut fds = vec![PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            fds.extend(other.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match nix::poll::poll(&mut fds, timeout) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error).context("cannot wait for the program"),
                Ok(0) => return Ok(Woken::Timeout),
                Ok(_) => {}
            }
            let Some(info) = self.fd.read_signal()? else {
                return Ok(Woken::Other);
            };
            let signal = Signal::try_from(info.ssi_signo as i32)?;
            if signal == Signal::SIGCHLD {
                return Ok(Woken::Child);
            }
            if info.ssi_code != FROM_KERNEL {
                return Ok(Woken::Signal(signal));
            }
        }
    }
}

/// Hands a signal on to the program.
pub fn send(child: &Child, signal: Signal) {
    // It is our child and not waited for: the pid is still its own.
    let _ = kill(Pid::from_raw(child.id() as i32), signal);
}

/// Ends this process as the program ended: with its status, or by the signal it died by.
pub fn end_as(status: ExitStatus) -> ExitCode {
    match status.signal() {
        None => ExitCode::from(status.code().unwrap_or(0) as u8),
        Some(signal) => die_by(signal),
    }
}

/// Dies by a signal; the core, if there is one, is the program's and not ours.
pub fn die_by(signal: i32) -> ExitCode {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // Comes back only for signals that have no name in POSIX: then the shell's custom.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    ExitCode::from((128 + signal) as u8)
}
