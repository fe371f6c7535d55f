//! Reads arguments that are not structs: flags, arrays and texts. Copies returned texts to a buffer
//! of the caller.

use std::ffi::c_char;
use std::path::Path;
use std::ptr;

use super::error::{CallError, catch_panic};
use super::status::vipool_status::{self, *};

/// Reads a required text. It may be empty.
///
/// # Safety
/// `text` is NULL or valid for reads of `length` bytes during `'a`.
#[inline]
pub(crate) unsafe fn read_utf8<'a>(
    text: *const c_char,
    length: usize,
) -> Result<&'a str, vipool_status> {
    // SAFETY: the caller guarantees `length` readable bytes.
    let bytes = unsafe { read_bytes(text.cast(), length) }?;
    // Nearly all names are ASCII, and a check for ASCII is faster than a check for UTF-8.
    if bytes.is_ascii() {
        // SAFETY: ASCII is valid UTF-8.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes).map_err(|_| VIPOOL_ERR_UTF8)
}

/// Reads the path of a directory, which must not be empty.
///
/// # Safety
/// As for [`read_utf8`].
pub(crate) unsafe fn read_directory<'a>(
    text: *const c_char,
    length: usize,
) -> Result<&'a Path, vipool_status> {
    // SAFETY: the caller guarantees the same as `read_utf8` requires.
    match unsafe { read_utf8(text, length) }? {
        "" => Err(VIPOOL_ERR_DIRECTORY),
        directory => Ok(Path::new(directory)),
    }
}

/// Reads an optional text: NULL with length 0 is `None`.
///
/// # Safety
/// As for [`read_utf8`].
#[inline]
pub(crate) unsafe fn read_optional_utf8<'a>(
    text: *const c_char,
    length: usize,
) -> Result<Option<&'a str>, vipool_status> {
    if text.is_null() && length == 0 {
        return Ok(None);
    }
    // SAFETY: the caller guarantees the same as `read_utf8` requires.
    unsafe { read_utf8(text, length) }.map(Some)
}

/// Reads the units of a required UTF-16 text. A text that is not aligned to two bytes is an error.
///
/// # Safety
/// `text` is NULL or valid for reads of `length` units during `'a`.
#[inline]
pub(crate) unsafe fn read_utf16_units<'a>(
    text: *const u16,
    length: usize,
) -> Result<&'a [u16], vipool_status> {
    if text.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    if !text.is_aligned() {
        return Err(VIPOOL_ERR_UTF16);
    }
    // SAFETY: aligned; the caller guarantees `length` readable units.
    unsafe { read_slice(text, length) }
}

/// Reads required bytes. NULL is an error even with length 0.
///
/// # Safety
/// `bytes` is NULL or valid for reads of `length` bytes during `'a`.
#[inline]
pub(crate) unsafe fn read_bytes<'a>(
    bytes: *const u8,
    length: usize,
) -> Result<&'a [u8], vipool_status> {
    if bytes.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: the caller guarantees `length` readable bytes.
    unsafe { read_slice(bytes, length) }
}

/// Reads an array. NULL is allowed with count 0.
///
/// # Safety
/// `items` is NULL or aligned and valid for reads of `count` items during `'a`.
#[inline]
pub(crate) unsafe fn read_slice<'a, T>(
    items: *const T,
    count: usize,
) -> Result<&'a [T], vipool_status> {
    if count == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(VIPOOL_ERR_BUFFER);
    }
    // SAFETY: not NULL and not larger than the maximum size of an object; the caller guarantees the
    // rest.
    Ok(unsafe { std::slice::from_raw_parts(items, count) })
}

/// Returns `flags`, or an error if one of them is unknown.
pub(crate) fn check_flags(flags: u32, known_flags: u32) -> Result<u32, CallError> {
    if flags & !known_flags != 0 {
        let unknown_flags = flags & !known_flags;
        return Err(VIPOOL_ERR_KIND.with_message(format_args!("unknown flags {unknown_flags:#x}")));
    }
    Ok(flags)
}

/// Returns an error if a reserved member is not zero.
#[inline]
pub(crate) fn check_reserved(reserved: u32) -> Result<(), vipool_status> {
    if reserved == 0 { Ok(()) } else { Err(VIPOOL_ERR_UNKNOWN_FIELD) }
}

/// Copies a text and a NUL into a buffer of the caller. Writes the length without the NUL to
/// `out_length` even if the buffer is too small. `out_length` may be NULL.
///
/// # Safety
/// `buffer` is NULL or valid for writes of `capacity` bytes. `out_length` is NULL or valid for a
/// write.
pub(crate) unsafe fn copy_text(
    text: &str,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> Result<(), CallError> {
    if buffer.is_null() && capacity > 0 {
        return Err(VIPOOL_ERR_NULL.into());
    }
    if !out_length.is_null() {
        // SAFETY: not NULL; the caller guarantees the rest.
        unsafe { out_length.write(text.len()) };
    }
    if text.len() >= capacity {
        return Err(VIPOOL_ERR_BUFFER.with_message(format_args!(
            "the buffer has {capacity} bytes, the text and its NUL need {}",
            text.len() + 1
        )));
    }
    // SAFETY: `capacity` is larger than the text, so the buffer is not NULL. The caller guarantees
    // the rest.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// Converts a UTF-16 text, such as a Windows path, to UTF-8, the encoding of this library.
///
/// Parameters:
/// - `text`, `length`: the text, in units of two bytes and in the byte order of the machine.
/// - `buffer`, `capacity`: receives the UTF-8 text and a NUL. Three bytes per unit and one for the
///   NUL are enough.
/// - `out_length`: receives the length in bytes without the NUL. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF16 (an unpaired surrogate, or `text` is not aligned to two
/// bytes), VIPOOL_ERR_BUFFER.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_utf16_to_utf8(
    text: *const u16,
    length: usize,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees text, buffer and length.
        unsafe {
            let utf8_text = String::from_utf16(read_utf16_units(text, length)?);
            copy_text(&utf8_text.map_err(|_| VIPOOL_ERR_UTF16)?, buffer, capacity, out_length)
        }
    })
}
