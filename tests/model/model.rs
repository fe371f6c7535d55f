//! The model: what the map promises, in the plainest way. Slots in a list, the oldest found by
//! looking at all of them; no index, no queue, no counter.

use std::collections::BTreeMap;
use std::net::IpAddr;

use vipool::map::{Leader, OpenOptions, Plan, Settings, Shortage, Tick};
use vipool::pool::{Pool, PoolKind};

use crate::slots::{Held, ModelPool, Rest, Slot};

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub pools: Vec<ModelPool>,
    settings: Settings,
    last: (Tick, u64),
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
        for new in &plan.pools {
            if !self.pools.iter().any(|pool| is(pool, new)) {
                self.pools.push(ModelPool {
                    name: new.name().to_owned(),
                    kind: new.kind(),
                    ipv4: new.is_ipv4().unwrap(),
                    slots: Vec::new(),
                    peak: 0,
                    warned: false,
                });
            }
        }
        for pool in &mut self.pools {
            let new = plan.pools.iter().find(|new| is(pool, new));
            let planned: Vec<IpAddr> = new
                .map(|new| (0..new.slots()).map(|slot| new.address(slot).unwrap()).collect())
                .unwrap_or_default();
            for address in &planned {
                if pool.slots.iter().all(|slot| slot.address != *address) {
                    pool.slots.push(Slot::new(*address));
                }
            }
            for slot in &mut pool.slots {
                slot.retired = !planned.contains(&slot.address);
                if slot.planned {
                    slot.unreserve();
                }
                let address = slot.address;
                for reservation in plan.reservations.iter().filter(|r| r.address == address) {
                    slot.reserve(&reservation.user);
                    slot.planned = true;
                }
            }
            pool.warned = false;
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

    pub fn locate(&self, address: IpAddr) -> Option<(usize, usize)> {
        self.pools.iter().enumerate().find_map(|(number, pool)| {
            Some((number, pool.slots.iter().position(|slot| slot.address == address)?))
        })
    }

    fn named(&self, name: &str) -> Vec<usize> {
        let is = |pool: &ModelPool| pool.kind == PoolKind::VirtualIp && pool.name == name;
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
                self.check_cooled(slot, user, now).is_ok().then_some((2, (0, 0)))
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
        let default = match self.named("default") {
            none if none.is_empty() => {
                let first = self.pools.iter().find(|pool| pool.kind == PoolKind::VirtualIp);
                first.map(|pool| self.named(&pool.name)).unwrap_or_default()
            }
            named => named,
        };
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
            let is_wanted =
                wanted.contains(&number) || self.pools[number].kind == PoolKind::Loopback;
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
        for (number, slot) in leases.iter().rev() {
            let cools = self.settings.cool_down > 0 || self.settings.check_in_use;
            let since = self.stamp(now);
            let slot = &mut self.pools[*number].slots[*slot];
            slot.last = slot.held.take().and_then(|held| held.holder);
            slot.rest = if cools { Rest::Cooling } else { Rest::Free };
            slot.since = since;
            self.pools[*number].warn(&self.settings);
        }
        !leases.is_empty()
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
                (true, Some(since)) if now.saturating_sub(since) >= grace => closed.push(session),
                (true, Some(_)) => {}
            }
            if closed.last() == Some(&session) {
                self.close(session, now);
            }
        }
        let (mut freed, mut lingering) = (0, 0);
        for number in 0..self.pools.len() {
            for rest in [Rest::Lingering, Rest::Cooling] {
                let mut slots = self.pools[number].queue(rest);
                slots.extend(self.pools[number].reserved(rest));
                for slot in slots {
                    let since = self.pools[number].slots[slot].since;
                    let waits = match rest {
                        Rest::Cooling => self.cooled(number, slot) > now,
                        _ => since > began,
                    };
                    if waits {
                        continue;
                    }
                    let used = self.settings.check_in_use
                        && in_use(self.pools[number].slots[slot].address);
                    (freed, lingering) = (freed + u32::from(!used), lingering + u32::from(used));
                    self.pools[number].slots[slot].rest =
                        if used { Rest::Lingering } else { Rest::Free };
                    self.pools[number].slots[slot].since = self.stamp(now);
                }
            }
        }
        (freed, lingering, closed)
    }

    /// Every address, held or not.
    pub fn addresses(&self) -> BTreeMap<IpAddr, (usize, usize)> {
        let pools = self.pools.iter().enumerate();
        pools
            .flat_map(|(number, pool)| {
                let slots = pool.slots.iter().enumerate();
                slots.map(move |(slot, it)| (it.address, (number, slot)))
            })
            .collect()
    }
}
