//! WSAIoctl, from which programs get ConnectEx and the other extension functions (row 47).

use std::ffi::c_void;

use windows_sys::Win32::Networking::WinSock::{
    LPWSAOVERLAPPED_COMPLETION_ROUTINE, SIO_GET_EXTENSION_FUNCTION_POINTER, SOCKET,
    WSAID_CONNECTEX, WSAID_GETACCEPTEXSOCKADDRS, WSAID_WSARECVMSG, WSAID_WSASENDMSG,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::GUID;

use super::extension::{self, FunctionAddress};
use super::{connect, datagram, socket_names};
use crate::{context, memory, original};

/// Returns the variable that stores the system's address of the extension function with this GUID,
/// and the replacement of the function.
fn replacement_for(guid: &GUID) -> Option<(&'static FunctionAddress, *mut c_void)> {
    let fields = |guid: &GUID| (guid.data1, guid.data2, guid.data3, guid.data4);
    let is_guid = |known_guid: &GUID| fields(guid) == fields(known_guid);
    if is_guid(&WSAID_CONNECTEX) {
        Some((&extension::CONNECT_EX, connect::connect_ex as *mut c_void))
    } else if is_guid(&WSAID_GETACCEPTEXSOCKADDRS) {
        let replacement = socket_names::get_accept_ex_sockaddrs_extension as *mut c_void;
        Some((&extension::GET_ACCEPT_EX_SOCKADDRS, replacement))
    } else if is_guid(&WSAID_WSARECVMSG) {
        Some((&extension::WSA_RECV_MSG, datagram::wsa_recv_msg as *mut c_void))
    } else if is_guid(&WSAID_WSASENDMSG) {
        Some((&extension::WSA_SEND_MSG, datagram::wsa_send_msg_extension as *mut c_void))
    } else {
        None
    }
}

pub unsafe extern "system" fn wsa_ioctl(
    socket: SOCKET,
    control_code: u32,
    input: *const c_void,
    input_size: u32,
    output: *mut c_void,
    output_size: u32,
    returned: *mut u32,
    overlapped: *mut OVERLAPPED,
    routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
) -> i32 {
    // The hook reads the GUID before the call, because the input and output buffers may overlap. The
    // hook does not change the result of an overlapped call: its completion is queued, so another
    // thread of the program may already have freed the buffer.
    let guid = (control_code == SIO_GET_EXTENSION_FUNCTION_POINTER && overlapped.is_null())
        .then(|| memory::read(input.cast::<Guid>()))
        .flatten();
    // SAFETY: the arguments come from the program.
    let result = unsafe {
        original::WSAIoctl(
            socket,
            control_code,
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
        // A program requests the function once and keeps the result. So the program receives the
        // replacement even if its session has no address yet.
        && context::hooked_process().is_some()
        && let Some((function_address, replacement)) =
            guid.and_then(|guid| replacement_for(&guid.0))
    {
        let output = output.cast::<*mut c_void>();
        // SAFETY: the call succeeded, so the system wrote a pointer to `output`.
        let system_function = unsafe { output.read_unaligned() };
        // The replacement calls the stored function. If the function of another socket provider is
        // already stored, the program keeps `system_function`.
        if system_function != replacement && function_address.store_once(system_function) {
            // SAFETY: the system has just written a pointer to `output`.
            unsafe { output.write_unaligned(replacement) };
        }
    }
    result
}

/// A GUID that the program passes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Guid(GUID);

// SAFETY: the structure has integers only.
unsafe impl memory::Pod for Guid {}
