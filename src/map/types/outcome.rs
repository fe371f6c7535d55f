//! What the operations of a map answer: plain values and typed errors.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::plan::Leader;
use crate::Tick;
use crate::map::MAX_LEASES;
use crate::session::{Handle, Lease, SessionId};

/// The leases of one session, in the order of the pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    session: Option<SessionId>,
    count: usize,
    places: [Place; MAX_LEASES],
}

/// A lease without its session, in whole words and without padding: copied in a few moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The address as a number, its upper and its lower half.
    pub(crate) bits: [u64; 2],
    pub(crate) slot: u32,
    pub(crate) generation: u32,
    pub(crate) pool: u32,
    /// Not 0 for IPv4.
    pub(crate) ipv4: u32,
}

/// An open session: what its programs are told, and its leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedSession {
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
    /// Which leases this call added to a session that was open already, a bit each.
    pub(crate) added: u8,
}

impl OpenedSession {
    /// The leases that this call gave: all of them, unless the session was open already.
    pub fn new_leases(&self) -> impl Iterator<Item = Lease> + '_ {
        let is_new = |place: usize| !self.already_open || self.added & 1 << place != 0;
        self.leases
            .iter()
            .enumerate()
            .filter(move |(place, _)| is_new(*place))
            .map(|(_, lease)| lease)
    }
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
    /// Cooled addresses are waiting for [`crate::map::Map::reap`] to look for sockets on them.
    #[error("every free address may still have sockets on it: run 'vipool gc'")]
    Lingering,
    /// The server (or the whole pool) is being drained.
    #[error("the pool is draining: no new session gets an address")]
    Draining,
}

/// Why [`crate::map::Map::open_session`] gave nothing.
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
    /// [`crate::map::Settings::await_restore`] is set and the restore is not done.
    #[error("not ready: the sessions of the operating system have not been restored yet")]
    NotReady,
    /// The map could not be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// What a close did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSession {
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
    /// The handle is of another boot or network namespace.
    #[error("the handle is of another boot or network namespace")]
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
        reason: &'static str,
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
        reason: &'static str,
    },
    /// Another writer held the lock for too long, or holds it for good.
    #[error("busy: pid {pid}{}", if *exclusive { " (it holds the map for itself)" } else { "" })]
    Busy {
        /// The writer.
        pid: u32,
        /// Whether it asked for exclusive mode.
        exclusive: bool,
    },
    /// The map was opened by the parent of this process, which was forked since.
    #[error("the map was opened before this process was forked: open it again")]
    Forked,
    /// The plan cannot be made into a map.
    #[error("{0}")]
    Plan(String),
}

/// What a change to addresses did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdminChange {
    /// How many addresses the change was made to.
    pub addresses: u32,
    /// How many of them are held by sessions, which keep them.
    pub held: u32,
}

/// Why a change to an address was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The address is in no pool of this server.
    #[error("{0} is in no pool of this server")]
    NotInPool(IpAddr),
    /// The address is reserved for another user.
    #[error("{0} is reserved for another user: 'vipool unreserve' it first")]
    ReservedForAnother(IpAddr),
    /// The address is not reserved.
    #[error("{0} is not reserved")]
    NotReserved(IpAddr),
    /// The map could not be locked or used.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Numbers of one pool, as published by its writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// The pool's name; empty for the number of a pool that is gone while others behind it are not.
    pub name: String,
    /// Whether it is a loopback pool.
    pub loopback: bool,
    /// Whether its addresses are IPv4.
    pub ipv4: bool,
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

/// One address of a pool, as a monitor shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRow {
    /// The address.
    pub address: IpAddr,
    /// What it is doing.
    pub state: SlotState,
    /// Whether it is kept for a user.
    pub reserved: bool,
    /// Whether it was taken out of use, by an administrator or a new configuration.
    pub drained: bool,
}

/// What an address is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// Nothing.
    Free,
    /// A session holds it.
    Used,
    /// Released and cooling down.
    Cooling,
    /// Cooled, with sockets still on it.
    Lingering,
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

impl Leases {
    /// The leases.
    #[inline]
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Lease> + '_ {
        self.places().iter().filter_map(|place| Some(place.of(self.session()?)))
    }

    /// The session that holds them, if there are any.
    #[inline(always)]
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The leases without it.
    #[inline(always)]
    pub(crate) fn places(&self) -> &[Place] {
        self.places.get(..self.count).unwrap_or_default()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first, which handles name.
    #[inline]
    pub(crate) fn anchor(&self) -> Option<Lease> {
        self.iter().next()
    }

    /// The lease of this pool.
    #[inline]
    pub(crate) fn in_pool(&self, pool: u16) -> Option<Lease> {
        self.iter().find(|lease| lease.pool == pool)
    }

    /// The last one.
    #[inline]
    pub(crate) fn last_place(&self) -> Option<&Place> {
        self.places().last()
    }

    /// One lease alone.
    #[inline(always)]
    pub(crate) fn one(session: SessionId, place: Place) -> Self {
        let places = [place, Place::default(), Place::default()];
        Self { session: Some(session), count: 1, places }
    }

    /// Adds a lease of this session behind the others. One too many is left out.
    #[inline(always)]
    pub(crate) fn push(&mut self, session: SessionId, place: Place) {
        if let Some(free) = self.places.get_mut(self.count) {
            *free = place;
            self.session = Some(session);
            self.count += 1;
        }
    }

    /// Whether there are more than one.
    #[inline(always)]
    pub(crate) fn are_many(&self) -> bool {
        self.count > 1
    }

    /// The same in the order of the pools.
    #[inline(never)]
    pub(crate) fn sorted(mut self) -> Self {
        if let Some(places) = self.places.get_mut(..self.count) {
            places.sort_unstable_by_key(|place| place.pool);
        }
        self
    }
}

impl Place {
    #[inline]
    fn of(&self, session: SessionId) -> Lease {
        let Self { bits: [upper, lower], slot, generation, pool, ipv4 } = *self;
        let address = if ipv4 != 0 {
            Ipv4Addr::from_bits(lower as u32).into()
        } else {
            Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into()
        };
        Lease { session, pool: pool as u16, slot, generation, address }
    }
}
