//! The words of a map together, and how a new map is made of a plan and of the map before it.
//!
//! A slot keeps its number for as long as its pool is there (see [`super::merge`]): what a new plan
//! adds goes behind what was there, what it drops is retired. So handles stay good across new
//! configurations.

use std::path::Path;

use super::files;
use crate::Tick;
use crate::map::MAP_FILE;
use crate::map::format::counters::Counter;
use crate::map::format::layout::{
    self, DRAINING, GONE_GENERATION, LAST_STAMP, Layout, READY, RECORD_WORDS, SUPERSEDED,
};
use crate::map::format::region::{Region, load, store};
use crate::map::format::slot::{PLANNED, RESERVED, RETIRED, next_stamp, stamp_time, user_tag};
use crate::map::replan::merge::{Merged, is_kept, merge, unmerged};
use crate::map::types::outcome::MapError;
use crate::map::types::plan::Plan;
use crate::pool::Pool;
use crate::session::hash64;
use crate::sync::AtomicU64;

/// Seconds. Nothing was given back a year from now.
const FAR_AHEAD: u32 = 366 * 24 * 3600;

/// A map and its private twin, opened for writing.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) map: Region,
    /// Empty if it could not be opened: sessions are then without names.
    pub(crate) private: Region,
    /// The journal; empty where there is none, as for a map in memory.
    pub(crate) journal: Region,
    pub(crate) layout: Layout,
}

impl State {
    /// A map that is only looked at.
    pub(crate) fn of_reader(map: Region, layout: Layout) -> Self {
        Self { map, private: Region::default(), journal: Region::default(), layout }
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> &[AtomicU64] {
        self.map.words()
    }

    #[inline(always)]
    pub(crate) fn records(&self) -> &[AtomicU64] {
        self.private.words()
    }

    #[inline(always)]
    pub(crate) fn journal(&self) -> &[AtomicU64] {
        self.journal.words()
    }

    /// A map in memory.
    pub(crate) fn in_memory(plan: &Plan) -> Result<Self, MapError> {
        let (pools, policy) = (unmerged(plan), plan.policy.encode());
        let map = Region::in_memory(layout::words_needed(&pools, policy.len()));
        let private = Region::in_memory(layout::private_words(plan.pools.iter().map(Pool::slots)));
        Self::build(map, private, &pools, plan, &policy, 1, None)
    }

    /// A copy in memory of the bytes of a map and of its private twin.
    pub(crate) fn copied(map: &[u8], private: &[u8]) -> Result<Self, &'static str> {
        let map = Region::copied(map);
        let layout = Layout::read(map.words())?;
        let private = Some(Region::copied(private))
            .filter(|private| layout::is_private_twin(private.words(), &layout))
            .unwrap_or_default();
        Ok(Self { map, private, journal: Region::default(), layout })
    }

    /// Opens the files of a map, of whatever boot.
    pub(crate) fn open(directory: &Path) -> Result<Self, MapError> {
        let (map, layout) = files::open(directory, MAP_FILE, true)?;
        let private = files::private_twin(directory, &layout)?;
        let journal = files::journal(directory, layout.boot).unwrap_or_default();
        Ok(Self { map, private, journal, layout })
    }

    /// Makes new files from a plan and the sessions of the map before it, and puts them in place.
    /// The caller holds the lock.
    pub(crate) fn replace(
        directory: &Path,
        plan: &Plan,
        boot: u64,
        old: Option<&State>,
    ) -> Result<Self, MapError> {
        // Of another boot or network namespace nothing is taken over.
        let kept = old.filter(|old| old.layout.boot == boot);
        let pools = match kept {
            Some(old) => merge(old, plan)?,
            None => unmerged(plan),
        };
        let policy = plan.policy.encode();
        let (map, private) = files::make(
            directory,
            layout::words_needed(&pools, policy.len()),
            layout::private_words(pools.iter().map(|merged| merged.pool.slots())),
        )?;
        let mut made = Self::build(map, private, &pools, plan, &policy, boot, kept)
            .inspect_err(|_| files::remove_new(directory))?;
        // Sessions are served without one, should it not be possible to make it.
        made.journal = files::journal(directory, boot)
            .or_else(|| files::make_journal(directory, boot).ok())
            .unwrap_or_default();
        // Before the files change places: a writer that finds the mark on the file that is still
        // there takes it off again. Writers in another network namespace learn by it that the map
        // is no longer theirs.
        if let Some(old) = old {
            store(old.map.words(), SUPERSEDED, 1);
        }
        files::put_in_place(directory)?;
        Ok(made)
    }

    /// Whether this map stays for a plan, since new files made of it would say the same. Then it is
    /// brought what they would bring: everything is derived again, and whoever wanted to replace it
    /// before is forgotten. The caller holds the lock.
    pub(crate) fn stays(&self, directory: &Path, plan: &Plan, boot: u64) -> Result<bool, MapError> {
        let is_whole =
            !self.records().is_empty() && !self.journal().is_empty() && !files::has_new(directory);
        if !is_whole || self.layout.boot != boot {
            return Ok(false);
        }
        let (pools, policy) = (merge(self, plan)?, plan.policy.encode());
        let words = layout::words_needed(&pools, policy.len());
        if words != self.words().len() {
            return Ok(false);
        }
        let (map, none) = (Region::in_memory(words), Region::default());
        let made = Self::build(map, none, &pools, plan, &policy, boot, Some(self))?;
        if !self.truth().eq(made.truth()) {
            return Ok(false);
        }
        self.rebuild();
        for (_, table) in self.tables() {
            table.set_count(Counter::Warned, 0);
        }
        store(self.words(), SUPERSEDED, 0);
        Ok(true)
    }

    /// What a map says, but for what is derived from it and what tells its file from others.
    fn truth(&self) -> impl Iterator<Item = u64> {
        let slots = self
            .tables()
            .flat_map(|(_, table)| (0..table.pool.slots).flat_map(move |slot| table.truth(slot)));
        layout::fixed_words(self.words(), &self.layout).chain(slots)
    }

    fn build(
        map: Region,
        private: Region,
        pools: &[Merged],
        plan: &Plan,
        policy: &[u8],
        boot: u64,
        old: Option<&State>,
    ) -> Result<Self, MapError> {
        let file_id = file_id(boot, old);
        layout::write(map.words(), pools, policy, plan.settings, boot, file_id);
        layout::write_private(private.words(), boot, file_id);
        let layout = Layout::read(map.words())
            .map_err(|reason| MapError::Plan(format!("this plan makes no map: {reason}")))?;
        let made = Self { map, private, journal: Region::default(), layout };
        if let Some(old) = old {
            made.copy_from(old, pools);
            made.forget_the_future(Tick::now());
        }
        made.mark(pools, plan);
        if let Some(old) = old {
            made.move_addresses(pools, old);
        }
        made.reserve(plan);
        made.rebuild();
        Ok(made)
    }

    /// The pools of a map as plans have them.
    pub(crate) fn pools(&self) -> Vec<Pool> {
        self.layout.pools().iter().map(|pool| pool.as_planned(self.words())).collect()
    }

    /// Takes over slots, records and what else outlives a new configuration.
    fn copy_from(&self, old: &State, pools: &[Merged]) {
        let (from, to) = (old, self);
        for at in [LAST_STAMP, READY, DRAINING] {
            store(to.words(), at, load(from.words(), at));
        }
        let copy = |to: &[_], to_at: usize, from: &[_], from_at: usize, count: usize| {
            for offset in 0..count {
                store(to, to_at + offset, load(from, from_at + offset));
            }
        };
        let mut gone = load(from.words(), GONE_GENERATION) as u32;
        for (_, source) in from.tables().filter(|(number, _)| !is_kept(pools, *number)) {
            let generations = (0..source.pool.slots).map(|slot| source.tenancy(slot).generation);
            gone = gone.max(generations.max().unwrap_or(0));
        }
        store(to.words(), GONE_GENERATION, gone.into());
        for (number, target) in to.tables() {
            let source = from.table(number).filter(|_| is_kept(pools, number));
            let slots = source.map_or(0, |source| source.pool.slots.min(target.pool.slots));
            if let Some(source) = source {
                target.copy_slots(&source);
                let (a, b, words) = (target.pool, source.pool, slots as usize * RECORD_WORDS);
                copy(to.records(), a.records_at, from.records(), b.records_at, words);
                target.keep_peak(&source);
            }
            for slot in (slots..target.pool.slots).filter(|_| gone > 0) {
                target.set_tenancy(slot, target.tenancy(slot).of_generation(gone));
            }
        }
    }

    /// Brings stamps back that lie far ahead: somebody told a wrong time once, and whatever was given
    /// back since then would cool down until the machine is started again.
    fn forget_the_future(&self, now: Tick) {
        let latest = now.saturating_add(FAR_AHEAD);
        if stamp_time(load(self.words(), LAST_STAMP)) <= latest {
            return;
        }
        let stamp = next_stamp(0, now);
        for (_, table) in self.tables() {
            for slot in 0..table.pool.slots {
                let owner = table.owner(slot);
                if owner.stamp().is_some_and(|stamp| stamp_time(stamp) > latest) {
                    table.set_owner(slot, owner.since(stamp));
                }
            }
        }
        store(self.words(), LAST_STAMP, stamp);
    }

    /// Retires what a plan no longer has, and takes back what the one before reserved. Before the
    /// first rebuild, as all that follows from a plan: queues do not know yet.
    fn mark(&self, pools: &[Merged], plan: &Plan) {
        let words = self.map.words();
        for ((_, table), merged) in self.tables().zip(pools) {
            let planned = merged.planned.map(|place| &plan.pools[place]);
            // A plan can have fewer addresses of the same ranges.
            let mut left = planned.map_or(0, Pool::slots);
            for slot in 0..table.pool.slots {
                let Some(address) = table.pool.address(words, slot) else { continue };
                let twin = table.pool.twin(words, slot);
                let stays = left > 0 && planned.is_some_and(|pool| pool.still_has(address, twin));
                left -= u32::from(stays);
                let tenancy = table.unplanned(slot).with_flags(0, RETIRED);
                let retired = if stays { 0 } else { RETIRED };
                table.set_tenancy(slot, tenancy.with_flags(retired, 0));
            }
        }
    }

    /// Reserves what a plan reserves.
    fn reserve(&self, plan: &Plan) {
        for reservation in &plan.reservations {
            let place = self.locate(reservation.address);
            let place = place.and_then(|(pool, slot)| Some((self.table(pool)?, slot)));
            if let Some((table, slot)) = place {
                let tenancy = table.tenancy(slot);
                table.keep_last_user(slot, tenancy);
                let user = user_tag(&reservation.user);
                let tenancy = tenancy.with_flags(RESERVED | PLANNED, 0).with_user(user);
                table.set_tenancy(slot, tenancy);
            }
        }
    }
}

/// A number that no other file of this boot has.
fn file_id(boot: u64, old: Option<&State>) -> u64 {
    let seed = old.map_or(0, |old| old.layout.file_id);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    hash64(&[time.to_ne_bytes(), u64::from(std::process::id()).to_ne_bytes()].concat(), boot ^ seed)
}
