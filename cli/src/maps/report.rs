//! A report contains the contents of a map as plain values. The commands print a report as tables,
//! or as JSON for scripts (docs/json.md).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use vipool::Tick;
use vipool::map::{Leases, Map, MapError, PoolStatus, Reader, SessionPer, SessionRow};
use vipool::system;

use super::unusable::{self, UnusableAddress};
use crate::system::caller;

/// Version of the JSON format. The version changes when a field is removed or the meaning of a
/// field changes. A new field does not change the version.
const SCHEMA: u32 = 1;

/// The data that `vipool status` prints.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Version of the JSON format.
    pub schema: u32,
    /// The directory of the map.
    pub map: PathBuf,
    /// Whether the server drains: no new session gets an address.
    pub draining: bool,
    /// A pool is low if it has fewer free addresses than this number. With 0, no pool is low.
    pub low_water: u32,
    /// The logons that one session serves: `logon` (one logon) or `user` (all logons of a user).
    pub session_per: &'static str,
    /// Number of all open sessions, even if the caller cannot see all of them in `sessions`.
    pub open_sessions: usize,
    /// The addresses that `vipool up` could not use.
    pub unusable: Vec<UnusableAddress>,
    /// The pools, in the map's order.
    pub pools: Vec<PoolReport>,
    /// The open sessions. For a caller without privileges, only the caller's own session.
    pub sessions: Vec<SessionReport>,
}

/// The counts of one pool.
#[derive(Debug, Serialize)]
pub struct PoolReport {
    pub name: String,
    /// `virtual-ip` or `loopback`.
    pub kind: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    pub addresses: u32,
    pub free: u32,
    pub used: u32,
    pub cooling: u32,
    pub lingering: u32,
    pub reserved: u32,
    pub drained: u32,
    /// Highest number of addresses in use at one time.
    pub peak: u32,
    /// Whether fewer addresses are free than the low-water mark.
    pub low: bool,
}

/// An open session. The user, the client and the leader are `None` if they are unknown, or if the
/// caller cannot read the file `sessions` beside the map.
#[derive(Debug, Serialize)]
pub struct SessionReport {
    pub session: String,
    pub user: Option<String>,
    pub client: Option<IpAddr>,
    /// The pid of the session leader: the session is closed when this process exits.
    pub leader: Option<u32>,
    pub virtual_ip: Vec<IpAddr>,
    pub loopback: Option<IpAddr>,
    /// The time at which the first address was leased.
    pub since: Timestamp,
}

impl Report {
    /// Reads the map in `directory`.
    ///
    /// If the caller may not open the map for writing, the only session in the report is the
    /// caller's own session, without its user, client and leader. If root reads a map on a
    /// read-only file system, the report has all sessions, but also without these values.
    ///
    /// # Errors
    /// The map does not exist or cannot be used.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let (reader, rows, is_privileged) = match Map::open(directory) {
            Ok(map) => (map.reader()?, map.sessions()?, true),
            Err(error) if is_permission_denied(&error) || is_on_read_only_file_system(&error) => {
                let reader = Reader::attach(directory)?;
                let rows = reader.sessions();
                (reader, rows, caller::is_root())
            }
            Err(error) => return Err(error.into()),
        };
        let open_sessions = rows.len();
        let session_per = reader.settings().session_per;
        let own_session = caller::own_session(session_per).ok();
        let is_visible = |row: &&SessionRow| is_privileged || Some(row.session) == own_session;
        let rows: Vec<_> = rows.iter().filter(is_visible).collect();
        let low_water = reader.settings().low_water;
        // An entry without a name belongs to a removed pool.
        let pools = reader.pools().into_iter().filter(|pool| !pool.name.is_empty());
        Ok(Self {
            schema: SCHEMA,
            map: directory.to_owned(),
            draining: reader.is_draining(),
            low_water,
            session_per: match session_per {
                SessionPer::Logon => "logon",
                SessionPer::User => "user",
            },
            open_sessions,
            unusable: unusable::read(directory),
            pools: pools.map(|pool| PoolReport::new(pool, low_water)).collect(),
            sessions: rows.iter().map(|row| SessionReport::new(&reader, row)).collect(),
        })
    }
}

/// Returns whether the map could not be opened because the caller has no permission.
pub fn is_permission_denied(error: &MapError) -> bool {
    matches!(error, MapError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Returns whether the map could not be opened because its file system is read-only.
fn is_on_read_only_file_system(error: &MapError) -> bool {
    matches!(error, MapError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
}

impl PoolReport {
    fn new(pool: PoolStatus, low_water: u32) -> Self {
        Self {
            low: pool.free < low_water,
            family: if pool.ipv4 { "ipv4" } else { "ipv6" },
            name: pool.name,
            kind: if pool.loopback { "loopback" } else { "virtual-ip" },
            addresses: pool.slots,
            free: pool.free,
            used: pool.leased,
            cooling: pool.cooling,
            lingering: pool.lingering,
            reserved: pool.reserved,
            drained: pool.drained,
            peak: pool.peak,
        }
    }

    /// Returns the number of addresses in each state.
    pub fn state_counts(&self) -> [(&'static str, u32); 6] {
        [
            ("free", self.free),
            ("used", self.used),
            ("cooling", self.cooling),
            ("lingering", self.lingering),
            ("reserved", self.reserved),
            ("drained", self.drained),
        ]
    }
}

impl SessionReport {
    fn new(reader: &Reader, row: &SessionRow) -> Self {
        let addresses = reader.addresses(&row.leases);
        let v4 = addresses.v4.map(IpAddr::from);
        Self {
            session: row.session.to_string(),
            user: row.user.clone(),
            client: row.client,
            leader: row.leader.map(|leader| leader.pid),
            virtual_ip: v4.into_iter().chain(addresses.v6.map(IpAddr::from)).collect(),
            loopback: addresses.loopback.map(IpAddr::from),
            since: wall_clock(row.since),
        }
    }

    /// Returns the addresses as one line, with the virtual IPs first.
    pub fn addresses(&self) -> String {
        let addresses = self.virtual_ip.iter().chain(&self.loopback);
        addresses.map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Returns the kind of address that a session lacks although the map has pools of this kind.
///
/// `leases` are the leases of the session. The kinds are "virtual IP" and "loopback address".
/// Returns "address" if the session lacks both, and `None` if it lacks neither.
pub fn missing_address(reader: &Reader, leases: &Leases) -> Option<&'static str> {
    let addresses = reader.addresses(leases);
    let pools = reader.pools();
    let has_pool =
        |loopback: bool| pools.iter().any(|pool| pool.slots > 0 && pool.loopback == loopback);
    let lacks_virtual_ip = has_pool(false) && addresses.v4.is_none() && addresses.v6.is_none();
    let lacks_loopback = has_pool(true) && addresses.loopback.is_none();
    match (lacks_virtual_ip, lacks_loopback) {
        (true, true) => Some("address"),
        (true, false) => Some("virtual IP"),
        (false, true) => Some("loopback address"),
        (false, false) => None,
    }
}

/// Converts a tick (seconds since boot) to wall-clock time, with the current setting of the clock.
///
/// If the tick is not in the future, the result is not in the future either.
pub fn wall_clock(tick: Tick) -> Timestamp {
    // Read the wall clock before the time since boot. A delay between the two reads can then only
    // make the computed boot time earlier.
    let now = Timestamp::now();
    wall_clock_at(tick, now, system::time_since_boot())
}

/// Converts `tick` with the current time `now` and the time since boot `elapsed`.
///
/// Rounds the boot time down to whole seconds, because the computed boot time varies slightly from
/// call to call. Rounding up could put recent events into the future, and `vipool who` would not
/// find these events.
fn wall_clock_at(tick: Tick, now: Timestamp, elapsed: Duration) -> Timestamp {
    let boot_nanoseconds = now.as_nanosecond() - elapsed.as_nanos() as i128;
    let boot_seconds = boot_nanoseconds.div_euclid(1_000_000_000) as i64;
    Timestamp::from_second(boot_seconds + i64::from(tick.as_secs()))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_ticks_are_never_in_the_future() {
        let boot_time = Timestamp::from_second(1_700_000_000).unwrap();
        let milliseconds = Duration::from_millis;
        for boot_offset in [0, 1, 499, 500, 501, 999] {
            for elapsed in [0, 1, 499, 500, 999, 7_000, 7_499, 7_999].map(milliseconds) {
                let now = boot_time + milliseconds(boot_offset) + elapsed;
                let converted =
                    wall_clock_at(Tick::from_secs(elapsed.as_secs() as u32), now, elapsed);
                let age = now.duration_since(converted).as_millis();
                assert!((0..2000).contains(&age), "{boot_offset} {elapsed:?}: {age}");
                let later = now + milliseconds(2_345);
                let later_elapsed = elapsed + milliseconds(2_345);
                assert_eq!(
                    converted,
                    wall_clock_at(Tick::from_secs(elapsed.as_secs() as u32), later, later_elapsed)
                );
            }
        }
    }
}
