//! The model of a map. It implements the documented behaviour of the map as simply as possible.
//!
//! Each pool of the model has a list of slots. The model has no index, and computes every queue and
//! every count of slots from these lists.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vipool::Tick;
use vipool::map::{Leader, OpenOptions, Plan, Settings, Shortage};
use vipool::pool::PoolKind;

use crate::pool::{IdleState, ModelLease, ModelPool, Slot};

/// The state of a map.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub pools: Vec<ModelPool>,
    pub settings: Settings,
    /// The time and the serial number of the last change.
    pub last_stamp: (Tick, u64),
    /// The highest generation of the slots of all removed pools.
    pub max_dropped_generation: u32,
    /// Whether the server is drained, so that no address may be allocated.
    pub is_draining: bool,
    /// Whether `reconcile` has run, so that sessions may be opened despite `await_restore`.
    pub is_ready: bool,
}

/// The reason why a session was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    Shortage(Shortage),
    UnknownPool,
    NotInPool,
    Taken,
    Cooling(Tick),
    Lingering,
    Reserved,
    Drained,
    OtherUser,
    OtherAddress,
    Quota,
    TooManySessions,
    NotReady,
}

impl Model {
    pub fn new(plan: &Plan) -> Self {
        let mut model = Self::default();
        model.configure(plan, Tick::ZERO);
        model
    }

    /// Returns the time and serial number of the next change. Neither value ever decreases.
    fn next_stamp(&mut self, now: Tick) -> (Tick, u64) {
        self.last_stamp = (self.last_stamp.0.max(now), self.last_stamp.1 + 1);
        self.last_stamp
    }

    /// Returns the pool and slot of each lease of a session.
    pub fn leases(&self, session: u64) -> Vec<(usize, usize)> {
        let pools = self.pools.iter().enumerate();
        pools
            .filter_map(|(pool_number, pool)| Some((pool_number, pool.slot_of(session)?)))
            .collect()
    }

    /// Returns the open sessions in the order of the pool and slot of their first leases.
    pub fn sessions(&self) -> Vec<u64> {
        let leased_slots = self.pools.iter().enumerate().flat_map(|(pool_number, pool)| {
            pool.slots
                .iter()
                .filter_map(move |slot| Some((pool_number, slot.lease.as_ref()?.session)))
        });
        leased_slots
            .filter(|(pool_number, session)| self.leases(*session)[0].0 == *pool_number)
            .map(|(_, session)| session)
            .collect()
    }

    /// Returns the pool and slot of an address. If several slots have the address, the function
    /// prefers a leased slot, then a slot that is not retired, then a slot that is not blank.
    pub fn locate(&self, address: IpAddr) -> Option<(usize, usize)> {
        let slots = self.pools.iter().enumerate().filter_map(|(pool_number, pool)| {
            Some((pool_number, pool.slots.iter().position(|slot| slot.address == address)?))
        });
        slots.min_by_key(|(pool_number, slot)| {
            let slot = &self.pools[*pool_number].slots[*slot];
            (slot.lease.is_none(), slot.is_retired, slot.is_blank())
        })
    }

    /// Returns the numbers of the plan's virtual IP pools that have this name.
    fn pools_named(&self, name: &str) -> Vec<usize> {
        let is_match = |pool: &ModelPool| {
            pool.kind == PoolKind::VirtualIp && pool.name == name && !pool.is_dropped
        };
        (0..self.pools.len()).filter(|pool_number| is_match(&self.pools[*pool_number])).collect()
    }

    /// Returns the slots that the map may choose for a lease, or the reason why there are none.
    ///
    /// The function prefers available slots that are reserved for `user` or were last leased by
    /// `user`. If there are none, it first frees up to two cooled slots, unless `check_in_use` is
    /// set. Then it returns the slot that has been free for the longest time.
    fn candidates(
        &mut self,
        pool_number: usize,
        user: Option<&str>,
        now: Tick,
    ) -> Result<Vec<usize>, Shortage> {
        let pool = &self.pools[pool_number];
        let rank = |slot: &Slot| match () {
            () if slot.lease.is_some() || slot.is_withdrawn() || user.is_none() => None,
            () if slot.user.as_deref() != user => None,
            () if slot.is_reserved => {
                self.check_cooled(slot, user, now).is_ok().then_some((2, (Tick::ZERO, 0)))
            }
            () if slot.idle_state == IdleState::Cooling => Some((1, slot.since)),
            () if slot.idle_state == IdleState::Free => Some((0, slot.since)),
            () => None,
        };
        if let Some(best_rank) = pool.slots.iter().filter_map(rank).max() {
            let slots = 0..pool.slots.len();
            return Ok(slots.filter(|slot| rank(&pool.slots[*slot]) == Some(best_rank)).collect());
        }
        if !self.settings.check_in_use {
            for slot in self.pools[pool_number].queue(IdleState::Cooling).into_iter().take(2) {
                if self.cool_down_end(pool_number, slot) <= now {
                    self.pools[pool_number].slots[slot].since = self.next_stamp(now);
                    self.pools[pool_number].slots[slot].idle_state = IdleState::Free;
                }
            }
        }
        let pool = &self.pools[pool_number];
        if let Some(slot) = pool.queue(IdleState::Free).first() {
            return Ok(vec![*slot]);
        }
        Err(match pool.queue(IdleState::Cooling).first() {
            Some(slot) if self.cool_down_end(pool_number, *slot) > now => {
                Shortage::Cooling { until: self.cool_down_end(pool_number, *slot) }
            }
            Some(_) => Shortage::Lingering,
            None if !pool.queue(IdleState::Lingering).is_empty() => Shortage::Lingering,
            None if pool.slots.iter().any(|slot| slot.awaits_release) => Shortage::Exhausted,
            None if !pool.slots.is_empty() && pool.counts()[5] as usize == pool.slots.len() => {
                Shortage::Draining
            }
            None => Shortage::Exhausted,
        })
    }

    /// Returns the time at which the cool-down of the slot ends.
    fn cool_down_end(&self, pool: usize, slot: usize) -> Tick {
        self.pools[pool].slots[slot].since.0.saturating_add(self.settings.cool_down)
    }

    /// Checks whether an explicitly requested slot can be allocated.
    fn check_request(
        &self,
        (pool, slot): (usize, usize),
        user: Option<&str>,
        now: Tick,
    ) -> Result<(), OpenFailure> {
        let slot = &self.pools[pool].slots[slot];
        let belongs_to_user = user.is_some() && slot.user.as_deref() == user;
        match slot.idle_state {
            _ if slot.lease.is_some() => Err(OpenFailure::Taken),
            _ if slot.is_withdrawn() => Err(OpenFailure::Drained),
            _ if slot.is_reserved && !belongs_to_user => Err(OpenFailure::Reserved),
            IdleState::Cooling if belongs_to_user && !slot.is_reserved => Ok(()),
            _ => self.check_cooled(slot, user, now),
        }
    }

    /// Checks whether the slot has cooled down. The last user of a reserved slot need not wait.
    fn check_cooled(&self, slot: &Slot, user: Option<&str>, now: Tick) -> Result<(), OpenFailure> {
        let cool_down_end = slot.since.0.saturating_add(self.settings.cool_down);
        match slot.idle_state {
            _ if slot.is_reserved && user.is_some() && slot.last_user.as_deref() == user => Ok(()),
            IdleState::Free => Ok(()),
            IdleState::Lingering => Err(OpenFailure::Lingering),
            IdleState::Cooling if cool_down_end > now => Err(OpenFailure::Cooling(cool_down_end)),
            IdleState::Cooling if self.settings.check_in_use => Err(OpenFailure::Lingering),
            IdleState::Cooling => Ok(()),
        }
    }

    /// Opens a session.
    ///
    /// `map_choice` contains the pool and slot of each lease that the map returned. If several
    /// slots are equally good, the model uses the slot that the map chose. Returns whether the
    /// session was already open, the shortage, and whether a pool fell below its low-water mark.
    pub fn open(
        &mut self,
        session: u64,
        options: &OpenOptions<'_>,
        now: Tick,
        map_choice: &[(usize, usize)],
    ) -> Result<(bool, Option<Shortage>, bool), OpenFailure> {
        let leases = self.leases(session);
        // An open session keeps its user, and keeps its leader unless the options have one.
        let lease_at = |(pool, slot): &(usize, usize)| self.pools[*pool].slots[*slot].lease.clone();
        let model_leases: Vec<ModelLease> = leases.iter().filter_map(lease_at).collect();
        let user = model_leases.iter().find_map(|lease| lease.user.clone());
        if user.is_some() && options.user.is_some() && options.user != user.as_deref() {
            return Err(OpenFailure::OtherUser);
        }
        let leader = model_leases.iter().find_map(|lease| lease.leader.map(|(leader, _)| leader));
        let options = &OpenOptions::new()
            .with_user(options.user.or(user.as_deref()))
            .with_pool(options.pool)
            .with_address(options.address)
            .with_leader(options.leader.or(leader));
        let is_loopback = |pool_number: &usize| self.pools[*pool_number].kind == PoolKind::Loopback;
        let default_pools = (0..self.pools.len())
            .filter(|pool_number| self.pools[*pool_number].is_default)
            .collect();
        let leased_pool =
            leases.iter().map(|lease| lease.0).find(|pool_number| !is_loopback(pool_number));
        let virtual_ip_pool = match (leased_pool, options.address) {
            (None, Some(address)) => {
                let (pool_number, _) = self.locate(address).ok_or(OpenFailure::NotInPool)?;
                Some(pool_number).filter(|pool_number| !is_loopback(pool_number))
            }
            _ => leased_pool,
        };
        let selected_pools = match (virtual_ip_pool, options.pool) {
            (Some(pool_number), _) => self.pools_named(&self.pools[pool_number].name),
            (None, Some(name)) if name != "default" => match self.pools_named(name) {
                pools if pools.is_empty() => return Err(OpenFailure::UnknownPool),
                pools => pools,
            },
            _ => default_pools,
        };
        if leases.is_empty() {
            self.check_admission(options.user)?;
        }
        let is_held = |address: &IpAddr| {
            leases.iter().any(|(pool, slot)| self.pools[*pool].slots[*slot].address == *address)
        };
        let requested_location = match options.address.filter(|address| !is_held(address)) {
            Some(address) => Some(self.locate(address).ok_or(OpenFailure::NotInPool)?),
            None => None,
        };
        if let Some(location) = requested_location {
            let is_selected = selected_pools.contains(&location.0)
                || is_loopback(&location.0) && !self.pools[location.0].is_dropped;
            let is_open = !leases.is_empty();
            if is_open && !is_selected || leases.iter().any(|lease| lease.0 == location.0) {
                return Err(OpenFailure::OtherAddress);
            }
            self.check_request(location, options.user, now)?;
        }
        for (pool, slot) in &leases {
            let lease = self.pools[*pool].slots[*slot].lease.as_mut();
            let lease = lease.expect("a slot of `leases` has a lease");
            lease.user = options.user.map(str::to_owned);
            if lease.leader.map(|(leader, _)| leader) != options.leader {
                lease.leader = options.leader.map(|leader| (leader, None));
            }
        }
        let (mut shortage, mut fell_below_low_water, mut has_lease) =
            (None, false, !leases.is_empty());
        for pool_number in 0..self.pools.len() {
            let pool = &self.pools[pool_number];
            let is_selected = selected_pools.contains(&pool_number)
                || pool.kind == PoolKind::Loopback && !pool.is_dropped;
            if !is_selected || leases.iter().any(|lease| lease.0 == pool_number) {
                continue;
            }
            let candidates = match requested_location {
                _ if self.is_draining => Err(Shortage::Draining),
                Some((pool, slot)) if pool == pool_number => Ok(vec![slot]),
                _ => self.candidates(pool_number, options.user, now),
            };
            match candidates {
                Ok(slots) => {
                    let slot =
                        slots.iter().find(|slot| map_choice.contains(&(pool_number, **slot)));
                    let slot = *slot.unwrap_or_else(|| {
                        panic!("pool {pool_number}: {slots:?}, not {map_choice:?}")
                    });
                    self.allocate(pool_number, slot, session, options);
                    fell_below_low_water |=
                        self.pools[pool_number].update_low_water_warning(&self.settings);
                    has_lease = true;
                }
                Err(reason) => shortage = shortage.or(Some(reason)),
            }
        }
        if has_lease {
            Ok((!leases.is_empty(), shortage, fell_below_low_water))
        } else {
            Err(OpenFailure::Shortage(shortage.unwrap_or(Shortage::Exhausted)))
        }
    }

    /// Checks the limits for a new session.
    fn check_admission(&self, user: Option<&str>) -> Result<(), OpenFailure> {
        let Settings { await_restore, max_sessions, sessions_per_user, .. } = self.settings;
        let sessions = self.sessions();
        if await_restore && !self.is_ready {
            return Err(OpenFailure::NotReady);
        }
        if max_sessions > 0 && sessions.len() >= max_sessions as usize {
            return Err(OpenFailure::TooManySessions);
        }
        let has_same_user = |session: &&u64| {
            let (pool, slot) = self.leases(**session)[0];
            self.pools[pool].slots[slot].lease.as_ref().unwrap().user.as_deref() == user
        };
        if user.is_some()
            && sessions_per_user > 0
            && sessions.iter().filter(has_same_user).count() >= sessions_per_user as usize
        {
            return Err(OpenFailure::Quota);
        }
        Ok(())
    }

    fn allocate(
        &mut self,
        pool_number: usize,
        slot: usize,
        session: u64,
        options: &OpenOptions<'_>,
    ) {
        let pool = &mut self.pools[pool_number];
        let slot = &mut pool.slots[slot];
        let user = options.user.map(str::to_owned);
        if !slot.is_reserved {
            slot.user.clone_from(&user);
        }
        slot.generation += 1;
        slot.lease = Some(ModelLease {
            session,
            first_user: user.clone(),
            user,
            leader: options.leader.map(|leader| (leader, None)),
        });
        pool.peak = pool.peak.max(pool.counts()[1]);
    }

    /// Closes a session. Returns `false` if the session is not open.
    pub fn close(&mut self, session: u64, now: Tick) -> bool {
        let leases = self.leases(session);
        for (pool_number, slot_number) in leases.iter().rev() {
            let has_cool_down = self.settings.cool_down > 0 || self.settings.check_in_use;
            let since = self.next_stamp(now);
            let slot = &mut self.pools[*pool_number].slots[*slot_number];
            slot.last_user = slot.lease.take().and_then(|lease| lease.first_user);
            slot.idle_state = if has_cool_down { IdleState::Cooling } else { IdleState::Free };
            slot.since = since;
            self.hand_over(*pool_number, *slot_number);
            self.pools[*pool_number].update_low_water_warning(&self.settings);
        }
        !leases.is_empty()
    }

    /// Moves the state of a released address to the slot that awaits the address, if there is one.
    fn hand_over(&mut self, pool_number: usize, slot: usize) {
        let mut released_slot = self.pools[pool_number].slots[slot].clone();
        let mut slots = self.pools.iter_mut().flat_map(|pool| &mut pool.slots);
        if let Some(awaiting_slot) =
            slots.find(|slot| slot.awaits_release && slot.address == released_slot.address)
        {
            released_slot.migrate_to(awaiting_slot);
            self.pools[pool_number].slots[slot] = released_slot;
        }
    }

    /// Changes a slot. A changed slot without a lease moves to the end of its queue.
    fn change_slot(&mut self, location: (usize, usize), now: Tick, change: impl FnOnce(&mut Slot)) {
        let since = self.next_stamp(now);
        let slot = &mut self.pools[location.0].slots[location.1];
        let attributes = |slot: &Slot| {
            (slot.user.clone(), slot.is_reserved, slot.is_reserved_by_plan, slot.is_drained)
        };
        let old_attributes = attributes(slot);
        change(slot);
        if slot.lease.is_none() && old_attributes != attributes(slot) {
            slot.since = since;
        }
    }

    pub fn drain(&mut self, addresses: &[IpAddr], is_drained: bool, now: Tick) {
        for location in
            addresses.iter().filter_map(|address| self.locate(*address)).collect::<Vec<_>>()
        {
            self.change_slot(location, now, |slot| slot.is_drained = is_drained);
        }
    }

    /// Reserves a slot. Returns `false` if the slot is reserved for another user.
    pub fn reserve(&mut self, location: (usize, usize), user: &str, now: Tick) -> bool {
        let slot = &self.pools[location.0].slots[location.1];
        if slot.is_reserved && slot.user.as_deref() != Some(user) {
            return false;
        }
        self.change_slot(location, now, |slot| slot.reserve(user));
        true
    }

    /// Removes a reservation. Returns `false` if the slot has no reservation.
    pub fn unreserve(&mut self, location: (usize, usize), now: Tick) -> bool {
        if !self.pools[location.0].slots[location.1].is_reserved {
            return false;
        }
        self.change_slot(location, now, Slot::unreserve);
        true
    }

    /// Closes the sessions of dead leaders, then checks each cooled or lingering address once.
    ///
    /// A session closes only if its leader was first found dead at least `grace` seconds ago.
    /// Returns the number of freed addresses, the number of addresses that have sockets, and the
    /// closed sessions.
    pub fn reap(
        &mut self,
        now: Tick,
        grace: u32,
        has_exited: &dyn Fn(&Leader) -> bool,
        is_in_use: &dyn Fn(IpAddr) -> bool,
    ) -> (u32, u32, Vec<u64>) {
        let start_stamp = self.next_stamp(now);
        let mut closed_sessions = Vec::new();
        for session in self.sessions() {
            let mut leases_with_leader = self.leases(session).into_iter().filter(|location| {
                self.pools[location.0].slots[location.1]
                    .lease
                    .as_ref()
                    .is_some_and(|lease| lease.leader.is_some())
            });
            let Some((pool, slot)) = leases_with_leader.next() else { continue };
            let lease = self.pools[pool].slots[slot].lease.as_mut().unwrap();
            let (leader, dead_since) = lease.leader.as_mut().unwrap();
            match (has_exited(leader), *dead_since) {
                (false, _) => *dead_since = None,
                (true, None) => *dead_since = Some(now),
                (true, Some(since)) if since > now => *dead_since = Some(now),
                (true, Some(since)) if now.seconds_since(since) >= grace => {
                    closed_sessions.push(session);
                }
                (true, Some(_)) => {}
            }
            if closed_sessions.last() == Some(&session) {
                self.close(session, now);
            }
        }
        let (mut freed_count, mut lingering_count) = (0, 0);
        for pool_number in 0..self.pools.len() {
            for queue in [Some(IdleState::Lingering), Some(IdleState::Cooling), None] {
                let pool = &self.pools[pool_number];
                for slot in
                    queue.map_or_else(|| pool.unqueued_slots_to_check(), |state| pool.queue(state))
                {
                    let Slot { since, idle_state, address, .. } =
                        self.pools[pool_number].slots[slot];
                    let is_due = match idle_state {
                        IdleState::Cooling => self.cool_down_end(pool_number, slot) <= now,
                        IdleState::Lingering => since <= start_stamp,
                        IdleState::Free => false,
                    };
                    if !is_due {
                        continue;
                    }
                    // Check a lingering slot even if the current plan has no `check_in_use`.
                    let must_check =
                        self.settings.check_in_use || idle_state == IdleState::Lingering;
                    let has_sockets = must_check && is_in_use(address);
                    freed_count += u32::from(!has_sockets);
                    lingering_count += u32::from(has_sockets);
                    self.pools[pool_number].slots[slot].idle_state =
                        if has_sockets { IdleState::Lingering } else { IdleState::Free };
                    self.pools[pool_number].slots[slot].since = self.next_stamp(now);
                }
            }
        }
        (freed_count, lingering_count, closed_sessions)
    }

    /// Returns every address with its pool and slot.
    pub fn addresses(&self) -> BTreeMap<IpAddr, (usize, usize)> {
        let slots = self.pools.iter().flat_map(|pool| &pool.slots);
        slots.map(|slot| (slot.address, self.locate(slot.address).unwrap())).collect()
    }
}
