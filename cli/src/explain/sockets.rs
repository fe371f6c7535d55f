//! The sockets of a process, with what it asked for and what the kernel has.
//!
//! Nothing is kept of what a program asked: it follows from what the kernel has and from the rules
//! by which the hook shows it, which are asked here as the hook asks them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{getpeername, getsockname, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use serde::Serialize;
use vipool::policy::WildcardBind;
use vipool::rewrite::{Outcome, Protocol, Rewriter, SocketProperties, SystemView};

use crate::sockets::{Row, open_by};

/// A TCP or UDP socket of a process, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub descriptors: Vec<i32>,
    pub tcp: bool,
    /// The unspecified address and port 0 while it has none.
    pub local: SocketAddr,
    pub peer: Option<SocketAddr>,
    /// TCP that listens.
    pub listening: bool,
    /// Of its options, as far as they were seen: `IPV6_V6ONLY`, and those of row 26.
    pub is_v6only: bool,
    pub can_share_port: bool,
}

/// The TCP and UDP sockets of a process, and how many of its sockets could be of that kind and
/// could not be looked at. `rows` are the tables of its network namespace.
pub fn of_process(pid: u32, rows: &[Row]) -> std::io::Result<(Vec<Socket>, usize)> {
    let rows: BTreeMap<u64, &Row> = rows.iter().map(|row| (row.inode, row)).collect();
    let handle = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let handle = handle.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let mut sockets = Vec::new();
    let mut unseen = 0;
    for (inode, descriptors) in open_by(pid)? {
        let first = *descriptors.first().unwrap_or(&-1);
        let copy = handle
            .as_ref()
            .and_then(|handle| pidfd_getfd(handle, first, PidfdGetfdFlags::empty()).ok());
        match (copy, rows.get(&inode)) {
            (Some(copy), _) => sockets.extend(from_descriptor(&copy, descriptors)),
            (None, Some(row)) => sockets.push(from_row(row, descriptors)),
            (None, None) => unseen += 1,
        }
    }
    sockets.sort_by_key(|socket| socket.descriptors.clone());
    Ok((sockets, unseen))
}

/// Whether a socket of a process is for IPv6 alone, if that can be seen.
pub fn is_v6only(pid: u32, descriptor: i32) -> Option<bool> {
    let process = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
    let copy = pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty()).ok()?;
    sockopt::ipv6_v6only(copy).ok()
}

/// `None` if it is neither TCP nor UDP.
fn from_descriptor(socket: &OwnedFd, descriptors: Vec<i32>) -> Option<Socket> {
    use rustix::net::ipproto::{MPTCP, TCP, UDP, UDPLITE};

    let protocol = sockopt::socket_protocol(socket).ok()??;
    if ![TCP, MPTCP, UDP, UDPLITE].contains(&protocol) {
        return None;
    }
    let local = SocketAddr::try_from(getsockname(socket).ok()?).ok()?;
    let peer = getpeername(socket).ok().flatten();
    let on = |option: rustix::io::Result<bool>| option.unwrap_or(false);
    Some(Socket {
        descriptors,
        tcp: protocol == TCP || protocol == MPTCP,
        local,
        peer: peer.and_then(|peer| SocketAddr::try_from(peer).ok()),
        listening: on(sockopt::socket_acceptconn(socket)),
        is_v6only: on(sockopt::ipv6_v6only(socket)),
        can_share_port: on(sockopt::socket_reuseaddr(socket))
            || on(sockopt::socket_reuseport(socket))
            || on(sockopt::socket_broadcast(socket)),
    })
}

fn from_row(row: &Row, descriptors: Vec<i32>) -> Socket {
    Socket {
        descriptors,
        tcp: row.tcp,
        local: row.local,
        peer: Some(row.remote).filter(|peer| peer.port() != 0),
        listening: row.tcp && row.listening,
        is_v6only: false,
        // Not to be seen in a table: what stayed on a wildcard address may have had it.
        can_share_port: !row.tcp,
    }
}

/// A socket as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    pub descriptors: Vec<i32>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `unbound`, `bound`, `listening`, `connected` or `accepted`.
    pub state: &'static str,
    /// What the program bound; none where it bound nothing itself.
    pub asked: Option<SocketAddr>,
    /// What the kernel has.
    pub bound: SocketAddr,
    /// The other end, as the program sees it.
    pub peer_shown: Option<SocketAddr>,
    /// The other end, as the kernel has it.
    pub peer: Option<SocketAddr>,
    /// Why.
    pub why: String,
}

/// What the program asked for in each of its sockets. `rewriter` is that of its hook, if it is
/// rewritten; `is_pooled` says which addresses are of the pools.
pub fn tell<W: SystemView>(
    sockets: &[Socket],
    rewriter: Option<&Rewriter<'_, W>>,
    is_pooled: impl Fn(&SocketAddr) -> bool,
) -> Vec<Told> {
    let tell = |socket| match rewriter {
        Some(rewriter) => tell_one(socket, sockets, rewriter),
        None => tell_untouched(socket, sockets, &is_pooled),
    };
    sockets.iter().map(tell).collect()
}

/// A socket of a process that is not rewritten (any more).
fn tell_untouched(
    socket: &Socket,
    all: &[Socket],
    is_pooled: impl Fn(&SocketAddr) -> bool,
) -> Told {
    let told = Told::new(socket, all);
    if !is_pooled(&socket.local) {
        return told;
    }
    let why = "an address of a session's: bound while the process was in one, or by its own choice";
    Told { asked: None, why: why.to_owned(), ..told }
}

impl Told {
    /// As it is, without a word on why.
    fn new(socket: &Socket, all: &[Socket]) -> Self {
        let state = state(socket, all);
        Self {
            descriptors: socket.descriptors.clone(),
            protocol: if socket.tcp { "tcp" } else { "udp" },
            state,
            asked: matches!(state, "bound" | "listening").then_some(socket.local),
            bound: socket.local,
            peer_shown: socket.peer,
            peer: socket.peer,
            why: String::new(),
        }
    }
}

fn tell_one<W: SystemView>(socket: &Socket, all: &[Socket], rewriter: &Rewriter<'_, W>) -> Told {
    let Socket { local, peer, .. } = *socket;
    let told = Told::new(socket, all);
    let shown = |end: SocketAddr, other: Option<SocketAddr>| {
        rewriter.visible_address(end, || other).rewritten().unwrap_or(end)
    };
    let is_v = rewriter.is_virtual_ip(local.ip());
    let peer_shown = peer.map(|peer| shown(peer, Some(local)));
    let facts = SocketProperties {
        protocol: if socket.tcp { Protocol::Tcp } else { Protocol::Udp },
        local_address: Some(unspecified(local)),
        is_v6only: socket.is_v6only,
        can_share_port: socket.can_share_port,
    };
    let (asked, why) = match (told.state, peer) {
        ("unbound", _) => (None, "bound to nothing yet".to_owned()),
        ("bound" | "listening", _) => {
            let asked = shown(local, peer);
            if asked != local {
                let keeps = rewriter.rules.wildcard == WildcardBind::Keep;
                let why = match keeps || rewriter.addresses.v4.is_some() {
                    true => "the session's own loopback address stands for it",
                    false => {
                        "the session's own loopback address stands for it, and for the wildcard \
                         address"
                    }
                };
                (Some(asked), why.to_owned())
            } else if is_v {
                let why = "the session's virtual IP stands for the wildcard address, and for an \
                           address of the host's";
                (Some(unspecified(local)).map(|all| with_port(all, local.port())), why.to_owned())
            } else {
                (Some(local), why_untouched(&facts, local, rewriter).to_owned())
            }
        }
        ("accepted", _) => (None, "came in through its listener".to_owned()),
        (_, Some(to)) if peer_shown != peer => {
            let here = if is_own_source(rewriter, local) { ", from the session's own" } else { "" };
            let what = match rewriter.is_virtual_ip(to.ip()) {
                true => "the session's own listener on its virtual IP",
                false => "the session's own loopback address",
            };
            (None, format!("{} was dialled: {what} answers{here}", shown(to, Some(local)).ip()))
        }
        (_, Some(to)) if to.ip().to_canonical().is_loopback() => {
            match rewriter.connect(&facts, to) {
                Outcome::Passed(reason) => (None, reason.text().to_owned()),
                Outcome::Refused(_) | Outcome::Rewritten(_) => (
                    None,
                    "dialled before the session's own was there, or before the process was in \
                     this session"
                        .to_owned(),
                ),
            }
        }
        _ if is_v => (None, "the session's virtual IP is its source".to_owned()),
        (_, Some(to)) => match rewriter.connect(&facts, to) {
            Outcome::Passed(reason) => (None, reason.text().to_owned()),
            Outcome::Refused(_) | Outcome::Rewritten(_) => {
                (None, "the program bound it itself".to_owned())
            }
        },
        _ => (None, String::new()),
    };
    Told { asked, peer_shown, why, ..told }
}

/// Why a bind was left as it was. Nothing tells whether the program or the kernel chose the port.
fn why_untouched<W: SystemView>(
    facts: &SocketProperties,
    local: SocketAddr,
    rewriter: &Rewriter<'_, W>,
) -> &'static str {
    let asked = [local, with_port(local, 0)].map(|local| rewriter.bind(facts, local));
    match asked {
        [Outcome::Passed(reason), _] | [_, Outcome::Passed(reason)] => reason.text(),
        _ => "bound before the process was in this session, or handed to it",
    }
}

fn state(socket: &Socket, all: &[Socket]) -> &'static str {
    let is_its_listener = |it: &&Socket| it.listening && it.local.port() == socket.local.port();
    match socket.peer {
        _ if socket.listening => "listening",
        Some(_) if socket.tcp && all.iter().any(|it| is_its_listener(&it)) => "accepted",
        Some(_) => "connected",
        None if socket.local.port() == 0 => "unbound",
        None => "bound",
    }
}

/// Whether the source is one that the hook chose for a dialled loopback address.
fn is_own_source<W: SystemView>(rewriter: &Rewriter<'_, W>, local: SocketAddr) -> bool {
    rewriter.visible_address(local, || None).rewritten().is_some()
}

/// The address that an unbound socket of this kind has.
fn unspecified(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    }
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// A port that the session's programs can't have, or that the process can't, and who has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// Of docs/socket-matrix.md.
    pub row: u8,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// What is bound.
    pub address: SocketAddr,
    /// Who has it, if that can be seen.
    pub pid: Option<u32>,
    pub program: Option<String>,
    /// Whether the program's rule lists the port as the session's own.
    pub own_port: bool,
    /// What follows.
    pub text: String,
    /// What names the socket in `/proc/PID/fd`.
    #[serde(skip)]
    pub inode: u64,
}

/// What stands against wildcard and loopback binds: `foreign` are sockets of other processes;
/// `is_pooled` says which addresses are of the pools, `own_port` which ports the program's rule
/// names.
///
/// A listener of the host's on 0.0.0.0 keeps the port from every session (row 2), one on [::] that
/// serves IPv4 too (row 29); and a session's own listener keeps the wildcard address from a program
/// that is not rewritten.
pub fn conflicts(
    foreign: &[Row],
    is_rewritten: bool,
    is_pooled: impl Fn(&SocketAddr) -> bool,
    own_port: impl Fn(u16) -> bool,
) -> Vec<Conflict> {
    let mut found: Vec<Conflict> = Vec::new();
    for row in foreign.iter().filter(|row| row.listening && row.local.port() != 0) {
        let Row { tcp, local, .. } = *row;
        let port = local.port();
        let protocol = if tcp { "tcp" } else { "udp" };
        let (number, text) = match local {
            _ if is_rewritten && !local.ip().is_unspecified() => continue,
            SocketAddr::V4(_) if is_rewritten => (
                2,
                format!(
                    "the host's own listener has port {port} on every address: a bind of a \
                     session's fails with EADDRINUSE"
                ),
            ),
            SocketAddr::V6(_) if is_rewritten => (
                29,
                format!(
                    "the host's own listener has port {port} on every address, those of IPv4 \
                     too unless it is for IPv6 alone: a bind of a session's fails with EADDRINUSE"
                ),
            ),
            _ if is_pooled(&local) => (
                2,
                format!(
                    "a session has port {port} on its own address: a bind of this process to \
                     the wildcard address fails with EADDRINUSE"
                ),
            ),
            _ => continue,
        };
        // One on 0.0.0.0 says all that one on [::] beside it would.
        let same = |it: &&Conflict| {
            it.protocol == protocol && it.address.port() == port && it.row == number
        };
        if found.iter().any(|it| same(&it)) {
            continue;
        }
        found.push(Conflict {
            row: number,
            protocol,
            address: local,
            pid: None,
            program: None,
            own_port: own_port(port),
            text,
            inode: row.inode,
        });
    }
    let is_told = |it: &Conflict, all: &[Conflict]| {
        let other = |other: &Conflict| {
            other.row == 2
                && other.protocol == it.protocol
                && other.address.port() == it.address.port()
        };
        it.row == 29 && all.iter().any(other)
    };
    let all = found.clone();
    found.retain(|it| !is_told(it, &all));
    found.sort_by_key(|it| (!it.own_port, it.address.port(), it.protocol));
    found
}
