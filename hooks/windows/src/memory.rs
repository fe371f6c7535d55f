//! Reading what the program points to, which may be anything.
//!
//! A bad pointer makes the system's own function answer WSAEFAULT; a hook that looked at it first
//! would crash the program instead. The kernel copies for us and says when it can't.

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};

use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Copies bytes from an address that need not be readable; false if they are not.
pub fn read_bytes(from: *const c_void, into: &mut [u8]) -> bool {
    // SAFETY: the kernel checks the source; the destination is a slice of this length.
    !from.is_null()
        && unsafe {
            let process = GetCurrentProcess();
            let mut got = 0;
            ReadProcessMemory(process, from, into.as_mut_ptr().cast(), into.len(), &mut got) != 0
                && got == into.len()
        }
}

/// A value at an address that need not be readable. For types of which any bytes are a value.
pub fn read<T: Plain>(from: *const T) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: the bytes of the value, all of them initialised.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(value.as_mut_ptr().cast(), size_of::<T>()) };
    // SAFETY: any bytes are a value of a plain type.
    read_bytes(from.cast(), bytes).then(|| unsafe { value.assume_init() })
}

/// A type of which any bytes are a value, and zeroes have no hidden ones.
///
/// # Safety
/// As just said.
pub unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u8 {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for i32 {}
// SAFETY: integers and pointers only.
unsafe impl Plain for windows_sys::Win32::Networking::WinSock::WSAMSG {}
