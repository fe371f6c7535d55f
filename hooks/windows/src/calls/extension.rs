//! WSAIoctl, by which programs get ConnectEx and the like: what is not exported can't be hooked,
//! so the program is handed replacement (row 47).

use std::ffi::c_void;
use std::mem::transmute;
use std::sync::atomic::{AtomicPtr, Ordering};

use windows_sys::Win32::Networking::WinSock::{
    LPFN_CONNECTEX, LPFN_GETACCEPTEXSOCKADDRS, LPFN_WSARECVMSG, LPFN_WSASENDMSG,
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, SIO_GET_EXTENSION_FUNCTION_POINTER, SOCKET,
    WSAID_CONNECTEX, WSAID_GETACCEPTEXSOCKADDRS, WSAID_WSARECVMSG, WSAID_WSASENDMSG,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::GUID;

use super::{connect, datagram, socket_names};
use crate::memory;
use crate::table::original;

/// The system's own, once somebody asked for it. Set before anybody has the one of replacement that
/// stands for it.
type Slot = AtomicPtr<c_void>;

static CONNECT_EX: Slot = Slot::new(std::ptr::null_mut());
static GET_ACCEPT_EX_SOCKADDRS: Slot = Slot::new(std::ptr::null_mut());
static WSA_RECV_MSG: Slot = Slot::new(std::ptr::null_mut());
static WSA_SEND_MSG: Slot = Slot::new(std::ptr::null_mut());

/// The system's ConnectEx.
pub fn connect_ex() -> LPFN_CONNECTEX {
    // SAFETY: NULL, which is None, or what the system gave for this GUID.
    unsafe { transmute(CONNECT_EX.load(Ordering::Acquire)) }
}

/// The system's GetAcceptExSockaddrs, as WSAIoctl gives it.
pub fn get_accept_ex_sockaddrs() -> LPFN_GETACCEPTEXSOCKADDRS {
    // SAFETY: NULL, which is None, or what the system gave for this GUID.
    unsafe { transmute(GET_ACCEPT_EX_SOCKADDRS.load(Ordering::Acquire)) }
}

/// The system's WSARecvMsg.
pub fn wsa_recv_msg() -> LPFN_WSARECVMSG {
    // SAFETY: NULL, which is None, or what the system gave for this GUID.
    unsafe { transmute(WSA_RECV_MSG.load(Ordering::Acquire)) }
}

/// The system's WSASendMsg, as WSAIoctl gives it.
pub fn wsa_send_msg() -> LPFN_WSASENDMSG {
    // SAFETY: NULL, which is None, or what the system gave for this GUID.
    unsafe { transmute(WSA_SEND_MSG.load(Ordering::Acquire)) }
}

/// Where the system's own is kept, and replacement, for a GUID that we stand for.
fn replacement_for(guid: &GUID) -> Option<(&'static Slot, *mut c_void)> {
    let parts = |guid: &GUID| (guid.data1, guid.data2, guid.data3, guid.data4);
    let equals = |other: &GUID| parts(guid) == parts(other);
    if equals(&WSAID_CONNECTEX) {
        Some((&CONNECT_EX, connect::connect_ex as *mut c_void))
    } else if equals(&WSAID_GETACCEPTEXSOCKADDRS) {
        Some((
            &GET_ACCEPT_EX_SOCKADDRS,
            socket_names::get_accept_ex_sockaddrs_extension as *mut c_void,
        ))
    } else if equals(&WSAID_WSARECVMSG) {
        Some((&WSA_RECV_MSG, datagram::wsa_recv_msg as *mut c_void))
    } else if equals(&WSAID_WSASENDMSG) {
        Some((&WSA_SEND_MSG, datagram::wsa_send_msg_extension as *mut c_void))
    } else {
        None
    }
}

pub unsafe extern "system" fn wsa_ioctl(
    s: SOCKET,
    code: u32,
    input: *const c_void,
    input_size: u32,
    output: *mut c_void,
    output_size: u32,
    returned: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    // SAFETY: the program's own call.
    let result = unsafe {
        original::WSAIoctl(
            s,
            code,
            input,
            input_size,
            output,
            output_size,
            returned,
            overlapped,
            routine,
        )
    };
    if result == 0
        && code == SIO_GET_EXTENSION_FUNCTION_POINTER
        // Also before its session has an address, since a program asks once.
        && crate::context::hooked_process().is_some()
        && let Some((slot, replacement)) =
            memory::read(input.cast::<Guid>()).and_then(|guid| replacement_for(&guid.0))
    {
        let output = output.cast::<*mut c_void>();
        // SAFETY: the call succeeded, so the system wrote a pointer there.
        let system_function = unsafe { output.read_unaligned() };
        let stored = slot.compare_exchange(
            std::ptr::null_mut(),
            system_function,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        // Another provider's function of the same name is not the one we would call: it stays.
        if system_function != replacement
            && stored.map_or_else(|stored| stored == system_function, |_| true)
        {
            // SAFETY: as above.
            unsafe { output.write_unaligned(replacement) };
        }
    }
    result
}

/// A GUID as the program gave it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Guid(GUID);

// SAFETY: integers only.
unsafe impl memory::Pod for Guid {}
