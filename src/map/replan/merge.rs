//! How the pools of a new plan come together with those of the map before it.
//!
//! A pool keeps its number for as long as anything is known under it, since handles name it. One
//! that the plan no longer has goes when none of its addresses is in use or cooling down; a new one
//! can take its number, since what is new in a map begins behind the generations of what is gone.

use super::migrate::shared;
use crate::Tick;
use crate::map::engine::state::State;
use crate::map::engine::table::Table;
use crate::map::format::layout::{LAST_STAMP, MAX_POOL_NAME, MAX_POOLS};
use crate::map::format::region::load;
use crate::map::format::slot::{Owner, stamp_time};
use crate::map::types::outcome::MapError;
use crate::map::types::plan::Plan;
use crate::pool::{DEFAULT_POOL, Pool, PoolKind};

/// A pool of a map that is being made.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) pool: Pool,
    /// Its place in the plan; `None` if the plan no longer has it.
    pub(crate) planned: Option<usize>,
    /// Whether a session gets an address of it that asks for no pool by name.
    pub(crate) is_default: bool,
    /// Whether it is the pool of its number in the map before.
    pub(crate) is_kept: bool,
}

impl Merged {
    fn new(plan: &Plan, place: usize, before: Option<&Pool>) -> Self {
        let planned = &plan.pools[place];
        Self {
            pool: before.map_or_else(|| planned.clone(), |pool| pool.extended(planned)),
            planned: Some(place),
            is_default: is_default(&plan.pools, planned),
            is_kept: before.is_some(),
        }
    }
}

/// Whether a plan makes a map.
pub(crate) fn check(plan: &Plan) -> Result<(), MapError> {
    let no = |text: String| Err(MapError::Plan(text));
    if plan.pools.len() > MAX_POOLS {
        return no(format!("{} pools: a map has at most {MAX_POOLS}", plan.pools.len()));
    }
    for (number, pool) in plan.pools.iter().enumerate() {
        let name = pool.name();
        if name.is_empty() || name.len() > MAX_POOL_NAME || name.contains('\0') {
            return no(format!("pool name {name:?}: it must have 1 to {MAX_POOL_NAME} bytes"));
        }
        for other in &plan.pools[..number] {
            if other.kind() == PoolKind::Loopback && pool.kind() == PoolKind::Loopback {
                return no(format!("pools {:?} and {name:?} are both loopback", other.name()));
            }
            if is_same(pool, other) {
                return no(format!("two pools are named {name:?} and of the same family"));
            }
        }
    }
    if let Some(shared) = shared(&plan.pools).first() {
        let [(one, slot), (other, _)] = shared.at(0);
        let [one, other] = [one, other].map(|number| &plan.pools[number]);
        let address = one.address(slot).map(|address| address.to_string()).unwrap_or_default();
        let names = (one.name(), other.name());
        return no(format!(
            "pools {:?} and {:?} share addresses from {address} on",
            names.0, names.1
        ));
    }
    Ok(())
}

/// Whether it is the same pool, perhaps with other addresses. There is one loopback pool, whatever
/// its name.
fn is_same(a: &Pool, b: &Pool) -> bool {
    let same_family = match (a.is_ipv4(), b.is_ipv4()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    let same_name = a.kind() == PoolKind::Loopback || a.name() == b.name();
    a.kind() == b.kind() && same_name && same_family
}

/// Whether a session gets an address of this pool that asks for none by name: those named
/// [`DEFAULT_POOL`], or like the first if there are none.
fn is_default(pools: &[Pool], pool: &Pool) -> bool {
    let mut virtual_ips = pools.iter().filter(|pool| pool.kind() == PoolKind::VirtualIp);
    let first = virtual_ips.clone().next();
    let default = virtual_ips.find(|pool| pool.name() == DEFAULT_POOL).or(first);
    pool.kind() == PoolKind::VirtualIp && default.is_some_and(|it| it.name() == pool.name())
}

/// Whether the pool of this number is that of the map before.
pub(crate) fn is_kept(merged: &[Merged], number: u16) -> bool {
    merged.get(usize::from(number)).is_some_and(|merged| merged.is_kept)
}

/// The pools of a map that comes after none.
pub(crate) fn unmerged(plan: &Plan) -> Vec<Merged> {
    (0..plan.pools.len()).map(|place| Merged::new(plan, place, None)).collect()
}

/// The pools of the map after this one: those that stay, at their numbers and with what the plan adds
/// to them, then the new ones.
pub(crate) fn merge(old: &State, plan: &Plan) -> Result<Vec<Merged>, MapError> {
    let before = old.pools();
    let mut places: Vec<Option<Merged>> = before.iter().map(|_| None).collect();
    let mut added = Vec::new();
    for (place, planned) in plan.pools.iter().enumerate() {
        let number = (0..before.len()).find(|number| {
            let pool = &before[*number];
            // One without addresses may have been of any family, and has nothing to keep.
            places[*number].is_none() && pool.slots() > 0 && is_same(pool, planned)
        });
        match number {
            Some(number) => places[number] = Some(Merged::new(plan, place, Some(&before[number]))),
            None => added.push(Merged::new(plan, place, None)),
        }
    }
    let mut added = added.into_iter();
    let mut busy = Vec::new();
    let mut merged: Vec<Merged> = Vec::new();
    for ((number, table), place) in old.tables().zip(places) {
        let pool = &before[usize::from(number)];
        let gone = |pool, is_kept| Merged { pool, planned: None, is_default: false, is_kept };
        merged.push(match place {
            Some(place) => place,
            None if is_busy(old, &table, plan) => {
                busy.push(pool.name());
                gone(pool.clone(), true)
            }
            // Those behind it keep their numbers: its own is left, without a name.
            None => added
                .next()
                .unwrap_or_else(|| gone(Pool::from_blocks("", pool.kind(), Vec::new(), 0), false)),
        });
    }
    merged.extend(added);
    while merged.pop_if(|last| last.planned.is_none() && !last.is_kept).is_some() {}
    if merged.len() > MAX_POOLS {
        return Err(MapError::Plan(format!(
            "a map has at most {MAX_POOLS} pools: this plan has {}, and of those that it no longer has, \
             {} have addresses in use or cooling down ({})",
            plan.pools.len(),
            busy.len(),
            busy.join(", "),
        )));
    }
    Ok(merged)
}

/// Whether a pool that the plan no longer has is still needed: a session holds one of its addresses,
/// or one cools down or lingers and is in no pool that goes on with that.
fn is_busy(old: &State, table: &Table<'_>, plan: &Plan) -> bool {
    // It is as late as that at least.
    let now: Tick = stamp_time(load(old.words(), LAST_STAMP));
    let has_cooled =
        |slot| !plan.settings.check_in_use && table.cooled_at(slot, &plan.settings) <= now;
    let goes_on = |slot| {
        let address = table.pool.address(old.words(), slot);
        let is_in = |pool: &Pool| address.is_some_and(|address| pool.still_has(address, None));
        !table.pool.loopback
            && plan.pools.iter().any(|pool| pool.kind() == PoolKind::VirtualIp && is_in(pool))
    };
    (0..table.pool.slots).any(|slot| match table.owner(slot) {
        Owner::Session(_) => true,
        Owner::Free(_) => false,
        Owner::Cooling(_) if has_cooled(slot) => false,
        Owner::Cooling(_) | Owner::Lingering(_) => !goes_on(slot),
    })
}
