//! Waiting for the program while handing signals on to it.
//!
//! Invariants: from [`Signals::catch`] on no signal that can be caught ends this process by
//! surprise, so what was opened is closed; a signal that the terminal sent to the whole process
//! group is not sent a second time; a signal that was ignored from the start (nohup) stays so, for
//! the program too; a program that died by a signal is died after.
//!
//! Handlers, not a blocked mask and a signalfd: a program inherits the mask, but no handler.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus};

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;

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
/// (SI_KERNEL in sigaction(2)).
const FROM_KERNEL: i32 = 0x80;

/// Signals, caught and read from a pipe.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithRawSiginfo>,
    arrived: VecDeque<Signal>,
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
    /// Catches the signals.
    pub fn catch() -> anyhow::Result<Self> {
        let ignored = ignored().context("cannot tell which signals are ignored")?;
        let caught =
            FORWARDED.into_iter().filter(|signal| ignored >> (*signal as u32 - 1) & 1 == 0);
        let caught = caught.chain([Signal::SIGCHLD]).map(|signal| signal as i32);
        let (read, write) = UnixStream::pair().context("cannot make a pipe for signals")?;
        let delivery = SignalDelivery::with_pipe(read, write, WithRawSiginfo, caught)
            .context("cannot catch signals")?;
        Ok(Self { delivery, arrived: VecDeque::new() })
    }

    /// Waits for a signal, for `other` to become readable, or for some milliseconds.
    pub fn wait(
        &mut self,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<u16>,
    ) -> anyhow::Result<Woken> {
        let timeout = timeout.map_or(PollTimeout::NONE, PollTimeout::from);
        loop {
            match self.arrived.pop_front() {
                Some(Signal::SIGCHLD) => return Ok(Woken::Child),
                Some(signal) => return Ok(Woken::Signal(signal)),
                None => {}
            }
            let mut fds = vec![PollFd::new(self.delivery.get_read().as_fd(), PollFlags::POLLIN)];
            fds.extend(other.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match nix::poll::poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for the program"),
                Ok(0) => return Ok(Woken::Timeout),
                Ok(_) if fds[0].any() == Some(false) => return Ok(Woken::Other),
                Ok(_) => {}
            }
            let arrived = self.delivery.pending().filter(|info| info.si_code != FROM_KERNEL);
            self.arrived.extend(arrived.filter_map(|info| Signal::try_from(info.si_signo).ok()));
        }
    }
}

/// The signals that this process ignores, lowest bit first (`SigIgn` in proc_pid_status(5)).
fn ignored() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(u64::from_str_radix(mask.context("no SigIgn in /proc/self/status")?.trim(), 16)?)
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
