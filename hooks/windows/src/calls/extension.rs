//! The system's own extension functions, such as ConnectEx.
//!
//! Programs get the addresses of these functions from WSAIoctl. [`super::ioctl`] returns the
//! addresses of the replacements instead, because `crate::detour` hooks only exported functions,
//! and no DLL exports ConnectEx or WSARecvMsg. This module stores the system's address of each
//! function before the program receives the replacement.

use std::ffi::c_void;
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use windows_sys::Win32::Networking::WinSock::{
    LPFN_CONNECTEX, LPFN_GETACCEPTEXSOCKADDRS, LPFN_WSARECVMSG, LPFN_WSASENDMSG,
};

/// The system's address of an extension function; NULL until the program requests the function.
pub struct FunctionAddress(AtomicPtr<c_void>);

pub static CONNECT_EX: FunctionAddress = FunctionAddress::new();
pub static GET_ACCEPT_EX_SOCKADDRS: FunctionAddress = FunctionAddress::new();
pub static WSA_RECV_MSG: FunctionAddress = FunctionAddress::new();
pub static WSA_SEND_MSG: FunctionAddress = FunctionAddress::new();

impl FunctionAddress {
    const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Stores the address if none is stored. Returns whether `function` is now the stored address.
    pub fn store_once(&self, function: *mut c_void) -> bool {
        let result =
            self.0.compare_exchange(null_mut(), function, Ordering::AcqRel, Ordering::Acquire);
        result.map_or_else(|stored| stored == function, |_| true)
    }

    fn load(&self) -> *mut c_void {
        self.0.load(Ordering::Acquire)
    }
}

/// Returns the system's ConnectEx, or `None` until the program requests it.
pub fn connect_ex() -> LPFN_CONNECTEX {
    // SAFETY: the stored address is NULL, which is `None`, or the function that WSAIoctl returned.
    unsafe { transmute(CONNECT_EX.load()) }
}

/// Returns the system's GetAcceptExSockaddrs, or `None` until the program requests it.
pub fn get_accept_ex_sockaddrs() -> LPFN_GETACCEPTEXSOCKADDRS {
    // SAFETY: the stored address is NULL, which is `None`, or the function that WSAIoctl returned.
    unsafe { transmute(GET_ACCEPT_EX_SOCKADDRS.load()) }
}

/// Returns the system's WSARecvMsg, or `None` until the program requests it.
pub fn wsa_recv_msg() -> LPFN_WSARECVMSG {
    // SAFETY: the stored address is NULL, which is `None`, or the function that WSAIoctl returned.
    unsafe { transmute(WSA_RECV_MSG.load()) }
}

/// Returns the system's WSASendMsg, or `None` until the program requests it.
pub fn wsa_send_msg() -> LPFN_WSASENDMSG {
    // SAFETY: the stored address is NULL, which is `None`, or the function that WSAIoctl returned.
    unsafe { transmute(WSA_SEND_MSG.load()) }
}
