//! The replacement of each hooked function.

use std::ffi::c_void;

use crate::calls::{adapters, bind, connect, datagram, ioctl, resolver, socket_names};
use crate::child_process;
use crate::detour::Detour;
use crate::original;

/// Defines a table of detours. The table does not compile if a replacement and its original have
/// different signatures.
macro_rules! detours {
    ($($name:ident => $replacement:path,)*) => {
        &[$(Detour {
            original: &original::functions::$name,
            replacement: || {
                let replacement: original::$name = $replacement;
                replacement as *mut c_void
            },
        }),*]
    };
}

/// The socket calls and the name resolver.
pub static SOCKETS: &[Detour] = detours! {
    bind => bind::bind,
    listen => bind::listen,
    closesocket => bind::closesocket,
    connect => connect::connect,
    WSAConnect => connect::wsa_connect,
    accept => socket_names::accept,
    WSAAccept => socket_names::wsa_accept,
    getsockname => socket_names::getsockname,
    getpeername => socket_names::getpeername,
    sendto => datagram::sendto,
    WSASendTo => datagram::wsa_send_to,
    WSASendMsg => datagram::wsa_send_msg,
    recvfrom => datagram::recvfrom,
    WSARecvFrom => datagram::wsa_recv_from,
    WSAIoctl => ioctl::wsa_ioctl,
    gethostbyname => resolver::gethostbyname,
    gethostbyaddr => resolver::gethostbyaddr,
    getaddrinfo => resolver::getaddrinfo,
    GetAddrInfoW => resolver::get_addr_info_w,
    GetAddrInfoExW => resolver::get_addr_info_ex_w,
    getnameinfo => resolver::getnameinfo,
    GetNameInfoW => resolver::get_name_info_w,
    GetAcceptExSockaddrs => socket_names::get_accept_ex_sockaddrs,
};

/// The functions that list interfaces. The hook layer hooks them only if the policy hides addresses
/// when `vipool_hook_install` runs (row 43).
pub static INTERFACES: &[Detour] = detours! {
    GetAdaptersAddresses => adapters::get_adapters_addresses,
    GetAdaptersInfo => adapters::get_adapters_info,
};

/// The functions that start processes.
pub static PROCESSES: &[Detour] = detours! {
    CreateProcessA => child_process::create_process_a,
    CreateProcessW => child_process::create_process_w,
    CreateProcessAsUserW => child_process::create_process_as_user_w,
};
