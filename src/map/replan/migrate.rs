//! Addresses that a new plan has in another pool than the plan before.
//!
//! Such an address has a slot in both pools. What is known of it (that it cools down, who had it
//! last, whom it is kept for) is in one of them, its *home*: it moves to the pool of the plan
//! when the map is made, the other slot is retired and blank. A session keeps what it holds: the slot in
//! the pool of the plan is retired too then, and awaits it ([`AWAITING`]). When the session gives
//! the address back, it goes over.

use super::merge::{Merged, is_kept};
use crate::map::engine::state::State;
use crate::map::engine::table::Table;
use crate::map::format::slot::{
    AWAITING, OWNER, Owner, PLACE, PLANNED, RESERVED, RETIRED, Tenancy,
};
use crate::pool::{Pool, PoolKind};
use crate::range::bits;
use crate::sync::Ordering;
use std::cmp::Reverse;
use std::net::IpAddr;

/// Addresses in a row that are in two pools.
pub(crate) struct Shared {
    pub(crate) count: u32,
    /// In each of the two, its place and the slot of the first.
    first: [(usize, u32); 2],
}

impl Shared {
    /// Where the address is that is so far behind the first.
    pub(crate) fn at(&self, offset: u32) -> [(usize, u32); 2] {
        self.first.map(|(pool, slot)| (pool, slot + offset))
    }
}

/// Addresses in a row of one pool.
struct Run {
    ipv4: bool,
    first: u128,
    last: u128,
    pool: usize,
    slot: u32,
}

/// The addresses of a pool, twins among them.
fn runs(number: usize, pool: &Pool) -> impl Iterator<Item = Run> {
    let ends = pool.blocks().iter().skip(1).map(|(slot, _)| *slot).chain([pool.slots()]);
    pool.blocks().iter().zip(ends).flat_map(move |((slot, range), end)| {
        let twin = (pool.kind() == PoolKind::Loopback).then(|| range.span().div_ceil(2));
        let last = u128::from(end.saturating_sub(*slot)).checked_sub(1);
        [Some(0), twin].into_iter().flatten().filter_map(move |above| {
            let (first, last) = (range.nth(above)?, range.nth(above.checked_add(last?)?)?);
            let ipv4 = first.is_ipv4();
            Some(Run { ipv4, first: bits(first), last: bits(last), pool: number, slot: *slot })
        })
    })
}

/// The addresses that two of these pools have.
pub(crate) fn shared(pools: &[Pool]) -> Vec<Shared> {
    let mut all: Vec<Run> =
        pools.iter().enumerate().flat_map(|(number, pool)| runs(number, pool)).collect();
    all.sort_unstable_by_key(|run| (run.ipv4, run.first));
    let mut shared = Vec::new();
    // Those that may reach into the next one: hardly ever more than one of a pool.
    let mut open: Vec<Run> = Vec::new();
    for run in all {
        open.retain(|before| before.ipv4 == run.ipv4 && before.last >= run.first);
        shared.extend(open.iter().filter(|before| before.pool != run.pool).map(|before| {
            let count = (before.last.min(run.last) - run.first + 1) as u32;
            let slot = before.slot + (run.first - before.first) as u32;
            Shared { count, first: [(before.pool, slot), (run.pool, run.slot)] }
        }));
        open.push(run);
    }
    shared
}

impl State {
    /// Moves what is known of the addresses that are in another pool now. Before the first rebuild.
    pub(crate) fn move_addresses(&self, merged: &[Merged], old: &State) {
        let (mut pools, mut tables) = (self.pools(), Vec::new());
        tables.extend(self.tables().map(|(_, table)| table));
        // Pools that are gone come behind those of this map, and are only read.
        for ((number, table), pool) in old.tables().zip(old.pools()) {
            if !is_kept(merged, number) {
                pools.push(pool);
                tables.push(table);
            }
        }
        // A slot with a twin may have to tell two others.
        let mut told = Vec::new();
        for shared in shared(&pools) {
            for offset in 0..shared.count {
                let is_planned = |(number, slot): &(usize, u32)| {
                    *number < merged.len() && !tables[*number].tenancy(*slot).has(RETIRED)
                };
                let [one, other] = shared.at(offset);
                let ((to, to_slot), (from, from_slot)) = match is_planned(&one) {
                    true => (one, other),
                    false if is_planned(&other) => (other, one),
                    false => continue,
                };
                move_one((&tables[to], to_slot), (&tables[from], from_slot));
                told.push((from, from_slot));
            }
        }
        let of_map = told.into_iter().filter(|(number, _)| *number < merged.len());
        for (table, slot) in of_map.map(|(number, slot)| (&tables[number], slot)) {
            if table.owner(slot).stamp().is_some() {
                blank(table, slot);
            }
        }
    }

    /// Hands an address that was given back over to the pool of the plan that awaits it.
    #[cold]
    #[inline(never)]
    pub(crate) fn hand_over(&self, number: u16, from: &Table<'_>, from_slot: u32) {
        let address = from.pool.address(self.words(), from_slot).filter(|_| !from.pool.loopback);
        let heir = self.tables().filter(|(other, _)| *other != number).find_map(|(_, table)| {
            let slot = table.pool.slot_of(self.words(), address?)?;
            (!table.pool.loopback && table.tenancy(slot).is_awaiting()).then_some((table, slot))
        });
        if let Some((to, slot)) = heir {
            to.leave(slot);
            adopt((&to, slot), (from, from_slot), from.tenancy(from_slot));
            to.enter(slot);
            forget(from, from_slot);
        }
    }

    /// Ends what a writer that died had begun to hand over. Everything is derived already.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_moves(&self) {
        for (number, table) in self.tables() {
            let is_left = |slot: &u32| {
                let (owner, tenancy) = (table.owner(*slot), table.tenancy(*slot));
                tenancy.has(RETIRED) && owner.stamp().is_some() && !is_blank(owner, tenancy)
            };
            for slot in (0..table.pool.slots).filter(is_left) {
                self.hand_over(number, &table, slot);
                if !self.is_home(number, &table, slot) {
                    forget(&table, slot);
                }
            }
        }
    }

    /// The pool and slot of an address: its home, if it is in several pools.
    pub(crate) fn locate(&self, address: IpAddr) -> Option<(u16, u32)> {
        let slots = self.tables().filter_map(|(number, table)| {
            Some((number, table, table.pool.slot_of(self.words(), address)?))
        });
        let (number, _, slot) = slots.max_by_key(|(number, table, slot)| {
            let tenancy = table.tenancy(*slot);
            let rank = match table.owner(*slot) {
                Owner::Session(_) => 3,
                _ if !tenancy.has(RETIRED) => 2,
                owner => u8::from(!is_blank(owner, tenancy)),
            };
            (rank, Reverse(*number))
        })?;
        Some((number, slot))
    }

    /// Whether this slot is the home of its address.
    pub(crate) fn is_home(&self, number: u16, table: &Table<'_>, slot: u32) -> bool {
        let home = || self.locate(table.pool.address(self.words(), slot)?);
        !table.tenancy(slot).has(RETIRED) || home() == Some((number, slot))
    }
}

impl Table<'_> {
    /// The tenancy of a slot without what a plan says of it, but that it is retired.
    pub(crate) fn unplanned(&self, slot: u32) -> Tenancy {
        let tenancy = self.tenancy(slot);
        if tenancy.has(PLANNED) && tenancy.has(RESERVED) {
            return self.unreserved(slot);
        }
        tenancy.with_flags(0, PLANNED)
    }

    /// Whether some slot awaits what a session holds in another pool. Looks at all of them.
    #[cold]
    pub(crate) fn awaits_any(&self) -> bool {
        (0..self.pool.slots).any(|slot| self.tenancy(slot).is_awaiting())
    }
}

/// Tells the slot of an address in the pool that has it now what is known of it in another.
fn move_one((to, to_slot): (&Table<'_>, u32), (from, from_slot): (&Table<'_>, u32)) {
    let (owner, tenancy) = (from.owner(from_slot), from.unplanned(from_slot));
    match (to.owner(to_slot).stamp(), owner.stamp()) {
        (Some(_), None) => {
            to.set_tenancy(to_slot, to.tenancy(to_slot).with_flags(AWAITING, 0));
        }
        (Some(known), Some(stamp)) if stamp >= known && !is_blank(owner, tenancy) => {
            adopt((to, to_slot), (from, from_slot), tenancy);
        }
        _ => {}
    }
}

/// Takes over all that is known of an address but how often it was leased in the other pool. It is
/// to be had from the last store on.
fn adopt((to, to_slot): (&Table<'_>, u32), (from, from_slot): (&Table<'_>, u32), tenancy: Tenancy) {
    let slots = (to.slots.get(to_slot as usize), from.slots.get(from_slot as usize));
    let (Some(own), Some(other)) = slots else { return };
    for word in [OWNER, PLACE] {
        own[word].store(other[word].load(Ordering::Acquire), Ordering::Release);
    }
    let Tenancy { generation, .. } = to.tenancy(to_slot);
    to.set_tenancy(to_slot, tenancy.with_flags(0, RETIRED).of_generation(generation));
}

/// Forgets what is known of an address that is at home in another pool.
fn forget(table: &Table<'_>, slot: u32) {
    table.leave(slot);
    blank(table, slot);
    table.enter(slot);
}

/// Makes a retired slot say no more than how often it was leased.
fn blank(table: &Table<'_>, slot: u32) {
    let Some(own) = table.slots.get(slot as usize) else { return };
    let Tenancy { generation, .. } = table.tenancy(slot);
    own[OWNER].store(Owner::Free(0).to_word(), Ordering::Release);
    let bare = Tenancy::from_word(0).of_generation(generation);
    table.set_tenancy(slot, bare.with_flags(RETIRED, 0));
}

/// Whether a slot says no more than how often it was leased.
fn is_blank(owner: Owner, tenancy: Tenancy) -> bool {
    owner == Owner::Free(0) && tenancy.with_flags(0, AWAITING).is_bare()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Tick;
    use crate::map::format::layout::BUSY;
    use crate::map::format::region::store;
    use crate::map::types::plan::{OpenOptions, Plan, Settings};
    use crate::range::Range;

    const KINDS: [PoolKind; 2] = [PoolKind::VirtualIp, PoolKind::Loopback];

    /// A pool of some addresses of 127.9.0.0/16 that no other part of it has.
    fn pool() -> impl Strategy<Value = Pool> {
        let gaps = prop::collection::vec((0u32..12, 0u32..9), 0..4);
        (prop::sample::select(KINDS.to_vec()), gaps, 0u32..20).prop_map(|(kind, gaps, most)| {
            let mut ranges = Vec::new();
            let mut next = u32::from_be_bytes([127, 9, 0, 0]);
            for (gap, span) in gaps {
                let (first, last) = (next + gap, next + gap + span);
                ranges.push(Range::new(IpAddr::V4(first.into()), IpAddr::V4(last.into())).unwrap());
                next = last + 1;
            }
            Pool::new("default", kind, &ranges, most).unwrap()
        })
    }

    proptest! {
        #[test]
        fn what_two_pools_share_is_found((one, other) in (pool(), pool())) {
            let all = |pool: &Pool| -> Vec<(IpAddr, u32)> {
                let slots = 0..pool.slots();
                let each = |slot| [pool.address(slot), pool.twin(slot)].map(|it| Some((it?, slot)));
                slots.flat_map(each).flatten().collect()
            };
            let mut expected: Vec<[(usize, u32); 2]> = Vec::new();
            for (address, slot) in all(&one) {
                let same = all(&other).into_iter().filter(|it| it.0 == address);
                expected.extend(same.map(|(_, its)| [(0, slot), (1, its)]));
            }
            let mut found: Vec<_> = shared(&[one, other])
                .iter()
                .flat_map(|shared| (0..shared.count).map(|offset| shared.at(offset)))
                .collect();
            found.iter_mut().for_each(|both| both.sort_unstable());
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }

    /// A session holds the only address of a pool that has another name by now: its slot, and that
    /// which awaits it.
    fn renamed(then: impl Fn(&State, (Table<'_>, Table<'_>))) {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { cool_down: 60, ..Settings::default() };
        let plan = |name| {
            let ranges = ["10.0.0.1".parse().unwrap()];
            let pool = Pool::new(name, PoolKind::VirtualIp, &ranges, 1).unwrap();
            Plan { pools: vec![pool], settings, ..Plan::default() }
        };
        let old = State::replace(directory.path(), &plan("default"), 7, None).unwrap();
        let ann = OpenOptions { user: Some("ann"), ..OpenOptions::default() };
        old.open_session("1".parse().unwrap(), &ann, Tick::from_secs(100)).unwrap();
        let new = State::replace(directory.path(), &plan("office"), 7, Some(&old)).unwrap();
        then(&new, (new.table(0).unwrap(), new.table(1).unwrap()));
    }

    #[test]
    fn what_a_writer_that_died_did_not_hand_over_is_handed_over_after_it() {
        for adopted in [false, true] {
            renamed(|state, (old, new)| {
                assert!(new.tenancy(0).is_awaiting());
                let session = crate::session::SessionId::from_raw(match old.owner(0) {
                    Owner::Session(raw) => raw,
                    other => panic!("{other:?}"),
                });
                let session = session.unwrap();
                store(state.words(), BUSY, 1);
                old.take_back(&old.home(session.raw()), 0, true, state.stamp(Tick::from_secs(100)));
                let released = old.owner(0);
                if adopted {
                    adopt((&new, 0), (&old, 0), old.tenancy(0));
                }
                state.recover();
                assert_eq!(new.owner(0), released);
                assert!(!new.tenancy(0).has(RETIRED));
                assert!(is_blank(old.owner(0), old.tenancy(0)));
                let eve = OpenOptions { user: Some("eve"), ..OpenOptions::default() };
                assert!(state.open_session(session, &eve, Tick::from_secs(159)).is_err());
                assert_eq!(
                    state.open_session(session, &eve, Tick::from_secs(160)).unwrap().handle.pool,
                    1
                );
            });
        }
    }

    #[test]
    fn what_is_still_held_is_not_handed_over_by_a_recovery() {
        renamed(|state, (old, new)| {
            store(state.words(), BUSY, 1);
            state.recover();
            assert!(new.tenancy(0).is_awaiting() && old.owner(0).stamp().is_none());
        });
    }
}
