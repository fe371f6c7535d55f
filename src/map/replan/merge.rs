//! The pools of a new map: the pools of the plan, and the pools of the old map that are still
//! needed.
//!
//! Handles contain the pool number, so a pool keeps its number while the map has it. If the plan no
//! longer has a pool, the pool is removed when none of its addresses is leased or cooling down. A
//! new pool can reuse the number of a removed pool, because the generations of new slots are higher
//! than the generations of removed slots.

use crate::Tick;
use crate::map::engine::image::MapImage;
use crate::map::engine::table::Table;
use crate::map::format::pool::PlannedPool;
use crate::map::format::slot::Owner;
use crate::map::types::error::{MapError, PlanError};
use crate::map::types::plan::{MAX_POOLS, Plan};
use crate::pool::{DEFAULT_POOL, Pool, PoolKind};

/// Returns whether two pools are the same pool, even if their addresses differ. A map has only one
/// loopback pool, so the name of that pool does not matter.
pub(crate) fn is_same_pool(a: &Pool, b: &Pool) -> bool {
    let same_family = match (a.is_ipv4(), b.is_ipv4()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    let same_name = a.kind() == PoolKind::Loopback || a.name() == b.name();
    a.kind() == b.kind() && same_name && same_family
}

/// Returns whether a pool serves sessions that request no pool by name. These are the pools with
/// the name [`DEFAULT_POOL`]. If there is no such pool, they are the pools with the name of the
/// first pool.
fn is_default(pools: &[Pool], pool: &Pool) -> bool {
    let mut virtual_ips = pools.iter().filter(|pool| pool.kind() == PoolKind::VirtualIp);
    let first = virtual_ips.clone().next();
    let default = virtual_ips.find(|pool| pool.name() == DEFAULT_POOL).or(first);
    pool.kind() == PoolKind::VirtualIp
        && default.is_some_and(|default| default.name() == pool.name())
}

/// Returns a pool of the plan. If the old map has the pool, the result extends `old`.
fn planned_pool(plan: &Plan, plan_index: usize, old: Option<&Pool>) -> PlannedPool {
    let planned = &plan.pools[plan_index];
    PlannedPool {
        pool: old.map_or_else(|| planned.clone(), |old| old.extended(planned)),
        plan_index: Some(plan_index),
        is_default: is_default(&plan.pools, planned),
        is_kept: old.is_some(),
    }
}

/// Returns a pool that the plan no longer has.
fn dropped_pool(pool: Pool, is_kept: bool) -> PlannedPool {
    PlannedPool { pool, plan_index: None, is_default: false, is_kept }
}

/// Returns whether the old map has the pool with this number.
pub(crate) fn is_kept(pools: &[PlannedPool], number: u16) -> bool {
    pools.get(usize::from(number)).is_some_and(|planned| planned.is_kept)
}

/// Returns the pools of a map that replaces no other map.
pub(crate) fn new_pools(plan: &Plan) -> Vec<PlannedPool> {
    (0..plan.pools.len()).map(|plan_index| planned_pool(plan, plan_index, None)).collect()
}

/// Returns the pools of the map that replaces `old`. Kept pools have their old numbers and are
/// extended by the plan. New pools get the remaining numbers.
///
/// # Errors
/// Fails if the map would have more than [`MAX_POOLS`] pools.
pub(crate) fn merge(old: &MapImage, plan: &Plan, now: Tick) -> Result<Vec<PlannedPool>, MapError> {
    let old_pools = old.pools();
    let mut matches: Vec<Option<PlannedPool>> = old_pools.iter().map(|_| None).collect();
    let mut added_pools = Vec::new();
    for (plan_index, planned) in plan.pools.iter().enumerate() {
        let number = (0..old_pools.len()).find(|number| {
            let pool = &old_pools[*number];
            // An empty pool has no family and no state, so there is nothing to keep.
            matches[*number].is_none() && pool.slots() > 0 && is_same_pool(pool, planned)
        });
        match number {
            Some(number) => {
                matches[number] = Some(planned_pool(plan, plan_index, Some(&old_pools[number])));
            }
            None => added_pools.push(planned_pool(plan, plan_index, None)),
        }
    }
    let mut added_pools = added_pools.into_iter();
    let mut former_in_use = Vec::new();
    let mut pools: Vec<PlannedPool> = Vec::new();
    for ((number, table), matched) in old.tables().zip(matches) {
        let pool = &old_pools[usize::from(number)];
        pools.push(match matched {
            Some(planned) => planned,
            None if is_in_use(old, &table, plan, now) => {
                former_in_use.push(pool.name());
                dropped_pool(pool.clone(), true)
            }
            // The following pools must keep their numbers. So a new pool gets this number. If there
            // is no new pool, an empty pool without a name gets the number.
            None => added_pools.next().unwrap_or_else(|| {
                dropped_pool(Pool::from_blocks("", pool.kind(), Vec::new(), 0), false)
            }),
        });
    }
    pools.extend(added_pools);
    while pools.pop_if(|last| last.plan_index.is_none() && !last.is_kept).is_some() {}
    if pools.len() > MAX_POOLS {
        return Err(PlanError::TooManyFormerPools {
            planned: plan.pools.len(),
            former: former_in_use.into_iter().map(str::to_owned).collect(),
        }
        .into());
    }
    Ok(pools)
}

/// Returns whether a pool that the plan no longer has is still needed. It is needed for a leased
/// address, and for a cooling or lingering address that no pool of the plan takes over.
fn is_in_use(old: &MapImage, table: &Table<'_>, plan: &Plan, now: Tick) -> bool {
    let has_cooled =
        |slot| !plan.settings.check_in_use && table.cool_down_end(slot, &plan.settings) <= now;
    let is_taken_over = |slot| {
        let address = table.pool.address(old.words(), slot);
        let has_address = |pool: &Pool| address.is_some_and(|address| pool.has_slot(address, None));
        !table.pool.loopback
            && plan.pools.iter().any(|pool| pool.kind() == PoolKind::VirtualIp && has_address(pool))
    };
    (0..table.pool.slots).any(|slot| match table.owner(slot) {
        Owner::Session(_) => true,
        Owner::Free(_) => false,
        Owner::Cooling(_) if has_cooled(slot) => false,
        Owner::Cooling(_) | Owner::Lingering(_) => !is_taken_over(slot),
    })
}
