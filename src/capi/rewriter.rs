//! What decides for one program in one session, and what it asks the caller of the kernel.

use std::ffi::c_void;
use std::net::{IpAddr, SocketAddr};
use std::ptr;
use std::sync::Arc;

use super::address::vipool_sockaddr;
use super::handle::{Owned, Shared, free, give, not_null, shared};
use super::layout::{layout, read};
use super::outcome::{call, quiet};
use super::reader::vipool_reader;
use super::session::vipool_handle;
use super::status::vipool_status::{self, *};
use super::text::{array, flags};
use crate::map::Reader;
use crate::os::listeners;
use crate::rewrite::{ListenerLookup, ListenerMatch, LiveSystem, Protocol, RewriteRules, Rewriter};
use crate::session::{Addresses, Handle};

/// What a socket carries; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_protocol {
    /// Anything else: it is left alone.
    VIPOOL_PROTOCOL_OTHER = 0,
    /// TCP, or MPTCP.
    VIPOOL_PROTOCOL_TCP = 1,
    /// UDP, or UDP-Lite.
    VIPOOL_PROTOCOL_UDP = 2,
}

/// The answer of a vipool_find_listener_fn: nothing listens on any of them.
pub const VIPOOL_LISTENER_NONE: i32 = -1;
/// The answer of a vipool_find_listener_fn: the kernel did not say.
pub const VIPOOL_LISTENER_UNKNOWN: i32 = -2;

/// Asked by vipool_rewrite_connect() and vipool_rewrite_send() which of `count` addresses, in this
/// order, has a socket of its own: TCP listening, UDP bound (`protocol`: vipool_protocol). A
/// wildcard socket is none. An IPv4 address is met by an IPv6 socket on its mapped form too; a
/// mapped one only by an IPv6 socket. `from`, if it is not NULL, is where a datagram would come
/// from: it reaches sockets connected to there too. Answers the number of the address, from 0, or
/// VIPOOL_LISTENER_NONE or VIPOOL_LISTENER_UNKNOWN. `count` is 4 at most.
///
/// vipool_find_listener() is one that asks the kernel of Linux or Windows; of more than 4 addresses
/// it says VIPOOL_LISTENER_UNKNOWN.
pub type vipool_find_listener_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        addresses: *const vipool_sockaddr,
        count: usize,
        protocol: u32,
        from: *const vipool_sockaddr,
    ) -> i32,
>;

/// A vipool_find_listener_fn that asks the kernel: on Linux by sock_diag (it opens and closes a
/// descriptor of its own; errno may change), on Windows by GetExtendedTcpTable and
/// GetExtendedUdpTable; elsewhere its answer is VIPOOL_LISTENER_UNKNOWN. The context is not used.
///
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_find_listener(
    context: *mut c_void,
    addresses: *const vipool_sockaddr,
    count: usize,
    protocol: u32,
    from: *const vipool_sockaddr,
) -> i32 {
    let _ = context;
    quiet(|| {
        let protocol = match protocol {
            1 => Protocol::Tcp,
            2 => Protocol::Udp,
            _ => return VIPOOL_LISTENER_UNKNOWN,
        };
        // SAFETY: the caller vouches for array and address.
        let (given, from) = unsafe { (array(addresses, count), from.as_ref()) };
        let mut wanted = [SocketAddr::new(IpAddr::V4(0.into()), 0); CANDIDATES];
        let Some(wanted) = wanted.get_mut(..count) else { return VIPOOL_LISTENER_UNKNOWN };
        let Ok(given) = given else { return VIPOOL_LISTENER_UNKNOWN };
        for (place, address) in wanted.iter_mut().zip(given) {
            let Some(address) = address.get() else { return VIPOOL_LISTENER_UNKNOWN };
            *place = address;
        }
        match listeners::find(wanted, protocol, from.and_then(vipool_sockaddr::get)) {
            ListenerMatch::NotFound => VIPOOL_LISTENER_NONE,
            ListenerMatch::Index(place) => place as i32,
            ListenerMatch::Unknown => VIPOOL_LISTENER_UNKNOWN,
        }
    })
}

/// The most addresses that are ever asked for at once.
const CANDIDATES: usize = 4;

/// Of vipool_rewriter_options.flags: TCP binds to the wildcard address without a port are
/// put off until the destination is known, as Windows needs it. VIPOOL_DO_DEFER says what that asks
/// of a hook.
pub const VIPOOL_REWRITER_DEFER_WILDCARD: u32 = 1;

/// For whom a rewriter decides.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_rewriter_options {
    /// sizeof(vipool_rewriter_options), set by the caller.
    pub size: usize,
    /// The lease of the process.
    pub handle: vipool_handle,
    /// The id of the rule that the program is under: vipool_rule.id.
    pub rule: u64,
    /// Asked what listens. May be NULL: then the kernel never says, and a dialled 127.0.0.1 goes
    /// to the host's except for ports that are always the session's own.
    pub find_listener: vipool_find_listener_fn,
    /// Handed to find_listener.
    pub context: *mut c_void,
    /// VIPOOL_REWRITER_...
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_rewriter_options { size, handle, rule, find_listener, context, flags, reserved });

/// Decides for the socket calls of one program in one session. It holds no state of any socket.
/// Any number of threads may use it at once; vipool_rewriter_free() must be the last call, and a
/// hook keeps it for the life of its process.
pub struct vipool_rewriter {
    handle: Handle,
    addresses: Addresses,
    rules: RewriteRules,
    /// What borrows of the map that `_map` keeps.
    live: LiveSystem<'static, Callback>,
    _map: Arc<Reader>,
}

/// What decides.
type Decider<'a> = Rewriter<'a, LiveSystem<'static, Callback>>;

impl Owned for vipool_rewriter {
    type Access = Shared;
}

impl vipool_rewriter {
    /// What decides for a call that is made now.
    #[inline]
    pub(crate) fn now(&self) -> Decider<'_> {
        Decider { lease_held: self.live.reader.is_live(&self.handle), ..self.names() }
    }

    /// What shows addresses: no matter whether the lease is still held.
    #[inline]
    pub(crate) fn names(&self) -> Decider<'_> {
        Rewriter {
            addresses: self.addresses,
            rules: self.rules,
            lease_held: true,
            system: &self.live,
        }
    }
}

/// Who is asked what listens: the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callback {
    find_listener: vipool_find_listener_fn,
    context: *mut c_void,
}

// SAFETY: the context is only handed through to the callback, and the header says that it is
// called by whatever thread uses the rewriter.
unsafe impl Send for Callback {}
// SAFETY: as above.
unsafe impl Sync for Callback {}

impl ListenerLookup for Callback {
    fn find(
        &self,
        wanted: &[SocketAddr],
        protocol: Protocol,
        from: Option<SocketAddr>,
    ) -> ListenerMatch {
        let Some(find) = self.find_listener else { return ListenerMatch::Unknown };
        let from = from.as_ref().map(vipool_sockaddr::from);
        let from = from.as_ref().map_or(ptr::null(), ptr::from_ref);
        let mut addresses = [vipool_sockaddr::NONE; CANDIDATES];
        let mut count = 0;
        for (place, address) in addresses.iter_mut().zip(wanted) {
            place.set(address);
            count += 1;
        }
        let protocol = match protocol {
            Protocol::Tcp => vipool_protocol::VIPOOL_PROTOCOL_TCP,
            Protocol::Udp => vipool_protocol::VIPOOL_PROTOCOL_UDP,
            Protocol::Other => vipool_protocol::VIPOOL_PROTOCOL_OTHER,
        };
        // SAFETY: the caller of vipool_rewriter_new() vouches for the callback and its context.
        match unsafe { find(self.context, addresses.as_ptr(), count, protocol as u32, from) } {
            VIPOOL_LISTENER_NONE => ListenerMatch::NotFound,
            found => usize::try_from(found).map_or(ListenerMatch::Unknown, ListenerMatch::Index),
        }
    }
}

/// Makes a rewriter for a program that is under a rule, in the session of a lease.
///
/// Give it back with vipool_rewriter_free(). It may outlive the reader that it was made of. When
/// vipool_reader_is_superseded() says so, attach again and make a new one.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE (the lease is no longer held),
/// VIPOOL_ERR_NOT_FOUND (no such rule). May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewriter_new(
    reader: *const vipool_reader,
    options: *const vipool_rewriter_options,
    out: *mut *mut vipool_rewriter,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for handle and struct.
        let (reader, options) = unsafe { (shared(reader)?, read(options)?) };
        let reader = &reader.reader;
        let flags = flags(options.flags, VIPOOL_REWRITER_DEFER_WILDCARD)?;
        let handle = options.handle.get()?;
        let leases = reader.lookup(handle.session);
        if !reader.is_live(&handle) {
            return Err(VIPOOL_ERR_STALE.into());
        }
        // SAFETY: the map stays where it is for as long as the rewriter has a share in it, and what
        // is borrowed of it here never leaves the rewriter.
        let map: &'static Reader = unsafe { &*Arc::as_ptr(reader) };
        let policy = map.policy();
        let program = policy
            .programs()
            .find(|program| program.id() == options.rule)
            .ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let mut rules = RewriteRules::new(&program, &policy);
        rules.defer_wildcard = flags & VIPOOL_REWRITER_DEFER_WILDCARD != 0;
        let listeners = Callback { find_listener: options.find_listener, context: options.context };
        let rewriter = vipool_rewriter {
            handle,
            addresses: map.addresses(&leases),
            rules,
            live: LiveSystem { reader: map, policy, program, listeners },
            _map: Arc::clone(reader),
        };
        // SAFETY: not NULL.
        unsafe { give(rewriter, out) };
        Ok(())
    })
}

/// Frees a rewriter. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewriter_free(rewriter: *mut vipool_rewriter) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(rewriter) });
}
