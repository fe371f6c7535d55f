//! Opaque handles and their ownership.
//!
//! A handle is a boxed Rust value that C holds by pointer. `Opaque::Access` defines how threads may
//! use the handle. It also selects the borrow functions of this module that accept the handle:
//!
//! - A `Shared` handle is only borrowed immutably. Any number of threads may use it at once.
//! - An `Exclusive` handle may be borrowed mutably. One thread at a time may use it.

use super::error::silence_panics;
use super::status::vipool_status::{self, *};

/// A type that C holds by pointer.
pub(crate) trait Opaque: Sized {
    /// [`Shared`] or [`Exclusive`].
    type Access: Access<Self>;
}

/// States how threads may use a handle.
pub(crate) trait Access<T> {}

/// Any number of threads at once.
pub(crate) struct Shared;
/// One thread at a time.
pub(crate) struct Exclusive;

impl<T: Send + Sync> Access<T> for Shared {}
impl<T: Send> Access<T> for Exclusive {}

/// Boxes a value and writes the handle to `out`.
///
/// # Safety
/// `out` is valid for writes. The caller has checked that it is not NULL.
pub(crate) unsafe fn write_handle<T: Opaque>(value: T, out: *mut *mut T) {
    // Silence panic messages when the first handle is created. A panic before that, for example
    // while the first farm is parsed, still prints its message. The unit tests of the crate need
    // the panic messages.
    if cfg!(not(test)) {
        silence_panics();
    }
    // SAFETY: the caller guarantees that `out` is valid.
    unsafe { out.write(Box::into_raw(Box::new(value))) }
}

/// Borrows the value of a shared handle.
///
/// # Safety
/// `handle` is NULL or came from [`write_handle`], and is not freed before `'a` ends.
#[inline]
pub(crate) unsafe fn borrow_shared<'a, T: Opaque<Access = Shared>>(
    handle: *const T,
) -> Result<&'a T, vipool_status> {
    // SAFETY: the caller guarantees a live handle; a shared handle is never borrowed mutably.
    unsafe { handle.as_ref() }.ok_or(VIPOOL_ERR_NULL)
}

/// Borrows the value of an exclusive handle mutably.
///
/// # Safety
/// As for [`borrow_shared`]. No other borrow of the value exists during `'a`.
pub(crate) unsafe fn borrow_exclusive<'a, T: Opaque<Access = Exclusive>>(
    handle: *mut T,
) -> Result<&'a mut T, vipool_status> {
    // SAFETY: the caller guarantees a live handle without another borrow.
    unsafe { handle.as_mut() }.ok_or(VIPOOL_ERR_NULL)
}

/// Borrows the value of an exclusive handle for reading.
///
/// # Safety
/// As for [`borrow_shared`]. No code changes the value during `'a`.
pub(crate) unsafe fn read_exclusive<'a, T: Opaque<Access = Exclusive>>(
    handle: *const T,
) -> Result<&'a T, vipool_status> {
    // SAFETY: the caller guarantees a live handle, and that no code changes its value.
    unsafe { handle.as_ref() }.ok_or(VIPOOL_ERR_NULL)
}

/// Frees a handle. NULL is ignored.
///
/// # Safety
/// `handle` is NULL or came from [`write_handle`], was not freed before, and is not in use.
pub(crate) unsafe fn free_handle<T: Opaque>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: `write_handle` made the pointer from a box, and the caller frees it once.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// Returns an error if a pointer is NULL.
#[inline]
pub(crate) fn check_not_null<T>(pointer: *const T) -> Result<(), vipool_status> {
    if pointer.is_null() { Err(VIPOOL_ERR_NULL) } else { Ok(()) }
}
