//! Reports the address that a program requested for each socket, and the address that is bound.
//!
//! The kernel stores only the bound address. This module infers the requested address from the
//! bound address. It calls the same functions as the hook to determine the address that the
//! program sees.

use std::net::SocketAddr;

use serde::Serialize;
use vipool::policy::WildcardBind;
use vipool::rewrite::{Outcome, Protocol, Rewriter, SocketProperties, SystemView};

use super::sockets::Socket;

/// The report about a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SocketReport {
    pub descriptors: Vec<i32>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `unbound`, `bound`, `listening`, `connected` or `accepted`.
    pub state: &'static str,
    /// The address that the program requested in its bind; `None` if the program did not bind the
    /// socket, or if the address is unknown.
    pub requested: Option<SocketAddr>,
    /// The local address in the kernel.
    pub bound: SocketAddr,
    /// The peer's address, as the program sees it.
    pub visible_peer: Option<SocketAddr>,
    /// The peer's address in the kernel.
    pub peer: Option<SocketAddr>,
    /// The explanation of the addresses. Empty if there is none.
    pub why: String,
}

/// Reports every socket of a process.
///
/// `rewriter` is the hook's rewriter if the process is rewritten. `is_pool_address` returns whether
/// an address belongs to a pool.
pub fn report_sockets<W: SystemView>(
    sockets: &[Socket],
    rewriter: Option<&Rewriter<'_, W>>,
    is_pool_address: impl Fn(&SocketAddr) -> bool,
) -> Vec<SocketReport> {
    let report = |socket| match rewriter {
        Some(rewriter) => report_rewritten(socket, sockets, rewriter),
        None => report_unrewritten(socket, sockets, &is_pool_address),
    };
    sockets.iter().map(report).collect()
}

/// Reports a socket of a process that is not rewritten, or is no longer rewritten.
fn report_unrewritten(
    socket: &Socket,
    all_sockets: &[Socket],
    is_pool_address: impl Fn(&SocketAddr) -> bool,
) -> SocketReport {
    let report = SocketReport::new(socket, all_sockets);
    if !is_pool_address(&socket.local) {
        return report;
    }
    let why = "an address of a session: the process was in that session, or the program requested \
               this address";
    SocketReport { requested: None, why: why.to_owned(), ..report }
}

impl SocketReport {
    /// Creates a report with an empty `why`.
    fn new(socket: &Socket, all_sockets: &[Socket]) -> Self {
        let state = socket_state(socket, all_sockets);
        Self {
            descriptors: socket.descriptors.clone(),
            protocol: if socket.is_tcp { "tcp" } else { "udp" },
            state,
            requested: matches!(state, "bound" | "listening").then_some(socket.local),
            bound: socket.local,
            visible_peer: socket.peer,
            peer: socket.peer,
            why: String::new(),
        }
    }
}

/// Reports a socket of a process that is rewritten.
fn report_rewritten<W: SystemView>(
    socket: &Socket,
    all_sockets: &[Socket],
    rewriter: &Rewriter<'_, W>,
) -> SocketReport {
    let Socket { local, peer, .. } = *socket;
    let report = SocketReport::new(socket, all_sockets);
    let visible_address = |address: SocketAddr, other_end: Option<SocketAddr>| {
        rewriter.visible_address(address, || other_end).rewritten().unwrap_or(address)
    };
    let is_virtual_ip = rewriter.is_virtual_ip(local.ip());
    let visible_peer = peer.map(|peer| visible_address(peer, Some(local)));
    let properties = SocketProperties {
        protocol: if socket.is_tcp { Protocol::Tcp } else { Protocol::Udp },
        local_address: Some(unbound_address(local)),
        is_v6only: socket.is_v6only,
        can_share_port: socket.can_share_port,
    };
    let (requested, why) = match (report.state, peer) {
        ("unbound", _) => (None, "not bound yet".to_owned()),
        ("bound" | "listening", _) => {
            let requested = visible_address(local, peer);
            if requested != local {
                let keeps_wildcard = rewriter.rules.program_flags.wildcard == WildcardBind::Keep;
                let why = if keeps_wildcard || rewriter.addresses.v4.is_some() {
                    "bound to the session's loopback address instead"
                } else {
                    "bound to the session's loopback address instead; the program may also have \
                     requested the wildcard address"
                };
                (Some(requested), why.to_owned())
            } else if is_virtual_ip {
                let why = "bound to the session's virtual IP; the program may have requested the \
                           wildcard address or an address of the host";
                (Some(with_port(unbound_address(local), local.port())), why.to_owned())
            } else {
                (Some(local), why_unchanged(&properties, local, rewriter).to_owned())
            }
        }
        ("accepted", _) => (None, "accepted by the listener".to_owned()),
        (_, Some(peer_address)) if visible_peer != peer => {
            let source = if is_hook_chosen_source(rewriter, local) {
                ", from the session's loopback address"
            } else {
                ""
            };
            let target = if rewriter.is_virtual_ip(peer_address.ip()) {
                "the session's listener on its virtual IP"
            } else {
                "the session's loopback address"
            };
            let requested = visible_address(peer_address, Some(local)).ip();
            (None, format!("the connect to {requested} went to {target}{source}"))
        }
        (_, Some(peer_address)) if peer_address.ip().to_canonical().is_loopback() => {
            match rewriter.connect(&properties, peer_address) {
                Outcome::Passed(reason) => (None, reason.text().to_owned()),
                Outcome::Refused(_) | Outcome::Rewritten(_) => (
                    None,
                    "connected before the session's listener existed, or before the process \
                     joined this session"
                        .to_owned(),
                ),
            }
        }
        _ if is_virtual_ip => (None, "the source address is the session's virtual IP".to_owned()),
        (_, Some(peer_address)) => match rewriter.connect(&properties, peer_address) {
            Outcome::Passed(reason) => (None, reason.text().to_owned()),
            Outcome::Refused(_) | Outcome::Rewritten(_) => {
                (None, "the program bound the source address itself".to_owned())
            }
        },
        _ => (None, String::new()),
    };
    SocketReport { requested, visible_peer, why, ..report }
}

/// Returns the reason why a bind was not rewritten. The program requested the bound port, or port 0
/// if the kernel chose the port. This function tries both.
fn why_unchanged<W: SystemView>(
    properties: &SocketProperties,
    local: SocketAddr,
    rewriter: &Rewriter<'_, W>,
) -> &'static str {
    let outcomes =
        [local, with_port(local, 0)].map(|requested| rewriter.bind(properties, requested));
    match outcomes {
        [Outcome::Passed(reason), _] | [_, Outcome::Passed(reason)] => reason.text(),
        _ => {
            "bound before the process joined this session, or by another process that passed the socket"
        }
    }
}

fn socket_state(socket: &Socket, all_sockets: &[Socket]) -> &'static str {
    let listens_on_port =
        |listener: &&Socket| listener.is_listening && listener.local.port() == socket.local.port();
    match socket.peer {
        _ if socket.is_listening => "listening",
        Some(_) if socket.is_tcp && all_sockets.iter().any(|socket| listens_on_port(&socket)) => {
            "accepted"
        }
        Some(_) => "connected",
        None if socket.local.port() == 0 => "unbound",
        None => "bound",
    }
}

/// Returns whether `local`, the source of a connection, is a loopback address of the session.
fn is_hook_chosen_source<W: SystemView>(rewriter: &Rewriter<'_, W>, local: SocketAddr) -> bool {
    rewriter.visible_address(local, || None).rewritten().is_some()
}

/// Returns the local address of an unbound socket with the address family of `address`.
fn unbound_address(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}
