//! The errors of the operations on a map.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::Tick;
use crate::session::SessionId;

/// The reason why a pool has no address for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Every address is leased, reserved or drained.
    #[error("{}", crate::EXHAUSTED_MESSAGE)]
    Exhausted,
    /// The addresses that are not leased cool down.
    #[error("every free address cools down until second {until} after boot")]
    Cooling {
        /// The time at which the first of them is available.
        until: Tick,
    },
    /// Cooled addresses wait for [`Map::reap`](crate::map::Map::reap) to check their sockets.
    #[error("every free address may still have sockets (run 'vipool gc' to check them)")]
    Lingering,
    /// The server or the whole pool drains.
    #[error("the pool drains: no new session gets an address")]
    Draining,
}

/// The reason why [`Map::open_session`](crate::map::Map::open_session) failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No pool has an address.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// No pool has this name.
    #[error("there is no pool named {0:?}")]
    UnknownPool(String),
    /// The requested address is in no pool of this server.
    #[error("{0} is in no pool of this server")]
    Excluded(IpAddr),
    /// Another session holds the requested address.
    #[error("{0} is leased to another session")]
    Taken(IpAddr),
    /// The requested address cools down until this time.
    #[error("{0} cools down until second {1} after boot")]
    AddressCooling(IpAddr, Tick),
    /// The requested address has cooled down, but may still have sockets.
    #[error("{0} may still have sockets of its last session")]
    AddressLingering(IpAddr),
    /// The requested address is reserved for another user.
    #[error("{0} is reserved for another user")]
    ReservedForAnother(IpAddr),
    /// The requested address is drained.
    #[error("{0} is drained")]
    AddressDrained(IpAddr),
    /// The user has the maximum number of sessions.
    #[error("user {user:?} has {limit} sessions, the limit set by sessions-per-user")]
    Quota {
        /// The user.
        user: String,
        /// The limit.
        limit: u32,
    },
    /// The server has the maximum number of sessions.
    #[error("the server has {0} sessions, the limit set by max-sessions")]
    TooManySessions(u32),
    /// [`Settings::await_restore`](crate::map::Settings::await_restore) is set, and the sessions of
    /// the operating system are not restored yet.
    #[error("not ready: the sessions of the operating system are not restored yet")]
    NotReady,
    /// The map cannot be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// The reason why a session was not closed.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The session is not open.
    #[error("session {0} is not open")]
    NotOpen(SessionId),
    /// The lease of the handle was released before.
    #[error("stale: the lease of session {0} was released before")]
    Stale(SessionId),
    /// The handle belongs to another boot or network namespace.
    #[error("the handle belongs to another boot or network namespace")]
    Foreign,
    /// The map cannot be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// The reason why a map cannot be created, opened or locked.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The operating system returned an error.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// The action that failed, such as `cannot open`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// There is no map. The command `vipool up` creates it.
    #[error("there is no map at {} (create it with 'vipool up')", .0.display())]
    Missing(PathBuf),
    /// The file is no map, is damaged, or has an unknown version.
    #[error("{}: not a usable map file: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// The map was created before the last start of the machine, or in another network namespace.
    #[error("{} belongs to another boot or network namespace (create a new map with 'vipool up')", .0.display())]
    OtherBoot(PathBuf),
    /// The file is not trusted: it is a symbolic link, has another owner, or others can write to it.
    #[error("{}: refused: {reason}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// Another writer holds the lock.
    #[error("busy: pid {pid} holds the writer lock{}", if *exclusive { " exclusively" } else { "" })]
    Busy {
        /// The process that holds the lock.
        pid: u32,
        /// Whether it holds the lock until it closes the map.
        exclusive: bool,
    },
    /// The parent of this process opened the map before the fork.
    #[error("the map was opened before this process forked (open it again)")]
    Forked,
    /// No map can be built from the plan.
    #[error("{0}")]
    Plan(String),
}

/// The reason why an address was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The address is in no pool of this server.
    #[error("{0} is in no pool of this server")]
    NotInPool(IpAddr),
    /// The address is reserved for another user.
    #[error("{0} is reserved for another user (run 'vipool unreserve' first)")]
    ReservedForAnother(IpAddr),
    /// The address is not reserved.
    #[error("{0} is not reserved")]
    NotReserved(IpAddr),
    /// The map cannot be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}
