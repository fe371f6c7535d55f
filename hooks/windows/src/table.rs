//! Every function that is hooked, with the one of ours that stands for it.
//!
//! AcceptEx is not among them: it takes no address, and those that it gives are read with
//! GetAcceptExSockaddrs. socket and WSASocketW are not: nothing is kept per socket but what
//! [`crate::deferred`] says, and that begins with a bind.

use std::ffi::c_void;

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::NetworkManagement::IpHelper::{
    self, IP_ADAPTER_ADDRESSES_LH, IP_ADAPTER_INFO,
};
use windows_sys::Win32::Networking::WinSock::{
    self, ADDRINFOA, ADDRINFOEXW, ADDRINFOW, HOSTENT, LPCONDITIONPROC,
    LPLOOKUPSERVICE_COMPLETION_ROUTINE, LPWSAOVERLAPPED_COMPLETION_ROUTINE, QOS, SOCKADDR, SOCKET,
    TIMEVAL, WSABUF, WSAMSG,
};
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::core::{GUID, PCSTR, PCWSTR, PSTR, PWSTR};

use crate::calls::{adapters, bind, connect, datagram, extension, resolver, socket_names};
use crate::detour::detours;

detours! {
    /// The socket calls.
    SOCKETS from WinSock;
    "ws2_32.dll" {
        bind(s: SOCKET, name: *const SOCKADDR, length: i32) -> i32 => bind::bind;
        listen(s: SOCKET, backlog: i32) -> i32 => bind::listen;
        closesocket(s: SOCKET) -> i32 => bind::closesocket;
        connect(s: SOCKET, name: *const SOCKADDR, length: i32) -> i32 => connect::connect;
        WSAConnect(
            s: SOCKET, name: *const SOCKADDR, length: i32, caller: *const WSABUF,
            callee: *mut WSABUF, quality: *const QOS, group: *const QOS,
        ) -> i32 => connect::wsa_connect;
        accept(s: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> SOCKET => socket_names::accept;
        WSAAccept(
            s: SOCKET, name: *mut SOCKADDR, length: *mut i32, condition: LPCONDITIONPROC,
            data: usize,
        ) -> SOCKET => socket_names::wsa_accept;
        getsockname(s: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> i32 => socket_names::getsockname;
        getpeername(s: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> i32 => socket_names::getpeername;
        sendto(
            s: SOCKET, data: PCSTR, size: i32, flags: i32, to: *const SOCKADDR, length: i32,
        ) -> i32 => datagram::sendto;
        WSASendTo(
            s: SOCKET, data: *const WSABUF, count: u32, sent: *mut u32, flags: u32,
            to: *const SOCKADDR, length: i32, overlapped: *mut OVERLAPPED,
            routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32 => datagram::wsa_send_to;
        WSASendMsg(
            s: SOCKET, message: *const WSAMSG, flags: u32, sent: *mut u32,
            overlapped: *mut OVERLAPPED, routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32 => datagram::wsa_send_msg;
        recvfrom(
            s: SOCKET, data: PSTR, size: i32, flags: i32, from: *mut SOCKADDR, length: *mut i32,
        ) -> i32 => datagram::recvfrom;
        WSARecvFrom(
            s: SOCKET, data: *const WSABUF, count: u32, received: *mut u32, flags: *mut u32,
            from: *mut SOCKADDR, length: *mut i32, overlapped: *mut OVERLAPPED,
            routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32 => datagram::wsa_recv_from;
        WSAIoctl(
            s: SOCKET, code: u32, input: *const c_void, input_size: u32, output: *mut c_void,
            output_size: u32, returned: *mut u32, overlapped: *mut OVERLAPPED,
            routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32 => extension::wsa_ioctl;
        gethostbyname(name: PCSTR) -> *mut HOSTENT => resolver::gethostbyname;
        gethostbyaddr(address: PCSTR, length: i32, family: i32) -> *mut HOSTENT
            => resolver::gethostbyaddr;
        getaddrinfo(
            name: PCSTR, service: PCSTR, hints: *const ADDRINFOA, result: *mut *mut ADDRINFOA,
        ) -> i32 => resolver::getaddrinfo;
        GetAddrInfoW(
            name: PCWSTR, service: PCWSTR, hints: *const ADDRINFOW, result: *mut *mut ADDRINFOW,
        ) -> i32 => resolver::get_addr_info_w;
        GetAddrInfoExW(
            name: PCWSTR, service: PCWSTR, namespace: u32, provider: *const GUID,
            hints: *const ADDRINFOEXW, result: *mut *mut ADDRINFOEXW, timeout: *const TIMEVAL,
            overlapped: *const OVERLAPPED, routine: LPLOOKUPSERVICE_COMPLETION_ROUTINE,
            handle: *mut HANDLE,
        ) -> i32 => resolver::get_addr_info_ex_w;
        getnameinfo(
            name: *const SOCKADDR, length: i32, host: PSTR, host_size: u32, service: PSTR,
            service_size: u32, flags: i32,
        ) -> i32 => resolver::getnameinfo;
        GetNameInfoW(
            name: *const SOCKADDR, length: i32, host: PWSTR, host_size: u32, service: PWSTR,
            service_size: u32, flags: i32,
        ) -> i32 => resolver::get_name_info_w;
    }
    "mswsock.dll" {
        GetAcceptExSockaddrs(
            buffer: *const c_void, received: u32, local_size: u32, remote_size: u32,
            local: *mut *mut SOCKADDR, local_length: *mut i32, remote: *mut *mut SOCKADDR,
            remote_length: *mut i32,
        ) -> () => socket_names::get_accept_ex_sockaddrs;
    }
}

/// What lists the interfaces.
pub mod interfaces {
    use super::*;

    detours! {
        /// What lists the interfaces; hooked where the policy says so when the program starts
        /// (row 43).
        TABLE from IpHelper;
        "iphlpapi.dll" {
            GetAdaptersAddresses(
                family: u32, flags: u32, reserved: *const c_void,
                list: *mut IP_ADAPTER_ADDRESSES_LH, size: *mut u32,
            ) -> u32 => adapters::get_adapters_addresses;
            GetAdaptersInfo(list: *mut IP_ADAPTER_INFO, size: *mut u32) -> u32
                => adapters::get_adapters_info;
        }
    }
}
