//! The last error of the thread: GetLastError and WSAGetLastError return the same value.
//!
//! The program must see the error that its own call set. So the hook layer saves the error before
//! its own system calls and restores it afterwards.

use vipool::rewrite::Refusal;
use windows_sys::Win32::Foundation::{GetLastError, SetLastError};
use windows_sys::Win32::Networking::WinSock::WSAEADDRNOTAVAIL;

/// A saved last error.
pub struct LastError(u32);

impl LastError {
    /// Saves the last error of this thread.
    pub fn save() -> Self {
        // SAFETY: the function only reads the last error of this thread.
        Self(unsafe { GetLastError() })
    }

    /// Restores the saved value as the last error of this thread.
    pub fn restore(&self) {
        // SAFETY: the function only writes the last error of this thread.
        unsafe { SetLastError(self.0) };
    }
}

/// Returns the last error of this thread as a Winsock error code.
pub fn last_error() -> i32 {
    LastError::save().0 as i32
}

/// Sets the last error of this thread to a Winsock error code.
pub fn set_last_error(code: i32) {
    LastError(code as u32).restore();
}

/// Returns the Winsock error code for a refused call.
pub fn error_of_refusal(refusal: Refusal) -> i32 {
    match refusal {
        Refusal::OtherSessionAddress | Refusal::SharedIpv6Wildcard => WSAEADDRNOTAVAIL,
        Refusal::ListenersUnknown { error } => error,
    }
}

/// Returns whether the last error means that no interface has the requested address.
pub fn is_address_unavailable() -> bool {
    last_error() == WSAEADDRNOTAVAIL
}
