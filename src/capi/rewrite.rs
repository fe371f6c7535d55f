//! A call for each kind of socket call: what becomes of its address.

use std::ffi::c_void;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::address::{sockaddr_bytes, vipool_ip, vipool_sockaddr};
use super::handle::{not_null, shared};
use super::layout::{check_out_quietly, layout, read_quietly, write};
use super::outcome::quiet;
use super::rewriter::vipool_rewriter;
use super::status::vipool_status::{self, *};
use crate::rewrite::sockaddr::{self, Parsed};
use crate::rewrite::{Bind, Connect, Outcome, Protocol, Reason, Refusal, Rewriter, Socket};

/// Asked for an address that the kernel has: writes it to `buffer` (`capacity` bytes, room for
/// any) as a sockaddr and answers its length; 0 if there is none or it is not IPv4 or IPv6.
pub type vipool_ask_address_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, buffer: *mut c_void, capacity: u32) -> u32>;

/// Asked for a number: vipool_protocol, or VIPOOL_SOCKET_... flags.
pub type vipool_ask_number_fn = Option<unsafe extern "C" fn(context: *mut c_void) -> u32>;

/// Of vipool_socket.flags: the socket is for IPv6 alone (IPV6_V6ONLY).
pub const VIPOOL_SOCKET_V6ONLY: u32 = 1;
/// Of vipool_socket.flags: the socket can receive what others receive too: SO_REUSEADDR,
/// SO_REUSEPORT or SO_BROADCAST is set.
pub const VIPOOL_SOCKET_SHARES_PORT: u32 = 2;

/// What is known of a socket. Each fact is handed in, or asked for by a callback where it matters
/// (each may cost a system call); a callback that is not NULL wins.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_socket {
    /// sizeof(vipool_socket), set by the caller.
    pub size: usize,
    /// The address that the kernel has for it (not the one that the program is shown), as a
    /// sockaddr: the unspecified address and port 0 while it has none. NULL if it is not an IPv4 or
    /// IPv6 socket.
    pub local: *const c_void,
    /// Length of `local` in bytes.
    pub local_length: u32,
    /// vipool_protocol.
    pub protocol: u32,
    /// VIPOOL_SOCKET_...
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Asked for the local address. May be NULL.
    pub ask_local: vipool_ask_address_fn,
    /// Asked for vipool_protocol. May be NULL.
    pub ask_protocol: vipool_ask_number_fn,
    /// Asked for VIPOOL_SOCKET_... flags. May be NULL.
    pub ask_flags: vipool_ask_number_fn,
    /// Handed to the callbacks.
    pub context: *mut c_void,
}
layout!(vipool_socket {
    size,
    local,
    local_length,
    protocol,
    flags,
    reserved,
    ask_local,
    ask_protocol,
    ask_flags,
    context,
});

/// What becomes of a call.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_outcome_kind {
    /// The call goes on with `address` in place of what the program gave (or is shown), after what
    /// `flags` and `bind` say.
    VIPOOL_REWRITTEN = 1,
    /// The call goes on exactly as the program made it; `code` is the vipool_reason.
    VIPOOL_PASSED = 2,
    /// The call is not made: the program gets `error`; `code` is the vipool_refusal.
    VIPOOL_REFUSED = 3,
}

/// Of vipool_outcome.flags: clear IPV6_V6ONLY first (and set it again if the call fails).
pub const VIPOOL_DO_CLEAR_V6ONLY: u32 = 1;
/// Of vipool_outcome.flags: do not bind now but report success; a later connect, listen or
/// getsockname binds. Only with VIPOOL_REWRITER_DEFER_WILDCARD.
pub const VIPOOL_DO_DEFER: u32 = 2;
/// Of vipool_outcome.flags: bind the socket to `bind` (port 0) first. If that fails, go on all the
/// same.
pub const VIPOOL_DO_BIND_FIRST: u32 = 4;
/// Of vipool_outcome.flags, with VIPOOL_DO_BIND_FIRST: that bind leaves the choice of the port to
/// the connect, so that two destinations can share one: on Linux set IP_BIND_ADDRESS_NO_PORT before
/// it, and clear it before any bind of the program's own.
pub const VIPOOL_DO_LATE_PORT: u32 = 8;

/// What becomes of a call, and how it goes on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_outcome {
    /// sizeof(vipool_outcome), set by the caller.
    pub size: usize,
    /// vipool_outcome_kind.
    pub kind: u32,
    /// With VIPOOL_PASSED a vipool_reason, with VIPOOL_REFUSED a vipool_refusal; otherwise 0.
    pub code: u32,
    /// With VIPOOL_REFUSED, what errno (on Windows WSAGetLastError) says; otherwise 0.
    pub error: i32,
    /// With VIPOOL_REWRITTEN, VIPOOL_DO_...; otherwise 0.
    pub flags: u32,
    /// With VIPOOL_REWRITTEN, the address to go on with, of the same family as the program's.
    pub address: vipool_sockaddr,
    /// With VIPOOL_DO_BIND_FIRST, the address to bind first.
    pub bind: vipool_sockaddr,
}
layout!(vipool_outcome { size, kind, code, error, flags, address, bind });

/// EADDRNOTAVAIL of the system's (errno.h, winsock2.h).
const ADDRESS_NOT_AVAILABLE: i32 = if cfg!(windows) {
    10049
} else if cfg!(target_vendor = "apple") {
    49
} else {
    99
};

impl vipool_outcome {
    const EMPTY: Self = Self {
        size: size_of::<Self>(),
        kind: 0,
        code: 0,
        error: 0,
        flags: 0,
        address: vipool_sockaddr::NONE,
        bind: vipool_sockaddr::NONE,
    };

    fn rewritten(address: &SocketAddr) -> Self {
        let kind = vipool_outcome_kind::VIPOOL_REWRITTEN as u32;
        Self { kind, address: address.into(), ..Self::EMPTY }
    }

    fn passed(reason: Reason) -> Self {
        let kind = vipool_outcome_kind::VIPOOL_PASSED as u32;
        Self { kind, code: reason.number().into(), ..Self::EMPTY }
    }

    /// The outcome of any kind of call, given what its rewritten form is.
    fn of<T>(outcome: Outcome<T>, rewritten: impl FnOnce(T) -> Self) -> Self {
        match outcome {
            Outcome::Rewritten(value) => rewritten(value),
            Outcome::Passed(reason) => Self::passed(reason),
            Outcome::Refused(refusal) => Self {
                kind: vipool_outcome_kind::VIPOOL_REFUSED as u32,
                code: refusal.number().into(),
                error: match refusal {
                    Refusal::AddressOfAnother => ADDRESS_NOT_AVAILABLE,
                },
                ..Self::EMPTY
            },
        }
    }
}

impl From<Outcome<Bind>> for vipool_outcome {
    fn from(outcome: Outcome<Bind>) -> Self {
        Self::of(outcome, |bind| {
            let mut flags = 0;
            if bind.clear_v6only {
                flags |= VIPOOL_DO_CLEAR_V6ONLY;
            }
            if bind.defer {
                flags |= VIPOOL_DO_DEFER;
            }
            Self { flags, ..Self::rewritten(&bind.address) }
        })
    }
}

impl From<Outcome<Connect>> for vipool_outcome {
    fn from(outcome: Outcome<Connect>) -> Self {
        Self::of(outcome, |connect| {
            let mut rewritten = Self::rewritten(&connect.to);
            if connect.clear_v6only {
                rewritten.flags |= VIPOOL_DO_CLEAR_V6ONLY;
            }
            if let Some(ip) = connect.bind {
                rewritten.flags |= VIPOOL_DO_BIND_FIRST;
                if connect.late_port {
                    rewritten.flags |= VIPOOL_DO_LATE_PORT;
                }
                rewritten.bind = (&SocketAddr::new(ip, 0)).into();
            }
            rewritten
        })
    }
}

impl From<Outcome<SocketAddr>> for vipool_outcome {
    fn from(outcome: Outcome<SocketAddr>) -> Self {
        Self::of(outcome, |address| Self::rewritten(&address))
    }
}

impl Socket for vipool_socket {
    fn protocol(&self) -> Protocol {
        // SAFETY: the caller vouches for the callback and its context.
        let number = self.ask_protocol.map_or(self.protocol, |ask| unsafe { ask(self.context) });
        match number {
            1 => Protocol::Tcp,
            2 => Protocol::Udp,
            _ => Protocol::Other,
        }
    }

    fn local(&self) -> Option<SocketAddr> {
        if self.ask_local.is_some() {
            return ask_address(self.ask_local, self.context);
        }
        // SAFETY: the caller vouches for the bytes.
        match sockaddr::parse(unsafe { sockaddr_bytes(self.local, self.local_length) }.ok()?) {
            Parsed::Inet(address) => Some(address),
            Parsed::Unspecified(_) | Parsed::Other => None,
        }
    }

    fn is_v6only(&self) -> bool {
        self.asked_flags() & VIPOOL_SOCKET_V6ONLY != 0
    }

    fn shares_port(&self) -> bool {
        self.asked_flags() & VIPOOL_SOCKET_SHARES_PORT != 0
    }
}

impl vipool_socket {
    fn asked_flags(&self) -> u32 {
        // SAFETY: the caller vouches for the callback and its context.
        self.ask_flags.map_or(self.flags, |ask| unsafe { ask(self.context) })
    }
}

/// Asks a callback for an address.
fn ask_address(ask: vipool_ask_address_fn, context: *mut c_void) -> Option<SocketAddr> {
    let ask = ask?;
    // Aligned as a sockaddr_storage is.
    let mut buffer = [0u64; sockaddr::MAX_LENGTH / 8];
    // SAFETY: the buffer has this many bytes; the caller vouches for callback and context.
    let length = unsafe { ask(context, buffer.as_mut_ptr().cast(), sockaddr::MAX_LENGTH as u32) };
    // SAFETY: the buffer, as bytes.
    let bytes =
        unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), sockaddr::MAX_LENGTH) };
    match sockaddr::parse(bytes.get(..length as usize)?) {
        Parsed::Inet(address) => Some(address),
        Parsed::Unspecified(_) | Parsed::Other => None,
    }
}

/// What every rewrite call does: reads its arguments, decides, writes the outcome.
///
/// # Safety
/// The pointers are NULL or as the header wants them.
#[inline]
unsafe fn decide(
    rewriter: *const vipool_rewriter,
    out: *mut vipool_outcome,
    decision: impl FnOnce(&Rewriter<'_, vipool_rewriter>) -> Result<vipool_outcome, vipool_status>,
) -> vipool_status {
    let decide = || {
        // SAFETY: the caller's promise.
        let rewriter = unsafe { shared(rewriter) }?;
        // SAFETY: the caller's promise.
        unsafe { check_out_quietly(out) }?;
        let outcome = decision(&rewriter.now())?;
        // SAFETY: checked above.
        unsafe { write(out, &outcome) };
        Ok(())
    };
    quiet(|| decide().err().unwrap_or(VIPOOL_OK))
}

/// An address of the program's. What is no IPv4 or IPv6 address, too short or too long is for the
/// kernel to judge: the call passes.
///
/// # Safety
/// `address` is NULL or valid for reads of `length` bytes.
unsafe fn parse(address: *const c_void, length: u32) -> Result<Parsed, vipool_status> {
    // SAFETY: the caller's promise.
    unsafe { sockaddr_bytes(address, length) }.map(sockaddr::parse)
}

/// bind: the program binds `socket` to `address`.
///
/// Errors of this and all vipool_rewrite_ calls: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE,
/// VIPOOL_ERR_UNKNOWN_FIELD; then the call goes on as the program made it. An address that is not
/// IPv4 or IPv6 is no error but VIPOOL_PASSED.
/// May be called from any thread and in a signal handler, as all of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_bind(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &Rewriter<'_, vipool_rewriter>| {
        // SAFETY: the caller vouches for struct and bytes.
        let (socket, address) = unsafe { (read_quietly(socket)?, parse(address, length)?) };
        let address = match address {
            Parsed::Inet(address) => address,
            // On an IPv4 socket family AF_UNSPEC and 0.0.0.0 are the wildcard address.
            Parsed::Unspecified(Some(port)) if socket.local().is_some_and(|l| l.is_ipv4()) => {
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
            }
            Parsed::Unspecified(_) | Parsed::Other => {
                return Ok(vipool_outcome::passed(Reason::NotInet));
            }
        };
        Ok(rewriter.bind(&socket, address).into())
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// listen: an unbound socket would be bound to the wildcard address by the kernel, so with
/// VIPOOL_REWRITTEN bind it to `address` first.
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_listen(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    out: *mut vipool_outcome,
) -> vipool_status {
    // SAFETY: the caller vouches for handle and structs.
    unsafe { decide(rewriter, out, |rewriter| Ok(rewriter.listen(&read_quietly(socket)?).into())) }
}

/// connect, WSAConnect, ConnectEx: the program connects `socket` to `address`, TCP or UDP.
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_connect(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &Rewriter<'_, vipool_rewriter>| {
        // SAFETY: the caller vouches for struct and bytes.
        let (socket, address) = unsafe { (read_quietly(socket)?, parse(address, length)?) };
        Ok(match address {
            Parsed::Inet(to) => rewriter.connect(&socket, to).into(),
            Parsed::Unspecified(_) | Parsed::Other => vipool_outcome::passed(Reason::NotInet),
        })
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// sendto, sendmsg, WSASendTo, WSASendMsg with a destination: a datagram, or with `fast_open` not
/// 0 (MSG_FASTOPEN) a stream that begins with it.
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_send(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    address: *const c_void,
    length: u32,
    fast_open: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &Rewriter<'_, vipool_rewriter>| {
        // SAFETY: the caller vouches for struct and bytes.
        let (socket, address) = unsafe { (read_quietly(socket)?, parse(address, length)?) };
        Ok(match address {
            Parsed::Inet(to) => rewriter.send(&socket, to, fast_open != 0).into(),
            Parsed::Unspecified(_) | Parsed::Other => vipool_outcome::passed(Reason::NotInet),
        })
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// The source that a program names for one datagram (IP_PKTINFO, IPV6_PKTINFO of sendmsg and
/// WSASendMsg). `address` may be NULL; else it is where the datagram goes by now. With
/// VIPOOL_REWRITTEN `out->address` is the source to name, with port 0.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_send_source(
    rewriter: *const vipool_rewriter,
    source: *const vipool_ip,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &Rewriter<'_, vipool_rewriter>| {
        // SAFETY: the caller vouches for the address.
        let source = unsafe { source.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.required()?;
        let mut to = None;
        if !address.is_null() {
            // SAFETY: the caller vouches for the bytes.
            if let Parsed::Inet(given) = unsafe { parse(address, length) }? {
                to = Some(given);
            }
        }
        Ok(vipool_outcome::of(rewriter.send_source(source, to), |ip| {
            vipool_outcome::rewritten(&SocketAddr::new(ip, 0))
        }))
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// getsockname, getpeername, accept, accept4, WSAAccept, AcceptEx, and the source of recvfrom,
/// recvmsg, recvmmsg, WSARecvFrom, WSARecvMsg: `address` is one end of a socket as the kernel has
/// it; with VIPOOL_REWRITTEN the program is shown `out->address`. `ask_other` gives the other end
/// (of a received datagram the socket's own address); it is asked only where that matters and may
/// be NULL.
///
/// Errors: those of vipool_rewrite_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_shown(
    rewriter: *const vipool_rewriter,
    address: *const c_void,
    length: u32,
    ask_other: vipool_ask_address_fn,
    context: *mut c_void,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &Rewriter<'_, vipool_rewriter>| {
        // SAFETY: the caller vouches for the bytes.
        Ok(match unsafe { parse(address, length) }? {
            Parsed::Inet(end) => rewriter.shown(end, || ask_address(ask_other, context)).into(),
            Parsed::Unspecified(_) | Parsed::Other => vipool_outcome::passed(Reason::NotInet),
        })
    };
    // SAFETY: the caller vouches for handle and struct.
    unsafe { decide(rewriter, out, decision) }
}

/// The address of a received IP_PKTINFO, or one whose name is looked up (getnameinfo,
/// gethostbyaddr): with VIPOOL_REWRITTEN the program is shown `out->address`, with port 0.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_shown_ip(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { decide_ip(rewriter, address, out, |rewriter, ip| rewriter.shown_ip(ip)) }
}

/// A multicast datagram to `address` where the program set no interface (IP_MULTICAST_IF): with
/// VIPOOL_REWRITTEN set it to `out->address`, without its port.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_multicast_interface(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { decide_ip(rewriter, address, out, |rewriter, to| rewriter.multicast_interface(to)) }
}

/// A decision about an address without a port, whose outcome is one too.
///
/// # Safety
/// As for [`decide`].
unsafe fn decide_ip<T: Into<IpAddr>>(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut vipool_outcome,
    decision: impl FnOnce(&Rewriter<'_, vipool_rewriter>, IpAddr) -> Outcome<T>,
) -> vipool_status {
    let decision = |rewriter: &Rewriter<'_, vipool_rewriter>| {
        // SAFETY: the caller's promise.
        let ip = unsafe { address.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.required()?;
        Ok(vipool_outcome::of(decision(rewriter, ip), |ip| {
            vipool_outcome::rewritten(&SocketAddr::new(ip.into(), 0))
        }))
    };
    // SAFETY: the caller's promise.
    unsafe { decide(rewriter, out, decision) }
}

/// What the host's own name stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_host_addresses {
    /// sizeof(vipool_host_addresses), set by the caller.
    pub size: usize,
    /// VIPOOL_REWRITTEN or VIPOOL_PASSED.
    pub kind: u32,
    /// With VIPOOL_PASSED a vipool_reason.
    pub code: u32,
    /// In place of its IPv4 addresses; none if it has none.
    pub v4: vipool_ip,
    /// In place of its IPv6 addresses; none if it has none.
    pub v6: vipool_ip,
}
layout!(vipool_host_addresses { size, kind, code, v4, v6 });

/// getaddrinfo, gethostbyname and their variants, of the host's own name: the session's virtual
/// IP, or the address of its client where the program has that feature. `client` may be NULL or
/// none if it is not known.
///
/// Errors: those of vipool_rewrite_bind(), and VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_host_addresses(
    rewriter: *const vipool_rewriter,
    client: *const vipool_ip,
    out: *mut vipool_host_addresses,
) -> vipool_status {
    let decide = || {
        // SAFETY: the caller vouches for handle, address and struct.
        let (rewriter, client) = unsafe { (shared(rewriter)?, client.as_ref()) };
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let client = client.map_or(Ok(None), vipool_ip::get)?;
        let (mut v4, mut v6) = (vipool_ip::default(), vipool_ip::default());
        let outcome = vipool_outcome::of(rewriter.now().host_addresses(client), |addresses| {
            (v4, v6) = (addresses.v4.map(Into::into).into(), addresses.v6.map(Into::into).into());
            let kind = vipool_outcome_kind::VIPOOL_REWRITTEN as u32;
            vipool_outcome { kind, ..vipool_outcome::EMPTY }
        });
        let size = size_of::<vipool_host_addresses>();
        let answer = vipool_host_addresses { size, kind: outcome.kind, code: outcome.code, v4, v6 };
        // SAFETY: checked above.
        unsafe { write(out, &answer) };
        Ok(())
    };
    quiet(|| decide().err().unwrap_or(VIPOOL_OK))
}

/// What a rewriter says of an address.
///
/// # Safety
/// As for [`decide`].
unsafe fn question(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out: *mut u32,
    ask: impl FnOnce(&Rewriter<'_, vipool_rewriter>, IpAddr) -> bool,
) -> vipool_status {
    let answer = || {
        not_null(out)?;
        // SAFETY: the caller's promise.
        let (rewriter, ip) =
            unsafe { (shared(rewriter)?, address.as_ref().ok_or(VIPOOL_ERR_NULL)?.required()?) };
        let yes = ask(&rewriter.now(), ip);
        // SAFETY: not NULL.
        unsafe { out.write(yes.into()) };
        Ok(())
    };
    quiet(|| answer().err().unwrap_or(VIPOOL_OK))
}

/// getnameinfo, gethostbyaddr: `out_own` is 1 if the name of this address is the host's own name,
/// else 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
/// handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_is_own_address(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_own: *mut u32,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { question(rewriter, address, out_own, |rewriter, ip| rewriter.is_own_address(ip)) }
}

/// getifaddrs, GetAdaptersAddresses: `out_hidden` is 1 if this address of an interface is left out
/// of the list that the program gets, else 0.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
/// handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_hides(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_hidden: *mut u32,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { question(rewriter, address, out_hidden, |rewriter, ip| rewriter.hides(ip)) }
}

/// After a call that was rewritten to this address and failed because it is on no interface
/// (EADDRNOTAVAIL, WSAEADDRNOTAVAIL): `out_retry` is 1 if the call is made again as the program
/// meant it, 0 if the program gets the error.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_ADDRESS. May be called from any thread and in a signal
/// handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_retries(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    out_retry: *mut u32,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { question(rewriter, address, out_retry, |rewriter, ip| rewriter.retries_untouched(ip)) }
}
