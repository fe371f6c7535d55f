//! Access to `errno`. A hook saves `errno` before code that may change it, and restores it
//! afterwards. So the program reads the same value as without the hook.

use libc::c_int;
use vipool::rewrite::Refusal;

/// Returns the value of `errno` of this thread.
#[inline]
pub fn get() -> c_int {
    // SAFETY: libc returns a valid pointer to the errno of this thread.
    unsafe { *libc::__errno_location() }
}

/// Sets `errno` of this thread.
#[inline]
pub fn set(value: c_int) {
    // SAFETY: libc returns a valid pointer to the errno of this thread.
    unsafe { *libc::__errno_location() = value };
}

/// Returns the error number for a refused call.
pub fn for_refusal(refusal: Refusal) -> c_int {
    match refusal {
        Refusal::OtherSessionAddress | Refusal::SharedIpv6Wildcard => libc::EADDRNOTAVAIL,
        Refusal::ListenersUnknown { error } => error,
    }
}
