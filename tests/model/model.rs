//! The model: what the map promises, in the plainest way. Slots in a list, the oldest found by
//! looking at all of them; no index, no queue, no counter.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vipool::Tick;
use vipool::map::{Leader, OpenOptions, Plan, Settings, Shortage};
use vipool::pool::{Pool, PoolKind};

use crate::slots::{Held, ModelPool, Rest, Slot};

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub pools: Vec<ModelPool>,
    settings: Settings,
    last: (Tick, u64),
    /// The highest generation in pools that are gone.
    gone: u32,
    pub draining: bool,
    pub ready: bool,
}

/// Why nothing was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    Short(Shortage),
    UnknownPool,
    Excluded,
    Taken,
    Cooling(Tick),
    Lingering,
    Reserved,
    Drained,
    Quota,
    TooMany,
    NotReady,
}

impl Model {
    pub fn new(plan: &Plan) -> Self {
        let mut model = Self::default();
        model.configure(plan);
        model
    }

    /// A new plan over the old one.
    pub fn configure(&mut self, plan: &Plan) {
        self.settings = plan.settings;
        let is = |pool: &ModelPool, new: &Pool| match new.kind() {
            PoolKind::Loopback => pool.kind == PoolKind::Loopback,
            PoolKind::VirtualIp => {
                pool.kind == new.kind()
                    && pool.name == new.name()
                    && Some(pool.ipv4) == new.is_ipv4()
            }
        };
        let mut fresh: Vec<ModelPool> = Vec::new();
        for new in &plan.pools {
            if !self.pools.iter().any(|pool| !pool.slots.is_empty() && is(pool, new)) {
                fresh.push(ModelPool {
                    name: new.name().to_owned(),
                    kind: new.kind(),
                    ipv4: new.is_ipv4().unwrap(),
                    slots: Vec::new(),
                    peak: 0,
                    warned: false,
                    dropped: false,
                    default: false,
                });
            }
        }
        // What is gone makes place for what is new, and what is last and gone is no more.
        let mut fresh = fresh.into_iter();
        let mut gone = Vec::new();
        for number in 0..self.pools.len() {
            let pool = &self.pools[number];
            let stays = plan.pools.iter().any(|new| !pool.slots.is_empty() && is(pool, new));
            let is_busy = self.is_busy(pool, plan);
            let place = &mut self.pools[number];
            place.dropped = !stays;
            if stays || is_busy {
                continue;
            }
            let mut empty = place.clone();
            (empty.name, empty.slots, empty.peak, empty.ipv4) =
                (String::new(), Vec::new(), 0, true);
            gone.extend(std::mem::replace(place, fresh.next().unwrap_or(empty)).slots);
        }
        self.pools.extend(fresh);
        while self.pools.pop_if(|pool| pool.dropped && pool.slots.is_empty()).is_some() {}
        self.gone = gone.iter().map(|slot| slot.generation).fold(self.gone, u32::max);
        let named = |name: &str| {
            let is = |pool: &&Pool| pool.kind() == PoolKind::VirtualIp && pool.name() == name;
            plan.pools.iter().find(is)
        };
        let first = plan.pools.iter().find(|pool| pool.kind() == PoolKind::VirtualIp);
        let default = named("default").or(first).map(Pool::name);
        for pool in &mut self.pools {
            let new = plan.pools.iter().find(|new| !pool.dropped && is(pool, new));
            let virtual_ip = pool.kind == PoolKind::VirtualIp;
            pool.default = virtual_ip && !pool.dropped && Some(pool.name.as_str()) == default;
            let planned: Vec<IpAddr> = new
                .map(|new| (0..new.slots()).map(|slot| new.address(slot).unwrap()).collect())
                .unwrap_or_default();
            for address in &planned {
                if pool.slots.iter().all(|slot| slot.address != *address) {
                    pool.slots.push(Slot::new(*address, self.gone));
                }
            }
            for slot in &mut pool.slots {
                slot.retired = !planned.contains(&slot.address);
                slot.awaits = false;
                if slot.planned {
                    slot.unreserve();
                }
            }
            pool.warned = false;
        }
        for slot in &mut gone {
            if slot.planned {
                slot.unreserve();
            }
        }
        self.move_addresses(&mut gone);
        for reservation in &plan.reservations {
            if let Some((pool, slot)) = self.locate(reservation.address) {
                let slot = &mut self.pools[pool].slots[slot];
                slot.reserve(&reservation.user);
                slot.planned = true;
            }
        }
    }

    /// Whether a pool that a new plan does not have must stay.
    fn is_busy(&self, pool: &ModelPool, plan: &Plan) -> bool {
        let goes_on = |address: IpAddr| {
            let is = |new: &Pool| new.kind() == pool.kind && new.slot_of(address).is_some();
            plan.pools.iter().any(is)
        };
        pool.slots.iter().any(|slot| {
            let cooled = slot.since.0.saturating_add(plan.settings.cool_down) <= self.last.0;
            match slot.rest {
                _ if slot.held.is_some() => true,
                Rest::Free => false,
                Rest::Cooling if cooled && !plan.settings.check_in_use => false,
                _ => !goes_on(slot.address),
            }
        })
    }

    /// What is known of an address goes to the pool that has it now; what is held is awaited.
    fn move_addresses(&mut self, gone: &mut [Slot]) {
        for number in 0..self.pools.len() {
            let mut slots = std::mem::take(&mut self.pools[number].slots);
            for slot in slots.iter_mut().filter(|slot| !slot.retired) {
                let others = self.pools.iter_mut().flat_map(|pool| &mut pool.slots);
                let address = slot.address;
                for other in others.chain(&mut *gone).filter(|it| it.address == address) {
                    if other.held.is_some() {
                        assert!(slot.held.is_none());
                        (slot.retired, slot.awaits) = (true, true);
                    } else if !other.is_blank() {
                        assert!(slot.is_blank());
                        other.move_to(slot);
                    }
                }
            }
            self.pools[number].slots = slots;
        }
    }

    fn stamp(&mut self, now: Tick) -> (Tick, u64) {
        self.last = (self.last.0.max(now), self.last.1 + 1);
        self.last
    }

    /// The leases of a session: pool and slot.
    pub fn leases(&self, session: u64) -> Vec<(usize, usize)> {
        let pools = self.pools.iter().enumerate();
        pools.filter_map(|(number, pool)| Some((number, pool.of(session)?))).collect()
    }

    /// The open sessions, in the order of their first leases.
    pub fn sessions(&self) -> Vec<u64> {
        let all = self.pools.iter().enumerate().flat_map(|(number, pool)| {
            pool.slots.iter().filter_map(move |slot| Some((number, slot.held.as_ref()?.session)))
        });
        all.filter(|(number, session)| self.leases(*session)[0].0 == *number)
            .map(|(_, session)| session)
            .collect()
    }

    /// Where an address is: where it is held, else in the pool of the plan, else where something is
    /// known of it.
    pub fn locate(&self, address: IpAddr) -> Option<(usize, usize)> {
        let slots = self.pools.iter().enumerate().filter_map(|(number, pool)| {
            Some((number, pool.slots.iter().position(|slot| slot.address == address)?))
        });
        slots.min_by_key(|(number, slot)| {
            let slot = &self.pools[*number].slots[*slot];
            (slot.held.is_none(), slot.retired, slot.is_blank())
        })
    }

    fn named(&self, name: &str) -> Vec<usize> {
        let is = |pool: &ModelPool| {
            pool.kind == PoolKind::VirtualIp && pool.name == name && !pool.dropped
        };
        (0..self.pools.len()).filter(|number| is(&self.pools[*number])).collect()
    }

    /// What may be given to a new lease in a pool, after what has cooled was set free.
    fn candidates(
        &mut self,
        number: usize,
        user: Option<&str>,
        now: Tick,
    ) -> Result<Vec<usize>, Shortage> {
        let pool = &self.pools[number];
        let rank = |slot: &Slot| match () {
            () if slot.held.is_some() || slot.is_out() || user.is_none() => None,
            () if slot.user.as_deref() != user => None,
            () if slot.reserved => {
                self.check_cooled(slot, user, now).is_ok().then_some((2, (Tick::ZERO, 0)))
            }
            () if slot.rest == Rest::Cooling => Some((1, slot.since)),
            () if slot.rest == Rest::Free => Some((0, slot.since)),
            () => None,
        };
        if let Some(best) = pool.slots.iter().filter_map(rank).max() {
            let slots = 0..pool.slots.len();
            return Ok(slots.filter(|slot| rank(&pool.slots[*slot]) == Some(best)).collect());
        }
        if !self.settings.check_in_use {
            for slot in self.pools[number].queue(Rest::Cooling).into_iter().take(2) {
                if self.cooled(number, slot) <= now {
                    self.pools[number].slots[slot].since = self.stamp(now);
                    self.pools[number].slots[slot].rest = Rest::Free;
                }
            }
        }
        let pool = &self.pools[number];
        if let Some(slot) = pool.queue(Rest::Free).first() {
            return Ok(vec![*slot]);
        }
        Err(match pool.queue(Rest::Cooling).first() {
            Some(slot) if self.cooled(number, *slot) > now => {
                Shortage::Cooling { until: self.cooled(number, *slot) }
            }
            Some(_) => Shortage::Lingering,
            None if !pool.queue(Rest::Lingering).is_empty() => Shortage::Lingering,
            None if pool.slots.iter().any(|slot| slot.awaits) => Shortage::Exhausted,
            None if !pool.slots.is_empty() && pool.numbers()[5] as usize == pool.slots.len() => {
                Shortage::Draining
            }
            None => Shortage::Exhausted,
        })
    }

    fn cooled(&self, pool: usize, slot: usize) -> Tick {
        self.pools[pool].slots[slot].since.0.saturating_add(self.settings.cool_down)
    }

    fn check_request(
        &self,
        (pool, slot): (usize, usize),
        user: Option<&str>,
        now: Tick,
    ) -> Result<(), No> {
        let slot = &self.pools[pool].slots[slot];
        let his = user.is_some() && slot.user.as_deref() == user;
        match slot.rest {
            _ if slot.held.is_some() => Err(No::Taken),
            _ if slot.is_out() => Err(No::Drained),
            _ if slot.reserved && !his => Err(No::Reserved),
            Rest::Cooling if his && !slot.reserved => Ok(()),
            _ => self.check_cooled(slot, user, now),
        }
    }

    /// Whether nobody need wait until it has cooled, or it is reserved for who had it last.
    fn check_cooled(&self, slot: &Slot, user: Option<&str>, now: Tick) -> Result<(), No> {
        let cooled = slot.since.0.saturating_add(self.settings.cool_down);
        match slot.rest {
            _ if slot.reserved && user.is_some() && slot.last.as_deref() == user => Ok(()),
            Rest::Free => Ok(()),
            Rest::Lingering => Err(No::Lingering),
            Rest::Cooling if cooled > now => Err(No::Cooling(cooled)),
            Rest::Cooling if self.settings.check_in_use => Err(No::Lingering),
            Rest::Cooling => Ok(()),
        }
    }

    /// Opens a session. `given` is what the map gave (pool and slot), where there may be a choice.
    /// Answers whether it was open, its shortage, and whether a pool fell below low water.
    pub fn open(
        &mut self,
        session: u64,
        options: &OpenOptions<'_>,
        now: Tick,
        given: &[(usize, usize)],
    ) -> Result<(bool, Option<Shortage>, bool), No> {
        let held = self.leases(session);
        let loopback = |number: &usize| self.pools[*number].kind == PoolKind::Loopback;
        let default = (0..self.pools.len()).filter(|number| self.pools[*number].default).collect();
        let wanted = match held.iter().map(|lease| lease.0).find(|number| !loopback(number)) {
            Some(number) => self.named(&self.pools[number].name),
            None => match (options.address, options.pool) {
                (Some(address), _) => match self.locate(address).ok_or(No::Excluded)?.0 {
                    number if loopback(&number) => default,
                    number => self.named(&self.pools[number].name),
                },
                (None, Some(name)) if name != "default" => match self.named(name) {
                    none if none.is_empty() => return Err(No::UnknownPool),
                    named => named,
                },
                _ => default,
            },
        };
        if held.is_empty() {
            self.admit(options.user)?;
        }
        let requested = match options.address {
            Some(address) => Some(self.locate(address).ok_or(No::Excluded)?)
                .filter(|at| held.iter().all(|lease| lease.0 != at.0)),
            None => None,
        };
        if let Some(at) = requested {
            self.check_request(at, options.user, now)?;
        }
        let (mut shortage, mut low, mut any) = (None, false, !held.is_empty());
        for number in 0..self.pools.len() {
            let pool = &self.pools[number];
            let is_wanted =
                wanted.contains(&number) || pool.kind == PoolKind::Loopback && !pool.dropped;
            if !is_wanted || held.iter().any(|lease| lease.0 == number) {
                continue;
            }
            let candidates = match requested {
                _ if self.draining => Err(Shortage::Draining),
                Some((pool, slot)) if pool == number => Ok(vec![slot]),
                _ => self.candidates(number, options.user, now),
            };
            match candidates {
                Ok(slots) => {
                    let slot = slots.iter().find(|slot| given.contains(&(number, **slot)));
                    let slot =
                        *slot.unwrap_or_else(|| panic!("pool {number}: {slots:?}, not {given:?}"));
                    self.give(number, slot, session, options);
                    low |= self.pools[number].warn(&self.settings);
                    any = true;
                }
                Err(why) => shortage = shortage.or(Some(why)),
            }
        }
        if any {
            Ok((!held.is_empty(), shortage, low))
        } else {
            Err(No::Short(shortage.unwrap_or(Shortage::Exhausted)))
        }
    }

    fn admit(&self, user: Option<&str>) -> Result<(), No> {
        let Settings { await_restore, max_sessions, sessions_per_user, .. } = self.settings;
        let sessions = self.sessions();
        if await_restore && !self.ready {
            return Err(No::NotReady);
        }
        if max_sessions > 0 && sessions.len() >= max_sessions as usize {
            return Err(No::TooMany);
        }
        let his = |session: &&u64| {
            let (pool, slot) = self.leases(**session)[0];
            self.pools[pool].slots[slot].held.as_ref().unwrap().holder.as_deref() == user
        };
        if user.is_some()
            && sessions_per_user > 0
            && sessions.iter().filter(his).count() >= sessions_per_user as usize
        {
            return Err(No::Quota);
        }
        Ok(())
    }

    fn give(&mut self, number: usize, slot: usize, session: u64, options: &OpenOptions<'_>) {
        let pool = &mut self.pools[number];
        let slot = &mut pool.slots[slot];
        let holder = options.user.map(str::to_owned);
        if !slot.reserved {
            slot.user.clone_from(&holder);
        }
        slot.generation += 1;
        slot.held = Some(Held { session, holder, leader: options.leader.map(|l| (l, None)) });
        pool.peak = pool.peak.max(pool.numbers()[1]);
    }

    /// Closes a session; false if it is not open.
    pub fn close(&mut self, session: u64, now: Tick) -> bool {
        let leases = self.leases(session);
        for (number, slot_number) in leases.iter().rev() {
            let cools = self.settings.cool_down > 0 || self.settings.check_in_use;
            let since = self.stamp(now);
            let slot = &mut self.pools[*number].slots[*slot_number];
            slot.last = slot.held.take().and_then(|held| held.holder);
            slot.rest = if cools { Rest::Cooling } else { Rest::Free };
            slot.since = since;
            self.hand_over(*number, *slot_number);
            self.pools[*number].warn(&self.settings);
        }
        !leases.is_empty()
    }

    /// What was given back goes to the pool that awaits it.
    fn hand_over(&mut self, number: usize, slot: usize) {
        let mut own = self.pools[number].slots[slot].clone();
        let mut all = self.pools.iter_mut().flat_map(|pool| &mut pool.slots);
        if let Some(heir) = all.find(|slot| slot.awaits && slot.address == own.address) {
            own.move_to(heir);
            self.pools[number].slots[slot] = own;
        }
    }

    /// Changes a slot; if nobody holds it and it did change, it goes behind the others.
    fn change(&mut self, at: (usize, usize), now: Tick, change: impl FnOnce(&mut Slot)) {
        let since = self.stamp(now);
        let slot = &mut self.pools[at.0].slots[at.1];
        let flags = |slot: &Slot| (slot.user.clone(), slot.reserved, slot.planned, slot.drained);
        let before = flags(slot);
        change(slot);
        if slot.held.is_none() && before != flags(slot) {
            slot.since = since;
        }
    }

    pub fn drain(&mut self, addresses: &[IpAddr], drained: bool, now: Tick) {
        for at in addresses.iter().filter_map(|address| self.locate(*address)).collect::<Vec<_>>() {
            self.change(at, now, |slot| slot.drained = drained);
        }
    }

    /// False if it is reserved for somebody else.
    pub fn reserve(&mut self, at: (usize, usize), user: &str, now: Tick) -> bool {
        let slot = &self.pools[at.0].slots[at.1];
        if slot.reserved && slot.user.as_deref() != Some(user) {
            return false;
        }
        self.change(at, now, |slot| slot.reserve(user));
        true
    }

    /// False if it is not reserved.
    pub fn unreserve(&mut self, at: (usize, usize), now: Tick) -> bool {
        if !self.pools[at.0].slots[at.1].reserved {
            return false;
        }
        self.change(at, now, Slot::unreserve);
        true
    }

    /// Everything looked at once. Answers how many were freed and linger, and who was closed.
    pub fn reap(
        &mut self,
        now: Tick,
        grace: u32,
        gone: &dyn Fn(&Leader) -> bool,
        in_use: &dyn Fn(IpAddr) -> bool,
    ) -> (u32, u32, Vec<u64>) {
        let began = self.stamp(now);
        let mut closed = Vec::new();
        for session in self.sessions() {
            let mut leaders = self.leases(session).into_iter().filter(|at| {
                self.pools[at.0].slots[at.1].held.as_ref().is_some_and(|held| held.leader.is_some())
            });
            let Some((pool, slot)) = leaders.next() else { continue };
            let held = self.pools[pool].slots[slot].held.as_mut().unwrap();
            let (leader, seen) = held.leader.as_mut().unwrap();
            match (gone(leader), *seen) {
                (false, _) => *seen = None,
                (true, None) => *seen = Some(now),
                (true, Some(since)) if now.seconds_since(since) >= grace => closed.push(session),
                (true, Some(_)) => {}
            }
            if closed.last() == Some(&session) {
                self.close(session, now);
            }
        }
        let (mut freed, mut lingering) = (0, 0);
        for number in 0..self.pools.len() {
            for queue in [Some(Rest::Lingering), Some(Rest::Cooling), None] {
                let pool = &self.pools[number];
                for slot in queue.map_or_else(|| pool.unqueued(), |rest| pool.queue(rest)) {
                    let Slot { since, rest, address, .. } = self.pools[number].slots[slot];
                    let due = match rest {
                        Rest::Cooling => self.cooled(number, slot) <= now,
                        Rest::Lingering => since <= began,
                        Rest::Free => false,
                    };
                    if !due {
                        continue;
                    }
                    let used = self.settings.check_in_use && in_use(address);
                    (freed, lingering) = (freed + u32::from(!used), lingering + u32::from(used));
                    self.pools[number].slots[slot].rest =
                        if used { Rest::Lingering } else { Rest::Free };
                    self.pools[number].slots[slot].since = self.stamp(now);
                }
            }
        }
        (freed, lingering, closed)
    }

    /// Every address, held or not, and where it is.
    pub fn addresses(&self) -> BTreeMap<IpAddr, (usize, usize)> {
        let slots = self.pools.iter().flat_map(|pool| &pool.slots);
        slots.map(|slot| (slot.address, self.locate(slot.address).unwrap())).collect()
    }
}
