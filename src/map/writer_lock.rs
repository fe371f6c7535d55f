//! The writer lock of a map in files. All threads that share a `Map` share its lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::engine::files;
use super::engine::image::MapImage;
use super::engine::writer::WritableMap;
use super::format::header::LOCK_HOLDER;
use super::format::words::{join_halves, split_halves};
use super::types::error::MapError;
use crate::Tick;
use crate::os::fork::ProcessMark;
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

    /// Returns the header word that records this process as the holder.
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
/// A thread acquires the mutex of its `Map` before it acquires this lock.
#[derive(Debug)]
pub(crate) struct WriterLock {
    directory: PathBuf,
    /// The path of the lock file. This path and `map_path` are stored, so that operations allocate
    /// no memory.
    lock_path: PathBuf,
    /// The path of the map file.
    map_path: PathBuf,
    file: FileLock,
    /// The number of threads of this process that wait for the mutex.
    waiting_thread_count: AtomicU32,
    /// The number of handoffs since this process acquired the lock; 0 if it does not hold the lock.
    handoff_count: AtomicU32,
    /// The time in seconds that the last [`WriterLock::check_exclusive`] received, or
    /// [`UNKNOWN_TIME`].
    last_check: AtomicU64,
}

/// A value that is no time in seconds.
const UNKNOWN_TIME: u64 = u64::MAX;

impl WriterLock {
    /// Opens the lock file of the map in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self, MapError> {
        Ok(Self {
            directory: directory.to_owned(),
            lock_path: directory.join(files::LOCK_FILE),
            map_path: directory.join(files::MAP_FILE),
            file: files::open_lock(directory, files::LOCK_FILE)?,
            waiting_thread_count: AtomicU32::new(0),
            handoff_count: AtomicU32::new(0),
            last_check: AtomicU64::new(UNKNOWN_TIME),
        })
    }

    /// Returns the directory of the map.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the mark of the process that opened the lock.
    pub(crate) fn process(&self) -> ProcessMark {
        self.file.process()
    }

    /// Returns whether the parent of this process opened the lock. After a fork, the child process
    /// does not hold the lock of its parent.
    #[inline]
    pub(crate) fn is_from_parent(&self) -> bool {
        self.file.is_from_parent()
    }

    /// Calls `wait`, which waits for the mutex, and counts this thread as waiting. While a thread
    /// waits, the holder of the lock can hand the lock over instead of releasing it.
    #[inline]
    pub(crate) fn count_as_waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting_thread_count.fetch_add(1, Ordering::Relaxed);
        let result = wait();
        self.waiting_thread_count.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// Returns whether another thread of this process has handed the lock over.
    #[inline]
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handoff_count.load(Ordering::Relaxed) > 0
    }

    /// Acquires the lock. Returns false if other processes held it until the timeout.
    pub(crate) fn acquire(&self, timeout: Duration) -> Result<bool, MapError> {
        acquire(&self.file, &self.lock_path, timeout)
    }

    /// Keeps the lock until [`WriterLock::end_exclusive`]. The caller holds the lock.
    pub(crate) fn pin(&self) -> Result<(), MapError> {
        self.file.pin().map_err(|source| MapError::Io {
            failure: "cannot keep the lock of",
            path: self.lock_path.clone(),
            source,
        })
    }

    /// Returns an error if the lock file or the map file was removed while this process holds the
    /// lock exclusively. Without these files, another process can create a map with the same
    /// addresses.
    ///
    /// If `now` is a time, this function examines the files only once in each second, so that most
    /// operations need no system call. If `now` is `None`, it always examines the files.
    #[inline(always)]
    pub(crate) fn check_exclusive(
        &self,
        map: &WritableMap,
        now: Option<Tick>,
    ) -> Result<(), MapError> {
        let now = now.map_or(UNKNOWN_TIME, |now| now.as_secs().into());
        if now != UNKNOWN_TIME && self.last_check.load(Ordering::Relaxed) == now {
            return Ok(());
        }
        self.check_files(map)?;
        self.last_check.store(now, Ordering::Relaxed);
        Ok(())
    }

    #[cold]
    fn check_files(&self, map: &WritableMap) -> Result<(), MapError> {
        let path = || self.lock_path.clone();
        match self.file.is_at(&self.lock_path) {
            Ok(true) => {}
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(MapError::Io { failure: "cannot examine", path: path(), source });
            }
            _ => return Err(MapError::LockLost { path: path(), reason: "it was removed" }),
        }
        // No other process can replace the map while this process holds the lock. So only an error
        // of `is_in_place` matters.
        self.is_in_place(map).map(drop)
    }

    /// Returns whether a map is still the map in the directory, see [`files::is_in_place`].
    pub(crate) fn is_in_place(&self, map: &WritableMap) -> Result<bool, MapError> {
        files::is_in_place(&self.map_path, map)
    }

    /// Hands the lock over to a waiting thread, or releases the lock.
    ///
    /// A handoff saves two system calls. The lock is released if no thread waits, or after
    /// [`MAX_HANDOFFS`] handoffs.
    pub(crate) fn hand_over_or_release(&self, map: &mut WritableMap) {
        let handoff_count = self.handoff_count.load(Ordering::Relaxed);
        if handoff_count < MAX_HANDOFFS && self.waiting_thread_count.load(Ordering::Relaxed) > 0 {
            // The waiting thread certainly takes over the lock: no step between its wait and the
            // takeover can fail.
            self.handoff_count.store(handoff_count + 1, Ordering::Relaxed);
            return;
        }
        self.handoff_count.store(0, Ordering::Relaxed);
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

/// Acquires a lock of a map, and checks that the file of the lock was not removed. Returns false if
/// other processes held the lock until the timeout.
pub(crate) fn acquire(file: &FileLock, path: &Path, timeout: Duration) -> Result<bool, MapError> {
    let result = file.acquire(timeout);
    if matches!(result, Ok(false)) {
        return Ok(false);
    }
    match (check_not_lost(file, path), result) {
        (Ok(()), result) => result.map_err(|source| lock_error(path, source)),
        (Err(MapError::Io { .. }), Err(source)) => Err(lock_error(path, source)),
        (Err(error), _) => {
            file.release();
            Err(error)
        }
    }
}

/// Returns an error if a lock of a map no longer excludes other processes.
pub(crate) fn check_not_lost(file: &FileLock, path: &Path) -> Result<(), MapError> {
    match file.loss_reason().map_err(|source| lock_error(path, source))? {
        None => Ok(()),
        Some(reason) => Err(MapError::LockLost { path: path.to_owned(), reason }),
    }
}

fn lock_error(path: &Path, source: io::Error) -> MapError {
    MapError::Io { failure: "cannot lock", path: path.to_owned(), source }
}
