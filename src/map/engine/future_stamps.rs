//! Correction of stamps in the future.
//!
//! A stamp contains a time, for example the time of the release of a slot. A caller that passes a
//! wrong time, for example from another time namespace, can create a stamp in the future. Each new
//! stamp is higher than all earlier stamps, so all later stamps are in the future too. Without a
//! correction, addresses would start to cool down only at that future time.

use super::image::MapImage;
use super::writer::MapWriter;
use crate::Tick;
use crate::map::format::header::LAST_STAMP;
use crate::map::format::slot::{next_stamp, stamp_time};

/// A stamp is wrong if it is more than this number of seconds in the future. All processes of a
/// machine have the same clock, so this limit is generous.
const MAX_FUTURE_SECONDS: u32 = 3600;

/// Returns whether a stamp is too far in the future.
fn is_wrong(stamp: u64, now: Tick) -> bool {
    stamp_time(stamp) > now.saturating_add(MAX_FUTURE_SECONDS)
}

impl MapImage {
    /// Returns whether the map has stamps that are too far in the future.
    pub(crate) fn has_future_stamps(&self, now: Tick) -> bool {
        is_wrong(self.header(LAST_STAMP), now)
    }
}

impl MapWriter<'_> {
    /// Replaces stamps that are too far in the future by stamps with the time `now`.
    ///
    /// Keeps the order of all stamps, so the queues stay sorted. A new stamp can therefore be up
    /// to [`MAX_FUTURE_SECONDS`] after `now`. If the writer dies, the next call completes the
    /// correction.
    pub(crate) fn correct_future_stamps(&self, now: Tick) {
        if !self.has_future_stamps(now) {
            return;
        }
        let mut last_stamp = 0;
        let mut wrong_stamps = Vec::new();
        for (_, table) in self.table_writers() {
            for slot in 0..table.pool.slot_count {
                match table.owner(slot).stamp() {
                    Some(stamp) if is_wrong(stamp, now) => wrong_stamps.push((stamp, table, slot)),
                    Some(stamp) => last_stamp = last_stamp.max(stamp),
                    None => {}
                }
            }
        }
        wrong_stamps.sort_unstable_by_key(|(stamp, ..)| *stamp);
        for (_, table, slot) in wrong_stamps {
            last_stamp = next_stamp(last_stamp, now);
            table.store_owner(slot, table.owner(slot).with_stamp(last_stamp));
        }
        self.store_header(LAST_STAMP, last_stamp);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::map::engine::writer::WritableMap;
    use crate::map::replan::build::build_in_memory;
    use crate::map::types::plan::{OpenOptions, Plan, Settings};
    use crate::pool::{Pool, PoolKind};
    use crate::session::SessionId;

    const NOW: Tick = Tick::from_secs(500);

    /// Returns a map in which one session was opened for each of `times`, and was closed at that
    /// time.
    fn map_with_releases(times: &[u32]) -> WritableMap {
        let ranges = ["10.0.0.0/24".parse().unwrap()];
        let pool = Pool::new("default", PoolKind::VirtualIp, &ranges, u32::MAX).unwrap();
        let settings = Settings { cool_down: 60, ..Settings::without_cool_down() };
        let plan = Plan { pools: vec![pool], settings, ..Plan::default() };
        let mut map = build_in_memory(&plan).unwrap();
        let sessions: Vec<SessionId> =
            (1..=times.len()).map(|number| number.to_string().parse().unwrap()).collect();
        for session in &sessions {
            let options = OpenOptions::default();
            map.begin().open_session_and_commit(*session, &options, NOW).unwrap();
        }
        for (session, time) in sessions.iter().zip(times) {
            map.begin().close_session_and_commit(*session, Tick::from_secs(*time)).unwrap();
        }
        map
    }

    #[test]
    fn corrected_stamps_are_unique_and_keep_their_order() {
        let mut map = map_with_releases(&[499, 500, 500, 1_000_000_000, 500, 501]);
        let writer = map.writer();
        writer.correct_future_stamps(NOW);
        let table = writer.table_writer(0).unwrap();
        let stamps: Vec<u64> = (0..6).map(|slot| table.owner(slot).stamp().unwrap()).collect();
        assert!(stamps.is_sorted_by(|stamp, next_stamp| stamp < next_stamp), "{stamps:x?}");
        let times: Vec<u32> = stamps.iter().map(|stamp| stamp_time(*stamp).as_secs()).collect();
        assert_eq!(times, [499, 500, 500, 500, 500, 500]);
        assert!(writer.new_stamp(NOW) > stamps[5]);
    }

    #[test]
    fn an_interrupted_correction_is_completed() {
        let mut map = map_with_releases(&[500, 1_000_000_000, 500, 500]);
        let writer = map.writer();
        let table = writer.table_writer(0).unwrap();
        // A writer corrects the stamp of the second release and dies.
        let stamp_of_first_release = table.owner(0).stamp().unwrap();
        let corrected_stamp = next_stamp(stamp_of_first_release, NOW);
        table.store_owner(1, table.owner(1).with_stamp(corrected_stamp));
        writer.correct_future_stamps(NOW);
        let stamps: Vec<u64> = (0..4).map(|slot| table.owner(slot).stamp().unwrap()).collect();
        assert!(stamps.is_sorted_by(|stamp, next_stamp| stamp < next_stamp), "{stamps:x?}");
        assert_eq!(stamp_time(stamps[3]), NOW);
    }

    #[test]
    fn correct_stamps_do_not_change() {
        let mut map = map_with_releases(&[400, 500, 500 + MAX_FUTURE_SECONDS]);
        let writer = map.writer();
        let owners = || -> Vec<u64> {
            let table = writer.table_writer(0).unwrap();
            (0..3).map(|slot| table.owner(slot).to_word()).collect()
        };
        let owners_before_correction = owners();
        writer.correct_future_stamps(NOW);
        assert_eq!(owners(), owners_before_correction);
    }
}
