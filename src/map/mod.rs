//! The map file: who holds which address, shared by every process of a server.
//!
//! A [`Map`] writes: it opens and closes sessions, alone or beside other writers. A [`Reader`]
//! only reads and never blocks; hook layers and monitors use it. Both work on a file or on memory
//! alone.
//!
//! Invariants: the slots are the truth, lists, index and counters are derived from them; a lease
//! is committed by one store of its owner word, after everything else about it; one writer at a
//! time; readers never write, block or loop without a bound.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::policy::{Policy, PolicyView};
use crate::pool::{Pool, PoolKind, PoolRule, Reservation};
use crate::session::{Addresses, Handle, Lease, SessionId};

/// Name of the file that every user may read, in the directory of the map.
pub const MAP_FILE: &str = "map";
/// Name of the file that only root and the group may read: users, clients, leaders.
pub const SESSIONS_FILE: &str = "sessions";
/// The most leases of one session.
pub const MAX_LEASES: usize = 4;

/// Seconds since the machine was started (`CLOCK_BOOTTIME`); jumps of the wall clock do not move
/// it. See [`crate::os::clock::now`].
pub type Tick = u32;

/// What a map is made from: `Farm::plan` gives one for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The pools; the number of a pool is its place here. At most 64.
    pub pools: Vec<Pool>,
    /// What hook layers go by.
    pub policy: Policy,
    /// How addresses are given out.
    pub settings: Settings,
    /// Addresses kept for a user.
    pub reservations: Vec<Reservation>,
    /// Which pool a session takes its virtual IPs from: [`crate::pool::choose_pool`].
    pub pool_rules: Vec<PoolRule>,
}

/// How addresses are given out. The same for every writer of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Seconds until a released address goes to another user.
    pub cool_down: u32,
    /// Whether a cooled address becomes free only when [`Map::reap`] found no socket on it.
    pub check_in_use: bool,
    /// Warn once when fewer than this many addresses of a pool are left; 0 never warns.
    pub low_water: u32,
    /// The most sessions of one user; 0 sets no limit.
    pub sessions_per_user: u32,
    /// The most sessions of the server at once; 0 sets no limit.
    pub max_sessions: u32,
    /// What becomes of a session when no address is left.
    pub on_exhausted: OnExhausted,
    /// When a session gets its addresses.
    pub allocate: Allocate,
    /// Whether the map answers "not ready" until [`Map::restored`] was called.
    pub await_restore: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cool_down: 0,
            check_in_use: false,
            low_water: 0,
            sessions_per_user: 0,
            max_sessions: 0,
            on_exhausted: OnExhausted::Pass,
            allocate: Allocate::Logon,
            await_restore: false,
        }
    }
}

/// What becomes of a session when no address is left. The loop that waits is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExhausted {
    /// It starts all the same, with the host's address, and the user is told.
    Pass,
    /// It does not start.
    Refuse,
    /// The caller tries again for up to this many seconds, then passes.
    Wait(u32),
}

/// When a session gets its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// When the user logs on.
    Logon,
    /// When somebody starts a listed program in the session. A hook never allocates.
    FirstUse,
}

/// What [`Map::open_session`] is told of a session, beside its id.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions<'a> {
    /// The user's name: for stickiness, reservations and the quota. At most 63 bytes are kept.
    pub user: Option<&'a str>,
    /// Name of the pool to take virtual IPs from; `default` if not given. Loopback pools serve
    /// every session.
    pub pool: Option<&'a str>,
    /// This very address, or an error.
    pub address: Option<IpAddr>,
    /// The address of the user's client.
    pub client: Option<IpAddr>,
    /// The process that stands for the session; [`Map::reap`] closes the session when it is gone.
    pub leader: Option<Leader>,
}

/// A process, so named that a later one with the same pid is not taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its pid, in its own pid namespace.
    pub pid: u32,
    /// Its start time in the kernel's unit (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The inode of its pid namespace; 0 where there are none.
    pub pid_namespace: u64,
}

/// The leases of one session, in the order of the pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    items: [Option<Lease>; MAX_LEASES],
}

/// An open session: what its programs are told, and its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// To hand to the session's programs.
    pub handle: Handle,
    /// What the session holds now.
    pub leases: Leases,
    /// Whether it was open already; its leases are the same, or more if some were missing.
    pub already_open: bool,
    /// Why it holds less than it could, if it does.
    pub shortage: Option<Shortage>,
    /// Whether this call brought a pool below its low-water mark.
    pub low_water: bool,
}

/// Why a pool has no address for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Every address is in use, reserved or drained.
    #[error("{}", crate::EXHAUSTED_MESSAGE)]
    Exhausted,
    /// Addresses are free but cooling down; the first is ready at this tick.
    #[error("every free address is cooling down until second {until} after boot")]
    Cooling {
        /// When the first of them is ready.
        until: Tick,
    },
    /// Cooled addresses are waiting for [`Map::reap`] to look for sockets on them.
    #[error("every free address may still have sockets on it: run 'vipool gc'")]
    Lingering,
    /// The server (or the whole pool) is being drained.
    #[error("the pool is draining: no new session gets an address")]
    Draining,
}

/// Why [`Map::open_session`] gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No pool had an address.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// No pool has this name.
    #[error("there is no pool named {0:?}")]
    UnknownPool(String),
    /// The requested address is in no pool of this server.
    #[error("{0} is in no pool of this server")]
    Excluded(IpAddr),
    /// The requested address is held by another session.
    #[error("{0} is leased to another session")]
    Taken(IpAddr),
    /// The requested address is cooling down until this tick.
    #[error("{0} is cooling down until second {1} after boot")]
    AddressCooling(IpAddr, Tick),
    /// The requested address may still have sockets on it.
    #[error("{0} may still have sockets of its last session on it")]
    AddressLingering(IpAddr),
    /// The requested address is reserved for another user.
    #[error("{0} is reserved for another user")]
    ReservedForAnother(IpAddr),
    /// The requested address is drained.
    #[error("{0} is drained")]
    AddressDrained(IpAddr),
    /// The user has as many sessions as one may have.
    #[error("user {user:?} has {limit} sessions already, as many as sessions-per-user allows")]
    Quota {
        /// The user.
        user: String,
        /// The limit.
        limit: u32,
    },
    /// The server has as many sessions as it may have.
    #[error("the server has {0} sessions already, as many as max-sessions allows")]
    TooManySessions(u32),
    /// [`Settings::await_restore`] is set and the restore is not done.
    #[error("not ready: the sessions of the operating system have not been restored yet")]
    NotReady,
    /// The map could not be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// What a close did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The leases that were given back.
    pub leases: Leases,
}

/// Why a close freed nothing.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The session is not open.
    #[error("session {0} is not open")]
    NotOpen(SessionId),
    /// The lease was closed, or belongs to a later session by now.
    #[error("stale: the lease of session {0} was closed before")]
    Stale(SessionId),
    /// The handle is of another map: another boot, network namespace or file.
    #[error("the handle is of another boot or another map")]
    Foreign,
    /// The map could not be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Why a map cannot be made, opened or locked.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The operating system said no.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, such as `cannot open`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// No map there: 'vipool up' makes one.
    #[error("there is no map at {}: 'vipool up' makes it", .0.display())]
    Missing(PathBuf),
    /// Not a map file, damaged, or of a version this one does not know.
    #[error("{}: not a usable map file: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was made before the last start of the machine, or in another network namespace.
    #[error("{} is of another boot or network namespace: 'vipool up' makes a new one", .0.display())]
    OtherBoot(PathBuf),
    /// Planted or unsafe: a symlink, another owner, writable by others.
    #[error("{}: refused: {reason}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another writer held the lock for too long, or holds it for good.
    #[error("busy: pid {pid}{}", if *exclusive { " (it holds the map for itself)" } else { "" })]
    Busy {
        /// The writer.
        pid: u32,
        /// Whether it asked for exclusive mode.
        exclusive: bool,
    },
    /// The plan cannot be made into a map.
    #[error("{0}")]
    Plan(String),
}

/// Numbers of one pool, as published by its writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// Whether it is a loopback pool.
    pub loopback: bool,
    /// Addresses in all.
    pub slots: u32,
    /// Free to be given out.
    pub free: u32,
    /// Held by sessions.
    pub used: u32,
    /// Released and cooling down.
    pub cooling: u32,
    /// Cooled, with sockets still on them.
    pub lingering: u32,
    /// Reserved for a user and not in use.
    pub reserved: u32,
    /// Taken out of use by an administrator or a new configuration, and not in use.
    pub drained: u32,
    /// The most that were used at once.
    pub peak: u32,
}

/// One open session, as a monitor shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The session.
    pub session: SessionId,
    /// What its programs were told.
    pub handle: Handle,
    /// Its leases.
    pub leases: Leases,
    /// When the first of them was given.
    pub since: Tick,
    /// The user, where the `sessions` file can be read.
    pub user: Option<String>,
    /// The client, where the `sessions` file can be read.
    pub client: Option<IpAddr>,
    /// The leader, where the `sessions` file can be read.
    pub leader: Option<Leader>,
}

/// A writer: opens and closes sessions. Threads may share it.
#[derive(Debug)]
pub struct Map {}

impl Map {
    /// A map in memory alone: gone with the process, seen by nobody else.
    pub fn in_memory(_plan: &Plan) -> Result<Self, MapError> {
        todo!()
    }

    /// Makes the files `map` and `sessions` in a directory of ours and opens them. Sessions of an
    /// older map there, of this boot, are carried over; the old file is marked superseded.
    pub fn create(_directory: &Path, _plan: &Plan) -> Result<Self, MapError> {
        todo!()
    }

    /// Opens the map in a directory.
    pub fn open(_directory: &Path) -> Result<Self, MapError> {
        todo!()
    }

    /// Takes the writer lock for as long as this value lives: operations then cost no system call,
    /// and other writers are told who holds it.
    pub fn hold_exclusively(&mut self) -> Result<(), MapError> {
        todo!()
    }

    /// Gives a session its addresses, or completes and returns those it has.
    pub fn open_session(
        &self,
        _session: SessionId,
        _options: &OpenOptions<'_>,
        _now: Tick,
    ) -> Result<Opened, OpenError> {
        todo!()
    }

    /// Gives back what the session of this handle holds.
    pub fn close(&self, _handle: &Handle, _now: Tick) -> Result<Closed, CloseError> {
        todo!()
    }

    /// Gives back what this session holds.
    pub fn close_session(&self, _session: SessionId, _now: Tick) -> Result<Closed, CloseError> {
        todo!()
    }

    /// A view for looking things up.
    pub fn reader(&self) -> Reader {
        todo!()
    }

    /// The open sessions, with what the private file knows of them.
    pub fn sessions(&self) -> Result<Vec<SessionRow>, MapError> {
        todo!()
    }
}

/// A read-only view of a map: never blocks, never writes. Threads may share it; look-ups are safe
/// in signal handlers and after fork.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Maps the file `map` in this directory read-only.
    pub fn attach(_directory: &Path) -> Result<Self, MapError> {
        todo!()
    }

    /// The leases of a session; none if it is not open.
    pub fn lookup(&self, _session: SessionId) -> Leases {
        todo!()
    }

    /// The handle and leases of a session, if it is open.
    pub fn find(&self, _session: SessionId) -> Option<(Handle, Leases)> {
        todo!()
    }

    /// Whether the lease of this handle is still held. Costs a few loads.
    #[inline]
    pub fn is_live(&self, _handle: &Handle) -> bool {
        todo!()
    }

    /// The addresses behind leases, the twin of the loopback address included.
    pub fn addresses(&self, _leases: &Leases) -> Addresses {
        todo!()
    }

    /// Whether an address is one of the pools', and of which kind: another session's V or L.
    pub fn kind_of(&self, _address: IpAddr) -> Option<PoolKind> {
        todo!()
    }

    /// Whether a newer file has taken the place of this one: attach again.
    #[inline]
    pub fn is_superseded(&self) -> bool {
        todo!()
    }

    /// The compiled process list.
    pub fn policy(&self) -> PolicyView<'_> {
        todo!()
    }

    /// How addresses are given out.
    pub fn settings(&self) -> Settings {
        todo!()
    }

    /// The numbers of each pool.
    pub fn pools(&self) -> Vec<PoolStatus> {
        todo!()
    }

    /// The open sessions, without what the private file knows of them.
    pub fn sessions(&self) -> Vec<SessionRow> {
        todo!()
    }
}

impl Leases {
    /// The leases.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.items.iter().flatten()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items[0].is_none()
    }
}
