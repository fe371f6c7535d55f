//! The slow path: what is looked at now and then, never while a session opens.
//!
//! Sessions whose leader is gone are closed, after it was seen dead twice with a grace period in
//! between. Addresses that have cooled down become free once no socket is found on them.

use std::net::IpAddr;

use super::plan::{Leader, Tick};
use super::queue::{self, Queue};
use super::record;
use super::sessions::Sessions;
use super::slot::{Owner, stamp_time};
use crate::session::SessionId;

/// Seconds between the first and the last sighting of a dead leader.
pub const LEADER_GRACE: u32 = 10;

/// What [`super::Map::reap`] asks the operating system; [`crate::os`] answers on Linux.
pub trait Probe {
    /// Whether some socket is bound to this address or connected from it. Say yes when in doubt.
    fn has_sockets(&mut self, address: IpAddr) -> bool;
    /// Whether this process is gone. Say no when in doubt.
    fn is_gone(&mut self, leader: &Leader) -> bool;
}

/// What [`super::Map::reap`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Addresses that became free.
    pub freed: u32,
    /// Addresses that cooled down but still have sockets on them.
    pub lingering: u32,
    /// Sessions closed because their leader was gone.
    pub closed: Vec<SessionId>,
    /// Whether the budget ran out before everything was looked at.
    pub more: bool,
}

/// Looks at up to `budget` addresses and sessions each.
pub(super) fn reap(
    sessions: Sessions<'_>,
    now: Tick,
    budget: u32,
    probe: &mut dyn Probe,
) -> Reaped {
    let mut reaped = Reaped::default();
    close_leaderless(sessions, now, probe, &mut reaped);
    for (_, table) in sessions.tables() {
        let settings = &sessions.layout.settings;
        for queue in [Queue::Lingering, Queue::Cooling] {
            let mut left = budget.min(table.pool.slots);
            // Lingering first: what is found in use moves there, and is looked at once.
            let mut slot = queue::first(sessions.words, table.pool, queue);
            while let Some(current) = slot {
                let following = queue::next(sessions.words, table.pool, current);
                let Some(stamp) = table.owner(current).stamp() else { break };
                let cooled = stamp_time(stamp).saturating_add(settings.cool_down) <= now;
                if queue == Queue::Cooling && !cooled {
                    break;
                }
                if left == 0 {
                    reaped.more = true;
                    break;
                }
                left -= 1;
                let in_use = settings.check_in_use
                    && table.pool.address(sessions.words, current).is_some_and(|(own, twin)| {
                        probe.has_sockets(own) || twin.is_some_and(|twin| probe.has_sockets(twin))
                    });
                if !in_use {
                    table.move_to(current, Owner::Free(sessions.stamp(now)));
                    reaped.freed += 1;
                } else {
                    if queue == Queue::Cooling {
                        table.move_to(current, Owner::Lingering(sessions.stamp(now)));
                    }
                    reaped.lingering += 1;
                }
                slot = following;
            }
        }
    }
    reaped
}

/// Closes the sessions whose leader was seen dead before, long enough ago, and is dead now.
fn close_leaderless(sessions: Sessions<'_>, now: Tick, probe: &mut dyn Probe, reaped: &mut Reaped) {
    for (number, table) in sessions.tables() {
        for slot in 0..table.pool.slots {
            let Owner::Session(raw) = table.owner(slot) else { continue };
            let generation = table.tenancy(slot).generation;
            let leader = record::read(sessions.records, table.pool, slot, generation)
                .and_then(|record| record.leader);
            let (Some(leader), true) = (leader, sessions.is_anchor(raw, number)) else { continue };
            let first_seen = record::seen_dead(sessions.records, table.pool, slot);
            if !probe.is_gone(&leader) {
                if first_seen.is_some() {
                    record::note_dead(sessions.records, table.pool, slot, None);
                }
                continue;
            }
            match first_seen {
                None => record::note_dead(sessions.records, table.pool, slot, Some(now)),
                Some(since) if now.saturating_sub(since) >= LEADER_GRACE => {
                    if let Some(session) = SessionId::from_raw(raw) {
                        if sessions.close_session(session, now).is_ok() {
                            reaped.closed.push(session);
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }
}
