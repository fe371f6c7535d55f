//! The system functions that the hook layer hooks. For example, `original::bind` calls the bind of
//! the system.
//!
//! Each entry of the table below defines three items with the name of a system function: a function
//! that calls the system's own code, a type for its signature, and a [`SystemFunction`] in
//! [`functions`]. The `SystemFunction` contains the address to call. Until the function is hooked,
//! this is the address of the import. Afterwards, it is the address of MinHook's trampoline.
//!
//! AcceptEx needs no hook: it takes no address, and programs read its results with
//! GetAcceptExSockaddrs, which is hooked. socket and WSASocketW need no hook, because the only
//! state per socket ([`crate::deferred`]) begins with a bind.

#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::NetworkManagement::IpHelper::{
    self, IP_ADAPTER_ADDRESSES_LH, IP_ADAPTER_INFO,
};
use windows_sys::Win32::Networking::WinSock::{
    self, ADDRINFOA, ADDRINFOEXW, ADDRINFOW, HOSTENT, LPCONDITIONPROC,
    LPLOOKUPSERVICE_COMPLETION_ROUTINE, LPWSAOVERLAPPED_COMPLETION_ROUTINE, QOS, SOCKADDR, SOCKET,
    TIMEVAL, WSABUF, WSAMSG,
};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;
use windows_sys::Win32::System::IO::OVERLAPPED;
use windows_sys::Win32::System::Threading::{
    self, PROCESS_INFORMATION, STARTUPINFOA, STARTUPINFOW,
};
use windows_sys::core::{BOOL, GUID, PCSTR, PCWSTR, PSTR, PWSTR};

/// A system function and the address through which the hook layer calls it.
pub struct SystemFunction {
    /// The DLL that exports the function.
    pub module: &'static CStr,
    /// The name of the function in the export table.
    pub name: &'static CStr,
    /// The import, or the trampoline of the hook.
    pub address: AtomicPtr<c_void>,
}

const fn c_str(text_with_nul: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text_with_nul.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("the text must end in NUL"),
    }
}

macro_rules! system_functions {
    ($($module:literal from $source:ident {
        $(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*
    })*) => {
        $($(
            #[doc = concat!("The signature of `", stringify!($name), "`.")]
            pub type $name = unsafe extern "system" fn($($type),*) $(-> $result)?;

            #[doc = concat!("Calls `", stringify!($name), "` of `", $module, "`.")]
            ///
            /// # Safety
            /// The requirements of the system function apply.
            #[inline]
            pub unsafe fn $name($($argument: $type),*) $(-> $result)? {
                let address = functions::$name.address.load(Ordering::Relaxed);
                // SAFETY: the address points to the system function or to the trampoline of its
                // hook. Both have this signature. The caller meets the function's requirements.
                unsafe { std::mem::transmute::<*mut c_void, $name>(address)($($argument),*) }
            }
        )*)*

        /// The functions and their addresses.
        pub mod functions {
            use super::*;

            $($(
                #[doc = concat!("`", stringify!($name), "` of `", $module, "`.")]
                pub static $name: SystemFunction = SystemFunction {
                    module: c_str(concat!($module, "\0")),
                    name: c_str(concat!(stringify!($name), "\0")),
                    address: AtomicPtr::new($source::$name as *mut c_void),
                };
            )*)*
        }
    };
}

system_functions! {
    "ws2_32.dll" from WinSock {
        fn bind(socket: SOCKET, name: *const SOCKADDR, length: i32) -> i32;
        fn listen(socket: SOCKET, backlog: i32) -> i32;
        fn closesocket(socket: SOCKET) -> i32;
        fn connect(socket: SOCKET, name: *const SOCKADDR, length: i32) -> i32;
        fn WSAConnect(
            socket: SOCKET, name: *const SOCKADDR, length: i32, caller: *const WSABUF,
            callee: *mut WSABUF, socket_qos: *const QOS, group_qos: *const QOS,
        ) -> i32;
        fn accept(socket: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> SOCKET;
        fn WSAAccept(
            socket: SOCKET, name: *mut SOCKADDR, length: *mut i32, condition: LPCONDITIONPROC,
            data: usize,
        ) -> SOCKET;
        fn getsockname(socket: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> i32;
        fn getpeername(socket: SOCKET, name: *mut SOCKADDR, length: *mut i32) -> i32;
        fn sendto(
            socket: SOCKET, data: PCSTR, size: i32, flags: i32, to: *const SOCKADDR, length: i32,
        ) -> i32;
        fn WSASendTo(
            socket: SOCKET, data: *const WSABUF, count: u32, sent: *mut u32, flags: u32,
            to: *const SOCKADDR, length: i32, overlapped: *mut OVERLAPPED,
            routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32;
        fn WSASendMsg(
            socket: SOCKET, message: *const WSAMSG, flags: u32, sent: *mut u32,
            overlapped: *mut OVERLAPPED, routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32;
        fn recvfrom(
            socket: SOCKET, data: PSTR, size: i32, flags: i32, from: *mut SOCKADDR,
            length: *mut i32,
        ) -> i32;
        fn WSARecvFrom(
            socket: SOCKET, data: *const WSABUF, count: u32, received: *mut u32, flags: *mut u32,
            from: *mut SOCKADDR, length: *mut i32, overlapped: *mut OVERLAPPED,
            routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32;
        fn WSAIoctl(
            socket: SOCKET, code: u32, input: *const c_void, input_size: u32, output: *mut c_void,
            output_size: u32, returned: *mut u32, overlapped: *mut OVERLAPPED,
            routine: LPWSAOVERLAPPED_COMPLETION_ROUTINE,
        ) -> i32;
        fn gethostbyname(name: PCSTR) -> *mut HOSTENT;
        fn gethostbyaddr(address: PCSTR, length: i32, family: i32) -> *mut HOSTENT;
        fn getaddrinfo(
            name: PCSTR, service: PCSTR, hints: *const ADDRINFOA, result: *mut *mut ADDRINFOA,
        ) -> i32;
        fn GetAddrInfoW(
            name: PCWSTR, service: PCWSTR, hints: *const ADDRINFOW, result: *mut *mut ADDRINFOW,
        ) -> i32;
        fn GetAddrInfoExW(
            name: PCWSTR, service: PCWSTR, namespace: u32, provider: *const GUID,
            hints: *const ADDRINFOEXW, result: *mut *mut ADDRINFOEXW, timeout: *const TIMEVAL,
            overlapped: *const OVERLAPPED, routine: LPLOOKUPSERVICE_COMPLETION_ROUTINE,
            handle: *mut HANDLE,
        ) -> i32;
        fn getnameinfo(
            name: *const SOCKADDR, length: i32, host: PSTR, host_size: u32, service: PSTR,
            service_size: u32, flags: i32,
        ) -> i32;
        fn GetNameInfoW(
            name: *const SOCKADDR, length: i32, host: PWSTR, host_size: u32, service: PWSTR,
            service_size: u32, flags: i32,
        ) -> i32;
    }
    "mswsock.dll" from WinSock {
        fn GetAcceptExSockaddrs(
            buffer: *const c_void, received: u32, local_size: u32, remote_size: u32,
            local: *mut *mut SOCKADDR, local_length: *mut i32, remote: *mut *mut SOCKADDR,
            remote_length: *mut i32,
        );
    }
    "iphlpapi.dll" from IpHelper {
        fn GetAdaptersAddresses(
            family: u32, flags: u32, reserved: *const c_void, list: *mut IP_ADAPTER_ADDRESSES_LH,
            size: *mut u32,
        ) -> u32;
        fn GetAdaptersInfo(list: *mut IP_ADAPTER_INFO, size: *mut u32) -> u32;
    }
    "kernel32.dll" from Threading {
        fn CreateProcessA(
            application: PCSTR, command_line: PSTR,
            process_attributes: *const SECURITY_ATTRIBUTES,
            thread_attributes: *const SECURITY_ATTRIBUTES, inherit_handles: BOOL, flags: u32,
            environment: *const c_void, directory: PCSTR, startup: *const STARTUPINFOA,
            information: *mut PROCESS_INFORMATION,
        ) -> BOOL;
        fn CreateProcessW(
            application: PCWSTR, command_line: PWSTR,
            process_attributes: *const SECURITY_ATTRIBUTES,
            thread_attributes: *const SECURITY_ATTRIBUTES, inherit_handles: BOOL, flags: u32,
            environment: *const c_void, directory: PCWSTR, startup: *const STARTUPINFOW,
            information: *mut PROCESS_INFORMATION,
        ) -> BOOL;
    }
    "advapi32.dll" from Threading {
        fn CreateProcessAsUserW(
            token: HANDLE, application: PCWSTR, command_line: PWSTR,
            process_attributes: *const SECURITY_ATTRIBUTES,
            thread_attributes: *const SECURITY_ATTRIBUTES, inherit_handles: BOOL, flags: u32,
            environment: *const c_void, directory: PCWSTR,
            startup: *const STARTUPINFOW, information: *mut PROCESS_INFORMATION,
        ) -> BOOL;
    }
}
