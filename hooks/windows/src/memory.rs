//! Reads memory through pointers of the program, which may be invalid.
//!
//! The system functions fail with WSAEFAULT for an invalid pointer. If a hook dereferenced such a
//! pointer, the program would crash instead. So the hook lets the kernel copy the memory. The
//! kernel reports a failure for an invalid pointer.

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};

use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Fills `buffer` from an address that may be invalid. Returns false if the memory is not readable.
pub fn read_bytes(source: *const c_void, buffer: &mut [u8]) -> bool {
    if source.is_null() {
        return false;
    }
    let mut bytes_read = 0;
    // SAFETY: the kernel checks the source. The destination is a slice of this length.
    let has_succeeded = unsafe {
        ReadProcessMemory(
            GetCurrentProcess(),
            source,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            &mut bytes_read,
        )
    } != 0;
    has_succeeded && bytes_read == buffer.len()
}

/// Reads a value from an address that may be invalid. Returns `None` if the memory is not readable.
pub fn read<T: Pod>(source: *const T) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the slice covers the value. All its bytes, also the padding, are set to zero in place
    // before the slice exists.
    let bytes = unsafe {
        value.as_mut_ptr().write_bytes(0, 1);
        std::slice::from_raw_parts_mut(value.as_mut_ptr().cast(), size_of::<T>())
    };
    // SAFETY: every byte pattern is a valid value of a `Pod` type.
    read_bytes(source.cast(), bytes).then(|| unsafe { value.assume_init() })
}

/// Plain old data: every byte pattern is a valid value.
///
/// # Safety
/// Every byte pattern must be a valid value of the type.
pub unsafe trait Pod: Copy {}

// SAFETY: an integer.
unsafe impl Pod for u8 {}
// SAFETY: an integer.
unsafe impl Pod for u16 {}
// SAFETY: an integer.
unsafe impl Pod for u32 {}
// SAFETY: an integer.
unsafe impl Pod for i32 {}
// SAFETY: the structure has integers and raw pointers only.
unsafe impl Pod for windows_sys::Win32::Networking::WinSock::WSAMSG {}
