//! Output structs of the caller.
//!
//! The library checks an output struct before an operation, and fills it after the operation. In
//! between, a callback of the caller may change the struct, so the library reads the size only
//! once. The library reads no other member, because the caller need not initialise it.

use std::mem::MaybeUninit;
use std::ptr;

use super::error::CallError;
use super::layout::{Versioned, is_valid_size, with_size_message};
use super::status::vipool_status::{self, *};

/// An output struct whose size has been checked. It is valid for writes of `size` bytes, and `size`
/// is the size of some version of the struct.
pub(crate) struct CheckedOut<T> {
    out: *mut T,
    size: usize,
}

/// Checks an output struct before the operation starts. If a later check failed, an operation could
/// already have opened a session, and the caller would not receive its handle.
///
/// # Safety
/// `out` is NULL, or aligned and valid for writes of `(*out).size` bytes as long as the result is
/// used. The size is readable.
#[inline]
pub(crate) unsafe fn check_out<T: Versioned>(out: *mut T) -> Result<CheckedOut<T>, CallError> {
    // SAFETY: the caller guarantees the pointer.
    unsafe { check_out_silent(out).map_err(|status| with_size_message(out.cast_const(), status)) }
}

/// Checks an output struct like [`check_out`], but adds no message to an error.
///
/// # Safety
/// As for [`check_out`].
#[inline]
pub(crate) unsafe fn check_out_silent<T: Versioned>(
    out: *mut T,
) -> Result<CheckedOut<T>, vipool_status> {
    if out.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: not NULL; the caller guarantees that at least the size is readable.
    let size = unsafe { out.cast::<usize>().read() };
    if size == size_of::<T>() || is_valid_size::<T>(size) {
        return Ok(CheckedOut { out, size });
    }
    Err(VIPOOL_ERR_STRUCT_SIZE)
}

/// Checks an output struct like [`check_out`]. Returns `None` for NULL.
///
/// # Safety
/// As for [`check_out`].
#[inline]
pub(crate) unsafe fn check_optional_out<T: Versioned>(
    out: *mut T,
) -> Result<Option<CheckedOut<T>>, CallError> {
    if out.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller guarantees the pointer.
    unsafe { check_out(out) }.map(Some)
}

impl<T: Versioned> CheckedOut<T> {
    /// Returns the element `index` of the array that begins with this struct. The size of this
    /// struct is the distance between the elements.
    ///
    /// # Safety
    /// The array has more than `index` elements, which are valid for writes of this size as long as
    /// the result is used.
    pub(crate) unsafe fn element(&self, index: usize) -> Self {
        // SAFETY: the caller guarantees that the element is in the array.
        Self { out: unsafe { self.out.byte_add(index * self.size) }, size: self.size }
    }

    /// Writes the members of `value` that fit into the struct, and the size that was checked.
    /// Zeroes unknown bytes.
    #[inline]
    pub(crate) fn write(self, value: &T) {
        self.fill(|out| {
            out.write(*value);
        });
    }

    /// Fills the struct with `set_fields`, and writes the size that was checked. If `set_fields`
    /// does not set a field, the field keeps its value in a struct of this version, and becomes
    /// zero in a struct of another version. `set_fields` calls no callback of the caller, because a
    /// reference to the struct exists while it runs.
    #[inline]
    pub(crate) fn fill(self, set_fields: impl FnOnce(&mut MaybeUninit<T>)) {
        let Self { out, size } = self;
        if size == size_of::<T>() {
            // SAFETY: the whole struct is writable, and its bytes may be uninitialised. No other
            // code uses the struct, because `set_fields` calls no callback.
            set_fields(unsafe { &mut *out.cast() });
        } else {
            // SAFETY: `out` is valid for writes of `size` bytes.
            unsafe { fill_other_version(out, set_fields, size) }
        }
        // SAFETY: each version begins with the size.
        unsafe { out.cast::<usize>().write(size) };
    }
}

/// Fills an output struct of another version, except its size.
///
/// # Safety
/// `out` is valid for writes of `size` bytes, and `size` is the size of some version.
#[cold]
unsafe fn fill_other_version<T: Versioned>(
    out: *mut T,
    set_fields: impl FnOnce(&mut MaybeUninit<T>),
    size: usize,
) {
    let mut value = MaybeUninit::zeroed();
    set_fields(&mut value);
    let known_length = size.min(size_of::<T>());
    let first_field_offset = size_of::<usize>();
    // SAFETY: both structs contain the copied bytes, because each version begins with the size. The
    // caller guarantees the bytes of `out` that are zeroed.
    unsafe {
        let (value_bytes, out_bytes) = (value.as_ptr().cast::<u8>(), out.cast::<u8>());
        ptr::copy_nonoverlapping(
            value_bytes.add(first_field_offset),
            out_bytes.add(first_field_offset),
            known_length - first_field_offset,
        );
        ptr::write_bytes(out_bytes.add(known_length), 0, size - known_length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::layout::layout;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct sample {
        size: usize,
        number: u64,
        kind: u32,
        flags: u32,
    }
    layout!(sample { size, number; kind, flags });

    const COMPLETE_SAMPLE: sample =
        sample { size: size_of::<sample>(), number: 1, kind: 2, flags: 3 };

    /// Checks the words as a [`sample`], overwrites their size with `changed_size`, and writes
    /// [`COMPLETE_SAMPLE`].
    fn write_sample(words: &mut [usize; 4], changed_size: usize) -> Result<(), vipool_status> {
        let out = words.as_mut_ptr();
        // SAFETY: the array has 32 bytes, and no valid size in these tests is larger.
        unsafe {
            let checked_out = check_out_silent::<sample>(out.cast())?;
            out.write(changed_size);
            checked_out.write(&COMPLETE_SAMPLE);
        }
        Ok(())
    }

    #[test]
    fn output_is_written_as_far_as_it_fits() {
        const UNCHANGED: usize = usize::MAX;
        let with_size = |size| [size, UNCHANGED, UNCHANGED, UNCHANGED];
        for (size, expected) in [
            (16, [16, 1, UNCHANGED, UNCHANGED]),
            (24, [24, 1, 2 | 3 << 32, UNCHANGED]),
            (32, [32, 1, 2 | 3 << 32, 0]),
        ] {
            // A callback may change the size between check and write.
            for changed_size in [size, 0, UNCHANGED] {
                let mut words = with_size(size);
                assert_eq!(write_sample(&mut words, changed_size), Ok(()));
                assert_eq!(words, expected, "{size}, changed to {changed_size}");
            }
        }
        assert_eq!(write_sample(&mut with_size(8), 8), Err(VIPOOL_ERR_STRUCT_SIZE));
        // SAFETY: NULL is allowed.
        assert!(unsafe { check_out::<sample>(ptr::null_mut()) }.is_err());
    }
}
