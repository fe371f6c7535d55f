//! The slow path: what is looked at now and then, never while a session opens.
//!
//! Sessions whose leader is gone are closed, after it was seen dead twice with a grace period in
//! between. Addresses that have cooled down become free once no socket is found on them.

use std::net::IpAddr;

use super::state::State;
use super::table::Table;
use crate::Tick;
use crate::map::format::counters::Counter;
use crate::map::format::layout::REAPED;
use crate::map::format::queue::Queue;
use crate::map::format::record;
use crate::map::format::region::{load, store};
use crate::map::format::slot::Owner;
use crate::map::format::slot_state::Standing;
use crate::map::types::plan::{Leader, pair, unpair};
use crate::session::{Lease, SessionId};

/// Seconds between the first and the last sighting of a dead leader.
pub const LEADER_GRACE: u32 = 10;

/// What [`crate::map::Map::reap`] asks the operating system; [`crate::os`] answers on Linux.
pub trait Probe {
    /// Whether some socket is bound to this address or connected from it. Say yes when in doubt.
    fn has_sockets(&mut self, address: IpAddr) -> bool;
    /// Whether this process is gone. Say no when in doubt.
    fn is_gone(&mut self, leader: &Leader) -> bool;
}

/// What [`crate::map::Map::reap`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReapReport {
    /// Addresses that became free.
    pub freed: u32,
    /// Addresses that cooled down but still have sockets on them.
    pub lingering: u32,
    /// Sessions closed because their leader was gone.
    pub closed: Vec<SessionId>,
    /// Whether the budget ran out before every session and every address that had cooled was looked
    /// at; calling again goes on where this call stopped. Lingering addresses are looked at in turn
    /// and never make it true.
    pub more: bool,
}

/// Looks at up to `budget` addresses and sessions each.
pub(crate) fn reap(sessions: &State, now: Tick, budget: u32, probe: &mut dyn Probe) -> ReapReport {
    let mut reaped = ReapReport::default();
    let began = sessions.stamp(now);
    close_leaderless(sessions, now, budget, probe, &mut reaped);
    for (_, table) in sessions.tables() {
        // Whether it is to be looked at, unless this very call did.
        let is_due = |slot: u32| match table.owner(slot) {
            Owner::Cooling(_) => table.cooled_at(slot, &sessions.layout.settings) <= now,
            Owner::Lingering(stamp) => stamp <= began,
            Owner::Free(_) | Owner::Session(_) => false,
        };
        let is_cooling = |slot: u32| matches!(table.owner(slot), Owner::Cooling(_));
        // Lingering first: what is found in use moves there, and is looked at once.
        for queue in [Queue::Lingering, Queue::Cooling] {
            let mut left = budget.min(table.pool.slots);
            let mut slot = table.first(queue);
            while let Some(current) = slot.filter(|slot| is_due(*slot)) {
                if left == 0 {
                    reaped.more |= is_cooling(current);
                    break;
                }
                left -= 1;
                slot = table.next(current);
                look(sessions, &table, current, now, probe, &mut reaped);
            }
        }
        if table.count(Counter::Reserved) > 0 || table.pool.dropped {
            // In no queue: those that were looked at longest ago first, as there. A pool that the
            // plan no longer has waits for the last of them.
            let is_unqueued = |slot: &u32| match table.standing(*slot) {
                Standing::Reserved => true,
                Standing::Drained => table.pool.dropped,
                Standing::Held | Standing::Queued(_) => false,
            };
            let mut due: Vec<u32> = (0..table.pool.slots).filter(is_unqueued).collect();
            due.retain(|slot| is_due(*slot));
            due.sort_by_key(|slot| table.owner(*slot).stamp());
            let (due, rest) = due.split_at(due.len().min(budget as usize));
            reaped.more |= rest.iter().any(|slot| is_cooling(*slot));
            due.iter().for_each(|slot| look(sessions, &table, *slot, now, probe, &mut reaped));
        }
    }
    reaped
}

/// Frees a slot that has cooled, unless there are sockets on its address.
fn look(
    sessions: &State,
    table: &Table<'_>,
    slot: u32,
    now: Tick,
    probe: &mut dyn Probe,
    reaped: &mut ReapReport,
) {
    let words = sessions.words();
    let in_use = sessions.layout.settings.check_in_use
        && [table.pool.address(words, slot), table.pool.twin(words, slot)]
            .into_iter()
            .flatten()
            .any(|address| probe.has_sockets(address));
    // What is in use goes behind the others, so that each has its turn whatever the budget.
    let stamp = sessions.stamp(now);
    table.move_to(slot, if in_use { Owner::Lingering(stamp) } else { Owner::Free(stamp) });
    *(if in_use { &mut reaped.lingering } else { &mut reaped.freed }) += 1;
}

/// Closes the sessions whose leader was seen dead before, long enough ago, and is dead now. Looks
/// at up to `budget` leaders, from where the last call stopped.
fn close_leaderless(
    sessions: &State,
    now: Tick,
    budget: u32,
    probe: &mut dyn Probe,
    reaped: &mut ReapReport,
) {
    let mut left = budget;
    let (from_pool, from_slot) = unpair(load(sessions.words(), REAPED));
    for (number, table) in sessions.tables().skip_while(|(pool, _)| u32::from(*pool) < from_pool) {
        let first = if u32::from(number) == from_pool { from_slot } else { 0 };
        for slot in first..table.pool.slots {
            let Owner::Session(raw) = table.owner(slot) else { continue };
            let Some(session) = SessionId::from_raw(raw) else { continue };
            if !sessions.is_anchor(raw, number) {
                continue;
            }
            let Some((recorded, leader)) = leader_of(sessions, session) else { continue };
            if left == 0 {
                store(sessions.words(), REAPED, pair(number.into(), slot));
                reaped.more = true;
                return;
            }
            left -= 1;
            let Some(pool) = sessions.layout.pool(recorded.pool) else { continue };
            let first_seen = record::seen_dead(sessions.records(), pool, recorded.slot);
            let note = |dead| record::note_dead(sessions.records(), pool, recorded.slot, dead);
            match (probe.is_gone(&leader), first_seen) {
                (false, None) => {}
                (false, Some(_)) => note(None),
                (true, None) => note(Some(now)),
                (true, Some(since)) if now.seconds_since(since) >= LEADER_GRACE => {
                    if sessions.close_session(session, now).is_ok() {
                        reaped.closed.push(session);
                    }
                }
                (true, Some(_)) => {}
            }
        }
    }
    store(sessions.words(), REAPED, 0);
}

/// The leader of a session, and the lease whose record tells it.
fn leader_of(sessions: &State, session: SessionId) -> Option<(Lease, Leader)> {
    sessions.lookup(session).iter().find_map(|lease| {
        let pool = sessions.layout.pool(lease.pool)?;
        let record = record::read(sessions.records(), pool, lease.slot, lease.generation)?;
        Some((lease, record.leader?))
    })
}
