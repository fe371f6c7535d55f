//! vipool itself, with sessions closed by handle or by id.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use tempfile::TempDir;
use vipool::Tick;
use vipool::map::{ExclusiveWriter, Map, MapError, OpenOptions, Plan, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool::range::Range;
use vipool::session::{Handle, SessionId, SessionKind};

use crate::{Accessor, Allocator};

/// How long the map is locked against other processes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// The map stays locked until it is closed, as in a vendor's agent.
    Exclusive,
    /// Each operation acquires and releases the lock.
    PerOperation,
}

/// The storage of a map.
pub enum Storage<'a> {
    /// Files in a temporary directory inside this directory.
    Directory(&'a Path),
    /// Anonymous memory.
    Memory,
}

/// A map and the temporary directory that holds its files.
struct Table {
    map: Map,
    _directory: Option<TempDir>,
}

/// Creates a map of free addresses. Returns the map with the temporary directory that holds its
/// files.
pub fn create_map(
    storage: Storage<'_>,
    slot_count: u32,
    settings: Settings,
) -> Result<(Map, Option<TempDir>), MapError> {
    let first_ip = Ipv4Addr::new(10, 0, 0, 0);
    let last_ip = Ipv4Addr::from_bits(first_ip.to_bits() + slot_count - 1);
    let range = Range::new(IpAddr::V4(first_ip), IpAddr::V4(last_ip)).expect("first <= last");
    let pool = Pool::new("default", PoolKind::VirtualIp, &[range], slot_count).expect("one range");
    let plan = Plan::new([pool]).with_settings(settings);
    Ok(match storage {
        Storage::Memory => (Map::in_memory(&plan)?, None),
        Storage::Directory(parent) => {
            let directory = tempfile::tempdir_in(parent).expect("a temporary directory");
            (Map::create(directory.path(), &plan)?, Some(directory))
        }
    })
}

impl Table {
    fn new(storage: Storage<'_>, slot_count: u32, locking: Locking) -> Result<Self, MapError> {
        let (mut map, directory) = create_map(storage, slot_count, Settings::without_cool_down())?;
        if locking == Locking::Exclusive {
            map.lock_exclusive()?;
        }
        Ok(Self { map, _directory: directory })
    }

    fn open(&self, session: u64, user: Option<&str>) -> Option<Handle> {
        let options = OpenOptions::new().with_user(user);
        self.map
            .open_session(session_id(session), &options, Tick::ZERO)
            .ok()
            .map(|opened| opened.handle)
    }
}

/// Converts a number to a session id of the kind `Embedder`.
pub fn session_id(session: u64) -> SessionId {
    SessionId::new(SessionKind::Embedder, session).expect("a small number")
}

/// Closes sessions by handle. The program has one thread and holds the exclusive lock, so no
/// operation locks a mutex.
impl Accessor for ExclusiveWriter<'_> {
    type Lease = Handle;

    fn open(&mut self, session: u64, user: Option<&str>) -> Option<Handle> {
        let options = OpenOptions::new().with_user(user);
        match self.open_session(session_id(session), &options, Tick::ZERO) {
            Ok(opened) => Some(opened.handle),
            Err(_) => None,
        }
    }

    fn close(&mut self, lease: Handle) {
        ExclusiveWriter::close_by_handle(self, &lease, Tick::ZERO).expect("an open session");
    }
}

/// Closes sessions by id. The program has one thread and holds the exclusive lock.
pub struct ExclusiveBySession<'a>(pub ExclusiveWriter<'a>);

impl Accessor for ExclusiveBySession<'_> {
    type Lease = SessionId;

    fn open(&mut self, session: u64, user: Option<&str>) -> Option<SessionId> {
        Accessor::open(&mut self.0, session, user).map(|handle| handle.session)
    }

    fn close(&mut self, lease: SessionId) {
        self.0.close_session(lease, Tick::ZERO).expect("an open session");
    }
}

/// A map that threads share. Sessions are closed by the handle that `open` returned.
pub struct ByHandle(Table);

/// A map that threads share. Sessions are closed by id.
pub struct BySession(Table);

impl ByHandle {
    /// Creates a map of free addresses.
    pub fn new(storage: Storage<'_>, slot_count: u32, locking: Locking) -> Result<Self, MapError> {
        Table::new(storage, slot_count, locking).map(Self)
    }

    /// Returns the map.
    pub fn map(&self) -> &Map {
        &self.0.map
    }
}

impl BySession {
    /// Creates a map of free addresses.
    pub fn new(storage: Storage<'_>, slot_count: u32, locking: Locking) -> Result<Self, MapError> {
        Table::new(storage, slot_count, locking).map(Self)
    }
}

impl Allocator for ByHandle {
    type Lease = Handle;

    fn open(&self, session: u64, user: Option<&str>) -> Option<Handle> {
        self.0.open(session, user)
    }

    fn close(&self, lease: Handle) {
        self.0.map.close_by_handle(&lease, Tick::ZERO).expect("an open session");
    }
}

impl Allocator for BySession {
    type Lease = SessionId;

    fn open(&self, session: u64, user: Option<&str>) -> Option<SessionId> {
        self.0.open(session, user).map(|handle| handle.session)
    }

    fn close(&self, lease: SessionId) {
        self.0.map.close_session(lease, Tick::ZERO).expect("an open session");
    }
}
