//! The check of a plan before a map is built from it.

use super::merge::is_same_pool;
use super::overlap::find_overlaps;
use crate::map::format::layout::MAX_POOLS;
use crate::map::format::pool::MAX_POOL_NAME;
use crate::map::types::error::MapError;
use crate::map::types::plan::Plan;
use crate::pool::PoolKind;

/// Returns an error if no map can be built from this plan.
pub(crate) fn validate(plan: &Plan) -> Result<(), MapError> {
    let error = |text: String| Err(MapError::Plan(text));
    if plan.pools.len() > MAX_POOLS {
        return error(format!("{} pools: a map has at most {MAX_POOLS}", plan.pools.len()));
    }
    for (number, pool) in plan.pools.iter().enumerate() {
        let name = pool.name();
        if name.is_empty() || name.len() > MAX_POOL_NAME || name.contains('\0') {
            return error(format!("pool name {name:?}: it must have 1 to {MAX_POOL_NAME} bytes"));
        }
        for earlier in &plan.pools[..number] {
            if earlier.kind() == PoolKind::Loopback && pool.kind() == PoolKind::Loopback {
                return error(format!("pools {:?} and {name:?} are both loopback", earlier.name()));
            }
            if is_same_pool(pool, earlier) {
                return error(format!("two pools are named {name:?} and of the same family"));
            }
        }
    }
    if let Some(overlap) = find_overlaps(&plan.pools).first() {
        let [(first, slot), (second, _)] = overlap.slots_at(0);
        let [first, second] = [first, second].map(|number| &plan.pools[number]);
        let address = first.address(slot).map(|address| address.to_string()).unwrap_or_default();
        return error(format!(
            "pools {:?} and {:?} share addresses from {address} on",
            first.name(),
            second.name()
        ));
    }
    Ok(())
}
