//! The check of a plan before a map is built from it.

use super::merge::is_same_pool;
use super::overlap::find_overlaps;
use crate::map::types::error::PlanError;
use crate::map::types::plan::Plan;
use crate::map::types::plan::{MAX_POOL_NAME, MAX_POOLS};
use crate::pool::PoolKind;

/// Returns an error if no map can be built from this plan.
pub(crate) fn validate(plan: &Plan) -> Result<(), PlanError> {
    if plan.pools.len() > MAX_POOLS {
        return Err(PlanError::TooManyPools(plan.pools.len()));
    }
    for (number, pool) in plan.pools.iter().enumerate() {
        let name = pool.name();
        if name.is_empty() || name.len() > MAX_POOL_NAME || name.contains('\0') {
            return Err(PlanError::PoolName(name.to_owned()));
        }
        for earlier in &plan.pools[..number] {
            if earlier.kind() == PoolKind::Loopback && pool.kind() == PoolKind::Loopback {
                let [first, second] = [earlier, pool].map(|pool| pool.name().to_owned());
                return Err(PlanError::TwoLoopbackPools(first, second));
            }
            if is_same_pool(pool, earlier) {
                return Err(PlanError::DuplicatePool(name.to_owned()));
            }
        }
    }
    if let Some(overlap) = find_overlaps(&plan.pools).first() {
        let [(first, slot), (second, _)] = overlap.slots_at(0);
        let [first, second] = [first, second].map(|number| &plan.pools[number]);
        let address = first.address(slot).expect("a slot of an overlap is in its pool");
        let [first, second] = [first, second].map(|pool| pool.name().to_owned());
        return Err(PlanError::SharedAddress { first, second, address });
    }
    Ok(())
}
