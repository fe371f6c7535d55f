//! Runs random operations on a map in files and on its model. Compares the map with the model after
//! each operation.

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

use crate::model::{Model, OpenFailure};
use crate::operations::{
    Operation, PLAN_COUNT, POOLS, USERS, has_exited, is_in_use, leader, operation, plan, session_id,
};

/// A simulated operating system.
struct SimulatedSystem {
    /// A bit set, see [`has_exited`].
    exited_leaders: u32,
    /// A bit set, see [`is_in_use`].
    addresses_in_use: u64,
    /// The addresses of the model. The model does not contain L6, the second address of a loopback
    /// lease, so an L6 never has sockets.
    addresses: BTreeMap<IpAddr, (usize, usize)>,
}

impl Probe for SimulatedSystem {
    fn has_sockets(&mut self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address) && is_in_use(self.addresses_in_use, address)
    }

    fn has_exited(&mut self, leader: &Leader) -> bool {
        has_exited(self.exited_leaders, leader)
    }
}

/// A map and its model.
struct Comparison {
    directory: PathBuf,
    map: Map,
    reader: Reader,
    model: Model,
    plan: Plan,
    now: Tick,
    /// Every handle that the map has returned.
    handles: Vec<Handle>,
}

impl Comparison {
    fn new(directory: &Path, plan_number: usize) -> Self {
        for file in ["map", "sessions"] {
            _ = std::fs::remove_file(directory.join(file));
        }
        let plan = plan(plan_number);
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

    /// Returns the address with index `number` in the sorted addresses of the model. If `number` is
    /// too large, returns an address outside all pools.
    fn address(&self, number: usize) -> IpAddr {
        let addresses = self.model.addresses();
        addresses.keys().nth(number).copied().unwrap_or_else(|| "10.9.9.9".parse().unwrap())
    }

    /// Applies an operation to the map and to the model, and compares the results.
    fn apply(&mut self, operation: &Operation) -> Result<(), TestCaseError> {
        let now = self.now;
        match *operation {
            Operation::Open { session, user, pool, address, leader: pid } => {
                let options = OpenOptions::new()
                    .with_user(user.map(|user| USERS[user]))
                    .with_pool(pool.map(|pool| POOLS[pool]))
                    .with_address(address.map(|number| self.address(number)))
                    .with_leader(pid.map(leader));
                self.open(session, &options)?;
            }
            Operation::Close(index) | Operation::CloseForeign(index)
                if !self.handles.is_empty() =>
            {
                let mut handle = self.handles[index % self.handles.len()];
                if matches!(operation, Operation::CloseForeign(_)) {
                    handle.boot ^= 2;
                    let result = self.map.close_by_handle(&handle, now);
                    prop_assert!(matches!(result, Err(CloseError::Foreign)));
                    return Ok(());
                }
                let slot = self.model.pools.get(usize::from(handle.pool));
                let slot = slot.and_then(|pool| pool.slots.get(handle.slot as usize));
                let is_live = slot.is_some_and(|slot| {
                    let holder = slot.lease.as_ref().map(|lease| session_id(lease.session));
                    holder == Some(handle.session) && slot.generation == handle.generation
                });
                prop_assert_eq!(self.reader.is_live(&handle), is_live);
                match self.map.close_by_handle(&handle, now) {
                    Ok(closed) => {
                        prop_assert!(is_live);
                        let leases = self.model.leases(handle.session.value());
                        prop_assert_eq!(closed.leases.iter().count(), leases.len());
                        self.model.close(handle.session.value(), now);
                    }
                    Err(CloseError::Stale(session)) => {
                        prop_assert!(!is_live && session == handle.session);
                    }
                    Err(error) => return Err(TestCaseError::fail(error.to_string())),
                }
            }
            Operation::Close(_) | Operation::CloseForeign(_) => {}
            Operation::CloseSession(session) => {
                let is_closed = self.map.close_session(session_id(session), now).is_ok();
                prop_assert_eq!(is_closed, self.model.close(session, now));
            }
            Operation::Drain(first_index, further_count, is_drain) => {
                let addresses: Vec<IpAddr> = self.model.addresses().into_keys().collect();
                let Some(first_address) = addresses.get(first_index) else { return Ok(()) };
                let last_of_family = addresses
                    .iter()
                    .rev()
                    .find(|address| address.is_ipv4() == first_address.is_ipv4())
                    .unwrap();
                let last_address = addresses
                    .get(first_index + further_count)
                    .unwrap_or(last_of_family)
                    .min(last_of_family);
                let range = Range::new(*first_address, *last_address).unwrap();
                let addresses_in_range: Vec<IpAddr> =
                    addresses.iter().copied().filter(|address| range.contains(*address)).collect();
                let change = match is_drain {
                    true => self.map.drain(&range, now),
                    false => self.map.undrain(&range, now),
                };
                prop_assert_eq!(change.unwrap().addresses as usize, addresses_in_range.len());
                // The map drains addresses in the order of pool and slot.
                let mut located_addresses: Vec<_> = addresses_in_range
                    .iter()
                    .map(|address| (self.model.locate(*address), *address))
                    .collect();
                located_addresses.sort_unstable();
                let addresses_in_slot_order: Vec<IpAddr> =
                    located_addresses.into_iter().map(|(_, address)| address).collect();
                self.model.drain(&addresses_in_slot_order, is_drain, now);
            }
            Operation::DrainServer(is_draining) => {
                self.map.drain_server(is_draining).unwrap();
                self.model.is_draining = is_draining;
            }
            Operation::Reserve(address, user) => {
                let (address, user) = (self.address(address), USERS[user]);
                let is_reserved_in_model = self
                    .model
                    .locate(address)
                    .map(|location| self.model.reserve(location, user, now));
                match (self.map.reserve(address, user, now), is_reserved_in_model) {
                    (Ok(_), Some(true)) => {}
                    (Err(ChangeError::ReservedForAnother(_)), Some(false)) => {}
                    (Err(ChangeError::NotInPool(_)), None) => {}
                    (result, _) => return Err(TestCaseError::fail(format!("{result:?}"))),
                }
            }
            Operation::Unreserve(address) => {
                let address = self.address(address);
                let is_unreserved_in_model =
                    self.model.locate(address).map(|location| self.model.unreserve(location, now));
                match (self.map.unreserve(address, now), is_unreserved_in_model) {
                    (Ok(_), Some(true)) => {}
                    (Err(ChangeError::NotReserved(_)), Some(false)) => {}
                    (Err(ChangeError::NotInPool(_)), None) => {}
                    (result, _) => return Err(TestCaseError::fail(format!("{result:?}"))),
                }
            }
            Operation::Reap { exited_leaders, addresses_in_use } => {
                let addresses = self.model.addresses();
                let mut system = SimulatedSystem { exited_leaders, addresses_in_use, addresses };
                let report = self.map.reap(now, u32::MAX, &mut system).unwrap();
                let (freed_count, lingering_count, closed_in_model) = self.model.reap(
                    now,
                    LEADER_GRACE,
                    &|leader| has_exited(exited_leaders, leader),
                    &|address| is_in_use(addresses_in_use, address),
                );
                let closed_ids: Vec<SessionId> =
                    closed_in_model.into_iter().map(session_id).collect();
                prop_assert!(!report.more);
                prop_assert_eq!(
                    (report.freed, report.lingering, report.closed),
                    (freed_count, lingering_count, closed_ids)
                );
            }
            Operation::Reconcile(alive_sessions) => {
                let is_alive = |session: u64| alive_sessions >> session & 1 == 1;
                let closed_ids =
                    self.map.reconcile(now, |session, _| is_alive(session.value())).unwrap();
                let closed_in_model: Vec<u64> = self
                    .model
                    .sessions()
                    .into_iter()
                    .filter(|session| !is_alive(*session))
                    .collect();
                prop_assert_eq!(
                    closed_ids,
                    closed_in_model.iter().map(|session| session_id(*session)).collect::<Vec<_>>()
                );
                for session in closed_in_model {
                    self.model.close(session, now);
                }
                self.model.is_ready = true;
            }
            Operation::Recover => self.map.recover().unwrap(),
            Operation::Restart => self.map = Map::open(&self.directory).unwrap(),
            Operation::Configure(number) => {
                let plan = plan(number);
                let new_map = Map::create_at(&self.directory, &plan, now).unwrap();
                // If the new plan equals the current plan, `Map::create_at` may keep the map.
                prop_assert!(self.reader.is_superseded() || plan == self.plan);
                self.reader = new_map.reader().unwrap();
                // After a plan with an odd number, the test keeps the older writer. This writer
                // must switch to the new file.
                if number % 2 == 0 {
                    self.map = new_map;
                }
                self.model.configure(&plan, now);
                self.plan = plan;
            }
            Operation::Advance(seconds) => self.now = now.saturating_add_signed(seconds),
        }
        Ok(())
    }

    /// Opens a session in the map and in the model, and compares the results.
    fn open(&mut self, session: u64, options: &OpenOptions<'_>) -> Result<(), TestCaseError> {
        let result = self.map.open_session(session_id(session), options, self.now);
        let map_choice: Vec<(usize, usize)> = result
            .iter()
            .flat_map(|opened| {
                opened
                    .leases
                    .iter()
                    .map(|lease| (usize::from(lease.pool), lease.slot as usize))
                    .collect::<Vec<_>>()
            })
            .collect();
        let expected_result = self.model.open(session, options, self.now, &map_choice);
        let error = match result {
            Ok(opened) => {
                self.handles.push(opened.handle);
                let actual_result =
                    Ok((opened.already_open, opened.shortage, opened.is_low_water()));
                prop_assert_eq!(actual_result, expected_result);
                return Ok(());
            }
            Err(error) => error,
        };
        let failure = match error {
            OpenError::Shortage { shortage, .. } => OpenFailure::Shortage(shortage),
            OpenError::UnknownPool(_) => OpenFailure::UnknownPool,
            OpenError::Excluded(_) => OpenFailure::NotInPool,
            OpenError::Taken(_) => OpenFailure::Taken,
            OpenError::AddressCooling(_, until) => OpenFailure::Cooling(until),
            OpenError::AddressLingering(_) => OpenFailure::Lingering,
            OpenError::ReservedForAnother(_) => OpenFailure::Reserved,
            OpenError::AddressDrained(_) => OpenFailure::Drained,
            OpenError::OtherUser(_) => OpenFailure::OtherUser,
            OpenError::OtherAddress(_) => OpenFailure::OtherAddress,
            OpenError::Quota { .. } => OpenFailure::Quota,
            OpenError::TooManySessions(_) => OpenFailure::TooManySessions,
            OpenError::NotReady => OpenFailure::NotReady,
            error => return Err(TestCaseError::fail(error.to_string())),
        };
        prop_assert_eq!(Err(failure), expected_result);
        Ok(())
    }

    /// Compares the state of the map and of its reader with the model.
    fn compare(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.reader.pools().len(), self.model.pools.len());
        for (pool, status) in self.model.pools.iter().zip(self.reader.pools()) {
            let counts = [
                status.free,
                status.leased,
                status.cooling,
                status.lingering,
                status.reserved,
                status.drained,
            ];
            prop_assert_eq!(counts, pool.counts(), "{}", pool.name);
            prop_assert_eq!((status.slots as usize, status.peak), (pool.slots.len(), pool.peak));
            prop_assert_eq!((&status.name, status.ipv4), (&pool.name, pool.is_ipv4));
        }
        let rows = self.map.sessions().unwrap();
        let mut addresses: Vec<IpAddr> = rows
            .iter()
            .flat_map(|row| row.leases.iter().map(|lease| lease.address).collect::<Vec<_>>())
            .collect();
        let lease_count = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        prop_assert_eq!(addresses.len(), lease_count, "an address is leased twice");
        let open_sessions: Vec<u64> = rows.iter().map(|row| row.session.value()).collect();
        prop_assert_eq!(open_sessions, self.model.sessions());
        for row in rows {
            let leases = self.model.leases(row.session.value());
            let found_leases: Vec<_> = row
                .leases
                .iter()
                .map(|lease| {
                    (usize::from(lease.pool), lease.slot as usize, lease.address, lease.generation)
                })
                .collect();
            let expected_leases: Vec<_> = leases
                .iter()
                .map(|(pool, slot)| {
                    let model_slot = &self.model.pools[*pool].slots[*slot];
                    (*pool, *slot, model_slot.address, model_slot.generation)
                })
                .collect();
            prop_assert_eq!(found_leases, expected_leases);
            prop_assert_eq!(self.reader.find(row.session), Some((row.handle, row.leases)));
        }
        for session in (0..14).filter(|session| self.model.leases(*session).is_empty()) {
            prop_assert!(self.reader.lookup(session_id(session)).is_empty());
        }
        Ok(())
    }
}

#[test]
fn map_equals_its_model_after_every_operation() {
    let shared_memory = Path::new("/dev/shm");
    let parent =
        if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(parent).unwrap();
    // Run fewer cases on Windows, because an operation under Wine takes a hundred times as long.
    let (usual_case_count, min_operation_count) =
        if cfg!(windows) { (10, 1_500) } else { (500, 100_000) };
    let cases = vipool_testing::effort(usual_case_count, 20_000);
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let operation_count = Cell::new(0);
    let strategy = (0..PLAN_COUNT, prop::collection::vec(operation(), 150..300));
    let result = TestRunner::new(config).run(&strategy, |(plan_number, operations)| {
        let mut comparison = Comparison::new(directory.path(), plan_number);
        for operation in &operations {
            comparison.apply(operation)?;
            comparison
                .compare()
                .map_err(|error| TestCaseError::fail(format!("after {operation:?}: {error}")))?;
            operation_count.set(operation_count.get() + 1);
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{} operations", operation_count.get());
    assert!(operation_count.get() >= min_operation_count);
}
