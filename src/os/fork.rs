//! Detects forks: a child of a fork must not use the locks of its parent.
//!
//! The child has copies of all values of its parent. The child recognises such copies by their
//! [`ProcessMark`]; the check costs one load. On Linux 4.14 and later, the check also works after a
//! fork that runs no fork handlers, such as a fork by the system call clone(2).

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

#[cfg(all(target_os = "linux", not(miri)))]
use crate::raw::pages;

/// State of this process. All of it is 0 in a new child of a fork.
struct ProcessState {
    /// A number that no ancestor of this process has. 0 until the first [`ProcessMark`].
    number: AtomicU64,
    /// Whether a [`ForkBarrier`] exists, or a thread is forking.
    is_locked: AtomicBool,
}

impl ProcessState {
    const fn new() -> Self {
        Self { number: AtomicU64::new(0), is_locked: AtomicBool::new(false) }
    }

    fn lock(&self) {
        while self.is_locked.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    fn unlock(&self) {
        self.is_locked.store(false, Ordering::Release);
    }
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
        Ok(_) => {
            #[cfg(all(unix, not(miri)))]
            // SAFETY: the handlers are safe in a child of a fork: they access only statics and the
            // state, and call only sched_yield(2), fstat(2) and close(2).
            unsafe {
                libc::pthread_atfork(
                    Some(before_fork),
                    Some(after_fork_in_parent),
                    Some(after_fork_in_child),
                );
            }
            state
        }
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
    process_state().lock();
}

#[cfg(all(unix, not(miri)))]
extern "C" fn after_fork_in_parent() {
    process_state().unlock();
}

#[cfg(all(unix, not(miri)))]
extern "C" fn after_fork_in_child() {
    STATE_CLEARED_BY_HANDLER.number.store(0, Ordering::Relaxed);
    STATE_CLEARED_BY_HANDLER.unlock();
    super::descriptors::close_inherited();
}

/// Identifies the process that created this mark.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMark {
    current_number: &'static AtomicU64,
    number: u64,
}

impl ProcessMark {
    /// Returns the mark of this process.
    pub fn current() -> Self {
        let current_number = &process_state().number;
        if current_number.load(Ordering::Relaxed) == 0 {
            let number = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
            // If another thread has set a number, that number stays.
            _ = current_number.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
        }
        Self { current_number, number: current_number.load(Ordering::Relaxed) }
    }

    /// Returns whether this process created the mark. Returns false if it inherited the mark at a
    /// fork.
    #[inline(always)]
    pub fn is_current(self) -> bool {
        self.current_number.load(Ordering::Relaxed) == self.number
    }

    /// Returns the number of the process. The number is not a pid and never 0.
    #[cfg(unix)]
    pub fn number(self) -> u64 {
        self.number
    }
}

/// While this value exists, no thread of this process forks through the C library. A system call
/// such as clone(2) can still fork.
pub struct ForkBarrier(&'static ProcessState);

impl ForkBarrier {
    /// Waits until no thread forks and no other barrier exists.
    pub fn new() -> Self {
        let state = process_state();
        state.lock();
        Self(state)
    }
}

impl Drop for ForkBarrier {
    fn drop(&mut self) {
        self.0.unlock();
    }
}
