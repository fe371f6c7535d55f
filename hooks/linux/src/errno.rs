//! `errno`: what a hook asks the kernel must not change what the program finds there.

use libc::{c_int, c_long};

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

/// What a system call of our own answers, with `errno` as it was before.
#[inline]
pub fn kept(call: impl FnOnce() -> c_long) -> c_long {
    let before = get();
    let answer = call();
    if answer == -1 {
        set(before);
    }
    answer
}
