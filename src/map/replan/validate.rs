//! The check of a plan before a map is built from it.

use super::merge::is_same_pool;
use super::overlap::find_overlaps;
use crate::map::types::error::PlanError;
use crate::map::types::plan::{MAX_POOL_NAME, MAX_POOLS, Plan};
use crate::policy::path::names_program;
use crate::pool::PoolKind;

/// Returns an error if no map can be built from this plan.
pub(crate) fn validate(plan: &Plan) -> Result<(), PlanError> {
    if plan.pools.len() > MAX_POOLS {
        return Err(PlanError::TooManyPools(plan.pools.len()));
    }
    for (index, pool) in plan.pools.iter().enumerate() {
        let name = pool.name();
        if name.is_empty() || name.len() > MAX_POOL_NAME || name.contains('\0') {
            return Err(PlanError::PoolName(name.to_owned()));
        }
        for earlier_pool in &plan.pools[..index] {
            if earlier_pool.kind() == PoolKind::Loopback && pool.kind() == PoolKind::Loopback {
                let earlier_name = earlier_pool.name().to_owned();
                return Err(PlanError::TwoLoopbackPools(earlier_name, name.to_owned()));
            }
            if is_same_pool(pool, earlier_pool) {
                return Err(PlanError::DuplicatePool(name.to_owned()));
            }
        }
    }
    let patterns = plan
        .policy
        .programs
        .iter()
        .flat_map(|program| std::iter::once(&program.pattern).chain(&program.script));
    if let Some(pattern) = patterns.into_iter().find(|pattern| !names_program(pattern)) {
        return Err(PlanError::Program(pattern.clone()));
    }
    if let Some(overlap) = find_overlaps(&plan.pools).first() {
        let [(first_index, slot), (second_index, _)] = overlap.slots_at(0);
        let first_pool = &plan.pools[first_index];
        let address = first_pool.address(slot).expect("a slot of an overlap is in its pool");
        return Err(PlanError::SharedAddress {
            first: first_pool.name().to_owned(),
            second: plan.pools[second_index].name().to_owned(),
            address,
        });
    }
    Ok(())
}
