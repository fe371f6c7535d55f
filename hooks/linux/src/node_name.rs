//! The host name that uname(2) returns.

use std::mem::MaybeUninit;
use std::sync::OnceLock;

use libc::c_char;

/// A copy of the host name, with at least one NUL byte at its end.
pub struct NodeName([u8; 65]);

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
}

/// Returns the host name at the time when this library was loaded. The result is a C string that is
/// never freed. `hooked_process::initialize` makes the first call of this function, so no later
/// call waits for the initialization.
pub fn name_at_load() -> *mut c_char {
    static NAME: OnceLock<NodeName> = OnceLock::new();
    NAME.get_or_init(NodeName::read).0.as_ptr().cast::<c_char>().cast_mut()
}
