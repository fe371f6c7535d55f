//! A file lock between processes, which the kernel releases when its holder exits.
//!
//! On Linux the lock is an open file description lock (`F_OFD_SETLK`, fcntl_locking(2)). The child
//! of a fork inherits the open file description and would keep the lock held. This module therefore
//! registers every descriptor of a lock. A fork handler closes the registered descriptors in the
//! child.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::sync::Backoff;

/// A lock on a file. The threads of a process share the lock, so the lock does not exclude these
/// threads from each other.
#[derive(Debug)]
pub struct FileLock {
    /// A child of a fork does not drop the file, because the fork handler has already closed its
    /// descriptor.
    file: ManuallyDrop<File>,
    fork_count: u32,
}

impl FileLock {
    /// Creates a lock on this file. The lock is not held yet.
    ///
    /// # Errors
    /// Fails if the process has too many locks open.
    pub fn new(file: File) -> io::Result<Self> {
        #[cfg(unix)]
        fork_children::register(&file)?;
        Ok(Self { file: ManuallyDrop::new(file), fork_count: fork_count() })
    }

    /// Acquires the lock. Returns false if another process holds the lock until the timeout.
    ///
    /// # Errors
    /// Fails if the parent of this process opened the lock, or if the system call fails.
    pub fn acquire(&self, timeout: Duration) -> io::Result<bool> {
        if self.is_from_parent() {
            return Err(io::Error::other("the lock belongs to the parent of this process"));
        }
        let mut backoff = Backoff::new(timeout);
        loop {
            if self.try_acquire()? {
                return Ok(true);
            }
            if !backoff.wait() {
                return Ok(false);
            }
        }
    }

    /// Releases the lock.
    pub fn release(&self) {
        _ = self.set_locked(false);
    }

    /// Returns whether the parent of this process opened the lock. This process does not hold such
    /// a lock.
    #[inline]
    pub fn is_from_parent(&self) -> bool {
        self.fork_count != fork_count()
    }

    fn try_acquire(&self) -> io::Result<bool> {
        match self.set_locked(true) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn set_locked(&self, locked: bool) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        let kind = if locked { libc::F_WRLCK } else { libc::F_UNLCK };
        // SAFETY: all-zero bytes are a valid `flock`.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        // SAFETY: the descriptor is open, and the kernel only reads the `flock`.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn set_locked(&self, locked: bool) -> io::Result<()> {
        if !locked {
            return self.file.unlock();
        }
        self.file.try_lock().map_err(io::Error::from)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.is_from_parent() {
            // The fork handler closed the descriptor. Its number can belong to another file now.
            return;
        }
        #[cfg(unix)]
        fork_children::unregister(&self.file);
        // SAFETY: the file is dropped only here.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

static FORK_COUNT: AtomicU32 = AtomicU32::new(0);

/// Returns the number of forks between the first process and this one. The number excludes forks
/// before the first lock.
#[inline]
fn fork_count() -> u32 {
    FORK_COUNT.load(Ordering::Relaxed)
}

/// Closes the descriptors of all locks in the child of a fork.
#[cfg(unix)]
mod fork_children {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::sync::Once;
    use std::sync::atomic::{AtomicI32, Ordering};

    /// The descriptors of all locks of the process; -1 for a free entry.
    static DESCRIPTORS: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];
    static REGISTER_HANDLER: Once = Once::new();

    pub(super) fn register(file: &File) -> io::Result<()> {
        REGISTER_HANDLER.call_once(|| {
            // SAFETY: the handler accesses only statics and calls close(2), which is allowed in a
            // child of a fork.
            unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) };
        });
        let claim_entry = |entry: &&AtomicI32| {
            entry
                .compare_exchange(-1, file.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        match DESCRIPTORS.iter().find(claim_entry) {
            Some(_) => Ok(()),
            None => Err(io::Error::other("too many maps are open in this process")),
        }
    }

    pub(super) fn unregister(file: &File) {
        for entry in &DESCRIPTORS {
            _ = entry.compare_exchange(file.as_raw_fd(), -1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    extern "C" fn close_in_child() {
        super::FORK_COUNT.fetch_add(1, Ordering::Relaxed);
        for entry in &DESCRIPTORS {
            let descriptor = entry.swap(-1, Ordering::Relaxed);
            if descriptor >= 0 {
                // SAFETY: the owner of the descriptor compares `FORK_COUNT`, so the owner does not
                // use or close the descriptor again.
                unsafe { libc::close(descriptor) };
            }
        }
    }
}
