//! Opaque handles, and how each is owned.
//!
//! Every handle is a box that C holds by its pointer. `Owned::Access` says what C may do with
//! it, and so which of the functions here compile for it: a shared one is only ever borrowed
//! shared, by any number of threads; an exclusive one by one thread at a time.

use super::outcome::keep_quiet;
use super::status::vipool_status::{self, *};

/// A type that C holds by pointer.
pub(crate) trait Owned: Sized {
    /// [`Shared`] or [`Exclusive`].
    type Access: Access<Self>;
}

/// Marks how a handle may be used.
pub(crate) trait Access<T> {}

/// Any number of threads at once.
pub(crate) struct Shared;
/// One thread at a time.
pub(crate) struct Exclusive;

impl<T: Send + Sync> Access<T> for Shared {}
impl<T: Send> Access<T> for Exclusive {}

/// Hands a new value to C.
///
/// # Safety
/// `out` is valid for writes; the caller has checked that it is not NULL.
pub(crate) unsafe fn give<T: Owned>(value: T, out: *mut *mut T) {
    // Nobody does anything worth a panic before there is a handle. In the crate's own tests panics
    // are failures, to be seen.
    if cfg!(not(test)) {
        keep_quiet();
    }
    // SAFETY: the caller's promise.
    unsafe { out.write(Box::into_raw(Box::new(value))) }
}

/// The value behind a handle that threads may share.
///
/// # Safety
/// `handle` is NULL or came from [`give`] and was not freed; it is not freed during `'a`.
#[inline]
pub(crate) unsafe fn shared<'a, T: Owned<Access = Shared>>(
    handle: *const T,
) -> Result<&'a T, vipool_status> {
    // SAFETY: the caller's promise; nothing ever borrows a shared handle mutably.
    unsafe { handle.as_ref() }.ok_or(VIPOOL_ERR_NULL)
}

/// The value behind a handle that one thread uses at a time.
///
/// # Safety
/// As for [`shared`], and no other thread uses the handle during `'a`.
pub(crate) unsafe fn exclusive<'a, T: Owned<Access = Exclusive>>(
    handle: *mut T,
) -> Result<&'a mut T, vipool_status> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_mut() }.ok_or(VIPOOL_ERR_NULL)
}

/// The value behind an exclusive handle, for reading.
///
/// # Safety
/// As for [`shared`], and no other thread changes it during `'a`.
pub(crate) unsafe fn read_exclusive<'a, T: Owned<Access = Exclusive>>(
    handle: *const T,
) -> Result<&'a T, vipool_status> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_ref() }.ok_or(VIPOOL_ERR_NULL)
}

/// Takes a handle back and drops it. NULL is nothing.
///
/// # Safety
/// `handle` is NULL or came from [`give`] and was not freed, and nobody uses it any more.
pub(crate) unsafe fn free<T: Owned>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: the caller's promise; `give` made it from a box.
        drop(unsafe { Box::from_raw(handle) });
    }
}

/// An out-parameter that must be there.
#[inline]
pub(crate) fn not_null<T>(pointer: *const T) -> Result<(), vipool_status> {
    if pointer.is_null() { Err(VIPOOL_ERR_NULL) } else { Ok(()) }
}
