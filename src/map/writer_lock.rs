//! The writer lock of a map in files. All threads of this process share it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::engine::files;
use super::engine::image::MapImage;
use super::engine::writer::WritableMap;
use super::format::header::LOCK_HOLDER;
use super::format::words::{join_halves, split_halves};
use super::types::error::MapError;
use crate::os::lock::FileLock;

/// Maximum time to wait until another writer releases the lock.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of handoffs between threads of this process before the lock is released for other
/// processes.
const MAX_HANDOFFS: u32 = 8;

/// The process that holds the lock, as recorded in the map.
#[derive(Clone, Copy, Default)]
pub(crate) struct LockHolder {
    pub(crate) pid: u32,
    /// Whether the process keeps the lock until it closes the map.
    pub(crate) is_exclusive: bool,
}

impl LockHolder {
    /// Reads the holder from a map.
    pub(crate) fn read(map: &MapImage) -> Self {
        let (exclusive, pid) = split_halves(map.header(LOCK_HOLDER));
        Self { pid, is_exclusive: exclusive != 0 }
    }

    /// Returns the header word for a holder that is this process.
    pub(crate) fn this_process(is_exclusive: bool) -> u64 {
        join_halves(is_exclusive.into(), std::process::id())
    }

    /// Returns the error for a writer that did not get the lock.
    pub(crate) fn to_error(self) -> MapError {
        MapError::Busy { pid: self.pid, exclusive: self.is_exclusive }
    }
}

/// The writer lock of a map.
///
/// A thread of this process acquires a mutex before it uses this lock.
#[derive(Debug)]
pub(crate) struct WriterLock {
    directory: PathBuf,
    file: FileLock,
    /// The number of threads of this process that wait for the mutex.
    waiting_threads: AtomicU32,
    /// The number of handoffs since this process acquired the lock; 0 if it does not hold the lock.
    handoffs: AtomicU32,
}

impl WriterLock {
    /// Opens the lock file of the map in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self, MapError> {
        Ok(Self {
            directory: directory.to_owned(),
            file: files::open_lock(directory)?,
            waiting_threads: AtomicU32::new(0),
            handoffs: AtomicU32::new(0),
        })
    }

    /// Returns the directory of the map.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns whether the parent of this process opened the lock. After a fork, the child process
    /// does not hold the lock of its parent.
    #[inline]
    pub(crate) fn is_from_parent(&self) -> bool {
        self.file.is_from_parent()
    }

    /// Calls `wait`, which waits for the mutex, and counts this thread as waiting. While a thread
    /// waits, the holder of the lock hands the lock over instead of releasing it.
    #[inline]
    pub(crate) fn count_as_waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting_threads.fetch_add(1, Ordering::Relaxed);
        let result = wait();
        self.waiting_threads.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Returns whether another thread of this process has handed the lock over.
    #[inline]
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handoffs.load(Ordering::Relaxed) > 0
    }

    /// Acquires the lock. Returns false if other processes held it until the timeout.
    pub(crate) fn acquire(&self, timeout: Duration) -> Result<bool, MapError> {
        self.file.acquire(timeout).map_err(|source| {
            let path = self.directory.join(files::LOCK_FILE);
            MapError::Io { failure: "cannot lock", path, source }
        })
    }

    /// Ends the turn of a thread. Hands the lock over to a waiting thread, which saves two system
    /// calls. Releases the lock if no thread waits, or after [`MAX_HANDOFFS`].
    pub(crate) fn hand_over_or_release(&self, map: &mut WritableMap) {
        let handoffs = self.handoffs.load(Ordering::Relaxed);
        if handoffs < MAX_HANDOFFS && self.waiting_threads.load(Ordering::Relaxed) > 0 {
            // A waiting thread certainly takes over the lock, because no step before that can fail.
            self.handoffs.store(handoffs + 1, Ordering::Relaxed);
            return;
        }
        self.handoffs.store(0, Ordering::Relaxed);
        map.writer().store_header(LOCK_HOLDER, 0);
        self.release();
    }

    /// Ends the exclusive mode of this process.
    pub(crate) fn end_exclusive(&self, map: &mut WritableMap) {
        if !self.is_from_parent() {
            map.writer().store_header(LOCK_HOLDER, 0);
            self.release();
        }
    }

    /// Releases the lock.
    pub(crate) fn release(&self) {
        self.file.release();
    }
}
