//! Where a slot stands, which follows from its words: held, in a queue, reserved or drained.

use super::counters::{Control, Counter, add};
use super::queue::{self, Queue};
use super::slot::{DRAINED, Owner, RESERVED, RETIRED, Slot, Tenancy};

/// Where a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Held,
    Queued(Queue),
    Reserved,
    Drained,
}

/// Enters a slot where it stands (1), or takes it away from there (-1).
#[inline(never)]
pub(crate) fn stand(control: &Control, slots: &[Slot], slot: u32, standing: Standing, by: i32) {
    match standing {
        Standing::Queued(queue) if by > 0 => queue::push(control, slots, queue, slot),
        Standing::Queued(queue) => queue::remove(control, slots, queue, slot),
        _ => {}
    }
    if let Some(counter) = counter_of(standing) {
        add(control, counter, by);
    }
}

/// Where a slot with these words stands.
#[inline]
pub(crate) fn standing(owner: Owner, tenancy: Tenancy) -> Standing {
    let queue = match owner {
        Owner::Session(_) => return Standing::Held,
        Owner::Free(_) => Queue::Free,
        Owner::Cooling(_) => Queue::Cooling,
        Owner::Lingering(_) => Queue::Lingering,
    };
    if tenancy.has(DRAINED | RETIRED) {
        Standing::Drained
    } else if tenancy.has(RESERVED) {
        Standing::Reserved
    } else {
        Standing::Queued(queue)
    }
}

/// Whether a slot with these words is free and without flags, as nearly all are.
#[inline(always)]
pub(crate) fn is_plain(owner: u64, tenancy: Tenancy) -> bool {
    Owner::is_free(owner) && !tenancy.has(DRAINED | RETIRED | RESERVED)
}

#[inline]
pub(crate) fn counter_of(standing: Standing) -> Option<Counter> {
    match standing {
        Standing::Held => None,
        Standing::Queued(Queue::Free) => Some(Counter::Free),
        Standing::Queued(Queue::Cooling) => Some(Counter::Cooling),
        Standing::Queued(Queue::Lingering) => Some(Counter::Lingering),
        Standing::Reserved => Some(Counter::Reserved),
        Standing::Drained => Some(Counter::Drained),
    }
}
