//! Structs that callers make: they begin with their size, so that old callers and new libraries
//! work together, and the other way round.
//!
//! A smaller struct is an older one: its missing fields are zero, and zero is every field's
//! default. A larger one is newer: it is taken as long as all that this version does not know is
//! zero. A size that ends inside a field is no version of anything and refused.

use std::mem::{MaybeUninit, align_of, size_of};
use std::ptr;

use super::error::CallError;
use super::status::vipool_status::{self, *};

/// A struct of the caller's that begins with its size. `layout!`
/// implements it.
///
/// # Safety
/// `repr(C)`; the first field is `size: usize`; all-zero bytes are a valid value, and so is any
/// value that a caller can write into its fields.
pub unsafe trait Versioned: Copy {
    /// The C name.
    const NAME: &'static str;
    /// Name, offset and size of all fields, in order and without a gap: padding that nobody
    /// clears would be taken for the fields of a later version.
    const FIELDS: &'static [(&'static str, usize, usize)];
}

#[doc(hidden)]
pub const fn field_size<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

#[doc(hidden)]
pub const fn has_gaps(size: usize, fields: &[(&str, usize, usize)]) -> bool {
    let mut end = 0;
    let mut place = 0;
    while place < fields.len() {
        if fields[place].1 != end {
            return true;
        }
        end += fields[place].2;
        place += 1;
    }
    end != size
}

/// Lists the fields of a struct that callers make; a forgotten one does not compile.
#[macro_export]
#[doc(hidden)]
macro_rules! capi_layout {
    ($name:ident { $($field:ident),* $(,)? }) => {
        const _: fn($name) = |value| {
            let $name { $($field: _),* } = value;
        };
        // SAFETY: repr(C) with a leading size, integers, pointers, optional function pointers and
        // structs of such alone; the pattern above names every field.
        unsafe impl $crate::capi::layout::Versioned for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [(&'static str, usize, usize)] = &[$((
                stringify!($field),
                std::mem::offset_of!($name, $field),
                $crate::capi::layout::field_size(|value: &$name| &value.$field),
            )),*];
        }
        const _: () = assert!(
            !$crate::capi::layout::has_gaps(
                size_of::<$name>(),
                <$name as $crate::capi::layout::Versioned>::FIELDS
            ),
            "name the padding: a reserved field"
        );
    };
}
pub(crate) use crate::capi_layout as layout;

/// Whether some version of the struct had this size: it ends where a field begins, or the struct
/// does, or beyond it, and keeps the next in an array aligned.
fn is_a_size<T: Versioned>(size: usize) -> bool {
    let begins_a_field = || T::FIELDS.iter().any(|(_, offset, _)| *offset == size);
    size.is_multiple_of(align_of::<T>())
        && (size >= size_of::<T>() || size >= size_of::<usize>() && begins_a_field())
}

#[cold]
fn wrong_size<T: Versioned>(size: usize) -> CallError {
    VIPOOL_ERR_STRUCT_SIZE.with_message(format_args!(
        "{}: size is {size}, but this version of the struct has {} bytes: set size to sizeof({})",
        T::NAME,
        size_of::<T>(),
        T::NAME,
    ))
}

/// A failure to read or to fill a struct, with a text.
///
/// # Safety
/// `given` is NULL, or its size may be read.
#[cold]
unsafe fn explained<T: Versioned>(given: *const T, status: vipool_status) -> CallError {
    match status {
        // SAFETY: not NULL, or the status had been another; the caller vouches for the size.
        VIPOOL_ERR_STRUCT_SIZE => wrong_size::<T>(unsafe { given.cast::<usize>().read() }),
        status => status.into(),
    }
}

/// Reads a struct of the caller's.
///
/// # Safety
/// `given` is NULL or aligned and valid for reads of as many bytes as its first field says.
pub(crate) unsafe fn read<T: Versioned>(given: *const T) -> Result<T, CallError> {
    // SAFETY: the caller's promise.
    unsafe { read_silent(given).map_err(|status| explained(given, status)) }
}

/// [`read`] without a text, for functions that leave none.
///
/// # Safety
/// As for [`read`].
#[inline]
pub(crate) unsafe fn read_silent<T: Versioned>(given: *const T) -> Result<T, vipool_status> {
    if given.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: not NULL, and at least the size may be read.
    let size = unsafe { given.cast::<usize>().read() };
    if size == size_of::<T>() {
        // SAFETY: all of it is there, and any bytes of a caller are a valid T.
        return Ok(unsafe { given.read() });
    }
    // SAFETY: not NULL; the caller vouches for `size` bytes.
    unsafe { read_other(given, size) }
}

/// Where a struct of the caller's can be read: in its own place if it is of this version, so that
/// nothing is copied where every nanosecond counts; else in `room`, completed with zeros.
///
/// The fields are to be read through the pointer, each when it is needed: a callback of the
/// caller's may write to its struct meanwhile.
///
/// # Safety
/// As for [`read`].
#[inline]
pub(crate) unsafe fn in_place_silent<T: Versioned>(
    given: *const T,
    room: &mut MaybeUninit<T>,
) -> Result<*const T, vipool_status> {
    if given.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: not NULL, and at least the size may be read.
    let size = unsafe { given.cast::<usize>().read() };
    if size == size_of::<T>() {
        return Ok(given);
    }
    // SAFETY: not NULL; the caller vouches for `size` bytes.
    Ok(room.write(unsafe { read_other(given, size) }?))
}

/// [`in_place_silent`] with a text for what is wrong.
///
/// # Safety
/// As for [`read`].
#[inline]
pub(crate) unsafe fn in_place<T: Versioned>(
    given: *const T,
    room: &mut MaybeUninit<T>,
) -> Result<*const T, CallError> {
    // SAFETY: the caller's promise.
    unsafe { in_place_silent(given, room).map_err(|status| explained(given, status)) }
}

/// Reads a struct of another version.
///
/// # Safety
/// `given` is aligned and valid for reads of `size` bytes.
#[cold]
unsafe fn read_other<T: Versioned>(given: *const T, size: usize) -> Result<T, vipool_status> {
    // A size beyond all sense is a struct that was never initialised: do not go and read it.
    if !is_a_size::<T>(size) || size > size_of::<T>() + 4096 {
        return Err(VIPOOL_ERR_STRUCT_SIZE);
    }
    let known = size.min(size_of::<T>());
    // SAFETY: the caller vouches for `size` bytes; what is behind the known ones is read as bytes.
    let tail = unsafe { std::slice::from_raw_parts(given.cast::<u8>().add(known), size - known) };
    if tail.iter().any(|byte| *byte != 0) {
        return Err(VIPOOL_ERR_UNKNOWN_FIELD);
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are inside both; any bytes of a caller are a valid T, zeros too.
    Ok(unsafe {
        ptr::copy_nonoverlapping(given.cast::<u8>(), value.as_mut_ptr().cast(), known);
        value.assume_init()
    })
}

/// Reads an array of structs, which lie as far apart as the first of them says it is long. NULL is
/// allowed for none.
///
/// # Safety
/// `given` is NULL or aligned and valid for reads of `count` structs of that size.
pub(crate) unsafe fn read_array<T: Versioned>(
    given: *const T,
    count: usize,
) -> Result<Vec<T>, CallError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the caller's promise.
    let first = unsafe { read(given) }?;
    // SAFETY: not NULL, or there had been an error.
    let size = unsafe { given.cast::<usize>().read() };
    let mut items = vec![first];
    for place in 1..count {
        // SAFETY: the caller vouches for `count` structs of this size.
        let item = unsafe { given.byte_add(place * size) };
        // SAFETY: as above; a different size in the middle would read beyond the struct.
        if unsafe { item.cast::<usize>().read() } != size {
            return Err(VIPOOL_ERR_STRUCT_SIZE.with_message(format_args!(
                "{}: element {place} of an array has another size than the first",
                T::NAME
            )));
        }
        // SAFETY: as above.
        items.push(unsafe { read(item) }?);
    }
    Ok(items)
}

/// Checks a struct that is to be filled, before anything is done: NULL or a wrong size must not
/// cost a session.
///
/// # Safety
/// `out` is NULL or aligned and valid for writes of as many bytes as its first field says.
#[inline]
pub(crate) unsafe fn check_out<T: Versioned>(out: *mut T) -> Result<(), CallError> {
    // SAFETY: the caller's promise.
    unsafe { check_out_silent(out).map_err(|status| explained(out.cast_const(), status)) }
}

/// [`check_out`] without a text.
///
/// # Safety
/// As for [`check_out`].
#[inline]
pub(crate) unsafe fn check_out_silent<T: Versioned>(out: *mut T) -> Result<(), vipool_status> {
    if out.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: not NULL, and at least the size may be read.
    let size = unsafe { out.cast::<usize>().read() };
    if size == size_of::<T>() || is_a_size::<T>(size) && size <= size_of::<T>() + 4096 {
        return Ok(());
    }
    Err(VIPOOL_ERR_STRUCT_SIZE)
}

/// [`check_out`] where the caller may not want to be told: NULL.
///
/// # Safety
/// As for [`check_out`].
#[inline]
pub(crate) unsafe fn check_optional<T: Versioned>(out: *mut T) -> Result<(), CallError> {
    // SAFETY: the caller's promise.
    if out.is_null() { Ok(()) } else { unsafe { check_out(out) } }
}

/// [`fill`] where the caller may not want to be told: NULL.
///
/// # Safety
/// [`check_optional`] has accepted `out`; for the rest as for [`fill`].
#[inline]
pub(crate) unsafe fn fill_optional<T: Versioned>(out: *mut T, make: impl FnOnce(&mut T)) {
    if !out.is_null() {
        // SAFETY: the caller's promise.
        unsafe { fill(out, make) }
    }
}

/// Fills a struct of the caller's as far as it reaches, keeps its size, and zeroes what this
/// version does not know.
///
/// # Safety
/// [`check_out`] has accepted `out`, and it is valid for writes of as many bytes as it says.
#[inline]
pub(crate) unsafe fn write<T: Versioned>(out: *mut T, value: &T) {
    // SAFETY: the caller's promise; check_out has seen the size, which stays.
    unsafe {
        let size = out.cast::<usize>().read();
        fill(out, |place| *place = *value);
        out.cast::<usize>().write(size);
    }
}

/// [`write()`] in place: `make` sets the fields, but not the size. What it leaves alone stays as it
/// was.
///
/// # Safety
/// As for [`write()`].
#[inline]
pub(crate) unsafe fn fill<T: Versioned>(out: *mut T, make: impl FnOnce(&mut T)) {
    // SAFETY: check_out has seen the size.
    let size = unsafe { out.cast::<usize>().read() };
    if size == size_of::<T>() {
        // SAFETY: all of it is there, any bytes of a caller are a valid T, and nobody else uses it
        // during the call.
        make(unsafe { &mut *out });
    } else {
        // SAFETY: the caller vouches for as many bytes.
        unsafe { fill_other(out, make, size) }
    }
}

/// Fills a struct of another version.
///
/// # Safety
/// `out` is valid for writes of `size` bytes.
#[cold]
unsafe fn fill_other<T: Versioned>(out: *mut T, make: impl FnOnce(&mut T), size: usize) {
    // SAFETY: zeros are a valid T; both places have the bytes that are copied.
    unsafe {
        let mut value = MaybeUninit::<T>::zeroed().assume_init();
        make(&mut value);
        let known = size.min(size_of::<T>());
        let head = size_of::<usize>();
        let (from, to) = (ptr::from_ref(&value).cast::<u8>(), out.cast::<u8>());
        ptr::copy_nonoverlapping(from.add(head), to.add(head), known - head);
        ptr::write_bytes(to.add(known), 0, size - known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct sample {
        size: usize,
        first: u64,
        second: u32,
        third: u32,
    }
    layout!(sample { size, first, second, third });

    const FULL: sample = sample { size: size_of::<sample>(), first: 1, second: 2, third: 3 };

    fn take(size: usize, bytes: &mut [u64; 6]) -> Result<sample, vipool_status> {
        bytes[0] = size as u64;
        // SAFETY: six words, more than any size below.
        unsafe { read(bytes.as_ptr().cast()) }.map_err(|failure| failure.status)
    }

    #[test]
    fn older_and_newer_structs_are_read() {
        let mut bytes = [0, 1, 2 | 3 << 32, 0, 0, 0];
        assert_eq!(take(24, &mut bytes), Ok(FULL));
        assert_eq!(take(16, &mut bytes), Ok(sample { size: 16, second: 0, third: 0, ..FULL }));
        assert_eq!(take(48, &mut bytes), Ok(sample { size: 48, ..FULL }));
        bytes[5] = 1 << 63;
        assert_eq!(take(40, &mut bytes), Ok(sample { size: 40, ..FULL }));
        assert_eq!(take(48, &mut bytes), Err(VIPOOL_ERR_UNKNOWN_FIELD));
        // 20 is where a field begins, 28 is beyond the end: neither keeps an array aligned.
        for size in [0, 7, 12, 20, 23, 28, usize::MAX] {
            assert_eq!(take(size, &mut bytes), Err(VIPOOL_ERR_STRUCT_SIZE), "{size}");
        }
    }

    #[test]
    fn structs_are_filled_as_far_as_they_reach() {
        let mut bytes = [16u64, u64::MAX, u64::MAX, u64::MAX];
        // SAFETY: four words, as many as the sizes say.
        unsafe {
            check_out::<sample>(bytes.as_mut_ptr().cast()).unwrap();
            write(bytes.as_mut_ptr().cast(), &FULL);
        }
        assert_eq!(bytes, [16, 1, u64::MAX, u64::MAX]);
        bytes[0] = 32;
        // SAFETY: as above.
        unsafe { write(bytes.as_mut_ptr().cast(), &FULL) };
        assert_eq!(bytes, [32, 1, 2 | 3 << 32, 0]);
        // SAFETY: NULL is allowed.
        assert!(unsafe { check_out::<sample>(ptr::null_mut()) }.is_err());
    }
}
