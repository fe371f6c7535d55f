//! The reload lock of a map in files: only its holder creates, publishes and renames map files.
//!
//! A process acquires the reload lock before the writer lock. Writers do not acquire the reload
//! lock, so sessions open and close while its holder builds a new map.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::engine::files;
use super::types::error::MapError;
use super::writer_lock::{acquire, check_not_lost};
use crate::os::lock::FileLock;

/// Maximum time to wait until another process has created or repaired the map. Building a map of
/// several million addresses takes seconds.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The reload lock. It is released when this value is dropped. If the holder dies, the kernel
/// releases the lock.
#[derive(Debug)]
pub(crate) struct ReloadLock {
    path: PathBuf,
    file: FileLock,
}

impl ReloadLock {
    /// Acquires the reload lock of the map in a directory.
    pub(crate) fn acquire(directory: &Path) -> Result<Self, MapError> {
        Self::acquire_within(directory, RELOAD_TIMEOUT)
    }

    fn acquire_within(directory: &Path, timeout: Duration) -> Result<Self, MapError> {
        let path = directory.join(files::RELOAD_LOCK_FILE);
        let file = files::open_lock(directory, files::RELOAD_LOCK_FILE)?;
        match acquire(&file, &path, timeout)? {
            true => Ok(Self { path, file }),
            false => Err(MapError::BeingReplaced { path }),
        }
    }

    /// Returns an error if this lock no longer excludes other processes, because its file was
    /// removed or this process has closed the descriptor of the file, for example with closefrom(3).
    pub(crate) fn check(&self) -> Result<(), MapError> {
        check_not_lost(&self.file, &self.path)
    }
}

impl Drop for ReloadLock {
    fn drop(&mut self) {
        // The child of a fork must not release the lock of its parent.
        if !self.file.is_from_parent() {
            self.file.release();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_one_holder_has_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let acquire = || ReloadLock::acquire_within(directory.path(), Duration::ZERO);
        let lock = acquire().unwrap();
        let error = acquire().unwrap_err();
        assert!(matches!(error, MapError::BeingReplaced { .. }));
        assert!(error.to_string().contains(directory.path().to_str().unwrap()), "{error}");
        lock.check().unwrap();
        drop(lock);
        acquire().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn removed_lock_file_is_a_lost_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = ReloadLock::acquire(directory.path()).unwrap();
        std::fs::remove_file(directory.path().join(files::RELOAD_LOCK_FILE)).unwrap();
        assert!(matches!(lock.check(), Err(MapError::LockLost { .. })));
    }
}
