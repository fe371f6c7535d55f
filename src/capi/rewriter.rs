//! A rewriter: decides about the socket calls of one program in one session.

use std::ffi::c_void;
use std::sync::Arc;

use super::error::{catch_panic, silent};
use super::handle::{Opaque, Shared, borrow_shared, check_not_null, free_handle, write_handle};
use super::layout::{layout, read};
use super::listener::{CallbackLookup, vipool_listener_find_fn};
use super::reader::vipool_reader;
use super::session::vipool_handle;
use super::status::vipool_status::{self, *};
use super::text::{check_flags, check_reserved};
use crate::map::Reader;
use crate::rewrite::{LiveSystem, RewriteRules, Rewriter};
use crate::session::{Addresses, Handle};

/// vipool_rewriter_options.flags: defer TCP binds to the wildcard address and port 0 until the
/// destination is known. Only for Windows. VIPOOL_DO_DEFER describes the reason, and the steps of
/// the hook.
pub const VIPOOL_REWRITER_DEFER_WILDCARD: u32 = 1;
/// vipool_rewriter_options.flags: the hook can bind a datagram socket again (VIPOOL_DO_REBIND). If
/// the program binds an IPv6 datagram socket to :: and port 0, the socket stays on ::, so it
/// reaches IPv4 and IPv6 addresses of this host. The hook binds the socket again when its first
/// destination on another host is known. Only for Linux.
pub const VIPOOL_REWRITER_REBIND_DATAGRAMS: u32 = 2;

/// Options of vipool_rewriter_new().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_rewriter_options {
    /// sizeof(vipool_rewriter_options), set by the caller.
    pub size: usize,
    /// The handle of the session to which the process belongs.
    pub handle: vipool_handle,
    /// The rule that applies to the program: vipool_rule.id.
    pub rule: u64,
    /// Finds listeners. May be NULL. In this case, a connect to 127.0.0.1 goes to the host, unless
    /// the port is in own_ports or the rule has VIPOOL_PROGRAM_CONNECT_OWN.
    pub find_listener: vipool_listener_find_fn,
    /// Passed to find_listener.
    pub context: *mut c_void,
    /// VIPOOL_REWRITER_...
    pub flags: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_rewriter_options { size, handle, rule, find_listener, context, flags, reserved });

/// Decides about the socket calls of one program in one session. A rewriter keeps no state for a
/// socket. Threads may share it. A hook does not free it, because another thread may still use it
/// in a call.
pub struct vipool_rewriter {
    handle: Handle,
    addresses: Addresses,
    rules: RewriteRules,
    /// Borrows the map that `_map` keeps alive. Methods shorten the lifetime to that of the
    /// rewriter, so that no borrow outlives the map.
    system: LiveSystem<'static, CallbackLookup>,
    _map: Arc<Reader>,
}

/// The Rust rewriter that decides about one call.
type CallRewriter<'a> = Rewriter<'a, LiveSystem<'a, CallbackLookup>>;

impl Opaque for vipool_rewriter {
    type Access = Shared;
}

impl vipool_rewriter {
    /// Returns the rewriter for a call. Checks whether the lease is still held.
    #[inline]
    pub(crate) fn for_call(&self) -> CallRewriter<'_> {
        Rewriter { lease_held: self.system.reader.is_live(&self.handle), ..self.for_display() }
    }

    /// Returns the rewriter for addresses that the program receives, for example from getsockname.
    /// It rewrites even if the lease is no longer held.
    #[inline]
    pub(crate) fn for_display(&self) -> CallRewriter<'_> {
        Rewriter {
            addresses: self.addresses,
            rules: self.rules,
            lease_held: true,
            system: &self.system,
        }
    }
}

/// Makes a rewriter.
///
/// When vipool_reader_is_superseded() reports that the map is out of date, open a new reader and
/// make a new rewriter.
///
/// Parameters:
/// - `reader`: the reader. The rewriter may outlive it.
/// - `options`: the handle and the rule.
/// - `out`: receives the rewriter. Free it with vipool_rewriter_free().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_SESSION_ID, VIPOOL_ERR_HANDLE, VIPOOL_ERR_STALE (the lease is no longer held),
/// VIPOOL_ERR_NOT_FOUND (unknown rule).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewriter_new(
    reader: *const vipool_reader,
    options: *const vipool_rewriter_options,
    out: *mut *mut vipool_rewriter,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        // SAFETY: the caller guarantees handle and struct.
        let (reader, options) = unsafe { (borrow_shared(reader)?, read(options)?) };
        let reader = &reader.reader;
        check_reserved(options.reserved)?;
        let known_flags = VIPOOL_REWRITER_DEFER_WILDCARD | VIPOOL_REWRITER_REBIND_DATAGRAMS;
        let flags = check_flags(options.flags, known_flags)?;
        let handle = options.handle.decode_handle()?;
        let leases = reader.lookup(handle.session);
        if !reader.is_live(&handle) {
            return Err(VIPOOL_ERR_STALE.into());
        }
        // SAFETY: the borrow goes into the rewriter. The rewriter also gets an `Arc` of the map, and
        // returns no borrow that outlives the rewriter.
        let map: &'static Reader = unsafe { &*Arc::as_ptr(reader) };
        let policy = map.policy();
        let program = policy
            .programs()
            .find(|program| program.id() == options.rule)
            .ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let mut rules = RewriteRules::new(&program, &policy);
        rules.defer_wildcard = flags & VIPOOL_REWRITER_DEFER_WILDCARD != 0;
        rules.rebind_datagrams = flags & VIPOOL_REWRITER_REBIND_DATAGRAMS != 0;
        // SAFETY: the header states that threads may share the rewriter, and that it calls the
        // callback on the thread of a call.
        let listeners = unsafe { CallbackLookup::new(options.find_listener, options.context) };
        let rewriter = vipool_rewriter {
            handle,
            addresses: map.addresses(&leases),
            rules,
            system: LiveSystem { reader: map, policy, program, listeners },
            _map: Arc::clone(reader),
        };
        // SAFETY: not NULL.
        unsafe { write_handle(rewriter, out) };
        Ok(())
    })
}

/// Frees a rewriter.
///
/// Parameters:
/// - `rewriter`: the rewriter. NULL is ignored.
///
/// Threads: any; the last call with the rewriter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewriter_free(rewriter: *mut vipool_rewriter) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(rewriter) });
}
