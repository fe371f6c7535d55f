//! Waits for the program and forwards signals to it.
//!
//! Invariants:
//! - After [`Signals::catch`], none of the forwarded signals kills this process directly. So this
//!   process can first close the session that it opened.
//! - This process does not forward a signal that the terminal sent to the whole process group: the
//!   program has also received this signal.
//! - A signal that was ignored at the start of this process (for example by nohup(1)) stays
//!   ignored, also in the program.
//! - If the program died by a signal, this process dies by the same signal.
//!
//! The module uses signal handlers. A signalfd would require blocked signals, and the program would
//! inherit the blocked signals. A program does not inherit handlers.

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

/// The forwarded signals. SIGTSTP, SIGCONT and similar signals keep their default effect on this
/// process: the terminal and the shell send them to the whole process group, also to the program.
const FORWARDED_SIGNALS: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGWINCH,
];

/// `si_code` of signals that the kernel generates, such as those of terminal keys (SI_KERNEL in
/// sigaction(2)).
const SI_KERNEL: i32 = 0x80;

/// The installed signal handlers. They report each signal through a socket pair.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, WithRawSiginfo>,
    pending: VecDeque<Signal>,
}

/// The reason why [`Signals::wait`] returned.
pub enum WakeReason {
    /// A signal for the program arrived.
    Signal(Signal),
    /// A child process changed its state.
    ChildChanged,
    /// The argument `extra_fd` became readable.
    ExtraReadable,
    /// The timeout expired.
    TimedOut,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// A handler cannot be installed, or /proc is not mounted.
    pub fn catch() -> anyhow::Result<Self> {
        let ignored_mask = ignored_signal_mask().context("cannot determine the ignored signals")?;
        let caught_signals = FORWARDED_SIGNALS
            .into_iter()
            .filter(|signal| ignored_mask >> (*signal as u32 - 1) & 1 == 0);
        let caught_signals = caught_signals.chain([Signal::SIGCHLD]).map(|signal| signal as i32);
        let (read_end, write_end) =
            UnixStream::pair().context("cannot create a pipe for signals")?;
        let delivery =
            SignalDelivery::with_pipe(read_end, write_end, WithRawSiginfo, caught_signals)
                .context("cannot catch signals")?;
        Ok(Self { delivery, pending: VecDeque::new() })
    }

    /// Waits until a signal arrives, `extra_fd` becomes readable, or the timeout in milliseconds
    /// expires.
    ///
    /// # Errors
    /// poll(2) fails.
    pub fn wait(
        &mut self,
        extra_fd: Option<BorrowedFd<'_>>,
        timeout: Option<u16>,
    ) -> anyhow::Result<WakeReason> {
        let timeout = timeout.map_or(PollTimeout::NONE, PollTimeout::from);
        loop {
            match self.pending.pop_front() {
                Some(Signal::SIGCHLD) => return Ok(WakeReason::ChildChanged),
                Some(signal) => return Ok(WakeReason::Signal(signal)),
                None => {}
            }
            let mut fds = vec![PollFd::new(self.delivery.get_read().as_fd(), PollFlags::POLLIN)];
            fds.extend(extra_fd.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match nix::poll::poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot wait for the program"),
                Ok(0) => return Ok(WakeReason::TimedOut),
                Ok(_) if fds[0].any() == Some(false) => return Ok(WakeReason::ExtraReadable),
                Ok(_) => {}
            }
            let arrived_signals = self.delivery.pending().filter(|info| info.si_code != SI_KERNEL);
            self.pending
                .extend(arrived_signals.filter_map(|info| Signal::try_from(info.si_signo).ok()));
        }
    }
}

/// Returns a bit mask of the signals that this process ignores (`SigIgn` of proc_pid_status(5)).
fn ignored_signal_mask() -> anyhow::Result<u64> {
    const STATUS_FILE: &str = "/proc/self/status";
    let status = std::fs::read_to_string(STATUS_FILE)
        .with_context(|| format!("cannot read {STATUS_FILE}"))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.with_context(|| format!("no SigIgn in {STATUS_FILE}"))?;
    Ok(u64::from_str_radix(mask.trim(), 16)?)
}

/// Forwards a signal to the program.
pub fn forward(child: &Child, signal: Signal) {
    // This process has not reaped the child yet, so the kernel cannot have reused the child's pid.
    let _ = kill(Pid::from_raw(child.id() as i32), signal);
}

/// Returns the program's exit status. If a signal killed the program, kills this process with the
/// same signal.
pub fn exit_like(status: ExitStatus) -> ExitCode {
    match status.signal() {
        None => ExitCode::from(status.code().unwrap_or(0) as u8),
        Some(signal) => kill_self(signal),
    }
}

/// Kills this process with a signal. Disables the core file, because only a core file of the
/// program is useful.
pub fn kill_self(signal: i32) -> ExitCode {
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // This call returns if it cannot kill the process with this signal, for example with a
    // real-time signal. In this case, use the exit status that a shell would use.
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    ExitCode::from((128 + signal) as u8)
}
