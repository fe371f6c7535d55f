//! `errno`: what a hook asks the kernel must not change what the program finds there.

use libc::c_int;

/// Its value.
#[inline]
pub fn get() -> c_int {
    // SAFETY: the address of errno is always good.
    unsafe { *libc::__errno_location() }
}

/// Sets it.
#[inline]
pub fn set(value: c_int) {
    // SAFETY: the address of errno is always good.
    unsafe { *libc::__errno_location() = value };
}
