//! Calls the functions of the rewriter through the C ABI.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

use std::ffi::c_void;
use std::net::SocketAddr;
use std::ptr::null;

use vipool::capi::address::*;
use vipool::capi::listener::*;
use vipool::capi::outcome::*;
use vipool::capi::packet_info::*;
use vipool::capi::reason::*;
use vipool::capi::rewrite::*;
use vipool::capi::rewriter::*;
use vipool::capi::socket::*;
use vipool::capi::visible::*;
use vipool::rewrite::{Protocol, SocketProperties};

use super::values::*;
use crate::api::Call;

pub unsafe extern "C" fn find_listener(
    context: *mut c_void,
    addresses: *const vipool_sockaddr,
    count: usize,
    _protocol: u32,
    _source: *const vipool_sockaddr,
) -> i32 {
    // SAFETY: `context` is the list that `CApi::rewrite` passed. The library passes a valid array.
    let (listening_addresses, candidates) = unsafe {
        (&*context.cast::<Vec<SocketAddr>>(), std::slice::from_raw_parts(addresses, count))
    };
    let index = candidates
        .iter()
        .position(|candidate| listening_addresses.contains(&socket_address(candidate)));
    index.map_or(VIPOOL_LISTENER_NONE, |index| index as i32)
}

unsafe extern "C" fn get_other_end(
    context: *mut c_void,
    buffer: *mut c_void,
    capacity: u32,
) -> u32 {
    // SAFETY: `context` is the address that `call_rewriter` passed.
    let Some(other_end) = (unsafe { *context.cast::<Option<SocketAddr>>() }) else { return 0 };
    let sockaddr = c_sockaddr(other_end);
    assert!(capacity >= sockaddr.length);
    // SAFETY: the library passes a buffer that has room for the longest sockaddr.
    unsafe { buffer.cast::<[u8; VIPOOL_SOCKADDR_MAX]>().write(sockaddr.bytes) };
    sockaddr.length
}

/// Converts the properties of a socket. The result points to `local`.
fn c_socket(socket: &SocketProperties, local: &Option<vipool_sockaddr>) -> vipool_socket {
    let mut properties = sized::<vipool_socket>();
    if let Some(local) = local {
        (properties.local, properties.local_length) = (local.bytes.as_ptr().cast(), local.length);
    }
    properties.protocol = match socket.protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
        Protocol::UdpLite => 3,
        Protocol::Other => 0,
    };
    properties.flags = u32::from(socket.is_v6only) * VIPOOL_SOCKET_V6ONLY
        + u32::from(socket.can_share_port) * VIPOOL_SOCKET_SHARES_PORT;
    properties
}

/// Calls the rewriter and returns the outcome as text.
///
/// # Safety
/// `rewriter` is a valid rewriter handle.
pub unsafe fn call_rewriter(rewriter: *const vipool_rewriter, call: Call) -> String {
    let mut outcome = sized::<vipool_outcome>();
    let mut predicate_result = 9;
    let out = &raw mut outcome;
    // SAFETY: the structs are valid. All memory that they point to outlives the calls.
    let status = unsafe {
        match call {
            Call::Bind(socket, address) => {
                let (local, address) = (socket.local_address.map(c_sockaddr), c_sockaddr(address));
                let (socket, bytes) = (c_socket(&socket, &local), address.bytes.as_ptr().cast());
                vipool_rewrite_bind(rewriter, &socket, bytes, address.length, out)
            }
            Call::Listen(socket) => {
                let local = socket.local_address.map(c_sockaddr);
                vipool_rewrite_listen(rewriter, &c_socket(&socket, &local), out)
            }
            Call::Connect(socket, destination) => {
                let (local, destination) =
                    (socket.local_address.map(c_sockaddr), c_sockaddr(destination));
                let (socket, bytes) =
                    (c_socket(&socket, &local), destination.bytes.as_ptr().cast());
                vipool_rewrite_connect(rewriter, &socket, bytes, destination.length, out)
            }
            Call::Send(socket, destination, is_fast_open) => {
                let (local, destination) =
                    (socket.local_address.map(c_sockaddr), c_sockaddr(destination));
                let (socket, bytes) =
                    (c_socket(&socket, &local), destination.bytes.as_ptr().cast());
                vipool_rewrite_send(
                    rewriter,
                    &socket,
                    bytes,
                    destination.length,
                    is_fast_open.into(),
                    out,
                )
            }
            Call::SendPacketInfo(socket, packet_info, destination) => {
                let (local, destination) =
                    (socket.local_address.map(c_sockaddr), destination.map(c_sockaddr));
                let bytes = destination
                    .as_ref()
                    .map_or(null(), |destination| destination.bytes.as_ptr().cast());
                vipool_rewrite_send_packet_info(
                    rewriter,
                    &c_socket(&socket, &local),
                    &c_ip(packet_info.address),
                    packet_info.interface,
                    bytes,
                    destination.map_or(0, |destination| destination.length),
                    out,
                )
            }
            Call::VisiblePacketInfo(packet_info, mut source) => vipool_rewrite_visible_packet_info(
                rewriter,
                &c_ip(packet_info.address),
                packet_info.interface,
                Some(get_other_end),
                (&raw mut source).cast(),
                out,
            ),
            Call::VisibleAddress(address, mut other_end) => {
                let (address, context) = (c_sockaddr(address), (&raw mut other_end).cast());
                let bytes = address.bytes.as_ptr().cast();
                vipool_rewrite_visible_address(
                    rewriter,
                    bytes,
                    address.length,
                    Some(get_other_end),
                    context,
                    out,
                )
            }
            Call::VisibleIp(ip) => vipool_rewrite_visible_ip(rewriter, &c_ip(ip), out),
            Call::MulticastInterface(destination) => {
                vipool_rewrite_multicast_interface(rewriter, &c_ip(destination), out)
            }
            Call::HostAddresses(client) => {
                let client = client.map(c_ip).unwrap_or_default();
                let mut hosts = sized::<vipool_host_addresses>();
                check(vipool_rewrite_host_addresses(rewriter, &client, &mut hosts)).unwrap();
                return match hosts.kind {
                    1 => format!("{:?} {:?}", ip(hosts.v4), ip(hosts.v6)),
                    _ => copy_c_string(vipool_reason_get_name(hosts.reason)),
                };
            }
            Call::IsOwnAddress(ip) => {
                vipool_rewrite_is_own_address(rewriter, &c_ip(ip), &mut predicate_result)
            }
            Call::IsHidden(ip) => {
                vipool_rewrite_is_hidden(rewriter, &c_ip(ip), &mut predicate_result)
            }
            Call::IsRetryAllowed(ip) => {
                vipool_rewrite_is_retry_allowed(rewriter, &c_ip(ip), &mut predicate_result)
            }
        }
    };
    check(status).unwrap();
    let is_packet_info = matches!(call, Call::SendPacketInfo(..) | Call::VisiblePacketInfo(..));
    match outcome.kind {
        0 => (predicate_result == 1).to_string(),
        1 if is_packet_info => {
            format!("{} via {}", socket_address(&outcome.address).ip(), outcome.interface_index)
        }
        1 => {
            let mut description = socket_address(&outcome.address).to_string();
            if outcome.flags & VIPOOL_DO_CLEAR_V6ONLY != 0 {
                description += " v6only";
            }
            if outcome.flags & VIPOOL_DO_DEFER != 0 {
                description += " defer";
            }
            if outcome.flags & VIPOOL_DO_BIND_FIRST != 0 {
                description += &format!(" from {}", socket_address(&outcome.bind).ip());
                if outcome.flags & VIPOOL_DO_DEFER_PORT != 0 {
                    description += " late";
                }
            }
            description
        }
        2 => copy_c_string(vipool_reason_get_name(outcome.reason)),
        _ => {
            assert_ne!(outcome.error, 0);
            copy_c_string(vipool_reason_get_name(outcome.reason))
        }
    }
}
