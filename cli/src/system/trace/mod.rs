//! Traces the socket calls of a program and its descendants with ptrace(2). The trace includes
//! static programs and Go programs.
//!
//! The tracer needs Linux 5.6 (PTRACE_GET_SYSCALL_INFO, pidfd_getfd(2)). The tracer does not
//! observe the system calls of 32-bit programs on a 64-bit kernel, and it does not observe
//! operations through io_uring(7).
#![allow(unsafe_code)]

mod call;
mod signal_guard;
mod syscall;

use std::collections::HashMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;
use std::time::{Duration, Instant};

use libc::{c_void, pid_t};

pub use call::SocketCall;
use signal_guard::SignalGuard;
use syscall::{PendingCall, TraceRequest, process_of_thread, syscall_info};

/// `op` of PTRACE_GET_SYSCALL_INFO at the entry and at the exit of a system call.
const SYSCALL_INFO_ENTRY: u8 = 1;
const SYSCALL_INFO_EXIT: u8 = 2;

/// `arch` of system calls with the same word size as this build: AUDIT_ARCH_X86_64 or
/// AUDIT_ARCH_AARCH64.
#[cfg(target_arch = "x86_64")]
const NATIVE_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE_ARCH: u32 = 0xc000_00b7;

/// Starts the command, and reports the socket calls of its process and of all descendants.
///
/// `report` receives each call with the id of the process that made it.
///
/// Returns when all processes have exited or `time_limit` has passed. The result is the exit status
/// of the process that this function started, or `None` if that process still runs. Processes that
/// still run stop at their next system call, and continue when the tracer exits.
///
/// A process can run only one trace at a time, because a trace waits for any child and uses SIGALRM
/// for the limit.
///
/// # Errors
/// The command cannot be started, or the caller may not trace it.
pub fn trace(
    command: &mut Command,
    time_limit: Option<Duration>,
    mut report: impl FnMut(u32, SocketCall),
) -> io::Result<Option<ExitStatus>> {
    // SAFETY: between fork and exec the closure only makes a system call, which is
    // async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            // The C library always reads four arguments. PTRACE_TRACEME ignores the last three.
            let no_address = ptr::null_mut::<c_void>();
            match libc::ptrace(libc::PTRACE_TRACEME, 0 as pid_t, no_address, no_address) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            }
        });
    }
    let child = command.spawn()?.id() as pid_t;
    let mut status = 0;
    // PTRACE_TRACEME stops the child at its exec, and waitpid(2) waits for that stop.
    // SAFETY: the pointer is valid for one int.
    if unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    TraceRequest::SetOptions(options).send(child)?;
    let deadline = time_limit.map(|time_limit| Instant::now() + time_limit);
    let _signal_guard = SignalGuard::new(time_limit.is_some());
    TraceRequest::Continue { signal: 0 }.send(child)?;

    let mut pending_calls: HashMap<pid_t, PendingCall> = HashMap::new();
    let mut exit_status = None;
    loop {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(exit_status);
        }
        // SAFETY: the pointer is valid for one int.
        let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if thread < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ECHILD) => return Ok(exit_status),
                Some(libc::EINTR) => continue,
                _ => return Err(error),
            }
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            pending_calls.remove(&thread);
            if thread == child {
                exit_status = Some(ExitStatus::from_raw(status));
            }
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        let is_event = status >> 16 != 0;
        let delivered_signal = if signal == libc::SIGTRAP | 0x80 {
            handle_syscall_stop(thread, &mut pending_calls, &mut report);
            0
        } else if is_event || signal == libc::SIGTRAP || signal == libc::SIGSTOP {
            // The stop is an event of the options above, a SIGTRAP, or the first stop of a new
            // thread. The first stop looks like a SIGSTOP from a process, so such a SIGSTOP is
            // discarded too.
            0
        } else {
            signal
        };
        // This request fails if the thread was killed after its stop. In this case, a later
        // iteration of the loop receives the exit status of the thread.
        let _ = TraceRequest::Continue { signal: delivered_signal }.send(thread);
    }
}

/// Handles the stop of a thread at the entry or at the exit of a system call.
fn handle_syscall_stop(
    thread: pid_t,
    pending_calls: &mut HashMap<pid_t, PendingCall>,
    report: &mut impl FnMut(u32, SocketCall),
) {
    let Some(info) = syscall_info(thread) else { return };
    match info.op {
        SYSCALL_INFO_ENTRY if info.arch == NATIVE_ARCH => {
            // SAFETY: at an entry the kernel has written this member of the union.
            let entry = unsafe { info.u.entry };
            if let Some(call) = PendingCall::read(thread, entry.nr as libc::c_long, &entry.args) {
                pending_calls.insert(thread, call);
            }
        }
        SYSCALL_INFO_EXIT => {
            let Some(call) = pending_calls.remove(&thread) else { return };
            // SAFETY: at an exit the kernel has written this member of the union.
            let result = unsafe { info.u.exit.sval };
            if let Some(call) = call.complete(thread, result) {
                report(process_of_thread(thread) as u32, call);
            }
        }
        _ => {}
    }
}
