//! Reaping: the periodic search for dead leaders and for addresses that have cooled down. Opening a
//! session never reaps.
//!
//! A reap closes a session if the leader is dead, and if an earlier reap found the leader dead at
//! least [`LEADER_GRACE`] seconds ago. If another logon of the session has a running process, that
//! process becomes the leader instead. A reap frees an address that has cooled down. If
//! [`Settings::check_in_use`] is set, or if the address lingers, the address becomes free only if
//! it has no sockets.
//!
//! [`Settings::check_in_use`]: crate::map::Settings::check_in_use

use std::net::IpAddr;

use super::image::FoundLease;
use super::logons::Logons;
use super::table_writer::TableWriter;
use super::transaction::Transaction;
use crate::Tick;
use crate::map::format::counters::Counter;
use crate::map::format::header::REAP_CURSOR;
use crate::map::format::placement::Placement;
use crate::map::format::queue::Queue;
use crate::map::format::record;
use crate::map::format::slot::Owner;
use crate::map::format::words::{join_halves, split_halves};
use crate::map::types::plan::Leader;
use crate::session::SessionId;

/// Minimum number of seconds from the first time that a leader is found dead until its session is
/// closed.
pub const LEADER_GRACE: u32 = 10;

/// The questions that [`Map::reap`](crate::map::Map::reap) asks the operating system.
pub trait Probe {
    /// Returns whether a socket is bound to this address or connected from this address. Returns
    /// true when in doubt.
    fn has_sockets(&mut self, address: IpAddr) -> bool;
    /// Returns whether this process has exited. Returns false when in doubt.
    fn has_exited(&mut self, leader: &Leader) -> bool;
}

/// The result of [`Map::reap`](crate::map::Map::reap).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReapReport {
    /// The number of addresses that became free.
    pub freed: u32,
    /// The number of addresses that have cooled down, but on which this call found sockets.
    pub lingering: u32,
    /// The sessions that were closed because their leader has exited.
    pub closed: Vec<SessionId>,
    /// Whether the budget ran out before every session and every cooled address was checked. The
    /// next call continues where this call stopped. Lingering addresses never set this field: later
    /// calls check an address in use again and again, so the field could stay set permanently.
    pub more: bool,
}

impl Transaction<'_> {
    /// Checks up to `budget` leaders. In each pool, checks up to `budget` lingering slots, up to
    /// `budget` cooling slots, and up to `budget` slots outside the queues. `logons` is `None` for
    /// a map in memory, which has no logon records.
    pub(crate) fn reap(
        &self,
        now: Tick,
        budget: u32,
        probe: &mut dyn Probe,
        logons: Option<&Logons>,
    ) -> ReapReport {
        let mut report = ReapReport::default();
        // If the caller passes a time before the real time, a correct stamp must not count as a
        // stamp in the future.
        self.correct_future_stamps(now.max(Tick::now()));
        let start_stamp = self.new_stamp(now);
        self.close_sessions_of_dead_leaders(now, budget, probe, logons, &mut report);
        if let Some(logons) = logons {
            self.remove_stale_logons(logons, |process| probe.has_exited(process));
        }
        for (_, table) in self.table_writers() {
            // A slot that this call has already checked has a stamp later than `start_stamp`.
            let is_due = |slot: u32| match table.owner(slot) {
                Owner::Cooling(_) => table.cool_down_end(slot, &self.layout().settings) <= now,
                Owner::Lingering(stamp) => stamp <= start_stamp,
                Owner::Free(_) | Owner::Session(_) => false,
            };
            let is_cooling = |slot: u32| matches!(table.owner(slot), Owner::Cooling(_));
            // Check the lingering slots first, because the check of the cooling slots adds slots to
            // the queue of lingering slots.
            for queue in [Queue::Lingering, Queue::Cooling] {
                let mut remaining_budget = budget.min(table.pool.slot_count);
                let mut next_slot = table.front(queue);
                while let Some(slot) = next_slot.filter(|slot| is_due(*slot)) {
                    if remaining_budget == 0 {
                        report.more |= is_cooling(slot);
                        break;
                    }
                    remaining_budget -= 1;
                    next_slot = table.successor(slot);
                    self.free_unless_in_use(&table, slot, now, probe, &mut report);
                }
            }
            if table.count(Counter::Reserved) > 0 || table.pool.is_dropped {
                // Reserved and drained slots are in no queue, so sort them here by their stamps:
                // the time of the release or of the latest check. Check drained slots only in a
                // dropped pool, which the plan no longer has. When none of its slots is leased,
                // cooling or lingering, a later reload removes the pool.
                let is_unqueued = |slot: &u32| match table.placement(*slot) {
                    Placement::Reserved => true,
                    Placement::Drained => table.pool.is_dropped,
                    Placement::Leased | Placement::Queued(_) => false,
                };
                let mut due_slots: Vec<u32> =
                    (0..table.pool.slot_count).filter(is_unqueued).collect();
                due_slots.retain(|slot| is_due(*slot));
                due_slots.sort_by_key(|slot| table.owner(*slot).stamp());
                let (slots_to_check, postponed_slots) =
                    due_slots.split_at(due_slots.len().min(budget as usize));
                report.more |= postponed_slots.iter().any(|slot| is_cooling(*slot));
                for slot in slots_to_check {
                    self.free_unless_in_use(&table, *slot, now, probe, &mut report);
                }
            }
        }
        report
    }

    /// Frees a slot that has cooled down. If the settings or the state of the slot require a check,
    /// and the check finds sockets, marks the slot as lingering instead.
    fn free_unless_in_use(
        &self,
        table: &TableWriter<'_>,
        slot: u32,
        now: Tick,
        probe: &mut dyn Probe,
        report: &mut ReapReport,
    ) {
        let must_check =
            self.layout().settings.check_in_use || matches!(table.owner(slot), Owner::Lingering(_));
        let is_in_use = must_check && self.has_sockets(table, slot, probe);
        // The new stamp sorts a slot with sockets after the other slots. So repeated calls check
        // all slots in turn, even with a small budget.
        let stamp = self.new_stamp(now);
        if is_in_use {
            table.change_state(slot, Owner::Lingering(stamp));
            report.lingering += 1;
        } else {
            table.change_state(slot, Owner::Free(stamp));
            report.freed += 1;
        }
    }

    fn has_sockets(&self, table: &TableWriter<'_>, slot: u32, probe: &mut dyn Probe) -> bool {
        let words = self.words();
        [table.pool.address(words, slot), table.pool.loopback6(words, slot)]
            .into_iter()
            .flatten()
            .any(|address| probe.has_sockets(address))
    }

    /// Marks each free slot as lingering if one of its addresses has sockets.
    pub(crate) fn withhold_slots_in_use(&self, now: Tick, probe: &mut dyn Probe) {
        for (_, table) in self.table_writers() {
            for slot in 0..table.pool.slot_count {
                if matches!(table.owner(slot), Owner::Free(_))
                    && self.has_sockets(&table, slot, probe)
                {
                    table.change_state(slot, Owner::Lingering(self.new_stamp(now)));
                }
            }
        }
    }

    /// Closes the sessions whose leader is dead and was first found dead at least [`LEADER_GRACE`]
    /// seconds ago. Checks up to `budget` leaders. Begins where the previous call stopped.
    fn close_sessions_of_dead_leaders(
        &self,
        now: Tick,
        budget: u32,
        probe: &mut dyn Probe,
        logons: Option<&Logons>,
        report: &mut ReapReport,
    ) {
        let mut remaining_budget = budget;
        let (first_pool, first_slot) = split_halves(self.header(REAP_CURSOR));
        for (pool, table) in self.tables().skip_while(|(pool, _)| u32::from(*pool) < first_pool) {
            let start_slot = if u32::from(pool) == first_pool { first_slot } else { 0 };
            for slot in start_slot..table.pool.slot_count {
                let Owner::Session(session_id) = table.owner(slot) else { continue };
                let Some(session) = SessionId::from_raw(session_id) else { continue };
                if !self.is_anchor(session_id, pool) {
                    continue;
                }
                let Some((lease, leader)) = self.leader_of(session) else { continue };
                if remaining_budget == 0 {
                    self.store_header(REAP_CURSOR, join_halves(pool.into(), slot));
                    report.more = true;
                    return;
                }
                remaining_budget -= 1;
                if self.check_leader(session, &lease, &leader, now, probe, logons)
                    && self.close_session(session, now).is_some()
                {
                    report.closed.push(session);
                }
            }
        }
        self.store_header(REAP_CURSOR, 0);
    }

    /// Asks the probe whether a leader is dead, and records the result. Replaces a dead leader by a
    /// running process of another logon. Returns whether the caller must close the session.
    fn check_leader(
        &self,
        session: SessionId,
        lease: &FoundLease<'_>,
        leader: &Leader,
        now: Tick,
        probe: &mut dyn Probe,
        logons: Option<&Logons>,
    ) -> bool {
        let (access, records) = (self.access(), self.sessions_words());
        let FoundLease { table, slot, .. } = *lease;
        let is_dead = probe.has_exited(leader);
        let has_exited = |process: &Leader| probe.has_exited(process);
        if let (true, Some(logons)) = (is_dead, logons)
            && self.replace_leader(session, logons, has_exited)
        {
            return false;
        }
        match (is_dead, record::first_seen_dead(records, table.pool, slot)) {
            (false, None) => false,
            (false, Some(_)) => {
                record::set_first_seen_dead(access, records, table.pool, slot, None);
                false
            }
            // An earlier call can have recorded a wrong time in the future.
            (true, dead_since) if dead_since.is_none_or(|dead_since| dead_since > now) => {
                record::set_first_seen_dead(access, records, table.pool, slot, Some(now));
                false
            }
            (true, None) => false,
            (true, Some(dead_since)) => now.seconds_since(dead_since) >= LEADER_GRACE,
        }
    }

    /// Returns the leader of a session, and the lease whose record contains it.
    pub(crate) fn leader_of(&self, session: SessionId) -> Option<(FoundLease<'_>, Leader)> {
        self.records_of(session).find_map(|(lease, record)| Some((lease, record.leader?)))
    }
}
