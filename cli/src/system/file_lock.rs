//! Locks between `vipool` processes.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vipool::trusted_file;

/// The pause between two attempts to get the lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Locks the file, and creates it if it does not exist. The lock is held until the returned file is
/// closed.
///
/// The mode of the file lets only its owner open it, because every user who can open a file can
/// lock it.
///
/// # Errors
/// The file cannot be used, or another process holds the lock until the timeout. `holder` describes
/// that process in the message.
pub fn lock(path: &Path, timeout: Duration, holder: &str) -> anyhow::Result<File> {
    let file = trusted_file::open_or_create(path, 0o600)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + timeout;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(RETRY_INTERVAL);
            }
            Err(TryLockError::WouldBlock) => bail!("cannot lock {}: {holder}", path.display()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}
