//! Helpers for forked child processes: starting, waiting, tracing, shared memory, namespaces and
//! users.
//!
//! A child runs a closure and exits without returning to the test harness. Dropping the [`Child`]
//! in the parent kills and reaps the child.

use std::ffi::CString;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// A forked child.
pub struct Child {
    pid: libc::pid_t,
    is_reaped: bool,
}

/// A status that waitpid(2) reports, with its signal or exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    Stopped(i32),
    Exited(i32),
    Killed(i32),
}

impl Child {
    /// Forks a child that runs the closure.
    pub fn start(run: impl FnOnce()) -> Self {
        // SAFETY: the child runs the closure on its only thread and exits with _exit. The C library
        // keeps its allocator usable in the fork child of a multi-threaded process.
        Self::run(unsafe { libc::fork() }, run)
    }

    /// Forks a child by a system call, so that no fork handlers run. The process must have only one
    /// thread: without the handlers, the child could inherit a lock that another thread holds.
    pub fn start_without_handlers(run: impl FnOnce()) -> Self {
        // SAFETY: without flags, clone copies the process as fork does. The child runs the closure
        // on its only thread and exits with _exit.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        Self::run(pid as libc::pid_t, run)
    }

    /// Runs the closure in the child, and returns the [`Child`] in the parent. `pid` is the result
    /// of the fork.
    fn run(pid: libc::pid_t, run: impl FnOnce()) -> Self {
        match pid {
            0 => {
                let result = catch_unwind(AssertUnwindSafe(run));
                if let Err(panic) = &result {
                    // The test harness captures eprintln, but not a direct write.
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    _ = writeln!(io::stderr(), "child: {}", text.unwrap_or("panicked"));
                }
                // SAFETY: _exit takes no pointers and does not return.
                unsafe { libc::_exit(i32::from(result.is_err())) }
            }
            pid => {
                assert!(pid > 0, "fork: {}", io::Error::last_os_error());
                Self { pid, is_reaped: false }
            }
        }
    }

    /// Waits until the child stops, exits or is killed.
    pub fn wait(&mut self) -> WaitStatus {
        self.wait_with(0).expect("waitpid blocks")
    }

    /// Returns the status if the child has stopped, has exited or was killed.
    pub fn poll(&mut self) -> Option<WaitStatus> {
        self.wait_with(libc::WNOHANG)
    }

    fn wait_with(&mut self, options: i32) -> Option<WaitStatus> {
        let mut status = 0;
        // SAFETY: `status` is valid for writes.
        let reported_pid = unsafe { libc::waitpid(self.pid, &mut status, options) };
        if reported_pid == 0 {
            return None;
        }
        assert_eq!(reported_pid, self.pid, "waitpid: {}", io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            return Some(WaitStatus::Stopped(libc::WSTOPSIG(status)));
        }
        self.is_reaped = true;
        Some(if libc::WIFEXITED(status) {
            WaitStatus::Exited(libc::WEXITSTATUS(status))
        } else {
            WaitStatus::Killed(libc::WTERMSIG(status))
        })
    }

    /// Kills the child with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        if !self.is_reaped {
            // SAFETY: kill takes no pointers. The child is not reaped yet, so no other process can
            // have its pid.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            while let WaitStatus::Stopped(_) = self.wait() {}
        }
    }

    /// Lets the child execute one instruction. Discards the signal that stopped the child.
    pub fn step(&self) {
        self.ptrace(libc::PTRACE_SINGLESTEP);
    }

    /// Resumes the child, and returns without waiting for its next stop.
    pub fn resume(&self) {
        self.ptrace(libc::PTRACE_CONT);
    }

    /// Returns whether the next instruction of the stopped child is a system call.
    #[cfg(target_arch = "x86_64")]
    pub fn is_at_system_call(&self) -> bool {
        const SYSCALL_INSTRUCTION: i64 = 0x050f;
        let peek = |request, address: i64| {
            // SAFETY: both requests only read a word of the stopped child, and ptrace fails if the
            // address is not valid.
            unsafe { libc::ptrace(request, self.pid, address, 0) }
        };
        let offset = std::mem::offset_of!(libc::user_regs_struct, rip);
        let instruction_address = peek(libc::PTRACE_PEEKUSER, offset as i64);
        peek(libc::PTRACE_PEEKTEXT, instruction_address) & 0xffff == SYSCALL_INSTRUCTION
    }

    fn ptrace(&self, request: libc::c_uint) {
        // SAFETY: both requests ignore the address, and their last argument is a signal number: 0
        // for no signal. ptrace fails if the child is not traced or not stopped.
        let result = unsafe { libc::ptrace(request, self.pid, 0, 0) };
        assert_eq!(result, 0, "ptrace: {}", io::Error::last_os_error());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Closes all descriptors except 0, 1 and 2, as a daemon does with `closefrom(3)`.
pub fn close_all_descriptors() {
    // SAFETY: close_range takes no pointers. The tests check that the owners of the descriptors
    // notice the loss.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    assert_eq!(result, 0, "close_range: {}", io::Error::last_os_error());
}

/// Returns the inode of an open descriptor. Allocates nothing.
pub fn inode_of(descriptor: i32) -> Option<u64> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is valid for writing, and fstat has written it if it succeeds.
    unsafe {
        let result = libc::fstat(descriptor, stat.as_mut_ptr());
        (result == 0).then(|| stat.assume_init().st_ino)
    }
}

/// Pins this thread and its future children to the current processor. A switch between parent and
/// child is several times faster on one processor.
pub fn pin_to_current_cpu() {
    // SAFETY: all-zero bytes are a valid empty set, and the set is valid for reads.
    unsafe {
        let mut cpu_set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut cpu_set);
        libc::sched_setaffinity(0, size_of_val(&cpu_set), &cpu_set);
    }
}

/// Lets the parent trace this process. Returns `false` if the system forbids tracing.
pub fn enable_tracing() -> bool {
    // SAFETY: PTRACE_TRACEME ignores its pointers.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 }
}

/// Stops this process until the parent resumes it.
pub fn stop_self() {
    // SAFETY: raise takes no pointers.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Returns zeroed words that this process shares with its children.
pub fn shared_words(count: usize) -> &'static [AtomicU64] {
    // SAFETY: the kernel chooses the address of the new mapping. The mapping is never unmapped. The
    // memory is aligned to a page and zeroed, and zero is a valid AtomicU64.
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

/// Moves this process into new namespaces (unshare(2)). If the process lacks the right to do this,
/// the function also creates a user namespace. Returns `false` if the system forbids new
/// namespaces.
pub fn unshare(flags: i32) -> bool {
    // SAFETY: unshare takes no pointers.
    if unsafe { libc::unshare(flags) } == 0 {
        return true;
    }
    // SAFETY: both calls take no arguments and always succeed.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: unshare takes no pointers.
    let is_unshared = unsafe { libc::unshare(flags | libc::CLONE_NEWUSER) } == 0;
    is_unshared
        && std::fs::write("/proc/self/setgroups", "deny").is_ok()
        && std::fs::write("/proc/self/uid_map", format!("0 {user} 1")).is_ok()
        && std::fs::write("/proc/self/gid_map", format!("0 {group} 1")).is_ok()
}

/// Mounts a tmpfs at `target`. The process must be in its own mount namespace.
pub fn mount_tmpfs(target: &Path, options: &str) {
    let c_string = |text: &str| CString::new(text).unwrap();
    let (tmpfs, root) = (c_string("tmpfs"), c_string("/"));
    let (target, options) = (c_string(target.to_str().unwrap()), c_string(options));
    let propagation = libc::MS_PRIVATE | libc::MS_REC;
    // SAFETY: all strings end with NUL, and the kernel only reads them.
    let result = unsafe {
        libc::mount(root.as_ptr(), root.as_ptr(), std::ptr::null(), propagation, std::ptr::null())
            | libc::mount(
                tmpfs.as_ptr(),
                target.as_ptr(),
                tmpfs.as_ptr(),
                0,
                options.as_ptr().cast(),
            )
    };
    assert_eq!(result, 0, "mount: {}", io::Error::last_os_error());
}

/// Changes the user and the group of this process permanently from root to `user`.
pub fn switch_user(user: u32) {
    // SAFETY: setgroups reads no element of an empty list, and the other functions take numbers.
    let result =
        unsafe { libc::setgroups(0, std::ptr::null()) | libc::setgid(user) | libc::setuid(user) };
    assert_eq!(result, 0, "setuid: {}", io::Error::last_os_error());
}
