//! Detects forks: a child of a fork must not use the locks of its parent.
//!
//! The child has copies of all values of its parent. The child recognises such copies by their
//! [`ProcessMark`]; the check costs one load. On Linux 4.14 and later, the check also works after a
//! fork that runs no fork handlers, such as a fork by the system call clone(2).
//!
//! A signal handler may fork. If the handler interrupts a thread that has a [`ForkBarrier`], the
//! fork cannot wait for the end of the barrier, so it happens at once. The child can then inherit
//! the descriptor of a lock that the thread was opening or closing, and the child does not close
//! this descriptor. If the parent acquires that lock, the child keeps it until the child calls exec
//! or exits.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::ptr::{self, NonNull};
#[cfg(all(unix, not(miri)))]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

#[cfg(all(target_os = "linux", not(miri)))]
use crate::raw::pages;

/// State of this process. All of it is 0 in a new child of a fork.
#[derive(Debug)]
struct ProcessState {
    /// A number that no ancestor of this process has. 0 until the first [`ProcessMark`].
    number: AtomicU64,
    /// The thread that has a [`ForkBarrier`] or is forking; 0 if there is no such thread.
    owner: AtomicUsize,
    /// The number of unfinished forks that the owner makes while it is the owner: in signal
    /// handlers that interrupted it.
    #[cfg(all(unix, not(miri)))]
    nested_forks: AtomicU32,
}

impl ProcessState {
    const fn new() -> Self {
        Self {
            number: AtomicU64::new(0),
            owner: AtomicUsize::new(0),
            #[cfg(all(unix, not(miri)))]
            nested_forks: AtomicU32::new(0),
        }
    }

    fn lock(&self) {
        let thread = current_thread();
        while self.owner.compare_exchange(0, thread, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            std::thread::yield_now();
        }
    }

    fn unlock(&self) {
        self.owner.store(0, Ordering::Release);
    }

    #[cfg(all(unix, not(miri)))]
    fn before_fork(&self) {
        if self.owner.load(Ordering::Relaxed) == current_thread() {
            // A wait would never end, because this thread itself is the owner.
            self.nested_forks.fetch_add(1, Ordering::Relaxed);
        } else {
            self.lock();
        }
    }

    #[cfg(all(unix, not(miri)))]
    fn after_fork_in_parent(&self) {
        if self.nested_forks.load(Ordering::Relaxed) == 0 {
            self.unlock();
        } else {
            self.nested_forks.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Returns a number of the current thread that is not 0. Signal handlers may call this function.
#[cfg(all(unix, not(miri)))]
fn current_thread() -> usize {
    // SAFETY: the function has no requirements.
    (unsafe { libc::pthread_self() }) as usize
}

/// Returns 1: without fork handlers, no code compares the numbers of threads.
#[cfg(not(all(unix, not(miri))))]
fn current_thread() -> usize {
    1
}

/// Whether the fork handlers of this process are registered. A child of a fork inherits the value
/// and the handlers.
static ARE_HANDLERS_REGISTERED: AtomicBool = AtomicBool::new(false);

/// Calls `register` unless an earlier call has succeeded. `register` returns 0 or an error number.
/// If two threads register the handlers at the same time, each handler runs twice at a fork. The
/// count of nested forks makes this harmless.
///
/// # Errors
/// Fails if `register` fails.
fn register_once(is_registered: &AtomicBool, register: impl FnOnce() -> c_int) -> io::Result<()> {
    if !is_registered.load(Ordering::Acquire) {
        match register() {
            0 => is_registered.store(true, Ordering::Release),
            error_number => return Err(io::Error::from_raw_os_error(error_number)),
        }
    }
    Ok(())
}

/// Registers the handlers of this module with the C library.
#[cfg(all(unix, not(miri)))]
fn register_handlers() -> c_int {
    // SAFETY: the handlers are safe in a child of a fork: they access only statics and the state,
    // and call only pthread_self(3), mmap(2), madvise(2), munmap(2), sched_yield(2), fstat(2) and
    // close(2).
    unsafe {
        libc::pthread_atfork(
            Some(before_fork),
            Some(after_fork_in_parent),
            Some(after_fork_in_child),
        )
    }
}

/// Does nothing: this system has no fork handlers.
#[cfg(not(all(unix, not(miri))))]
fn register_handlers() -> c_int {
    0
}

/// Points to the state of this process: a page that the kernel clears in a child of a fork, or
/// [`STATE_CLEARED_BY_HANDLER`]. Null until the first use.
static STATE: AtomicPtr<ProcessState> = AtomicPtr::new(ptr::null_mut());

/// The state of this process if the kernel cannot clear memory at a fork. The fork handler clears
/// it in the child.
static STATE_CLEARED_BY_HANDLER: ProcessState = ProcessState::new();

/// The last number that this process or one of its ancestors created.
static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

fn process_state() -> &'static ProcessState {
    let published_state = STATE.load(Ordering::Acquire);
    let state = if published_state.is_null() { publish_state() } else { published_state };
    // SAFETY: both possible states live until the process exits, and all access to them is atomic.
    unsafe { &*state }
}

/// Creates and returns the state of this process. If another thread has published a state, returns
/// that state.
#[cold]
fn publish_state() -> *mut ProcessState {
    let handler_state = ptr::from_ref(&STATE_CLEARED_BY_HANDLER).cast_mut();
    let state = allocate_cleared_at_fork().map_or(handler_state, NonNull::as_ptr);
    let exchange_result =
        STATE.compare_exchange(ptr::null_mut(), state, Ordering::AcqRel, Ordering::Acquire);
    match exchange_result {
        Ok(_) => state,
        Err(published_state) => published_state,
    }
}

/// Maps a zeroed page that the kernel clears in a child of a fork (`MADV_WIPEONFORK`, Linux 4.14).
#[cfg(all(target_os = "linux", not(miri)))]
fn allocate_cleared_at_fork() -> Option<NonNull<ProcessState>> {
    let length = size_of::<ProcessState>();
    let page = pages::map(length).ok()?;
    // SAFETY: the page was just mapped with this length, and nothing uses it yet.
    unsafe {
        if libc::madvise(page.as_ptr().cast(), length, libc::MADV_WIPEONFORK) != 0 {
            pages::unmap(page, length);
            return None;
        }
    }
    Some(page.cast())
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn allocate_cleared_at_fork() -> Option<NonNull<ProcessState>> {
    None
}

#[cfg(all(unix, not(miri)))]
extern "C" fn before_fork() {
    process_state().before_fork();
}

#[cfg(all(unix, not(miri)))]
extern "C" fn after_fork_in_parent() {
    process_state().after_fork_in_parent();
}

#[cfg(all(unix, not(miri)))]
extern "C" fn after_fork_in_child() {
    STATE_CLEARED_BY_HANDLER.number.store(0, Ordering::Relaxed);
    STATE_CLEARED_BY_HANDLER.nested_forks.store(0, Ordering::Relaxed);
    STATE_CLEARED_BY_HANDLER.unlock();
    super::descriptors::close_inherited();
}

/// Identifies the process that created this mark. While a mark exists, the fork handlers are
/// registered.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMark {
    state: &'static ProcessState,
    number: u64,
}

impl ProcessMark {
    /// Returns the mark of this process.
    ///
    /// # Errors
    /// Fails if the fork handlers cannot be registered, for example because there is no memory.
    pub fn current() -> io::Result<Self> {
        register_once(&ARE_HANDLERS_REGISTERED, register_handlers)?;
        let state = process_state();
        let mut number = state.number.load(Ordering::Relaxed);
        if number == 0 {
            number = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
            let exchange =
                state.number.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
            // If another thread has set a number, that number stays.
            number = exchange.err().unwrap_or(number);
        }
        Ok(Self { state, number })
    }

    /// Returns whether this process created the mark. Returns false if it inherited the mark at a
    /// fork.
    #[inline(always)]
    pub fn is_current(self) -> bool {
        self.state.number.load(Ordering::Relaxed) == self.number
    }

    /// Returns the number of the process. The number is not a pid and never 0.
    #[cfg(unix)]
    pub fn number(self) -> u64 {
        self.number
    }
}

/// While this value exists, no other thread of this process forks through the C library. A system
/// call such as clone(2) can still fork, and so can a signal handler that interrupts the thread of
/// the barrier.
pub struct ForkBarrier(&'static ProcessState);

impl ForkBarrier {
    /// Waits until no thread forks and no other barrier exists. `process` is a mark of this
    /// process.
    pub fn new(process: ProcessMark) -> Self {
        process.state.lock();
        Self(process.state)
    }
}

impl Drop for ForkBarrier {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error number that every system has.
    const ERROR_NUMBER: c_int = 12;

    #[test]
    fn failed_registration_is_an_error_and_is_tried_again() {
        let is_registered = AtomicBool::new(false);
        let error = register_once(&is_registered, || ERROR_NUMBER).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(ERROR_NUMBER));
        register_once(&is_registered, || 0).unwrap();
        register_once(&is_registered, || panic!("the handlers are registered")).unwrap();
    }

    /// A signal handler can fork while it interrupts another signal handler that forks. A second
    /// registration of the handlers has the same effect.
    #[cfg(all(unix, not(miri)))]
    #[test]
    fn nested_forks_do_not_end_a_barrier() {
        let state = ProcessState::new();
        state.lock();
        state.before_fork();
        state.before_fork();
        state.after_fork_in_parent();
        state.after_fork_in_parent();
        assert_eq!(state.owner.load(Ordering::Relaxed), current_thread());
        state.unlock();
        state.before_fork();
        state.before_fork();
        state.after_fork_in_parent();
        state.after_fork_in_parent();
        assert_eq!(state.owner.load(Ordering::Relaxed), 0);
    }

    /// A fork in a signal handler that interrupts the thread of a barrier does the same.
    #[cfg(all(unix, not(miri)))]
    #[test]
    fn thread_with_a_barrier_can_fork() {
        let process = ProcessMark::current().unwrap();
        let barrier = ForkBarrier::new(process);
        // SAFETY: the child calls only functions that are async-signal-safe.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let has_new_state =
                !process.is_current() && process.state.owner.load(Ordering::Relaxed) == 0;
            // SAFETY: the function ends the child without exit handlers.
            unsafe { libc::_exit(i32::from(!has_new_state)) };
        }
        assert!(child > 0);
        let mut status = -1;
        // SAFETY: the child exists, and `status` is valid for writing.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        assert_eq!(process.state.owner.load(Ordering::Relaxed), current_thread());
        drop(barrier);
        assert!(process.is_current());
    }
}
