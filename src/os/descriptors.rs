//! The descriptors of all locks of the process, so that a child of a fork can close them.
//!
//! Only the thread that holds the [`ForkBarrier`](super::fork::ForkBarrier) changes the list. After
//! a fork, the only thread of the child also changes it.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

use super::fork::ProcessMark;

/// An entry of the list of descriptors.
#[derive(Debug)]
struct Entry {
    /// A descriptor of a lock. The value is -1 if the entry is free.
    descriptor: AtomicI32,
    device: AtomicU64,
    inode: AtomicU64,
    /// The number of the [`Registration`].
    registration_number: AtomicU64,
}

/// The list of descriptors.
static ENTRIES: [Entry; 64] = [const {
    Entry {
        descriptor: AtomicI32::new(-1),
        device: AtomicU64::new(0),
        inode: AtomicU64::new(0),
        registration_number: AtomicU64::new(0),
    }
}; 64];

/// The number in the [`ProcessMark`] of the process that registered the descriptors. It is not a
/// pid.
static PROCESS_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The number of the last registration.
static LAST_REGISTRATION: AtomicU64 = AtomicU64::new(0);

/// A registered descriptor.
#[derive(Debug)]
pub(super) struct Registration {
    entry: &'static Entry,
    descriptor: RawFd,
    number: u64,
}

impl Registration {
    /// Registers the descriptor of a lock.
    pub(super) fn new(file: &File, process: ProcessMark) -> io::Result<Self> {
        if PROCESS_NUMBER.swap(process.number(), Relaxed) != process.number() {
            // This process may be a child of a fork that ran no fork handlers, such as a fork by
            // the system call clone(2).
            close_inherited();
        }
        let descriptor = file.as_raw_fd();
        let status =
            file_status(descriptor)?.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        // If an entry has this descriptor, the program closed the descriptor of another lock, and
        // the kernel reused its number. That entry is stale.
        if let Some(stale) = ENTRIES.iter().find(|entry| entry.descriptor() == descriptor) {
            stale.descriptor.store(-1, Relaxed);
        }
        let entry = ENTRIES
            .iter()
            .find(|entry| entry.descriptor() < 0)
            .ok_or_else(|| io::Error::other("too many maps are open in this process"))?;
        let number = LAST_REGISTRATION.fetch_add(1, Relaxed) + 1;
        entry.device.store(status.device, Relaxed);
        entry.inode.store(status.inode, Relaxed);
        entry.registration_number.store(number, Relaxed);
        entry.descriptor.store(descriptor, Relaxed);
        Ok(Self { entry, descriptor, number })
    }

    /// Removes the descriptor from the list. Returns whether the descriptor still belongs to the
    /// lock. If it does, the caller must close it.
    pub(super) fn unregister(&self) -> bool {
        let belongs_to_lock = matches!(self.link_count(), Ok(Some(_)));
        if self.entry.registration_number.load(Relaxed) == self.number {
            self.entry.descriptor.store(-1, Relaxed);
        }
        belongs_to_lock
    }

    /// Returns the number of hard links of the lock file; `None` if the descriptor is closed or
    /// belongs to another file.
    ///
    /// # Errors
    /// Fails if the system cannot examine the file.
    pub(super) fn link_count(&self) -> io::Result<Option<u64>> {
        let is_registered = self.entry.registration_number.load(Relaxed) == self.number
            && self.entry.descriptor() == self.descriptor;
        let status = file_status(self.descriptor)?
            .filter(|status| is_registered && self.entry.is_same_file(status));
        Ok(status.map(|status| status.link_count))
    }
}

impl Entry {
    fn descriptor(&self) -> RawFd {
        self.descriptor.load(Relaxed)
    }

    /// Returns whether `status` belongs to the file whose descriptor was registered.
    fn is_same_file(&self, status: &FileStatus) -> bool {
        (self.device.load(Relaxed), self.inode.load(Relaxed)) == (status.device, status.inode)
    }
}

/// Closes the registered descriptors in a child of a fork. Does not close a descriptor that now
/// refers to another file: the parent closed the descriptor of the lock, and the number was reused.
pub(super) fn close_inherited() {
    for entry in &ENTRIES {
        let descriptor = entry.descriptor.swap(-1, Relaxed);
        if descriptor >= 0
            && matches!(file_status(descriptor), Ok(Some(status)) if entry.is_same_file(&status))
        {
            // SAFETY: the descriptor belongs to a lock of the parent. The owner of the lock
            // compares process marks, so it neither uses nor closes the descriptor in this process.
            unsafe { libc::close(descriptor) };
        }
    }
}

/// The numbers that identify an open file, and the number of its hard links.
struct FileStatus {
    device: u64,
    inode: u64,
    link_count: u64,
}

/// Returns the status of an open file, or `None` if the descriptor is closed. A child of a fork may
/// call this function, because fstat(2) is async-signal-safe.
///
/// # Errors
/// Fails if the system cannot examine the file.
#[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
fn file_status(descriptor: RawFd) -> io::Result<Option<FileStatus>> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `status` is valid for writing.
    if unsafe { libc::fstat(descriptor, status.as_mut_ptr()) } != 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EBADF) { Ok(None) } else { Err(error) };
    }
    // SAFETY: fstat succeeded, so it has written the struct.
    let status = unsafe { status.assume_init() };
    Ok(Some(FileStatus {
        device: status.st_dev as u64,
        inode: status.st_ino as u64,
        link_count: status.st_nlink as u64,
    }))
}
