//! Structs of the caller. Each struct begins with its size, so that programs and libraries of
//! different versions work together.
//!
//! - A struct that is smaller than the struct of this version comes from an older version. As
//!   input, its missing members are zero. A struct that is smaller than its first version is an
//!   error, because its size is a mistake (such as the size of a pointer).
//! - A larger struct comes from a newer version. The bytes after the members of this version are
//!   unknown. As input, they must be zero. In output, the library writes zeros to them.
//! - A size that ends inside a member is an error.

use std::mem::{MaybeUninit, align_of, size_of};
use std::ptr;

use super::error::CallError;
use super::status::vipool_status::{self, *};

/// A type for which all bytes are a valid value. The library reads such types from memory of the
/// caller.
///
/// # Safety
/// All bytes that are initialised are a valid value.
pub unsafe trait AnyBytes {}

macro_rules! impl_any_bytes {
    ($([$($parameter:tt)*] $type:ty,)*) => {
        // SAFETY: an integer and a thin pointer permit all bytes, and an array permits what its
        // elements permit. A function pointer permits all bytes that are not zero, and `None` has
        // the bytes zero.
        $(unsafe impl<$($parameter)*> AnyBytes for $type {})*
    };
}

impl_any_bytes! {
    [] i8,
    [] u8,
    [] u16,
    [] u32,
    [] i32,
    [] u64,
    [] usize,
    [T] *const T,
    [T] *mut T,
    [T: AnyBytes, const N: usize] [T; N],
    [A, R] Option<unsafe extern "C" fn(A) -> R>,
    [A, B, R] Option<unsafe extern "C" fn(A, B) -> R>,
    [A, B, C, R] Option<unsafe extern "C" fn(A, B, C) -> R>,
    [A, B, C, D, E, R] Option<unsafe extern "C" fn(A, B, C, D, E) -> R>,
}

/// Returns the size of the field that the accessor returns.
pub(crate) const fn field_size<T, F: AnyBytes>(_accessor: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Implements [`AnyBytes`] for a struct. A field that is not listed, or whose type does not permit
/// all bytes, is a compile error.
macro_rules! any_bytes {
    ($name:ident { $($field:ident),* $(,)? }) => {
        const _: fn($name) = |value| {
            let $name { $($field: _),* } = value;
        };
        const _: &[usize] =
            &[$($crate::capi::layout::field_size(|value: &$name| &value.$field)),*];
        // SAFETY: every field permits all bytes.
        unsafe impl $crate::capi::layout::AnyBytes for $name {}
    };
}
pub(crate) use any_bytes;

/// A struct of the caller that begins with its size. `layout!` implements this trait.
///
/// # Safety
/// The struct is `repr(C)` and its first field is `size: usize`.
pub unsafe trait Versioned: AnyBytes + Copy {
    /// The C name.
    const NAME: &'static str;
    /// The name, offset and size of each field, in order. The fields leave no gaps, because a later
    /// version would read uncleared padding as a field.
    const FIELDS: &'static [(&'static str, usize, usize)];
    /// The size of the first version of the struct.
    const FIRST_SIZE: usize;
}

/// The maximum number of unknown bytes in a struct of a newer version.
const MAX_UNKNOWN_BYTES: usize = 4096;

/// Returns whether a struct of this size has bytes that belong to no field.
pub(crate) const fn has_padding(size: usize, fields: &[(&str, usize, usize)]) -> bool {
    let mut end = 0;
    let mut index = 0;
    while index < fields.len() {
        if fields[index].1 != end {
            return true;
        }
        end += fields[index].2;
        index += 1;
    }
    end != size
}

/// Implements [`Versioned`] for a struct of the caller, after the checks of `any_bytes!`. The
/// fields of later versions follow after a semicolon.
macro_rules! layout {
    ($name:ident { $($initial_field:ident),* $(,)? $(; $($later_field:ident),* $(,)?)? }) => {
        $crate::capi::layout::layout!(
            @impl $name [$($initial_field)*] [$($initial_field)* $($($later_field)*)?]
        );
    };
    (@impl $name:ident [$($initial_field:ident)*] [$($field:ident)*]) => {
        $crate::capi::layout::any_bytes!($name { $($field),* });
        const _: fn(&$name) -> &usize = |value| &value.size;
        // SAFETY: the assertions below check that the fields are in the order of repr(C), and that
        // the first field is the size. The line above checks its type.
        unsafe impl $crate::capi::layout::Versioned for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [(&'static str, usize, usize)] = &[$((
                stringify!($field),
                std::mem::offset_of!($name, $field),
                $crate::capi::layout::field_size(|value: &$name| &value.$field),
            )),*];
            // The fields leave no gaps, so the first version is as large as its fields together.
            const FIRST_SIZE: usize =
                0 $(+ $crate::capi::layout::field_size(|value: &$name| &value.$initial_field))*;
        }
        const _: () = assert!(
            !$crate::capi::layout::has_padding(
                size_of::<$name>(),
                <$name as $crate::capi::layout::Versioned>::FIELDS
            ),
            "declare the padding as a reserved field"
        );
        const _: () = assert!(
            std::mem::offset_of!($name, size) == 0,
            "declare the size as the first field"
        );
    };
}
pub(crate) use layout;

/// Returns whether some version of the struct can have this size.
///
/// A valid size is the offset of a field, or at least the size of the struct. It is not below the
/// size of the first version. It is a multiple of the alignment, so that the next element of an
/// array is aligned. An excessive size is probably uninitialised memory, so it is not valid.
pub(crate) fn is_valid_size<T: Versioned>(size: usize) -> bool {
    let ends_at_field_start = || T::FIELDS.iter().any(|(_, offset, _)| *offset == size);
    size.is_multiple_of(align_of::<T>())
        && size >= T::FIRST_SIZE
        && size <= size_of::<T>() + MAX_UNKNOWN_BYTES
        && (size >= size_of::<T>() || ends_at_field_start())
}

#[cold]
fn size_error<T: Versioned>(size: usize) -> CallError {
    VIPOOL_ERR_STRUCT_SIZE.with_message(format_args!(
        "{}: invalid size {size}, this version of the struct has {} bytes (set size to sizeof({}))",
        T::NAME,
        size_of::<T>(),
        T::NAME,
    ))
}

/// Converts the status of a failed read or check to an error. For an invalid size, adds a message.
///
/// # Safety
/// `source` is NULL or its size is readable.
#[cold]
pub(crate) unsafe fn with_size_message<T: Versioned>(
    source: *const T,
    status: vipool_status,
) -> CallError {
    match status {
        // SAFETY: with this status the pointer is not NULL, and the caller guarantees that the size
        // is readable.
        VIPOOL_ERR_STRUCT_SIZE => size_error::<T>(unsafe { source.cast::<usize>().read() }),
        status => status.into(),
    }
}

/// Reads a struct of the caller.
///
/// # Safety
/// `source` is NULL, or aligned and valid for reads of `(*source).size` bytes.
pub(crate) unsafe fn read<T: Versioned>(source: *const T) -> Result<T, CallError> {
    // SAFETY: the caller guarantees the pointer.
    unsafe { read_silent(source).map_err(|status| with_size_message(source, status)) }
}

/// Reads a struct like [`read`], but adds no message to an error. For signal-safe functions.
///
/// # Safety
/// As for [`read`].
#[inline]
pub(crate) unsafe fn read_silent<T: Versioned>(source: *const T) -> Result<T, vipool_status> {
    if source.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: not NULL; the caller guarantees that at least the size is readable.
    let size = unsafe { source.cast::<usize>().read() };
    if size == size_of::<T>() {
        // SAFETY: the whole struct is readable, and all bytes are a valid T.
        return Ok(unsafe { source.read() });
    }
    // SAFETY: not NULL; the caller guarantees `size` bytes.
    unsafe { read_other_version(source, size) }
}

/// Returns `source` if the struct has the size of this version. This saves a copy on the hot path.
/// Otherwise, copies the struct to `storage`, with zeros for missing members, and returns a pointer
/// to the copy.
///
/// Read each field through the pointer. Do not create a reference to the struct, because a callback
/// of the caller may change the struct.
///
/// # Safety
/// As for [`read`].
#[inline]
pub(crate) unsafe fn read_in_place_silent<T: Versioned>(
    source: *const T,
    storage: &mut MaybeUninit<T>,
) -> Result<*const T, vipool_status> {
    if source.is_null() {
        return Err(VIPOOL_ERR_NULL);
    }
    // SAFETY: not NULL; the caller guarantees that at least the size is readable.
    let size = unsafe { source.cast::<usize>().read() };
    if size == size_of::<T>() {
        return Ok(source);
    }
    // SAFETY: not NULL; the caller guarantees `size` bytes.
    Ok(storage.write(unsafe { read_other_version(source, size) }?))
}

/// Returns a pointer like [`read_in_place_silent`], but adds a message to an error.
///
/// # Safety
/// As for [`read`].
#[inline]
pub(crate) unsafe fn read_in_place<T: Versioned>(
    source: *const T,
    storage: &mut MaybeUninit<T>,
) -> Result<*const T, CallError> {
    // SAFETY: the caller guarantees the pointer.
    unsafe {
        read_in_place_silent(source, storage).map_err(|status| with_size_message(source, status))
    }
}

/// Reads a struct of another version.
///
/// # Safety
/// `source` is aligned and valid for reads of `size` bytes.
#[cold]
unsafe fn read_other_version<T: Versioned>(
    source: *const T,
    size: usize,
) -> Result<T, vipool_status> {
    if !is_valid_size::<T>(size) {
        return Err(VIPOOL_ERR_STRUCT_SIZE);
    }
    let known_length = size.min(size_of::<T>());
    // SAFETY: the caller guarantees `size` bytes.
    let unknown_bytes = unsafe {
        std::slice::from_raw_parts(source.cast::<u8>().add(known_length), size - known_length)
    };
    if unknown_bytes.iter().any(|byte| *byte != 0) {
        return Err(VIPOOL_ERR_UNKNOWN_FIELD);
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: source and value both have `known_length` bytes. All bytes, zeros included, are a
    // valid T.
    Ok(unsafe {
        ptr::copy_nonoverlapping(source.cast::<u8>(), value.as_mut_ptr().cast(), known_length);
        value.assume_init()
    })
}

/// Reads an array of structs. The size in the first element is the distance between elements. NULL
/// is allowed with count 0.
///
/// # Safety
/// `source` is NULL, or aligned and valid for reads of `count` structs of that size.
pub(crate) unsafe fn read_array<T: Versioned>(
    source: *const T,
    count: usize,
) -> Result<Vec<T>, CallError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the caller guarantees the pointer.
    let first_element = unsafe { read(source) }?;
    // SAFETY: `read` has rejected NULL.
    let size = unsafe { source.cast::<usize>().read() };
    if count > isize::MAX as usize / size {
        return Err(VIPOOL_ERR_BUFFER.into());
    }
    let mut elements = vec![first_element];
    for index in 1..count {
        // SAFETY: the caller guarantees `count` structs of this size.
        let element = unsafe { source.byte_add(index * size) };
        // SAFETY: as above. With another size, `read` would access memory outside the element.
        if unsafe { element.cast::<usize>().read() } != size {
            return Err(VIPOOL_ERR_STRUCT_SIZE.with_message(format_args!(
                "{}: element {index} of an array has another size than the first",
                T::NAME
            )));
        }
        // SAFETY: as above.
        elements.push(unsafe { read(element) }?);
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct sample {
        size: usize,
        number: u64,
        kind: u32,
        flags: u32,
    }
    layout!(sample { size, number; kind, flags });

    const COMPLETE_SAMPLE: sample =
        sample { size: size_of::<sample>(), number: 1, kind: 2, flags: 3 };

    fn read_sample(size: usize, words: &mut [u64; 6]) -> Result<sample, vipool_status> {
        words[0] = size as u64;
        // SAFETY: no valid size below is larger than six words.
        unsafe { read(words.as_ptr().cast()) }.map_err(|error| error.status)
    }

    #[test]
    fn array_above_the_maximum_size_of_an_object_is_rejected() {
        let elements = [COMPLETE_SAMPLE; 2];
        for count in [usize::MAX, usize::MAX / size_of::<sample>() + 2] {
            // SAFETY: the array has two elements. `read_array` rejects the count after the first.
            let result = unsafe { read_array(elements.as_ptr(), count) };
            assert_eq!(result.map_err(|error| error.status), Err(VIPOOL_ERR_BUFFER), "{count}");
        }
    }

    #[test]
    fn older_and_newer_structs_are_accepted() {
        let mut words = [0, 1, 2 | 3 << 32, 0, 0, 0];
        assert_eq!(read_sample(24, &mut words), Ok(COMPLETE_SAMPLE));
        assert_eq!(
            read_sample(16, &mut words),
            Ok(sample { size: 16, kind: 0, flags: 0, ..COMPLETE_SAMPLE })
        );
        assert_eq!(read_sample(48, &mut words), Ok(sample { size: 48, ..COMPLETE_SAMPLE }));
        words[5] = 1 << 63;
        assert_eq!(read_sample(40, &mut words), Ok(sample { size: 40, ..COMPLETE_SAMPLE }));
        assert_eq!(read_sample(48, &mut words), Err(VIPOOL_ERR_UNKNOWN_FIELD));
        // A field begins at 20, and 28 is beyond the end, but neither is a multiple of the
        // alignment. The first version has 16 bytes, so 8 is too small.
        for size in [0, 7, 8, 12, 20, 23, 28, usize::MAX] {
            assert_eq!(read_sample(size, &mut words), Err(VIPOOL_ERR_STRUCT_SIZE), "{size}");
        }
    }
}
