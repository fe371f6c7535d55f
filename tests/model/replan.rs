//! Applies a new plan to the existing state of the model.

use std::net::IpAddr;

use vipool::Tick;
use vipool::map::Plan;
use vipool::pool::{Pool, PoolKind};

use crate::model::Model;
use crate::pool::{IdleState, ModelPool, Slot};

impl Model {
    /// Applies a new plan.
    pub fn configure(&mut self, plan: &Plan, now: Tick) {
        self.settings = plan.settings;
        let is_same_pool = |pool: &ModelPool, new_pool: &Pool| match new_pool.kind() {
            PoolKind::Loopback => pool.kind == PoolKind::Loopback,
            PoolKind::VirtualIp => {
                pool.kind == new_pool.kind()
                    && pool.name == new_pool.name()
                    && Some(pool.is_ipv4) == new_pool.is_ipv4()
            }
        };
        let mut new_pools: Vec<ModelPool> = Vec::new();
        for new_pool in &plan.pools {
            if !self.pools.iter().any(|pool| !pool.slots.is_empty() && is_same_pool(pool, new_pool))
            {
                new_pools.push(ModelPool {
                    name: new_pool.name().to_owned(),
                    kind: new_pool.kind(),
                    is_ipv4: new_pool.is_ipv4().unwrap(),
                    slots: Vec::new(),
                    peak: 0,
                    is_low: false,
                    is_dropped: false,
                    is_default: false,
                });
            }
        }
        // A new pool takes the number of a removed pool, if there is one. If no new pool replaces a
        // removed pool, the removed pool becomes an empty pool, so that the numbers of later pools
        // do not change. At the end of the list, empty pools are deleted.
        let mut new_pools = new_pools.into_iter();
        let mut removed_slots = Vec::new();
        for number in 0..self.pools.len() {
            let pool = &self.pools[number];
            let is_planned = plan
                .pools
                .iter()
                .any(|new_pool| !pool.slots.is_empty() && is_same_pool(pool, new_pool));
            let must_remain = Self::must_remain(pool, plan, now);
            let old_pool = &mut self.pools[number];
            old_pool.is_dropped = !is_planned;
            if is_planned || must_remain {
                continue;
            }
            let mut empty_pool = old_pool.clone();
            (empty_pool.name, empty_pool.slots, empty_pool.peak, empty_pool.is_ipv4) =
                (String::new(), Vec::new(), 0, true);
            let replacement = new_pools.next().unwrap_or(empty_pool);
            removed_slots.extend(std::mem::replace(old_pool, replacement).slots);
        }
        self.pools.extend(new_pools);
        while self.pools.pop_if(|pool| pool.is_dropped && pool.slots.is_empty()).is_some() {}
        self.max_dropped_generation = removed_slots
            .iter()
            .map(|slot| slot.generation)
            .fold(self.max_dropped_generation, u32::max);
        let pool_named = |name: &str| {
            let is_match = |pool: &&Pool| pool.kind() == PoolKind::VirtualIp && pool.name() == name;
            plan.pools.iter().find(is_match)
        };
        let first_pool = plan.pools.iter().find(|pool| pool.kind() == PoolKind::VirtualIp);
        let default_name = pool_named("default").or(first_pool).map(Pool::name);
        for pool in &mut self.pools {
            let new_pool =
                plan.pools.iter().find(|new_pool| !pool.is_dropped && is_same_pool(pool, new_pool));
            let is_virtual_ip = pool.kind == PoolKind::VirtualIp;
            pool.is_default =
                is_virtual_ip && !pool.is_dropped && Some(pool.name.as_str()) == default_name;
            let planned_addresses: Vec<IpAddr> = new_pool
                .map(|new_pool| {
                    (0..new_pool.slot_count()).map(|slot| new_pool.address(slot).unwrap()).collect()
                })
                .unwrap_or_default();
            for address in &planned_addresses {
                if pool.slots.iter().all(|slot| slot.address != *address) {
                    pool.slots.push(Slot::new(*address, self.max_dropped_generation));
                }
            }
            for slot in &mut pool.slots {
                slot.is_retired = !planned_addresses.contains(&slot.address);
                slot.awaits_release = false;
                if slot.is_reserved_by_plan {
                    slot.unreserve();
                }
            }
            pool.is_low = false;
        }
        for slot in &mut removed_slots {
            if slot.is_reserved_by_plan {
                slot.unreserve();
            }
        }
        self.migrate_addresses(&mut removed_slots);
        for reservation in &plan.reservations {
            if let Some((pool, slot)) = self.locate(reservation.address) {
                let slot = &mut self.pools[pool].slots[slot];
                slot.reserve(&reservation.user);
                slot.is_reserved_by_plan = true;
            }
        }
    }

    /// Returns whether a pool must remain although the plan does not contain it. It must remain
    /// while it has a lease, or a cooling or lingering address that the plan does not contain.
    fn must_remain(pool: &ModelPool, plan: &Plan, now: Tick) -> bool {
        let is_planned = |address: IpAddr| {
            let has_address = |new_pool: &Pool| {
                new_pool.kind() == pool.kind && new_pool.slot_of(address).is_some()
            };
            plan.pools.iter().any(has_address)
        };
        pool.slots.iter().any(|slot| {
            let has_cooled = slot.since.0.saturating_add(plan.settings.cool_down) <= now;
            match slot.idle_state {
                _ if slot.lease.is_some() => true,
                IdleState::Free => false,
                IdleState::Cooling if has_cooled && !plan.settings.check_in_use => false,
                _ => !is_planned(slot.address),
            }
        })
    }

    /// Moves the state of each address to the slot that the address has in the new plan. If the old
    /// slot is still leased, the new slot awaits the release.
    fn migrate_addresses(&mut self, removed_slots: &mut [Slot]) {
        for number in 0..self.pools.len() {
            let mut slots = std::mem::take(&mut self.pools[number].slots);
            for slot in slots.iter_mut().filter(|slot| !slot.is_retired) {
                let other_slots = self.pools.iter_mut().flat_map(|pool| &mut pool.slots);
                let address = slot.address;
                for other_slot in other_slots
                    .chain(&mut *removed_slots)
                    .filter(|other_slot| other_slot.address == address)
                {
                    if other_slot.lease.is_some() {
                        assert!(slot.lease.is_none());
                        (slot.is_retired, slot.awaits_release) = (true, true);
                    } else if !other_slot.is_blank() {
                        assert!(slot.is_blank());
                        other_slot.migrate_to(slot);
                    }
                }
            }
            self.pools[number].slots = slots;
        }
    }
}
