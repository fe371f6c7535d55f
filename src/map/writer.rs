//! [`Map`]: the writer of a map. Threads can share a `Map`. Processes can share its files.
//!
//! This module opens and locks the map, and opens and closes sessions.

use std::path::Path;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::engine::files;
use super::engine::transaction::Transaction;
use super::engine::writer::WritableMap;
use super::format::header::{LOCK_HOLDER, SUPERSEDED};
use super::reader::Reader;
use super::replan::build::build_in_memory;
use super::replan::validate::validate;
use super::types::error::{CloseError, MapError, OpenError};
use super::types::outcome::{ClosedSession, OpenedSession};
use super::types::plan::{OpenOptions, Plan};
use super::writer_lock::{LOCK_TIMEOUT, LockHolder, WriterLock};
use crate::Tick;
use crate::os::fork::ProcessMark;
use crate::session::{Handle, SessionId};
use crate::sync::Backoff;

/// Maximum time to wait for the new map file. On Windows, a process renames the old file before it
/// renames the new file, so for a moment no file has the name of the map.
const REPLACEMENT_TIMEOUT: Duration = Duration::from_millis(if cfg!(windows) { 100 } else { 0 });

/// A writer of a map: opens and closes sessions.
///
/// Threads may share a `Map`. After a fork, the child process must open its own `Map`. If a signal
/// handler forks while its thread opens or drops a `Map`, the child can keep the lock of the map
/// until it calls exec or exits.
///
/// ```
/// use vipool::Tick;
/// use vipool::map::{Map, OpenOptions, Plan};
/// use vipool::pool::{Pool, PoolKind};
///
/// let ranges = ["10.0.5.10-10.0.5.11".parse()?];
/// let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
/// let map = Map::in_memory(&Plan::new([pool]))?;
///
/// let session = "7".parse()?;
/// let opened = map.open_session(session, &OpenOptions::default(), Tick::now())?;
/// assert_eq!(opened.leases.iter().next().unwrap().address.to_string(), "10.0.5.10");
/// assert_eq!(map.reader()?.lookup(session), opened.leases);
///
/// map.close_by_handle(&opened.handle, Tick::now())?;
/// assert!(map.reader()?.lookup(session).is_empty());
/// // A second close releases nothing and returns an error.
/// assert!(map.close_by_handle(&opened.handle, Tick::now()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Map {
    map: Mutex<WritableMap>,
    /// `None` for a map in memory.
    lock: Option<WriterLock>,
    /// Whether no other process can write: this process holds the lock until it drops the map, or
    /// the map is in memory.
    is_exclusive: bool,
    process: ProcessMark,
}

impl Map {
    /// Creates a map in memory that is private to this process.
    ///
    /// # Errors
    /// Fails if no map can be built from the plan.
    pub fn in_memory(plan: &Plan) -> Result<Self, MapError> {
        validate(plan)?;
        Self::without_lock(build_in_memory(plan)?)
    }

    /// Creates a map in memory from the bytes of the files `map` and `sessions`. The files may
    /// belong to another boot, and they do not change. Use this function to inspect a map or to try
    /// a change.
    ///
    /// Users, clients and leaders are unknown if `sessions` is empty or belongs to another map.
    ///
    /// # Errors
    /// Fails if the bytes are not a map.
    pub fn from_bytes(map: &[u8], sessions: &[u8]) -> Result<Self, MapError> {
        let map = WritableMap::from_bytes(map, sessions)
            .map_err(|reason| MapError::Damaged { path: files::MAP_FILE.into(), reason })?;
        Self::without_lock(map)
    }

    fn without_lock(map: WritableMap) -> Result<Self, MapError> {
        let process = ProcessMark::current().map_err(|source| MapError::Io {
            failure: "cannot register fork handlers for",
            path: files::MAP_FILE.into(),
            source,
        })?;
        Ok(Self { map: Mutex::new(map), lock: None, is_exclusive: true, process })
    }

    /// Opens the map in a directory.
    ///
    /// # Errors
    /// Fails if there is no map, if it is damaged or not trusted, or if it belongs to another boot
    /// or network namespace.
    pub fn open(directory: &Path) -> Result<Self, MapError> {
        let map = files::open_writable(directory)?;
        files::check_boot(map.layout())
            .map_err(|failure| failure.at(directory.join(files::MAP_FILE)))?;
        Ok(Self::with_lock(map, WriterLock::open(directory)?))
    }

    /// Returns a map in files, which other processes can write too.
    pub(crate) fn with_lock(map: WritableMap, lock: WriterLock) -> Self {
        let process = lock.process();
        Self { map: Mutex::new(map), lock: Some(lock), is_exclusive: false, process }
    }

    /// Acquires the writer lock and holds it until this map is dropped. Other writers get an error
    /// that names this process. Opening and closing a session then needs no system call, except
    /// that the first call in each second checks that the files of the map were not removed.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    pub fn lock_exclusive(&mut self) -> Result<(), MapError> {
        self.acquire_permanently()?;
        self.is_exclusive = true;
        Ok(())
    }

    /// Returns an error if this process cannot change the map now. Waits for the writer lock, as a
    /// change does.
    ///
    /// # Errors
    /// Fails if another writer holds the lock, or the map cannot be used.
    pub fn check_writable(&self) -> Result<(), MapError> {
        self.lock_for_writing(None).map(drop)
    }

    /// Acquires the writer lock and does not release it.
    fn acquire_permanently(&self) -> Result<(), MapError> {
        let mut locked = self.lock_for_writing(None)?;
        if let Some(lock) = locked.lock {
            lock.pin()?;
        }
        let holder = LockHolder::this_process(true);
        locked.map.transact(|transaction| transaction.store_header(LOCK_HOLDER, holder));
        locked.lock = None;
        Ok(())
    }

    /// Opens a session. If the session is already open, adds its missing leases. Returns all leases
    /// of the session.
    ///
    /// An open session keeps its user, if it has one, and its pool. The options can replace its
    /// client and its leader; an option that is not set keeps the current value.
    ///
    /// If the options request an address, the session gets this address, or the call fails. In each
    /// of its other pools, the session gets the first of these addresses that is available: the
    /// address that it holds, the address reserved for the user, the last address of the user, the
    /// address that has been free longest.
    ///
    /// # Errors
    /// [`OpenError`] lists the reasons. For example, no address is available, a limit is reached,
    /// the session is open for another user, or the map cannot be used.
    #[inline(always)]
    pub fn open_session(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        let mut locked = self.lock_for_writing(Some(now))?;
        locked.map.begin().open_session_and_commit(session, options, now)
    }

    /// Closes the session of a handle and releases all its leases.
    ///
    /// # Errors
    /// Fails if the handle is stale or belongs to another boot, or the map cannot be used.
    #[inline(always)]
    pub fn close_by_handle(&self, handle: &Handle, now: Tick) -> Result<ClosedSession, CloseError> {
        let mut locked = self.lock_for_writing(Some(now))?;
        locked.map.begin().close_by_handle_and_commit(handle, now)
    }

    /// Closes a session and releases all its leases.
    ///
    /// # Errors
    /// Fails if the session is not open, or the map cannot be used.
    #[inline(always)]
    pub fn close_session(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        let mut locked = self.lock_for_writing(Some(now))?;
        locked.map.begin().close_session_and_commit(session, now)
    }

    /// Returns a reader of this map.
    ///
    /// # Errors
    /// Fails if the map file cannot be opened, the system has no memory left, or this process is a
    /// child that inherited this `Map` at a fork.
    pub fn reader(&self) -> Result<Reader, MapError> {
        let map = self.lock_mutex()?;
        match (&self.lock, map.share()) {
            (Some(lock), _) => Reader::attach(lock.directory()),
            (None, Some(image)) => Reader::new(image).map_err(|source| {
                let path = files::MAP_FILE.into();
                MapError::Io { failure: "cannot copy the process list of", path, source }
            }),
            (None, None) => unreachable!("a map without a lock is in memory"),
        }
    }

    /// Runs `body` as a transaction under the writer lock.
    #[inline(always)]
    pub(crate) fn transact<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> T,
    ) -> Result<T, MapError> {
        let mut locked = self.lock_for_writing(None)?;
        Ok(locked.map.transact(body))
    }

    /// Returns the directory of the map; `None` for a map in memory.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.lock.as_ref().map(WriterLock::directory)
    }

    /// Locks the map against other threads and processes. `now` is the time, if the caller has it
    /// (see [`WriterLock::check_exclusive`]).
    #[inline(always)]
    pub(crate) fn lock_for_writing(&self, now: Option<Tick>) -> Result<LockedMap<'_>, MapError> {
        match &self.lock {
            Some(lock) if !self.is_exclusive => self.lock_against_processes(lock),
            lock => {
                let map = self.lock_mutex()?;
                if let Some(lock) = lock {
                    lock.check_exclusive(&map, now)?;
                }
                Ok(LockedMap { map, lock: None })
            }
        }
    }

    fn lock_against_processes<'a>(
        &'a self,
        lock: &'a WriterLock,
    ) -> Result<LockedMap<'a>, MapError> {
        let mut map = lock.count_as_waiting(|| self.lock_mutex())?;
        let is_handed_over = lock.is_handed_over();
        if !is_handed_over {
            self.reopen_if_superseded(&mut map)?;
            if !lock.acquire(Duration::ZERO)? {
                drop(map);
                map = self.wait_for_lock(lock)?;
            }
        }
        // From here on, dropping `locked` releases the lock or hands it over to a waiting thread.
        let mut locked = LockedMap { map, lock: Some(lock) };
        self.reopen_if_superseded(&mut locked.map)?;
        // A map file that was deleted is not always marked as superseded. So check that the
        // directory still contains this file.
        if !is_handed_over && !lock.is_in_place(&locked.map)? {
            Self::reopen(lock, &mut locked.map)?;
        }
        let writer = locked.map.writer();
        // If the current file is marked as superseded, a process died after it had set the mark and
        // before it replaced the map. Remove the mark.
        writer.store_header(SUPERSEDED, 0);
        writer.store_header(LOCK_HOLDER, LockHolder::this_process(false));
        Ok(locked)
    }

    /// Waits for another process to release the lock. Other threads can read during the wait.
    #[cold]
    fn wait_for_lock(&self, lock: &WriterLock) -> Result<MutexGuard<'_, WritableMap>, MapError> {
        let mut backoff = Backoff::new(LOCK_TIMEOUT);
        loop {
            let mut map = self.lock_mutex()?;
            if lock.is_handed_over() {
                return Ok(map);
            }
            // Only the current map contains the pid of the process that holds the lock.
            self.reopen_if_superseded(&mut map)?;
            if lock.acquire(Duration::ZERO)? {
                return Ok(map);
            }
            let holder = LockHolder::read(&map);
            drop(map);
            // Do not wait for an exclusive holder, which keeps the lock for a long time.
            if holder.is_exclusive || !backoff.wait() {
                return Err(holder.to_error());
            }
        }
    }

    /// Locks the map against other threads.
    ///
    /// Fails in a child process after a fork, because another thread of the parent can have been
    /// writing during the fork. In addition, parent and child would allocate the same addresses of
    /// a map in memory, because each of them has its own copy.
    #[inline]
    pub(super) fn lock_mutex(&self) -> Result<MutexGuard<'_, WritableMap>, MapError> {
        if !self.process.is_current() {
            return Err(MapError::Forked);
        }
        Ok(self.map.try_lock().unwrap_or_else(|| self.spin_and_lock()))
    }

    /// Waits for the mutex.
    ///
    /// An operation takes much less time than putting a thread to sleep and waking it. An operation
    /// also takes less time than the transfer of the map's cache lines to another processor. So a
    /// waiting thread spins before it sleeps. Each round of spinning is longer than the previous
    /// round. During a round, another thread can do many operations in a row.
    #[cold]
    #[inline(never)]
    fn spin_and_lock(&self) -> MutexGuard<'_, WritableMap> {
        for round in 0..3 {
            (0..256 << round).for_each(|_| std::hint::spin_loop());
            if let Some(map) = self.map.try_lock() {
                return map;
            }
        }
        self.map.lock()
    }

    /// Returns the current map. Waits for threads of this process only.
    pub(super) fn lock_for_reading(&self) -> Result<MutexGuard<'_, WritableMap>, MapError> {
        let mut map = self.lock_mutex()?;
        self.reopen_if_superseded(&mut map)?;
        Ok(map)
    }

    /// Opens the new map if the current map is superseded.
    fn reopen_if_superseded(&self, map: &mut WritableMap) -> Result<(), MapError> {
        let Some(lock) = &self.lock else { return Ok(()) };
        if map.header(SUPERSEDED) == 0 { Ok(()) } else { Self::reopen(lock, map) }
    }

    /// Opens the map that is now in the directory.
    #[cold]
    fn reopen(lock: &WriterLock, map: &mut WritableMap) -> Result<(), MapError> {
        let mut backoff = Backoff::new(REPLACEMENT_TIMEOUT);
        let current_map = loop {
            match files::open_writable(lock.directory()) {
                Err(MapError::Missing(_)) if backoff.wait() => {}
                result => break result?,
            }
        };
        files::check_boot(current_map.layout())
            .map_err(|failure| failure.at(lock.directory().join(files::MAP_FILE)))?;
        *map = current_map;
        Ok(())
    }

    /// Acquires the writer lock, unless this map holds it. Returns the map, the writer lock, and
    /// whether the map was already exclusive. The caller does not need the mutex, because it has
    /// the only reference to this `Map`.
    pub(crate) fn split_exclusive(
        &mut self,
    ) -> Result<(&mut WritableMap, Option<&WriterLock>, bool), MapError> {
        if !self.is_exclusive {
            self.acquire_permanently()?;
        } else if !self.process.is_current() {
            return Err(MapError::Forked);
        }
        Ok((self.map.get_mut(), self.lock.as_ref(), self.is_exclusive))
    }

    /// Returns the mark of the process that opened this map.
    pub(crate) fn process(&self) -> ProcessMark {
        self.process
    }

    /// Marks the map as superseded, like a process that dies before it replaces the map.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn mark_superseded(&self) {
        let mark = super::format::header::BEING_REPLACED;
        self.map.lock().writer().store_header(SUPERSEDED, mark);
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let (true, Some(lock)) = (self.is_exclusive, &self.lock) {
            lock.end_exclusive(self.map.get_mut());
        }
    }
}

/// A map that is locked for writing.
pub(crate) struct LockedMap<'a> {
    pub(crate) map: MutexGuard<'a, WritableMap>,
    /// The lock that this value releases or hands over when it is dropped; `None` if it keeps the
    /// lock, or if the map is in memory.
    lock: Option<&'a WriterLock>,
}

impl Drop for LockedMap<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(lock) = self.lock {
            lock.hand_over_or_release(&mut self.map);
        }
    }
}
