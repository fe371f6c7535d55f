//! The original functions: the functions of the C library that this library interposes.
//!
//! Invariant: the original functions are resolved when the dynamic linker loads this library, never
//! inside a hook, because dlsym allocates memory and takes locks. There is one exception: the
//! constructor of another library may call a hook before the original functions are resolved. In
//! this case the hook makes the system call of the function directly. For a function without its
//! own system call, such as getaddrinfo, the hook resolves the original function.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_char, c_int, c_uint, hostent, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t};

/// Returns the first definition of a function after this library in the search order, or null.
fn resolve_next(name: &CStr) -> *mut c_void {
    // SAFETY: the name is a C string.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) }
}

/// Declares three items for each function: a function that makes the original call, the resolved
/// address, and a fallback for calls that arrive before the address is resolved.
macro_rules! originals {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $return:ty $(= $system_call:ident)?;)*) => {
        $(
            /// Makes the original call.
            ///
            /// # Safety
            /// The caller must uphold the contract of the C function with this name.
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            pub unsafe fn $name($($argument: $type),*) -> $return {
                let address = addresses::$name.load(Ordering::Relaxed);
                if address.is_null() {
                    // SAFETY: guaranteed by the caller.
                    return unsafe { before_load::$name($($argument),*) };
                }
                // SAFETY: the function of this name has this type. The caller upholds its
                // contract.
                unsafe {
                    let function: unsafe extern "C" fn($($type),*) -> $return =
                        std::mem::transmute(address);
                    function($($argument),*)
                }
            }
        )*

        #[allow(non_upper_case_globals)]
        mod addresses {
            use super::*;
            $(pub static $name: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());)*
        }

        /// The fallbacks for calls that arrive before the original functions are resolved.
        mod before_load {
            use super::*;
            $(
                /// Makes the original call.
                ///
                /// # Safety
                /// The caller must uphold the contract of the C function with this name.
                #[cold]
                #[allow(clippy::too_many_arguments)]
                pub unsafe fn $name($($argument: $type),*) -> $return {
                    originals!(
                        @before_load $name ($($argument: $type),*) -> $return $(= $system_call)?
                    )
                }
            )*
        }

        /// Resolves all original functions.
        pub fn resolve() {
            $({
                const NAME: &CStr = match CStr::from_bytes_with_nul(
                    concat!(stringify!($name), "\0").as_bytes(),
                ) {
                    Ok(name) => name,
                    Err(_) => panic!(),
                };
                addresses::$name.store(resolve_next(NAME), Ordering::Relaxed);
            })*
        }
    };
    (
        @before_load $name:ident ($($argument:ident: $type:ty),*) -> $return:ty
        = $system_call:ident
    ) => {
        // SAFETY: the C library passes the same arguments to the same system call. The caller
        // upholds the contract of the function.
        unsafe { libc::syscall(libc::$system_call, $($argument),*) as $return }
    };
    (@before_load $name:ident ($($argument:ident: $type:ty),*) -> $return:ty) => {{
        const NAME: &CStr = match CStr::from_bytes_with_nul(
            concat!(stringify!($name), "\0").as_bytes(),
        ) {
            Ok(name) => name,
            Err(_) => panic!(),
        };
        let address = resolve_next(NAME);
        if address.is_null() {
            // Without this hook, the dynamic linker would terminate a program that calls a missing
            // function. SAFETY: abort has no preconditions.
            unsafe { libc::abort() };
        }
        // SAFETY: the function of this name has this type. The caller upholds its contract.
        unsafe {
            let function: unsafe extern "C" fn($($type),*) -> $return =
                std::mem::transmute(address);
            function($($argument),*)
        }
    }};
}

originals! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int = SYS_socket;
    fn bind(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = SYS_bind;
    fn listen(fd: c_int, backlog: c_int) -> c_int = SYS_listen;
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int = SYS_connect;
    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int = SYS_accept;
    fn accept4(
        fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int
    ) -> c_int = SYS_accept4;
    fn getsockname(
        fd: c_int, address: *mut sockaddr, length: *mut socklen_t
    ) -> c_int = SYS_getsockname;
    fn getpeername(
        fd: c_int, address: *mut sockaddr, length: *mut socklen_t
    ) -> c_int = SYS_getpeername;
    fn setsockopt(
        fd: c_int, level: c_int, option: c_int, value: *const c_void, length: socklen_t
    ) -> c_int = SYS_setsockopt;
    fn sendto(
        fd: c_int, data: *const c_void, size: size_t, flags: c_int,
        address: *const sockaddr, length: socklen_t
    ) -> ssize_t = SYS_sendto;
    fn recvfrom(
        fd: c_int, data: *mut c_void, size: size_t, flags: c_int,
        address: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t = SYS_recvfrom;
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t = SYS_sendmsg;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t = SYS_recvmsg;
    fn sendmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int
    ) -> c_int = SYS_sendmmsg;
    fn recvmmsg(
        fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int,
        timeout: *mut libc::timespec
    ) -> c_int = SYS_recvmmsg;
    fn __recvfrom_chk(
        fd: c_int, data: *mut c_void, size: size_t, data_capacity: size_t, flags: c_int,
        address: *mut sockaddr, length: *mut socklen_t
    ) -> ssize_t;
    fn getaddrinfo(
        node: *const c_char, service: *const c_char, hints: *const libc::addrinfo,
        result: *mut *mut libc::addrinfo
    ) -> c_int;
    fn getnameinfo(
        address: *const sockaddr, length: socklen_t, host: *mut c_char, host_size: socklen_t,
        service: *mut c_char, service_size: socklen_t, flags: c_int
    ) -> c_int;
    fn gethostbyname(name: *const c_char) -> *mut hostent;
    fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent;
    fn gethostbyname_r(
        name: *const c_char, entry: *mut hostent, buffer: *mut c_char, size: size_t,
        result: *mut *mut hostent, h_errno: *mut c_int
    ) -> c_int;
    fn gethostbyname2_r(
        name: *const c_char, family: c_int, entry: *mut hostent, buffer: *mut c_char,
        size: size_t, result: *mut *mut hostent, h_errno: *mut c_int
    ) -> c_int;
    fn gethostbyaddr(address: *const c_void, length: socklen_t, family: c_int) -> *mut hostent;
    fn gethostbyaddr_r(
        address: *const c_void, length: socklen_t, family: c_int, entry: *mut hostent,
        buffer: *mut c_char, size: size_t, result: *mut *mut hostent, h_errno: *mut c_int
    ) -> c_int;
    fn getifaddrs(list: *mut *mut libc::ifaddrs) -> c_int;
}
