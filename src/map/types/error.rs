//! The errors of the operations on a map.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::plan::{MAX_POOL_NAME, MAX_POOLS};
use crate::Tick;
use crate::session::SessionId;

/// The reason why a pool has no address for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Shortage {
    /// Every address is leased, reserved or drained.
    #[error("{}", crate::EXHAUSTED_MESSAGE)]
    Exhausted,
    /// No address is free, but at least one address cools down.
    #[error(
        "no address is available: every free address cools down until second {until} after boot"
    )]
    Cooling {
        /// The time at which the first of these addresses has cooled down.
        until: Tick,
    },
    /// Addresses have cooled down, but [`Map::reap`](crate::map::Map::reap) must still check them
    /// for sockets.
    #[error("no address is available: every free address may have sockets of its last session")]
    Lingering,
    /// The server is drained, or every address of the pool is drained.
    #[error("no address is available: the server or the pool is drained")]
    Draining,
}

/// The reason why [`Map::open_session`](crate::map::Map::open_session) or
/// [`Map::choose_pool`](crate::map::Map::choose_pool) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No pool has an address for the session.
    #[error("{shortage}")]
    Shortage {
        /// The reason why `pool` has no address.
        shortage: Shortage,
        /// The number of the first pool that has no address for the session.
        pool: u16,
    },
    /// No pool has this name.
    #[error("there is no pool named {0:?}")]
    UnknownPool(String),
    /// The requested address is in no pool of this server.
    #[error("{0} is in no pool of this server")]
    Excluded(IpAddr),
    /// Another session holds the requested address.
    #[error("{0} is not available: another session holds it")]
    Taken(IpAddr),
    /// The requested address cools down until this time.
    #[error("{0} is not available: it cools down until second {1} after boot")]
    AddressCooling(IpAddr, Tick),
    /// The requested address has cooled down, but may still have sockets.
    #[error("{0} is not available: its last session may have left sockets")]
    AddressLingering(IpAddr),
    /// The requested address is reserved for another user.
    #[error("{0} is not available: it is reserved for another user")]
    ReservedForAnother(IpAddr),
    /// The requested address is drained.
    #[error("{0} is not available: it is drained")]
    AddressDrained(IpAddr),
    /// The session is already open and cannot add the requested address. Either it has another
    /// address of the same pool, or it gets no address of that pool.
    #[error("{0} is not available: the session is already open with another address")]
    OtherAddress(IpAddr),
    /// The session is already open for another user.
    #[error("session {0} is already open for another user")]
    OtherUser(SessionId),
    /// The user has the maximum number of sessions.
    #[error("user {user:?} has the maximum number of open sessions of one user: {limit}")]
    Quota {
        /// The user.
        user: String,
        /// The maximum number of sessions of a user.
        limit: u32,
    },
    /// A rule selects the pool by a group, and the groups of the user are unknown.
    #[error(
        "cannot determine the groups of user {user:?}, which select the pool: {source}",
        source = r#source
    )]
    UnknownGroups {
        /// The user.
        user: String,
        /// The error of the user database. The raw identifier keeps this error out of
        /// [`Error::source`](std::error::Error::source), because the message above already contains
        /// the error.
        r#source: io::Error,
    },
    /// The server has the maximum number of sessions.
    #[error("the server has the maximum number of open sessions: {0}")]
    TooManySessions(u32),
    /// [`Settings::await_restore`](crate::map::Settings::await_restore) is set, and no program has
    /// called [`Map::mark_restored`](crate::map::Map::mark_restored) yet.
    #[error("the map is not ready: the agent has not restored the sessions of the system yet")]
    NotReady,
    /// The map cannot be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl OpenError {
    /// Returns whether [`Settings::on_exhausted`](crate::map::Settings::on_exhausted) decides how
    /// the logon continues: no address is available, a limit of sessions is reached, or the pool of
    /// the user is unknown.
    #[must_use]
    pub fn is_decided_by_exhaustion_policy(&self) -> bool {
        matches!(
            self,
            Self::Shortage { .. }
                | Self::UnknownGroups { .. }
                | Self::Quota { .. }
                | Self::TooManySessions(_)
        )
    }
}

/// The reason why a session was not closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The session is not open.
    #[error("session {0} is not open")]
    NotOpen(SessionId),
    /// The session has already released the lease of the handle.
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
#[non_exhaustive]
pub enum MapError {
    /// The operating system returned an error.
    #[error("{failure} {path}: {source}", path = path.display(), source = r#source)]
    Io {
        /// The failure, such as `cannot open`.
        failure: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system. The raw identifier keeps this error out of
        /// [`Error::source`](std::error::Error::source), because the message above already contains
        /// the error.
        r#source: io::Error,
    },
    /// There is no map.
    #[error("there is no map at {}", .0.display())]
    Missing(PathBuf),
    /// The directory for the files of a new map does not exist.
    #[error("cannot create a map: there is no directory {:?}", .0.display().to_string())]
    NoDirectory(PathBuf),
    /// The file is no map, is damaged, or has an unknown version.
    #[error("cannot use map file {}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// The map was created before the last start of the machine, or in another network namespace.
    #[error("{} belongs to another boot or network namespace (create a new map)", .0.display())]
    OtherBoot(PathBuf),
    /// The file is not trusted. For example, it is a symbolic link, it has another owner, or other
    /// users can change it or its directory.
    #[error("cannot trust {}: {reason}", path.display())]
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
        /// Whether the process holds the lock until it closes the map.
        exclusive: bool,
    },
    /// Another process, or another thread of this process, creates or repairs the map.
    #[error("cannot lock {}: another process creates, reloads or repairs the map (try again later)", path.display())]
    BeingReplaced {
        /// The lock file that the other process holds.
        path: PathBuf,
    },
    /// The lock of this map no longer excludes other writers, because this process has closed the
    /// descriptor of the lock file, or the lock file was removed.
    #[error("cannot use lock file {}: {reason} (open the map again)", path.display())]
    LockLost {
        /// The lock file.
        path: PathBuf,
        /// The reason.
        reason: &'static str,
    },
    /// This process inherited the open map from its parent at a fork.
    #[error("the map was opened before this process forked (open it again)")]
    Forked,
    /// No map can be built from the plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// The reason why the files of a map were not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// Sessions are open.
    #[error("the map has open sessions")]
    OpenSessions,
    /// The map cannot be locked or used, or a file cannot be removed.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// The reason why no map can be built from a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The plan has more pools than a map can have.
    #[error("the plan has {0} pools, but a map has at most {MAX_POOLS}")]
    TooManyPools(usize),
    /// The map would have too many pools: those of the plan, and former pools that it still needs.
    /// Such a former pool is not in the plan, but some of its addresses are in use or cool down.
    #[error(
        "the plan has {planned} pools and {} former pools have addresses in use or cooling down \
         ({}), but a map has at most {MAX_POOLS}",
        former.len(),
        former.join(", ")
    )]
    TooManyFormerPools {
        /// The number of pools in the plan.
        planned: usize,
        /// The names of the former pools that the map needs.
        former: Vec<String>,
    },
    /// The name of a pool is empty, too long or contains NUL.
    #[error("pool name {0:?} is not valid: a name has 1 to {MAX_POOL_NAME} bytes and no NUL")]
    PoolName(String),
    /// Two pools are loopback pools.
    #[error("pools {0:?} and {1:?} are both loopback pools, but a map has one")]
    TwoLoopbackPools(String, String),
    /// Two pools have the same name and the same family.
    #[error("two pools of the same family are named {0:?} (merge their ranges)")]
    DuplicatePool(String),
    /// Two pools contain the same address.
    #[error("pools {first:?} and {second:?} share addresses, the first of them {address}")]
    SharedAddress {
        /// The name of one pool.
        first: String,
        /// The name of the other pool.
        second: String,
        /// The lowest address that both pools contain.
        address: IpAddr,
    },
    /// A rule of the process list matches no program, because its path or its script is neither a
    /// full path without `..` nor a bare name.
    #[error("{0:?} names no program: it is neither a full path nor a bare file name")]
    Program(String),
    /// The map would not have a valid layout.
    #[error("the plan does not fit into a map: {0}")]
    Layout(&'static str),
}

/// The reason why a reservation or a session was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The address is in no pool of this server.
    #[error("{0} is in no pool of this server")]
    NotInPool(IpAddr),
    /// The address is reserved for another user.
    #[error("{0} is reserved for another user (remove that reservation first)")]
    ReservedForAnother(IpAddr),
    /// The address is not reserved.
    #[error("{0} is not reserved")]
    NotReserved(IpAddr),
    /// The session is not open.
    #[error("session {0} is not open")]
    NotOpen(SessionId),
    /// The map cannot be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}
