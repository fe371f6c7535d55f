//! Rewrite calls for the packet information of datagrams: IP_PKTINFO and IPV6_PKTINFO.

use std::ffi::c_void;

use super::address::vipool_ip;
use super::outcome::vipool_outcome;
use super::rewrite::{decide, decide_for_socket, parse_address};
use super::rewriter::vipool_rewriter;
use super::socket::{CallerSocket, call_get_address, vipool_get_address_fn, vipool_socket};
use super::status::vipool_status::{self, *};
use crate::rewrite::PacketInfo;
use crate::rewrite::sockaddr::Parsed;

/// Reads the packet information that the caller passes.
///
/// # Safety
/// `address` is NULL or valid for reads.
unsafe fn read_packet_info(
    address: *const vipool_ip,
    interface: u32,
) -> Result<PacketInfo, vipool_status> {
    // SAFETY: the caller guarantees the address.
    let address = unsafe { address.as_ref() }.ok_or(VIPOOL_ERR_NULL)?.decode_required_ip()?;
    Ok(PacketInfo { address, interface })
}

/// Decides about the packet information of one datagram to send: sendmsg and WSASendMsg.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `socket`: the socket.
/// - `source`: the source address that the program requests.
/// - `interface_index`: the interface that the program requests; 0 for none.
/// - `address`, `length`: the destination of the datagram, already rewritten. If the call
///   contains no destination, this is the peer of the socket. NULL if it is not known.
/// - `out`: receives the outcome. With VIPOOL_REWRITTEN use the source `out->address`, which has no
///   port, and the interface `out->interface_index`.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_ADDRESS. After an error, the hook does not change the packet
/// information.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_send_packet_info(
    rewriter: *const vipool_rewriter,
    socket: *const vipool_socket,
    source: *const vipool_ip,
    interface_index: u32,
    address: *const c_void,
    length: u32,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter, socket: &CallerSocket| {
        // SAFETY: the caller guarantees the address.
        let packet_info = unsafe { read_packet_info(source, interface_index) }?;
        let mut destination = None;
        if !address.is_null() {
            // SAFETY: the caller guarantees the bytes.
            if let Parsed::Inet(socket_address) = unsafe { parse_address(address, length) }? {
                destination = Some(socket_address);
            }
        }
        Ok(rewriter.for_call().send_packet_info(socket, packet_info, destination))
    };
    // SAFETY: the caller guarantees handle and structs.
    unsafe { decide_for_socket(rewriter, socket, out, decision) }
}

/// Decides about the packet information of a received datagram: recvmsg, recvmmsg and WSARecvMsg.
///
/// Parameters:
/// - `rewriter`: the rewriter.
/// - `address`: the address in the packet information.
/// - `interface_index`: the interface in the packet information.
/// - `get_source`, `context`: the callback that returns the source of the datagram as the kernel
///   reported it. The library calls the callback only if the outcome depends on the source. May be
///   NULL.
/// - `out`: receives the outcome. With VIPOOL_REWRITTEN the program gets `out->address` and
///   `out->interface_index`.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_ADDRESS.
/// After an error, the hook does not change the packet information.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_rewrite_visible_packet_info(
    rewriter: *const vipool_rewriter,
    address: *const vipool_ip,
    interface_index: u32,
    get_source: vipool_get_address_fn,
    context: *mut c_void,
    out: *mut vipool_outcome,
) -> vipool_status {
    let decision = |rewriter: &vipool_rewriter| {
        // SAFETY: the caller guarantees the address.
        let packet_info = unsafe { read_packet_info(address, interface_index) }?;
        // SAFETY: the caller guarantees callback and context.
        let read_source = || unsafe { call_get_address(get_source, context) };
        Ok(rewriter.for_display().visible_packet_info(packet_info, read_source))
    };
    // SAFETY: the caller guarantees handle and struct.
    unsafe { decide(rewriter, out, decision) }
}
