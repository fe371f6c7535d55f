//! A file lock between processes, which the kernel releases when its holder exits.
//!
//! On Linux the lock is an open file description lock (`F_OFD_SETLK`, fcntl_locking(2)). The kernel
//! keeps the lock as long as a descriptor or a mapping refers to the open file description. Two
//! properties follow:
//!
//! - A child of a fork inherits the descriptor and would keep the lock. This module therefore
//!   registers every descriptor of a lock, and the child closes the registered descriptors.
//! - A mapping keeps the lock even if the program closes all descriptors, for example with
//!   closefrom(3). [`FileLock::pin`] makes such a mapping, which a child does not inherit.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

#[cfg(unix)]
use super::descriptors::Registration;
use super::fork::{ForkBarrier, ProcessMark};
use super::trusted_file::FileIdentity;
use crate::sync::Backoff;

/// A lock on a file. It excludes every other `FileLock` on the same file, even in the same process.
/// It does not exclude threads that share the `FileLock` from each other.
#[derive(Debug)]
pub struct FileLock {
    /// Not dropped if the descriptor no longer belongs to this lock.
    file: ManuallyDrop<File>,
    process: ProcessMark,
    identity: FileIdentity,
    #[cfg(unix)]
    registration: Registration,
    /// The mapping that [`FileLock::pin`] made, or null.
    pinned_page: AtomicPtr<c_void>,
}

impl FileLock {
    /// Creates a lock on the file that `open_file` opens. The lock is not held yet. While `open_file`
    /// runs, no other thread forks through the C library.
    ///
    /// # Errors
    /// Fails if `open_file` fails, if the file cannot be examined, if the process has too many
    /// locks open, or if the fork handlers cannot be registered. `to_error` converts the error in
    /// the last three cases.
    pub fn open<E>(
        open_file: impl FnOnce() -> Result<File, E>,
        to_error: impl FnOnce(io::Error) -> E,
    ) -> Result<Self, E> {
        let process = match ProcessMark::current() {
            Ok(process) => process,
            Err(error) => return Err(to_error(error)),
        };
        let _barrier = ForkBarrier::new(process);
        let file = open_file()?;
        Self::new(file, process).map_err(to_error)
    }

    fn new(file: File, process: ProcessMark) -> io::Result<Self> {
        Ok(Self {
            identity: FileIdentity::of(&file)?,
            #[cfg(unix)]
            registration: Registration::new(&file, process)?,
            file: ManuallyDrop::new(file),
            process,
            pinned_page: AtomicPtr::default(),
        })
    }

    /// Acquires the lock. Returns false if another holder keeps it until the timeout.
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
        if self.unpin() && !self.has_descriptor() {
            // The mapping was the last reference to the lock, so the kernel has released the lock.
            return;
        }
        _ = self.set_locked(false);
    }

    /// Keeps the lock until [`FileLock::release`], even if the program closes the descriptor of the
    /// lock. The caller holds the lock.
    ///
    /// # Errors
    /// Fails if the kernel refuses the mapping.
    #[cfg(target_os = "linux")]
    pub fn pin(&self) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        if !self.pinned_page.load(Ordering::Relaxed).is_null() {
            return Ok(());
        }
        let (protection, flags) = (libc::PROT_NONE, libc::MAP_SHARED);
        let descriptor = self.file.as_raw_fd();
        // SAFETY: the kernel chooses the address of a new mapping, so no memory in use changes. The
        // mapping is never accessed.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), 1, protection, flags, descriptor, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the page was just mapped. The advice only removes it from children of a fork.
        if unsafe { libc::madvise(page, 1, libc::MADV_DONTFORK) } != 0 {
            let error = io::Error::last_os_error();
            // SAFETY: the page was just mapped, and no other code has its address.
            unsafe { libc::munmap(page, 1) };
            return Err(error);
        }
        self.pinned_page.store(page, Ordering::Relaxed);
        Ok(())
    }

    /// Does nothing: on this system only the descriptor keeps the lock.
    #[cfg(not(target_os = "linux"))]
    pub fn pin(&self) -> io::Result<()> {
        Ok(())
    }

    /// Removes the mapping of [`FileLock::pin`]. Returns whether the mapping existed.
    fn unpin(&self) -> bool {
        if self.pinned_page.load(Ordering::Relaxed).is_null() {
            return false;
        }
        let page = self.pinned_page.swap(std::ptr::null_mut(), Ordering::Relaxed);
        #[cfg(target_os = "linux")]
        // SAFETY: `pin` mapped this page in this process, and the swap removed the only copy of its
        // address. A child of a fork never gets here, because it does not release the lock.
        unsafe {
            libc::munmap(page, 1);
        }
        !page.is_null()
    }

    /// Returns the mark of the process that opened the lock.
    pub fn process(&self) -> ProcessMark {
        self.process
    }

    /// Returns whether the parent of this process opened the lock. This process does not hold such
    /// a lock.
    #[inline(always)]
    pub fn is_from_parent(&self) -> bool {
        !self.process.is_current()
    }

    /// Returns whether the descriptor still belongs to this lock.
    fn has_descriptor(&self) -> bool {
        #[cfg(unix)]
        return !matches!(self.registration.link_count(), Ok(None));
        #[cfg(not(unix))]
        true
    }

    /// Returns the reason why this lock no longer excludes other processes; `None` if it still
    /// does.
    ///
    /// # Errors
    /// Fails if the system cannot examine the file of the lock.
    #[cfg(unix)]
    pub fn loss_reason(&self) -> io::Result<Option<&'static str>> {
        Ok(match self.registration.link_count()? {
            Some(1..) => None,
            Some(0) => Some("it was removed"),
            None => Some("this process has closed its descriptor"),
        })
    }

    /// Returns `None`: on Windows, no other code closes the handle of the lock, and vipool does not
    /// remove the file of the lock.
    ///
    /// # Errors
    /// Never fails.
    #[cfg(not(unix))]
    pub fn loss_reason(&self) -> io::Result<Option<&'static str>> {
        Ok(None)
    }

    /// Returns whether the path names the file of this lock. On Windows, always returns true.
    ///
    /// # Errors
    /// Fails if there is no file at this path, or if the file cannot be examined.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.identity.is_at(path)
    }

    fn try_acquire(&self) -> io::Result<bool> {
        loop {
            match self.set_locked(true) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn set_locked(&self, is_locked: bool) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        let lock_type = if is_locked { libc::F_WRLCK } else { libc::F_UNLCK };
        // SAFETY: all-zero bytes are a valid `flock`.
        let mut flock: libc::flock = unsafe { std::mem::zeroed() };
        flock.l_type = lock_type as libc::c_short;
        flock.l_whence = libc::SEEK_SET as libc::c_short;
        // SAFETY: the kernel only reads the `flock`, and refuses a descriptor that is not open.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &flock) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn set_locked(&self, is_locked: bool) -> io::Result<()> {
        if !is_locked {
            return self.file.unlock();
        }
        self.file.try_lock().map_err(io::Error::from)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.is_from_parent() {
            // The child of a fork closes the inherited descriptors, so their numbers can belong to
            // other files now.
            return;
        }
        self.unpin();
        let _barrier = ForkBarrier::new(self.process);
        #[cfg(unix)]
        if !self.registration.unregister() {
            // The program has closed the descriptor, and its number can belong to another file now.
            return;
        }
        // SAFETY: the file is dropped only here.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}
