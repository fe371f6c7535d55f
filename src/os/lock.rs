//! A lock on a file between processes, gone when its holder is.
//!
//! Linux: an open file description lock (`F_OFD_SETLK`, fcntl_locking(2)). Such a lock lives on in
//! a child of a plain fork, which inherits the description; so every lock's descriptor is
//! registered here and closed in fork children.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A file to lock. Between threads of one process it keeps nobody out: they share it.
#[derive(Debug)]
pub struct FileLock {
    /// Not dropped in a fork child, where it is closed already.
    file: ManuallyDrop<File>,
    forks: u32,
}

impl FileLock {
    /// A lock on this file, not held yet.
    pub fn new(file: File) -> io::Result<Self> {
        #[cfg(unix)]
        children::register(&file)?;
        Ok(Self { file: ManuallyDrop::new(file), forks: forks() })
    }

    /// Takes the lock, trying for as long as `patience`; false if somebody else held it all the
    /// time. An error in a fork child of the process that made it.
    pub fn acquire(&self, patience: Duration) -> io::Result<bool> {
        if self.is_of_parent() {
            return Err(io::Error::other("the lock belongs to the parent of this process"));
        }
        if self.try_acquire()? {
            return Ok(true);
        }
        let began = Instant::now();
        let mut pause = Duration::from_micros(20);
        while began.elapsed() < patience {
            std::thread::sleep(pause);
            if self.try_acquire()? {
                return Ok(true);
            }
            pause = (pause * 2).min(Duration::from_millis(2));
        }
        Ok(false)
    }

    /// Gives the lock back.
    pub fn release(&self) {
        _ = self.set(false);
    }

    /// Whether this process is a fork child of the one that made the lock: it holds nothing.
    #[inline]
    pub fn is_of_parent(&self) -> bool {
        self.forks != forks()
    }

    fn try_acquire(&self) -> io::Result<bool> {
        match self.set(true) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[cfg(target_os = "linux")]
    fn set(&self, locked: bool) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        let kind = if locked { libc::F_WRLCK } else { libc::F_UNLCK };
        // SAFETY: all-zero bytes are a valid flock.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
        // SAFETY: the descriptor is open and the kernel only reads the flock.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn set(&self, locked: bool) -> io::Result<()> {
        if !locked {
            return self.file.unlock();
        }
        self.file.try_lock().map_err(io::Error::from)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.is_of_parent() {
            // The number may be another file's by now.
            return;
        }
        #[cfg(unix)]
        children::forget(&self.file);
        // SAFETY: dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.file) };
    }
}

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the first process and this one (only counted once a lock was made).
#[inline]
fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Descriptors that fork children close.
#[cfg(unix)]
mod children {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::sync::Once;
    use std::sync::atomic::{AtomicI32, Ordering};

    /// As many locks as one process may have.
    static DESCRIPTORS: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];
    static HANDLER: Once = Once::new();

    pub(super) fn register(file: &File) -> io::Result<()> {
        HANDLER.call_once(|| {
            // SAFETY: the handler only touches statics and calls close, as fork children may.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        let free = |place: &&AtomicI32| {
            place
                .compare_exchange(-1, file.as_raw_fd(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        match DESCRIPTORS.iter().find(free) {
            Some(_) => Ok(()),
            None => Err(io::Error::other("too many maps are open in this process")),
        }
    }

    pub(super) fn forget(file: &File) {
        for place in &DESCRIPTORS {
            _ = place.compare_exchange(file.as_raw_fd(), -1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    extern "C" fn in_child() {
        super::FORKS.fetch_add(1, Ordering::Relaxed);
        for place in &DESCRIPTORS {
            let descriptor = place.swap(-1, Ordering::Relaxed);
            if descriptor >= 0 {
                // SAFETY: the registered owner of the descriptor knows by `FORKS` that it is closed.
                unsafe { libc::close(descriptor) };
            }
        }
    }
}
