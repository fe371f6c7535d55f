//! What callers hand in beside structs: flags, arrays and texts (UTF-8 with a length, UTF-16 with a length
//! for Windows paths); and texts handed out.

use std::ffi::c_char;
use std::ptr;

use super::outcome::{Failure, call};
use super::status::vipool_status::{self, *};

/// A text that must be there. It may be empty.
///
/// # Safety
/// `text` is NULL or valid for reads of `length` bytes during `'a`.
#[inline]
pub(crate) unsafe fn utf8<'a>(
    text: *const c_char,
    length: usize,
) -> Result<&'a str, vipool_status> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(text.cast(), length) }?;
    if bytes.is_ascii() {
        // SAFETY: so it is UTF-8. Names nearly always are, and this is told faster.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes).map_err(|_| VIPOOL_ERR_UTF8)
}

/// A text that may be left out: NULL.
///
/// # Safety
/// As for [`utf8`].
#[inline]
pub(crate) unsafe fn optional_utf8<'a>(
    text: *const c_char,
    length: usize,
) -> Result<Option<&'a str>, vipool_status> {
    if text.is_null() && length == 0 {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { utf8(text, length) }.map(Some)
}

/// Makes a call with a text that came as UTF-16 in the byte order of the machine. Allocates.
///
/// # Safety
/// `text` is NULL or aligned and valid for reads of `length` units.
pub(crate) unsafe fn with_utf16(
    text: *const u16,
    length: usize,
    then: impl FnOnce(*const c_char, usize) -> vipool_status,
) -> vipool_status {
    let mut converted = String::new();
    let status = call(|| {
        // SAFETY: the caller's promise.
        let units = unsafe { units(text, length) }?;
        converted = String::from_utf16(units).map_err(|_| VIPOOL_ERR_UTF16)?;
        Ok(())
    });
    if status == VIPOOL_OK { then(converted.as_ptr().cast(), converted.len()) } else { status }
}

/// The units of a UTF-16 text.
///
/// # Safety
/// As for [`with_utf16`], during `'a`.
#[inline]
pub(crate) unsafe fn units<'a>(
    text: *const u16,
    length: usize,
) -> Result<&'a [u16], vipool_status> {
    if text.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: the caller's promise.
    unsafe { array(text, length) }
}

/// Some bytes; NULL is refused even for none.
///
/// # Safety
/// `bytes` is NULL or valid for reads of `length` bytes during `'a`.
#[inline]
pub(crate) unsafe fn bytes<'a>(bytes: *const u8, length: usize) -> Result<&'a [u8], vipool_status> {
    if bytes.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: the caller's promise.
    unsafe { array(bytes, length) }
}

/// An array; NULL is allowed for none.
///
/// # Safety
/// `items` is NULL or aligned and valid for reads of `count` items during `'a`.
#[inline]
pub(crate) unsafe fn array<'a, T>(items: *const T, count: usize) -> Result<&'a [T], vipool_status> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(VIPOOL_ERR_BUFFER);
    }
    // SAFETY: not NULL, of a size that an object can have; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// Flags of which every one must be known.
pub(crate) fn flags(given: u32, known: u32) -> Result<u32, Failure> {
    if given & !known != 0 {
        return Err(VIPOOL_ERR_KIND.because(format_args!("unknown flags {:#x}", given & !known)));
    }
    Ok(given)
}

/// Copies a text into a buffer of the caller's, with a NUL behind it. `out_length` (if it is not
/// NULL) is told the length without the NUL, also when the buffer is too small.
///
/// # Safety
/// `buffer` is NULL or valid for writes of `capacity` bytes; `out_length` is NULL or valid for a
/// write.
pub(crate) unsafe fn copy_out(
    text: &str,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> Result<(), Failure> {
    if buffer.is_null() && capacity > 0 {
        return Err(VIPOOL_ERR_NULL.into());
    }
    if !out_length.is_null() {
        // SAFETY: the caller's promise.
        unsafe { out_length.write(text.len()) };
    }
    if text.len() >= capacity {
        return Err(VIPOOL_ERR_BUFFER.because(format_args!(
            "the buffer has {capacity} bytes, the text and its NUL need {}",
            text.len() + 1
        )));
    }
    // SAFETY: the buffer has room for the text and one byte more.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}
