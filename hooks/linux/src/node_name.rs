//! The host name that uname(2) returns.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering};

use libc::c_char;

/// The size of a host name in bytes, with the terminating NUL.
const MAX_SIZE: usize = 65;

/// A copy of the host name, with at least one NUL byte at its end.
pub struct NodeName([u8; MAX_SIZE]);

impl NodeName {
    /// Reads the current host name. The name is empty if the system call fails.
    pub fn read() -> Self {
        let mut utsname = MaybeUninit::<libc::utsname>::zeroed();
        // SAFETY: the buffer has the right type, and a zeroed utsname is valid.
        let utsname = unsafe {
            libc::uname(utsname.as_mut_ptr());
            utsname.assume_init()
        };
        Self(utsname.nodename.map(|byte| byte as u8))
    }

    /// Returns the name without the terminating NUL.
    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(0);
        self.0.get(..end).unwrap_or_default()
    }

    /// Returns the size of the name as a C string, with the terminating NUL.
    pub fn size(&self) -> usize {
        self.bytes().len() + 1
    }

    /// Writes the name as a C string.
    ///
    /// # Safety
    /// `target` points to [`NodeName::size`] writable bytes.
    pub unsafe fn write_to(&self, target: *mut c_char) {
        let name = self.bytes();
        // SAFETY: guaranteed by the caller.
        unsafe {
            target.copy_from_nonoverlapping(name.as_ptr().cast(), name.len());
            *target.add(name.len()) = 0;
        }
    }

    /// Writes the name to a static buffer, and returns the buffer. The next call overwrites it. The
    /// program may write to the buffer, as to the results of gethostbyaddr(3).
    pub fn write_to_static(&self) -> *mut c_char {
        static BUFFER: [AtomicU8; MAX_SIZE] = [const { AtomicU8::new(0) }; MAX_SIZE];
        for (target, byte) in BUFFER.iter().zip(self.0) {
            target.store(byte, Ordering::Relaxed);
        }
        // The pointer is that of an array of atomics, so a write through it is allowed.
        BUFFER.as_ptr().cast_mut().cast()
    }
}
