//! The writer: takes the lock, recovers what a dead writer left, and hands the work to `sessions`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::engine::files;
use super::engine::state::State;
use super::format::layout::{HOLDER, SUPERSEDED};
use super::format::region::{load, store};
use super::reader::Reader;
use super::replan::merge::check;
use super::types::outcome::{
    CloseError, ClosedSession, Leases, MapError, OpenError, OpenedSession, SessionRow,
};
use super::types::plan::{OpenOptions, Plan, Settings, pair, unpair};
use crate::Tick;
use crate::os::lock::FileLock;
use crate::policy::Executable;
use crate::session::{Handle, SessionId};
use crate::sync::AtomicU64;

/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(2);

/// A writer: opens and closes sessions. Threads may share it; a fork child must open its own.
///
/// ```
/// use vipool::Tick;
/// use vipool::map::{Map, OpenOptions, Plan};
/// use vipool::pool::{Pool, PoolKind};
///
/// let ranges = ["10.0.5.10-10.0.5.11".parse()?];
/// let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX)?;
/// let map = Map::in_memory(&Plan { pools: vec![pool], ..Plan::default() })?;
///
/// let session = "7".parse()?;
/// let opened = map.open_session(session, &OpenOptions::default(), Tick::now())?;
/// assert_eq!(opened.leases.iter().next().unwrap().address.to_string(), "10.0.5.10");
/// assert_eq!(map.reader()?.lookup(session), opened.leases);
///
/// map.close_by_handle(&opened.handle, Tick::now())?;
/// assert!(map.reader()?.lookup(session).is_empty());
/// // A second close frees nothing and says so.
/// assert!(map.close_by_handle(&opened.handle, Tick::now()).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Map {
    pub(crate) state: Mutex<State>,
    /// Where the files are and the lock of their writers; `None` for a map in memory.
    pub(crate) shared: Option<Shared>,
    pub(crate) exclusive: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    directory: PathBuf,
    pub(crate) lock: FileLock,
    /// How many threads of this process are about to begin an operation.
    waiting: AtomicU32,
    /// How often the lock was handed on from thread to thread; 0 if it was given back.
    handed_on: AtomicU32,
}

/// How often the lock is handed on before other processes have their turn.
const HANDED_ON_MOST: u32 = 8;

impl Map {
    /// A map in memory alone: gone with the process, seen by nobody else.
    pub fn in_memory(plan: &Plan) -> Result<Self, MapError> {
        check(plan)?;
        let state = State::in_memory(plan)?;
        Ok(Self { state: Mutex::new(state), shared: None, exclusive: true })
    }

    /// A copy in memory of the bytes of the files `map` and `sessions`, of whatever boot: to look at
    /// what somebody left, or to try something on it. The files themselves never change by it.
    ///
    /// Without the bytes of `sessions` (or with those of another map) nothing is known of users,
    /// clients and leaders.
    pub fn from_bytes(map: &[u8], sessions: &[u8]) -> Result<Self, MapError> {
        let state = State::copied(map, sessions)
            .map_err(|reason| MapError::Damaged { path: super::MAP_FILE.into(), reason })?;
        Ok(Self { state: Mutex::new(state), shared: None, exclusive: true })
    }

    /// Makes the files `map` and `sessions` in a directory of ours and opens them.
    ///
    /// Where there is a map of this boot already, its sessions are carried over: they keep their
    /// addresses and handles, even those that the plan no longer has, which go to nobody else when
    /// they are given back. An address that is in another pool now goes on there as it was: nobody
    /// gets it before its session has given it back and it has cooled down. A pool that the plan no
    /// longer has stays only while its addresses are in use or cool down.
    ///
    /// The old file is marked superseded; it stays in place if a new one would say the same, so that
    /// to configure a server again and again costs its programs nothing. A damaged map is left alone
    /// and reported: remove it to begin anew.
    pub fn create(directory: &Path, plan: &Plan) -> Result<Self, MapError> {
        check(plan)?;
        let boot = files::here(directory)?;
        let shared = Shared::new(directory)?;
        let holder = || State::open(directory).ok().map(|state| holder(&state)).unwrap_or_default();
        // Who holds it for itself will not let go; if it died meanwhile, the first try succeeds.
        let patience = if holder().1 { Duration::ZERO } else { PATIENCE };
        if !shared.acquire(patience)? {
            let (pid, exclusive) = holder();
            return Err(MapError::Busy { pid, exclusive });
        }
        let made = match State::open(directory) {
            Ok(old) => {
                store(old.map.words(), HOLDER, std::process::id().into());
                old.recover();
                let placed = files::finish_placing(directory, &old.layout);
                let stays = placed.and_then(|()| old.stays(directory, plan, boot));
                let made = stays.and_then(|stays| match stays {
                    true => Ok(None),
                    false => State::replace(directory, plan, boot, Some(&old)).map(Some),
                });
                store(old.map.words(), HOLDER, 0);
                made.map(|made| made.unwrap_or(old))
            }
            Err(MapError::Missing(_)) => State::replace(directory, plan, boot, None),
            Err(error) => Err(error),
        };
        shared.lock.release();
        Ok(Self { state: Mutex::new(made?), shared: Some(shared), exclusive: false })
    }

    /// Opens the map in a directory.
    pub fn open(directory: &Path) -> Result<Self, MapError> {
        let state = State::open(directory)?;
        files::check_identity(directory, &state.layout)?;
        let shared = Shared::new(directory)?;
        Ok(Self { state: Mutex::new(state), shared: Some(shared), exclusive: false })
    }

    /// Takes the writer lock for as long as this value lives: operations then cost no system call,
    /// and other writers are told who holds it.
    pub fn lock_exclusive(&mut self) -> Result<(), MapError> {
        let mut operation = self.begin()?;
        store(operation.state.map.words(), HOLDER, pair(1, std::process::id()));
        // So that the operation does not give the lock back.
        operation.shared = None;
        drop(operation);
        self.exclusive = true;
        Ok(())
    }

    /// Gives a session its addresses, or completes and returns those it has.
    ///
    /// In this order: the lease it has; the address it asks for, or an error; the one reserved for
    /// the user; the user's last one; the one that has been free longest.
    #[inline(always)]
    pub fn open_session(
        &self,
        session: SessionId,
        options: &OpenOptions<'_>,
        now: Tick,
    ) -> Result<OpenedSession, OpenError> {
        let operation = self.begin()?;
        match operation.state.open_plain(session, options, now) {
            Some(opened) => Ok(opened),
            None => operation.state.open_anyhow(session, options, now),
        }
    }

    /// Gives back what the session of this handle holds.
    #[inline(always)]
    pub fn close_by_handle(&self, handle: &Handle, now: Tick) -> Result<ClosedSession, CloseError> {
        let operation = self.begin()?;
        match operation.state.close_plain(handle, now) {
            Some(closed) => Ok(closed),
            None => operation.state.close_anyhow(handle, now),
        }
    }

    /// Gives back what this session holds.
    #[inline(always)]
    pub fn close_session(
        &self,
        session: SessionId,
        now: Tick,
    ) -> Result<ClosedSession, CloseError> {
        let operation = self.begin()?;
        match operation.state.close_session_plain(session, now) {
            Some(closed) => Ok(closed),
            None => operation.state.close_session_anyhow(session, now),
        }
    }

    /// The pool that the rules of the farm choose for a session of this user, in which this
    /// program is started (where that is known): what [`OpenOptions::pool`] is to be where nobody
    /// asks for another. `None` if no rule holds. May block while the user's groups are looked up,
    /// but only where a rule names a group; on Windows no such rule holds.
    pub fn choose_pool(&self, user: &str, program: Option<&Executable<'_>>) -> Option<String> {
        #[cfg(unix)]
        let groups = || crate::os::users::groups_of(user);
        #[cfg(not(unix))]
        let groups = Vec::new;
        let reader = self.reader().ok()?;
        reader.policy().choose_pool(user, groups, program).map(str::to_owned)
    }

    /// A view for looking things up.
    pub fn reader(&self) -> Result<Reader, MapError> {
        let state = self.lock()?;
        match (&self.shared, state.map.share()) {
            (Some(shared), _) => Reader::attach(&shared.directory),
            (None, Some(region)) => Ok(Reader::new(region, state.layout)),
            (None, None) => unreachable!("a map in memory can be shared"),
        }
    }

    /// How addresses are given out.
    pub fn settings(&self) -> Settings {
        self.state.lock().layout.settings
    }

    /// The handle and leases of a session, if it is open. Takes no lock that another process
    /// holds.
    pub fn find(&self, session: SessionId) -> Result<Option<(Handle, Leases)>, MapError> {
        let mut state = self.lock()?;
        self.follow(&mut state)?;
        let leases = state.lookup(session);
        Ok(state.handle(&leases).map(|handle| (handle, leases)))
    }

    /// The open sessions, with what the private file knows of them. Takes no lock that another
    /// process holds.
    pub fn sessions(&self) -> Result<Vec<SessionRow>, MapError> {
        let mut state = self.lock()?;
        self.follow(&mut state)?;
        let rows = state.rows().collect();
        Ok(rows)
    }

    /// Begins an operation: alone, on the map that is in place, and on one that is whole.
    #[inline(always)]
    pub(crate) fn begin(&self) -> Result<Operation<'_>, MapError> {
        match &self.shared {
            Some(shared) if !self.exclusive => self.begin_shared(shared),
            _ => {
                let state = self.lock()?;
                state.begin();
                Ok(Operation { state, shared: None, begun: true })
            }
        }
    }

    fn begin_shared<'a>(&'a self, shared: &'a Shared) -> Result<Operation<'a>, MapError> {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        let state = self.lock();
        shared.waiting.fetch_sub(1, Ordering::Relaxed);
        let mut state = state?;
        if shared.handed_on.load(Ordering::Relaxed) == 0 {
            self.follow(&mut state)?;
            if !shared.acquire(Duration::ZERO)? {
                drop(state);
                state = self.wait_for_turn(shared)?;
            }
        }
        // From here on the lock is given back when the operation is dropped.
        let mut operation = Operation { state, shared: Some(shared), begun: false };
        self.follow(&mut operation.state)?;
        // Still in place: whoever wanted to replace it died before.
        store(operation.state.map.words(), SUPERSEDED, 0);
        store(operation.state.map.words(), HOLDER, std::process::id().into());
        operation.state.begin();
        operation.begun = true;
        Ok(operation)
    }

    /// Waits for another process to give the lock back, or tells who has it. Meanwhile other threads
    /// look at the map, and wait themselves.
    #[cold]
    fn wait_for_turn(&self, shared: &Shared) -> Result<MutexGuard<'_, State>, MapError> {
        let began = Instant::now();
        let mut pause = Duration::from_micros(20);
        loop {
            let mut state = self.lock()?;
            if shared.handed_on.load(Ordering::Relaxed) > 0 {
                return Ok(state);
            }
            // The holder is named in the map that is in place.
            self.follow(&mut state)?;
            if shared.acquire(Duration::ZERO)? {
                return Ok(state);
            }
            let (pid, exclusive) = holder(&state);
            // Who holds it for itself will not let go.
            if exclusive || began.elapsed() >= PATIENCE {
                return Err(MapError::Busy { pid, exclusive });
            }
            drop(state);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    /// The state, unless it was left behind by a fork: another thread may have been using it.
    #[inline]
    fn lock(&self) -> Result<MutexGuard<'_, State>, MapError> {
        match &self.shared {
            Some(shared) if shared.lock.is_of_parent() => Err(MapError::Forked),
            _ => Ok(self.state.try_lock().unwrap_or_else(|| self.wait())),
        }
    }

    /// Waits for the lock. An operation is over long before a thread has fallen asleep and been
    /// woken, and with the lock all that it guards moves from cache to cache, which takes longer
    /// than an operation: so whoever finds it taken leaves the other to do many of them, some
    /// microseconds at first, some ten in all.
    #[cold]
    #[inline(never)]
    fn wait(&self) -> MutexGuard<'_, State> {
        for round in 0..3 {
            (0..256 << round).for_each(|_| std::hint::spin_loop());
            if let Some(state) = self.state.try_lock() {
                return state;
            }
        }
        self.state.lock()
    }

    /// Turns to the map that is in place, if it is another one by now.
    fn follow(&self, state: &mut State) -> Result<(), MapError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        if load(state.map.words(), SUPERSEDED) != 0 {
            let mut tries = if cfg!(windows) { 100 } else { 0 };
            let current = loop {
                match State::open(&shared.directory) {
                    // There the old file makes way before the new one can have its name.
                    Err(MapError::Missing(_)) if tries > 0 => tries -= 1,
                    other => break other?,
                }
                std::thread::sleep(Duration::from_millis(1));
            };
            files::check_identity(&shared.directory, &current.layout)?;
            *state = current;
        }
        Ok(())
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let (true, Some(shared)) = (self.exclusive, &self.shared)
            && !shared.lock.is_of_parent()
        {
            store(self.state.get_mut().map.words(), HOLDER, 0);
            shared.lock.release();
        }
    }
}

impl Shared {
    fn new(directory: &Path) -> Result<Self, MapError> {
        Ok(Self {
            directory: directory.to_owned(),
            lock: files::lock(directory)?,
            waiting: AtomicU32::new(0),
            handed_on: AtomicU32::new(0),
        })
    }

    /// Ends the turn of an operation: hands the lock on to a thread of this process that is about
    /// to begin one, which spares two system calls, or gives it back.
    fn hand_on(&self, words: &[AtomicU64]) {
        let handed_on = self.handed_on.load(Ordering::Relaxed);
        if handed_on < HANDED_ON_MOST && self.waiting.load(Ordering::Relaxed) > 0 {
            // Whoever waits takes it: nothing can fail before it is an operation of its own.
            self.handed_on.store(handed_on + 1, Ordering::Relaxed);
            return;
        }
        self.handed_on.store(0, Ordering::Relaxed);
        store(words, HOLDER, 0);
        self.lock.release();
    }

    /// Takes the lock of the writers; false if others had it all the time.
    fn acquire(&self, patience: Duration) -> Result<bool, MapError> {
        self.lock.acquire(patience).map_err(|source| {
            let path = self.directory.join(super::LOCK_FILE);
            MapError::Io { what: "cannot lock", path, source }
        })
    }
}

/// Who holds the map, and whether for itself.
fn holder(state: &State) -> (u32, bool) {
    let (exclusive, pid) = unpair(load(state.map.words(), HOLDER));
    (pid, exclusive != 0)
}

/// An operation of a writer: ends when dropped.
pub(crate) struct Operation<'a> {
    pub(crate) state: MutexGuard<'a, State>,
    /// What to give the lock back to.
    pub(crate) shared: Option<&'a Shared>,
    /// Whether the map is whole and marked as being changed. Before, its mark is that of a writer
    /// that died.
    begun: bool,
}

impl Drop for Operation<'_> {
    #[inline]
    fn drop(&mut self) {
        // A panic within the operation leaves the mark: the next one makes the map whole.
        if self.begun && !std::thread::panicking() {
            self.state.end();
        }
        if let Some(shared) = self.shared {
            shared.hand_on(self.state.words());
        }
    }
}
