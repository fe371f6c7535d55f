//! Random operations on a map in a file and on its model, compared after each of them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use vipool::Tick;
use vipool::map::{
    ChangeError, CloseError, LEADER_GRACE, Leader, Map, OpenError, OpenOptions, Plan, Probe, Reader,
};
use vipool::range::Range;
use vipool::session::{Handle, SessionId};

use crate::model::{Model, No};
use crate::operations::{Op, PLANS, POOLS, USERS, id, is_gone, is_in_use, leader, op, plan};

/// What the operating system is said to say.
struct Script {
    gone: u32,
    in_use: u64,
    /// Only these are asked about: what a twin says is not in the model.
    known: BTreeMap<IpAddr, (usize, usize)>,
}

impl Probe for Script {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        self.known.contains_key(&address) && is_in_use(self.in_use, address)
    }

    fn is_gone(&mut self, leader: &Leader) -> bool {
        is_gone(self.gone, leader)
    }
}

struct Machine {
    directory: PathBuf,
    map: Map,
    reader: Reader,
    model: Model,
    plan: Plan,
    now: Tick,
    /// Every handle that was ever given out, and the generation within the model.
    handles: Vec<Handle>,
}

impl Machine {
    fn new(directory: &Path, first: usize) -> Self {
        for file in ["map", "sessions"] {
            _ = std::fs::remove_file(directory.join(file));
        }
        let plan = plan(first);
        let map = Map::create(directory, &plan).unwrap();
        let reader = map.reader().unwrap();
        let directory = directory.to_owned();
        let model = Model::new(&plan);
        Self {
            directory,
            map,
            reader,
            model,
            plan,
            now: Tick::from_secs(1000),
            handles: Vec::new(),
        }
    }

    /// An address: of the pools, or in none of them.
    fn address(&self, number: usize) -> IpAddr {
        let all = self.model.addresses();
        all.keys().nth(number).copied().unwrap_or_else(|| "10.9.9.9".parse().unwrap())
    }

    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let now = self.now;
        match *op {
            Op::Open { session, user, pool, address, leader: pid } => {
                let options = OpenOptions {
                    user: user.map(|user| USERS[user]),
                    pool: pool.map(|pool| POOLS[pool]),
                    address: address.map(|number| self.address(number)),
                    client: None,
                    leader: pid.map(leader),
                };
                self.open(session, &options)?;
            }
            Op::Close(index) | Op::CloseForeign(index) if !self.handles.is_empty() => {
                let mut handle = self.handles[index % self.handles.len()];
                if matches!(op, Op::CloseForeign(_)) {
                    handle.boot ^= 2;
                    let closed = self.map.close_by_handle(&handle, now);
                    prop_assert!(matches!(closed, Err(CloseError::Foreign)));
                    return Ok(());
                }
                let slot = self.model.pools.get(usize::from(handle.pool));
                let slot = slot.and_then(|pool| pool.slots.get(handle.slot as usize));
                let live = slot.is_some_and(|slot| {
                    let held = slot.held.as_ref().map(|held| id(held.session));
                    held == Some(handle.session) && slot.generation == handle.generation
                });
                prop_assert_eq!(self.reader.is_live(&handle), live);
                match self.map.close_by_handle(&handle, now) {
                    Ok(closed) => {
                        prop_assert!(live);
                        let leases = self.model.leases(handle.session.value());
                        prop_assert_eq!(closed.leases.iter().count(), leases.len());
                        self.model.close(handle.session.value(), now);
                    }
                    Err(CloseError::Stale(session)) => {
                        prop_assert!(!live && session == handle.session);
                    }
                    Err(other) => return Err(TestCaseError::fail(other.to_string())),
                }
            }
            Op::Close(_) | Op::CloseForeign(_) => {}
            Op::CloseSession(session) => {
                let closed = self.map.close_session(id(session), now).is_ok();
                prop_assert_eq!(closed, self.model.close(session, now));
            }
            Op::Drain(first, count, drained) => {
                let addresses: Vec<IpAddr> = self.model.addresses().into_keys().collect();
                let Some(first) = addresses.get(first) else { return Ok(()) };
                let last = addresses.iter().rev().find(|a| a.is_ipv4() == first.is_ipv4()).unwrap();
                let at = addresses.iter().position(|address| address == first).unwrap();
                let last = addresses.get(at + count).unwrap_or(last).min(last);
                let range = Range::new(*first, *last).unwrap();
                let those: Vec<IpAddr> =
                    addresses.iter().copied().filter(|a| range.contains(*a)).collect();
                let changed = match drained {
                    true => self.map.drain(&range, now),
                    false => self.map.undrain(&range, now),
                };
                prop_assert_eq!(changed.unwrap().addresses as usize, those.len());
                // In the order in which the map goes through its pools.
                let mut those: Vec<_> = those.iter().map(|a| (self.model.locate(*a), *a)).collect();
                those.sort_unstable();
                let those: Vec<IpAddr> = those.into_iter().map(|(_, address)| address).collect();
                self.model.drain(&those, drained, now);
            }
            Op::DrainServer(draining) => {
                self.map.drain_server(draining).unwrap();
                self.model.draining = draining;
            }
            Op::Reserve(address, user) => {
                let (address, user) = (self.address(address), USERS[user]);
                let expected =
                    self.model.locate(address).map(|at| self.model.reserve(at, user, now));
                match (self.map.reserve(address, user, now), expected) {
                    (Ok(_), Some(true)) => {}
                    (Err(ChangeError::ReservedForAnother(_)), Some(false)) => {}
                    (Err(ChangeError::NotInPool(_)), None) => {}
                    (other, _) => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
            Op::Unreserve(address) => {
                let address = self.address(address);
                let expected = self.model.locate(address).map(|at| self.model.unreserve(at, now));
                match (self.map.unreserve(address, now), expected) {
                    (Ok(_), Some(true)) => {}
                    (Err(ChangeError::NotReserved(_)), Some(false)) => {}
                    (Err(ChangeError::NotInPool(_)), None) => {}
                    (other, _) => return Err(TestCaseError::fail(format!("{other:?}"))),
                }
            }
            Op::Reap { gone, in_use } => {
                let mut script = Script { gone, in_use, known: self.model.addresses() };
                let reaped = self.map.reap(now, u32::MAX, &mut script).unwrap();
                let (freed, lingering, closed) = self.model.reap(
                    now,
                    LEADER_GRACE,
                    &|leader| is_gone(gone, leader),
                    &|address| is_in_use(in_use, address),
                );
                let closed: Vec<SessionId> = closed.into_iter().map(id).collect();
                prop_assert!(!reaped.more);
                prop_assert_eq!(
                    (reaped.freed, reaped.lingering, reaped.closed),
                    (freed, lingering, closed)
                );
            }
            Op::Reconcile(alive) => {
                let is_alive = |session: u64| alive >> session & 1 == 1;
                let closed =
                    self.map.reconcile(now, |session, _| is_alive(session.value())).unwrap();
                let gone: Vec<u64> = self
                    .model
                    .sessions()
                    .into_iter()
                    .filter(|session| !is_alive(*session))
                    .collect();
                prop_assert_eq!(
                    closed,
                    gone.iter().map(|session| id(*session)).collect::<Vec<_>>()
                );
                for session in gone {
                    self.model.close(session, now);
                }
                self.model.ready = true;
            }
            Op::Recover => self.map.recover().unwrap(),
            Op::Restart => self.map = Map::open(&self.directory).unwrap(),
            Op::Configure(number) => {
                let plan = plan(number);
                let newer = Map::create(&self.directory, &plan).unwrap();
                // What changes nothing may leave it in place.
                prop_assert!(self.reader.is_superseded() || plan == self.plan);
                self.reader = newer.reader().unwrap();
                // The older writer has to find its way by itself, every other time.
                if number % 2 == 0 {
                    self.map = newer;
                }
                self.model.configure(&plan);
                self.plan = plan;
            }
            Op::Advance(by) => self.now = now.saturating_add_signed(by),
        }
        Ok(())
    }

    fn open(&mut self, session: u64, options: &OpenOptions<'_>) -> Result<(), TestCaseError> {
        let answer = self.map.open_session(id(session), options, self.now);
        let given: Vec<(usize, usize)> = answer
            .iter()
            .flat_map(|opened| {
                opened
                    .leases
                    .iter()
                    .map(|lease| (usize::from(lease.pool), lease.slot as usize))
                    .collect::<Vec<_>>()
            })
            .collect();
        let expected = self.model.open(session, options, self.now, &given);
        let no = match answer {
            Ok(opened) => {
                self.handles.push(opened.handle);
                let got = Ok((opened.already_open, opened.shortage, opened.low_water));
                prop_assert_eq!(got, expected);
                return Ok(());
            }
            Err(no) => no,
        };
        let no = match no {
            OpenError::Shortage(shortage) => No::Short(shortage),
            OpenError::UnknownPool(_) => No::UnknownPool,
            OpenError::Excluded(_) => No::Excluded,
            OpenError::Taken(_) => No::Taken,
            OpenError::AddressCooling(_, until) => No::Cooling(until),
            OpenError::AddressLingering(_) => No::Lingering,
            OpenError::ReservedForAnother(_) => No::Reserved,
            OpenError::AddressDrained(_) => No::Drained,
            OpenError::Quota { .. } => No::Quota,
            OpenError::TooManySessions(_) => No::TooMany,
            OpenError::NotReady => No::NotReady,
            OpenError::Map(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        prop_assert_eq!(Err(no), expected);
        Ok(())
    }

    /// The map and its reader say what the model says.
    fn compare(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.reader.pools().len(), self.model.pools.len());
        for (pool, status) in self.model.pools.iter().zip(self.reader.pools()) {
            let s = &status;
            let numbers = [s.free, s.used, s.cooling, s.lingering, s.reserved, s.drained];
            prop_assert_eq!(numbers, pool.numbers(), "{}", pool.name);
            prop_assert_eq!((s.slots as usize, s.peak), (pool.slots.len(), pool.peak));
            prop_assert_eq!((&s.name, s.ipv4), (&pool.name, pool.ipv4));
        }
        let rows = self.map.sessions().unwrap();
        let mut addresses: Vec<IpAddr> = rows
            .iter()
            .flat_map(|row| row.leases.iter().map(|lease| lease.address).collect::<Vec<_>>())
            .collect();
        let held = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        prop_assert_eq!(addresses.len(), held, "an address is held twice");
        let open: Vec<u64> = rows.iter().map(|row| row.session.value()).collect();
        prop_assert_eq!(open, self.model.sessions());
        for row in rows {
            let leases = self.model.leases(row.session.value());
            let found: Vec<_> = row
                .leases
                .iter()
                .map(|lease| {
                    (usize::from(lease.pool), lease.slot as usize, lease.address, lease.generation)
                })
                .collect();
            let expected: Vec<_> = leases
                .iter()
                .map(|(pool, slot)| {
                    let it = &self.model.pools[*pool].slots[*slot];
                    (*pool, *slot, it.address, it.generation)
                })
                .collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(self.reader.find(row.session), Some((row.handle, row.leases)));
        }
        for session in (0..14).filter(|session| self.model.leases(*session).is_empty()) {
            prop_assert!(self.reader.lookup(id(session)).is_empty());
        }
        Ok(())
    }
}

#[test]
fn a_map_does_what_its_model_does() {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(parent).unwrap();
    // Under Wine a step takes a hundred times as long.
    let (usual, least) = if cfg!(windows) { (10, 1_500) } else { (500, 100_000) };
    let cases = vipool_testing::effort(usual, 20_000);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let steps = Cell::new(0);
    let strategy = (0..PLANS, prop::collection::vec(op(), 150..300));
    let result = TestRunner::new(config).run(&strategy, |(first, ops)| {
        let mut machine = Machine::new(directory.path(), first);
        for op in &ops {
            machine.apply(op)?;
            machine
                .compare()
                .map_err(|error| TestCaseError::fail(format!("after {op:?}: {error}")))?;
            steps.set(steps.get() + 1);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{} steps", steps.get());
    assert!(steps.get() >= least);
}
