//! vipool itself, with sessions closed by the handle that open gave, or by their id.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use tempfile::TempDir;
use vipool::map::{Map, MapError, OpenOptions, Plan, Settings, Writer};
use vipool::pool::{Pool, PoolKind};
use vipool::range::Range;
use vipool::session::{Handle, SessionId, SessionKind};

use crate::{Allocator, Hand};

/// Who else may write the map meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// Nobody: as an agent holds it.
    Exclusive,
    /// Anybody: the lock is taken for each operation.
    PerOperation,
}

/// Where the map is.
pub enum Place<'a> {
    /// In files in a directory of their own inside this one.
    Inside(&'a Path),
    /// In memory alone.
    Memory,
}

/// A map and the directory it is in.
struct Table {
    map: Map,
    _directory: Option<TempDir>,
}

/// A map with so many addresses, all free, and the directory it is in.
pub fn map(
    place: Place<'_>,
    slots: u32,
    settings: Settings,
) -> Result<(Map, Option<TempDir>), MapError> {
    let first = Ipv4Addr::new(10, 0, 0, 0);
    let last = Ipv4Addr::from_bits(first.to_bits() + slots - 1);
    let range = Range::new(IpAddr::V4(first), IpAddr::V4(last)).expect("in order");
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], slots).expect("one range");
    let plan = Plan { pools: vec![pool], settings, ..Plan::default() };
    Ok(match place {
        Place::Memory => (Map::in_memory(&plan)?, None),
        Place::Inside(parent) => {
            let directory = tempfile::tempdir_in(parent).expect("a directory can be made");
            (Map::create(directory.path(), &plan)?, Some(directory))
        }
    })
}

impl Table {
    fn new(place: Place<'_>, slots: u32, locking: Locking) -> Result<Self, MapError> {
        let (mut map, directory) = map(place, slots, Settings::default())?;
        if locking == Locking::Exclusive {
            map.hold_exclusively()?;
        }
        Ok(Self { map, _directory: directory })
    }

    fn open(&self, session: u64, user: Option<&str>) -> Option<Handle> {
        let options = OpenOptions { user, ..OpenOptions::default() };
        self.map.open_session(id(session), &options, 0).ok().map(|opened| opened.handle)
    }
}

/// A session of this number.
pub fn id(session: u64) -> SessionId {
    SessionId::new(SessionKind::Embedder, session).expect("small")
}

/// Closes by handle, in a program of one thread that writes alone: not even a lock between threads.
impl Hand for Writer<'_> {
    type Lease = Handle;

    fn open(&mut self, session: u64, user: Option<&str>) -> Option<Handle> {
        let options = OpenOptions { user, ..OpenOptions::default() };
        match self.open_session(id(session), &options, 0) {
            Ok(opened) => Some(opened.handle),
            Err(_) => None,
        }
    }

    fn close(&mut self, lease: Handle) {
        Writer::close(self, &lease, 0).expect("open");
    }
}

/// Closes by the session's id, in such a program.
pub struct AloneBySession<'a>(pub Writer<'a>);

impl Hand for AloneBySession<'_> {
    type Lease = SessionId;

    fn open(&mut self, session: u64, user: Option<&str>) -> Option<SessionId> {
        Hand::open(&mut self.0, session, user).map(|handle| handle.session)
    }

    fn close(&mut self, lease: SessionId) {
        self.0.close_session(lease, 0).expect("open");
    }
}

/// Closes by the handle that open gave.
pub struct ByHandle(Table);

/// Closes by the session's id.
pub struct BySession(Table);

impl ByHandle {
    /// With so many addresses, all free.
    pub fn new(place: Place<'_>, slots: u32, locking: Locking) -> Result<Self, MapError> {
        Table::new(place, slots, locking).map(Self)
    }

    /// The map itself.
    pub fn map(&self) -> &Map {
        &self.0.map
    }
}

impl BySession {
    /// With so many addresses, all free.
    pub fn new(place: Place<'_>, slots: u32, locking: Locking) -> Result<Self, MapError> {
        Table::new(place, slots, locking).map(Self)
    }
}

impl Allocator for ByHandle {
    type Lease = Handle;

    fn open(&self, session: u64, user: Option<&str>) -> Option<Handle> {
        self.0.open(session, user)
    }

    fn close(&self, lease: Handle) {
        self.0.map.close(&lease, 0).expect("open");
    }
}

impl Allocator for BySession {
    type Lease = SessionId;

    fn open(&self, session: u64, user: Option<&str>) -> Option<SessionId> {
        self.0.open(session, user).map(|handle| handle.session)
    }

    fn close(&self, lease: SessionId) {
        self.0.map.close_session(lease, 0).expect("open");
    }
}
