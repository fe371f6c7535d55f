//! Reading what the program points to, which may be anything.
//!
//! A bad pointer makes the system's own function answer WSAEFAULT; a hook that looked at it first
//! would crash the program instead. The kernel copies for us and says when it can't.

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};

use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Copies bytes from an address that need not be readable; false if they are not.
pub fn read_bytes(source: *const c_void, buffer: &mut [u8]) -> bool {
    // SAFETY: the kernel checks the source; the destination is a slice of this length.
    !source.is_null()
        && unsafe {
            let process = GetCurrentProcess();
            let mut bytes_read = 0;
            ReadProcessMemory(
                process,
                source,
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                &mut bytes_read,
            ) != 0
                && bytes_read == buffer.len()
        }
}

/// A value at an address that need not be readable. For types of which any bytes are a value.
pub fn read<T: Pod>(source: *const T) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the bytes of the value, all of them initialised.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast(), size_of::<T>()) };
    // SAFETY: any bytes are a value of a plain type.
    read_bytes(source.cast(), bytes).then(|| unsafe { value.assume_init() })
}

/// A type of which any bytes are a value, and zeroes have no hidden ones.
///
/// # Safety
/// As just said.
pub unsafe trait Pod: Copy {}

// SAFETY: an integer.
unsafe impl Pod for u8 {}
// SAFETY: an integer.
unsafe impl Pod for u16 {}
// SAFETY: an integer.
unsafe impl Pod for u32 {}
// SAFETY: an integer.
unsafe impl Pod for i32 {}
// SAFETY: integers and pointers only.
unsafe impl Pod for windows_sys::Win32::Networking::WinSock::WSAMSG {}
