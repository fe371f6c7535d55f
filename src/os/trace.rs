//! Watches the socket calls of a program and its descendants by ptrace(2), static and Go programs
//! as well: what `vipool discover` looks through.
//!
//! Needs Linux 5.6 (PTRACE_GET_SYSCALL_INFO, pidfd_getfd(2)). System calls of a foreign
//! architecture (32-bit programs on a 64-bit kernel) and those by io_uring(7) run unseen. When watching ends early, the
//! programs go on by themselves.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::mem::{MaybeUninit, offset_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use libc::{c_int, c_long, c_uint, pid_t};

/// Something a program did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// It bound a socket; `free` is false where the address was taken already (EADDRINUSE).
    Bind {
        /// Whether it is TCP; else UDP.
        tcp: bool,
        /// What it asked for.
        to: SocketAddr,
        /// Whether the address was free.
        free: bool,
    },
    /// It connected a socket, or tried to.
    Connect {
        /// Whether it is TCP; else UDP.
        tcp: bool,
        /// Where to.
        to: SocketAddr,
    },
    /// It asked the kernel for the interfaces' addresses, as getifaddrs(3) does.
    Interfaces,
    /// It asked for the host's name (uname(2), which gethostname(3) is).
    HostName,
    /// It looked a name up: opened `/etc/hosts`.
    LookUp,
    /// It made an io_uring(7): what it does by that is not seen.
    Ring,
}

/// Starts the command and hands on its socket calls and those of its descendants, each with the
/// process id, until all have ended or `limit` is over. Returns how the command itself ended;
/// `None` if it still runs.
///
/// One at a time per process: it waits for any child, and uses SIGALRM for the limit.
///
/// # Errors
/// The command can't be started, or may not be traced.
pub fn trace(
    command: &mut Command,
    limit: Option<Duration>,
    mut each: impl FnMut(u32, Call),
) -> io::Result<Option<ExitStatus>> {
    // SAFETY: between fork and exec only ptrace is called, which is a bare system call.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME) {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.spawn()?.id() as pid_t;
    let mut status = 0;
    // SAFETY: one int is written. The child has stopped at its exec, by PTRACE_TRACEME.
    if unsafe { libc::waitpid(child, &mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let options = libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC;
    request(libc::PTRACE_SETOPTIONS, child, options as usize)?;
    let end = limit.map(|limit| Instant::now() + limit);
    let _quiet = Quiet::new(limit.is_some());
    request(libc::PTRACE_SYSCALL, child, 0)?;

    let mut entered: HashMap<pid_t, Entered> = HashMap::new();
    let mut ended = None;
    loop {
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(ended);
        }
        // SAFETY: one int is written.
        let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        if thread < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::ECHILD) => return Ok(ended),
                Some(libc::EINTR) => continue,
                _ => return Err(error),
            }
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            entered.remove(&thread);
            if thread == child {
                ended = Some(ExitStatus::from_raw(status));
            }
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        let deliver = if signal == libc::SIGTRAP | 0x80 {
            at_syscall(thread, &mut entered, &mut each);
            0
        } else if status >> 16 != 0 || signal == libc::SIGTRAP || signal == libc::SIGSTOP {
            // An event of the options above, or the stop that a new thread begins with.
            0
        } else {
            signal
        };
        // A thread that was killed meanwhile is waited for in the next round.
        let _ = request(libc::PTRACE_SYSCALL, thread, deliver as usize);
    }
}

/// A system call under way, with what had to be read before the kernel ran it.
struct Entered {
    number: c_long,
    fd: c_int,
    address: Option<SocketAddr>,
    seen: Option<Call>,
}

fn at_syscall(
    thread: pid_t,
    entered: &mut HashMap<pid_t, Entered>,
    each: &mut impl FnMut(u32, Call),
) {
    let Some(info) = syscall_info(thread) else { return };
    match info.op {
        // PTRACE_SYSCALL_INFO_ENTRY
        1 if info.arch == NATIVE => {
            // SAFETY: at an entry the kernel has filled in this member of the union.
            let entry = unsafe { info.u.entry };
            if let Some(call) = enter(thread, entry.nr as c_long, &entry.args) {
                entered.insert(thread, call);
            }
        }
        // PTRACE_SYSCALL_INFO_EXIT
        2 => {
            let Some(call) = entered.remove(&thread) else { return };
            // SAFETY: at an exit the kernel has filled in this member of the union.
            let result = unsafe { info.u.exit.sval };
            if let Some(seen) = leave(thread, &call, result) {
                each(process_of(thread) as u32, seen);
            }
        }
        _ => {}
    }
}

/// Whether the call is one of those watched; reads its arguments.
fn enter(thread: pid_t, number: c_long, arguments: &[u64; 6]) -> Option<Entered> {
    let fd = arguments[0] as c_int;
    let mut call = Entered { number, fd, address: None, seen: None };
    match number {
        libc::SYS_bind | libc::SYS_connect => {
            call.address = Some(address_at(thread, arguments[1], arguments[2])?);
        }
        libc::SYS_sendto if arguments[4] != 0 => {
            match address_at(thread, arguments[4], arguments[5]) {
                Some(address) => call.address = Some(address),
                // glibc asks netlink with an address of its family.
                None => call.seen = Some(links_asked(&read(thread, arguments[1], 16)?)?),
            }
        }
        libc::SYS_sendto => call.seen = Some(links_asked(&read(thread, arguments[1], 16)?)?),
        libc::SYS_ioctl => {
            let wanted = [libc::SIOCGIFCONF, libc::SIOCGIFADDR];
            call.seen = wanted.contains(&arguments[1]).then_some(Call::Interfaces);
            call.seen?;
        }
        libc::SYS_uname => call.seen = Some(Call::HostName),
        libc::SYS_io_uring_setup => call.seen = Some(Call::Ring),
        libc::SYS_openat => {
            let path = read(thread, arguments[1], 11)?;
            call.seen = (path == b"/etc/hosts\0").then_some(Call::LookUp);
            call.seen?;
        }
        _ => return None,
    }
    Some(call)
}

/// What the call came to.
fn leave(thread: pid_t, call: &Entered, result: i64) -> Option<Call> {
    if let Some(seen) = call.seen {
        return (result >= 0).then_some(seen);
    }
    let to = call.address?;
    let tcp = is_tcp(thread, call.fd)?;
    let error = result.checked_neg().and_then(|error| i32::try_from(error).ok()).unwrap_or(0);
    match (call.number, error) {
        (libc::SYS_bind, libc::EADDRINUSE) => Some(Call::Bind { tcp, to, free: false }),
        (libc::SYS_bind, ..=0) => Some(Call::Bind { tcp, to, free: true }),
        (libc::SYS_connect | libc::SYS_sendto, ..=0 | libc::EINPROGRESS | libc::ECONNREFUSED) => {
            Some(Call::Connect { tcp, to })
        }
        _ => None,
    }
}

/// A netlink request for the interfaces, with which getifaddrs(3) begins (getaddrinfo(3), which
/// nearly everybody calls, asks for the addresses alone).
fn links_asked(message: &[u8]) -> Option<Call> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(message.get(6..8)?.try_into().ok()?);
    let dump = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    (kind == libc::RTM_GETLINK && flags & dump == dump).then_some(Call::Interfaces)
}

/// An IP socket address in the memory of a traced thread.
fn address_at(thread: pid_t, at: u64, length: u64) -> Option<SocketAddr> {
    let bytes = read(thread, at, length.min(28) as usize)?;
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip: IpAddr = match i32::from(family) {
        libc::AF_INET => <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into(),
        libc::AF_INET6 => <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Bytes of a traced thread's memory; `None` where they are not all there.
fn read(thread: pid_t, at: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0u8; length];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: at as *mut libc::c_void, iov_len: length };
    // SAFETY: the local buffer is as long as said; the remote address is the kernel's to check.
    let got = unsafe { libc::process_vm_readv(thread, &local, 1, &remote, 1, 0) };
    (got == length as isize).then_some(bytes)
}

/// Whether a descriptor of a traced thread is a TCP or a UDP socket; `None` if it is neither.
fn is_tcp(thread: pid_t, fd: c_int) -> Option<bool> {
    let process = process_of(thread);
    // SAFETY: bare system calls with numbers; each new descriptor is owned at once.
    let copy = unsafe {
        let pidfd = owned(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        owned(libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0))?
    };
    let mut protocol: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: one int is written, and its length.
    let status = unsafe {
        libc::getsockopt(
            copy.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PROTOCOL,
            (&raw mut protocol).cast(),
            &mut length,
        )
    };
    match (status, protocol) {
        (0, libc::IPPROTO_TCP) => Some(true),
        (0, libc::IPPROTO_UDP) => Some(false),
        _ => None,
    }
}

/// # Safety
/// `result` is what a system call returned that makes a descriptor.
unsafe fn owned(result: c_long) -> Option<OwnedFd> {
    // SAFETY: by the caller's promise it is new and nobody else's.
    (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result as c_int) })
}

/// The process of a thread.
fn process_of(thread: pid_t) -> pid_t {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(thread)
}

fn request(request: c_uint, thread: pid_t, data: usize) -> io::Result<()> {
    // SAFETY: these requests take a number for data and touch no memory of ours.
    match unsafe { libc::ptrace(request, thread, 0usize, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn syscall_info(thread: pid_t) -> Option<libc::ptrace_syscall_info> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: at most `size` bytes are written to memory of that size.
    let got =
        unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, info.as_mut_ptr()) };
    if got < offset_of!(libc::ptrace_syscall_info, u) as c_long {
        return None;
    }
    // SAFETY: it is integers only, zeroed and then written by the kernel.
    Some(unsafe { info.assume_init() })
}

/// AUDIT_ARCH of this build: machine number, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// While it lives, the terminal's signals are for the traced program alone, and an alarm ends the
/// waiting at the limit.
struct Quiet {
    before: [(c_int, libc::sigaction); 3],
}

impl Quiet {
    fn new(limited: bool) -> Self {
        extern "C" fn nothing(_: c_int) {}
        let handler = nothing as extern "C" fn(c_int) as libc::sighandler_t;
        let handlers = [
            (libc::SIGINT, libc::SIG_IGN),
            (libc::SIGQUIT, libc::SIG_IGN),
            // No SA_RESTART: waitpid(2) is to be interrupted.
            (libc::SIGALRM, handler),
        ];
        let before = handlers.map(|(signal, handler)| {
            // SAFETY: sigaction is integers and a set of signals, for which zero is valid; the
            // handler does nothing.
            unsafe {
                let mut action: libc::sigaction = zeroed();
                let mut before: libc::sigaction = zeroed();
                action.sa_sigaction = handler;
                libc::sigaction(signal, &action, &mut before);
                (signal, before)
            }
        });
        if limited {
            // Again and again, for the one that comes just before the waiting.
            let often = libc::timeval { tv_sec: 0, tv_usec: 200_000 };
            let timer = libc::itimerval { it_interval: often, it_value: often };
            // SAFETY: one itimerval, valid during the call.
            unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
        }
        Self { before }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: puts back what sigaction gave out.
        unsafe {
            let never: libc::itimerval = zeroed();
            libc::setitimer(libc::ITIMER_REAL, &never, std::ptr::null_mut());
            for (signal, action) in &self.before {
                libc::sigaction(*signal, action, std::ptr::null_mut());
            }
        }
    }
}
