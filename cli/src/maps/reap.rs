//! Reaps a whole map: frees cooled addresses, and closes sessions whose leader has exited.

use anyhow::Context;
use serde::Serialize;
use vipool::Tick;
use vipool::map::Map;
use vipool::system::SystemProbe;

/// The budget of one call of [`Map::reap`]. The call holds the lock, but examining this many slots
/// takes less than a millisecond.
const SLOTS_PER_LOCK: u32 = 1024;

/// The changes that [`reap_all`] made.
#[derive(Default, Serialize)]
pub struct ReapSummary {
    /// Addresses that became free.
    pub freed: u32,
    /// Cooled addresses with sockets: the largest number that one call of [`Map::reap`] found.
    pub lingering: u32,
    /// Sessions that were closed because their leader exited.
    pub closed: Vec<String>,
}

/// Frees the cooled addresses, and closes the sessions whose leader has exited.
///
/// With the setting `check-in-use`, an address that still has sockets is not freed. A session is
/// closed only if a reap at least 10 seconds before also found that its leader had exited.
///
/// # Errors
/// The kernel's socket tables cannot be read, or the map cannot be locked.
pub fn reap_all(map: &Map) -> anyhow::Result<ReapSummary> {
    let mut probe = SystemProbe::new().context("cannot read the kernel's socket tables")?;
    let mut summary = ReapSummary::default();
    loop {
        let step = map.reap(Tick::now(), SLOTS_PER_LOCK, &mut probe)?;
        summary.freed += step.freed;
        summary.lingering = summary.lingering.max(step.lingering);
        summary.closed.extend(step.closed.iter().map(|session| session.to_string()));
        if !step.more {
            return Ok(summary);
        }
    }
}
