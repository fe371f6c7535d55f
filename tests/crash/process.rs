//! Child processes by fork, memory shared with them, and tracing them.
//!
//! A child runs a closure and ends without returning to the test harness. It is killed and reaped
//! when its value is dropped.

use std::ffi::CString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// A forked child.
pub struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

/// How a child stopped or ended, as waitpid(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Stopped(i32),
    Exited(i32),
    Killed(i32),
}

impl Child {
    /// Runs the closure in a child of its own.
    pub fn start(run: impl FnOnce()) -> Self {
        // SAFETY: the child only runs the closure, on this very thread, and leaves by _exit. The C
        // library keeps its allocator usable in a fork child of a process with threads.
        match unsafe { libc::fork() } {
            0 => {
                let ended = catch_unwind(AssertUnwindSafe(run));
                if let Err(panic) = &ended {
                    // Not eprintln, which the test harness would swallow.
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    _ = writeln!(io::stderr(), "child: {}", text.unwrap_or("it panicked"));
                }
                // SAFETY: ends the process.
                unsafe { libc::_exit(i32::from(ended.is_err())) }
            }
            pid => {
                assert!(pid > 0, "fork: {}", io::Error::last_os_error());
                Self { pid, reaped: false }
            }
        }
    }

    /// Waits until it stops or ends.
    pub fn wait(&mut self) -> Event {
        self.wait_with(0).expect("it waits")
    }

    /// Whether it has stopped or ended.
    pub fn poll(&mut self) -> Option<Event> {
        self.wait_with(libc::WNOHANG)
    }

    fn wait_with(&mut self, options: i32) -> Option<Event> {
        let mut status = 0;
        // SAFETY: the status is valid for writing.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, options) };
        if waited == 0 {
            return None;
        }
        assert_eq!(waited, self.pid, "waitpid: {}", io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            return Some(Event::Stopped(libc::WSTOPSIG(status)));
        }
        self.reaped = true;
        Some(if libc::WIFEXITED(status) {
            Event::Exited(libc::WEXITSTATUS(status))
        } else {
            Event::Killed(libc::WTERMSIG(status))
        })
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if !self.reaped {
            // SAFETY: a child of ours that was not reaped, so the pid is its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            while let Event::Stopped(_) = self.wait() {}
        }
    }

    /// Goes on for one instruction, dropping the signal it stopped at.
    pub fn step(&self) {
        self.resume(libc::PTRACE_SINGLESTEP);
    }

    /// Goes on until it stops by itself.
    pub fn go_on(&self) {
        self.resume(libc::PTRACE_CONT);
    }

    fn resume(&self, request: libc::c_uint) {
        // SAFETY: the child is traced by us and stopped; no memory is named.
        let done = unsafe { libc::ptrace(request, self.pid, 0, 0) };
        assert_eq!(done, 0, "ptrace: {}", io::Error::last_os_error());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Keeps this thread, and children it starts from now on, on the processor it is on: going back and
/// forth between parent and child is then several times faster.
pub fn stay_here() {
    // SAFETY: all-zero bytes are an empty set, and the set is valid for reading.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// In a child: lets the parent trace it. False where that is forbidden.
pub fn be_traced() -> bool {
    // SAFETY: names no memory.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 }
}

/// Stops this process until the parent lets it go on.
pub fn stop() {
    // SAFETY: sends a signal to this process.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Zeroed words that children share.
pub fn shared_words(count: usize) -> &'static [AtomicU64] {
    // SAFETY: a new mapping where the kernel likes; it is never unmapped, and zero is a valid word.
    unsafe {
        let start = libc::mmap(
            std::ptr::null_mut(),
            count * 8,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(start, libc::MAP_FAILED, "mmap: {}", io::Error::last_os_error());
        std::slice::from_raw_parts(start.cast(), count)
    }
}

/// Moves this process into new namespaces (unshare(2)), those of its user too where it is not root.
/// False where that is forbidden.
pub fn unshare(flags: i32) -> bool {
    // SAFETY: takes flags only.
    if unsafe { libc::unshare(flags) } == 0 {
        return true;
    }
    // SAFETY: they take nothing, and cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: takes flags only.
    let done = unsafe { libc::unshare(flags | libc::CLONE_NEWUSER) } == 0;
    done && std::fs::write("/proc/self/setgroups", "deny").is_ok()
        && std::fs::write("/proc/self/uid_map", format!("0 {user} 1")).is_ok()
        && std::fs::write("/proc/self/gid_map", format!("0 {group} 1")).is_ok()
}

/// Mounts a tmpfs with these options in a mount namespace of this process's own.
pub fn mount_tmpfs(at: &Path, options: &str) {
    let text = |text: &str| CString::new(text).unwrap();
    let (tmpfs, root, at, options) =
        (text("tmpfs"), text("/"), text(at.to_str().unwrap()), text(options));
    let private = libc::MS_PRIVATE | libc::MS_REC;
    // SAFETY: all strings end with a zero; the kernel only reads them.
    let mounted = unsafe {
        libc::mount(root.as_ptr(), root.as_ptr(), std::ptr::null(), private, std::ptr::null())
            | libc::mount(tmpfs.as_ptr(), at.as_ptr(), tmpfs.as_ptr(), 0, options.as_ptr().cast())
    };
    assert_eq!(mounted, 0, "mount: {}", io::Error::last_os_error());
}

/// Gives up being root for good.
pub fn become_user(user: u32) {
    // SAFETY: they take numbers only; an empty list of groups is not read.
    let done =
        unsafe { libc::setgroups(0, std::ptr::null()) | libc::setgid(user) | libc::setuid(user) };
    assert_eq!(done, 0, "setuid: {}", io::Error::last_os_error());
}
