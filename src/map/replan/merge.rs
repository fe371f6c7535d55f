//! The pools of a new map: the pools of the plan, and the pools of the old map that are still
//! needed.
//!
//! Handles contain the pool number, so a pool keeps its number while the map has the pool. If the
//! plan no longer has a pool, the new map keeps the pool only for a leased address, or for a
//! cooling or lingering address that no pool of the plan takes over. A new pool can reuse the
//! number of a removed pool, because the generations of new leases are higher than those of
//! removed slots.

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
pub(crate) fn is_same_pool(pool: &Pool, other_pool: &Pool) -> bool {
    let has_same_family = match (pool.is_ipv4(), other_pool.is_ipv4()) {
        (Some(is_ipv4), Some(is_other_ipv4)) => is_ipv4 == is_other_ipv4,
        // A pool without addresses has no family.
        _ => true,
    };
    let has_same_name = pool.kind() == PoolKind::Loopback || pool.name() == other_pool.name();
    pool.kind() == other_pool.kind() && has_same_name && has_same_family
}

/// Returns whether a pool serves sessions that request no pool by name. Such pools have the name
/// [`DEFAULT_POOL`], or the name of the first virtual-IP pool if no pool is named [`DEFAULT_POOL`].
fn is_default(pools: &[Pool], pool: &Pool) -> bool {
    let mut virtual_ip_pools = pools.iter().filter(|pool| pool.kind() == PoolKind::VirtualIp);
    let first_pool = virtual_ip_pools.clone().next();
    let default_pool = virtual_ip_pools.find(|pool| pool.name() == DEFAULT_POOL).or(first_pool);
    pool.kind() == PoolKind::VirtualIp
        && default_pool.is_some_and(|default_pool| default_pool.name() == pool.name())
}

/// Returns the pool of the new map for a pool of the plan. `old_pool` is the same pool in the old
/// map, if the old map has it. The result then contains the slots of `old_pool` too.
fn planned_pool(plan: &Plan, plan_index: usize, old_pool: Option<&Pool>) -> PlannedPool {
    let pool_of_plan = &plan.pools[plan_index];
    PlannedPool {
        pool: old_pool.map_or_else(|| pool_of_plan.clone(), |old| old.extended(pool_of_plan)),
        plan_index: Some(plan_index),
        is_default: is_default(&plan.pools, pool_of_plan),
        is_kept: old_pool.is_some(),
    }
}

/// Returns a pool of the new map that is not in the plan.
fn dropped_pool(pool: Pool, is_kept: bool) -> PlannedPool {
    PlannedPool { pool, plan_index: None, is_default: false, is_kept }
}

/// Returns whether the new map keeps the pool that has this number in the old map. `pools` are the
/// pools of the new map.
pub(crate) fn is_kept(pools: &[PlannedPool], number: u16) -> bool {
    pools.get(usize::from(number)).is_some_and(|planned_pool| planned_pool.is_kept)
}

/// Returns the pools of a map that replaces no other map.
pub(crate) fn new_pools(plan: &Plan) -> Vec<PlannedPool> {
    (0..plan.pools.len()).map(|plan_index| planned_pool(plan, plan_index, None)).collect()
}

/// Returns the pools of the map that replaces `old_map`. Kept pools have their old numbers, and the
/// plan can add addresses to them. New pools get the remaining numbers.
///
/// # Errors
/// Fails if the map would have more than [`MAX_POOLS`] pools.
pub(crate) fn merge(
    old_map: &MapImage,
    plan: &Plan,
    now: Tick,
) -> Result<Vec<PlannedPool>, MapError> {
    let old_pools = old_map.pools();
    // For each pool of the old map, the pool of the new map that extends it.
    let mut kept_pools: Vec<Option<PlannedPool>> = old_pools.iter().map(|_| None).collect();
    let mut added_pools = Vec::new();
    for (plan_index, pool_of_plan) in plan.pools.iter().enumerate() {
        let old_number = (0..old_pools.len()).find(|number| {
            let old_pool = &old_pools[*number];
            // An empty pool has no family and no state, so there is nothing to keep.
            kept_pools[*number].is_none()
                && old_pool.slot_count() > 0
                && is_same_pool(old_pool, pool_of_plan)
        });
        match old_number {
            Some(number) => {
                kept_pools[number] = Some(planned_pool(plan, plan_index, Some(&old_pools[number])));
            }
            None => added_pools.push(planned_pool(plan, plan_index, None)),
        }
    }
    let mut added_pools = added_pools.into_iter();
    let mut former_pool_names = Vec::new();
    let mut pools: Vec<PlannedPool> = Vec::new();
    for ((number, table), kept_pool) in old_map.tables().zip(kept_pools) {
        let old_pool = &old_pools[usize::from(number)];
        pools.push(match kept_pool {
            Some(kept_pool) => kept_pool,
            None if is_in_use(old_map, &table, plan, now) => {
                former_pool_names.push(old_pool.name());
                dropped_pool(old_pool.clone(), true)
            }
            // The following pools must keep their numbers. So a new pool gets this number. If there
            // is no new pool, an empty pool without a name gets the number.
            None => added_pools.next().unwrap_or_else(|| {
                dropped_pool(Pool::from_blocks("", old_pool.kind(), Vec::new(), 0), false)
            }),
        });
    }
    pools.extend(added_pools);
    while pools.pop_if(|pool| pool.plan_index.is_none() && !pool.is_kept).is_some() {}
    if pools.len() > MAX_POOLS {
        return Err(PlanError::TooManyFormerPools {
            planned: plan.pools.len(),
            former: former_pool_names.into_iter().map(str::to_owned).collect(),
        }
        .into());
    }
    Ok(pools)
}

/// Returns whether the new map needs a pool that the plan no longer has. A pool is needed for a
/// leased address, and for a cooling or lingering address that no pool of the plan takes over.
fn is_in_use(old_map: &MapImage, table: &Table<'_>, plan: &Plan, now: Tick) -> bool {
    let has_cooled =
        |slot| !plan.settings.check_in_use && table.cool_down_end(slot, &plan.settings) <= now;
    let is_taken_over = |slot| {
        let address = table.pool.address(old_map.words(), slot);
        let has_address = |pool: &Pool| address.is_some_and(|address| pool.has_slot(address, None));
        !table.pool.is_loopback
            && plan.pools.iter().any(|pool| pool.kind() == PoolKind::VirtualIp && has_address(pool))
    };
    (0..table.pool.slot_count).any(|slot| match table.owner(slot) {
        Owner::Session(_) => true,
        Owner::Free(_) => false,
        Owner::Cooling(_) if has_cooled(slot) => false,
        Owner::Cooling(_) | Owner::Lingering(_) => !is_taken_over(slot),
    })
}
