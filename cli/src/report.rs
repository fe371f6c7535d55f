//! What a map says, as plain values: the source of every table and of the JSON that scripts read
//! (docs/json.md).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use vipool::map::{Map, MapError, PoolStatus, Reader, SessionRow, Tick};
use vipool::os::clock;
use vipool::session::SessionId;

/// Raised when a field changes its meaning or goes; new fields do not raise it.
const SCHEMA: u32 = 1;

/// All that `status` shows.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Version of this form.
    pub schema: u32,
    /// The directory of the map.
    pub map: PathBuf,
    /// Whether no new session gets an address.
    pub draining: bool,
    /// A pool with fewer free addresses than this is low; 0 where nobody wants to know.
    pub low_water: u32,
    /// How many sessions are open in all.
    pub open_sessions: usize,
    /// The pools, in the map's order.
    pub pools: Vec<PoolReport>,
    /// The open sessions; without privileges only one's own.
    pub sessions: Vec<SessionReport>,
}

/// The numbers of one pool.
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
    /// The most that were used at once.
    pub peak: u32,
    /// Whether fewer are free than the low-water mark.
    pub low: bool,
}

/// One open session.
#[derive(Debug, Serialize)]
pub struct SessionReport {
    pub session: String,
    /// Null where the private file cannot be read.
    pub user: Option<String>,
    pub client: Option<IpAddr>,
    /// The pid of the process that stands for the session.
    pub leader: Option<u32>,
    pub virtual_ip: Vec<IpAddr>,
    pub loopback: Option<IpAddr>,
    /// When its first address was given.
    pub since: Timestamp,
}

impl Report {
    /// Reads the map in a directory: with names where the caller may, and otherwise only what is
    /// said of the sessions of `own`.
    pub fn read(directory: &Path, own: Option<SessionId>) -> anyhow::Result<Self> {
        let (reader, rows, may_see_all) = match Map::open(directory) {
            Ok(map) => (map.reader()?, map.sessions()?, true),
            Err(error) if is_denied(&error) => {
                let reader = Reader::attach(directory)?;
                let rows = reader.sessions();
                (reader, rows, false)
            }
            Err(error) => return Err(error.into()),
        };
        let open_sessions = rows.len();
        let shown = |row: &&SessionRow| may_see_all || Some(row.session) == own;
        let rows: Vec<_> = rows.iter().filter(shown).collect();
        let low_water = reader.settings().low_water;
        // A number without a name is that of a pool that is gone.
        let pools = reader.pools().into_iter().filter(|pool| !pool.name.is_empty());
        Ok(Self {
            schema: SCHEMA,
            map: directory.to_owned(),
            draining: reader.is_draining(),
            low_water,
            open_sessions,
            pools: pools.map(|pool| PoolReport::new(pool, low_water)).collect(),
            sessions: rows.iter().map(|row| SessionReport::new(&reader, row)).collect(),
        })
    }
}

/// Whether a map cannot be opened for writing because this user may not.
pub fn is_denied(error: &MapError) -> bool {
    matches!(error, MapError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::PermissionDenied)
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
            used: pool.used,
            cooling: pool.cooling,
            lingering: pool.lingering,
            reserved: pool.reserved,
            drained: pool.drained,
            peak: pool.peak,
        }
    }

    /// How many addresses are doing what.
    pub fn states(&self) -> [(&'static str, u32); 6] {
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

    /// Its addresses in one line, virtual IPs first.
    pub fn addresses(&self) -> String {
        let all = self.virtual_ip.iter().chain(&self.loopback);
        all.map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// The wall-clock time of a second after boot, as the clock is set now; never in the future.
pub fn wall_clock(tick: Tick) -> Timestamp {
    // In this order: what passes between the two readings may not make the start any later.
    let now = Timestamp::now();
    wall_clock_of(tick, now, clock::since_boot())
}

/// The time of that second after boot, where it is `now` and so much time passed since boot.
///
/// The start is taken in whole seconds, so that all times of a table agree, and downwards: what
/// happened just now would lie ahead otherwise, and `who` would not find it.
fn wall_clock_of(tick: Tick, now: Timestamp, elapsed: Duration) -> Timestamp {
    let boot = now.as_nanosecond() - elapsed.as_nanos() as i128;
    let boot = boot.div_euclid(1_000_000_000) as i64;
    Timestamp::from_second(boot + i64::from(tick)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_just_now_is_never_ahead() {
        let boot = Timestamp::from_second(1_700_000_000).unwrap();
        let milliseconds = Duration::from_millis;
        for started in [0, 1, 499, 500, 501, 999] {
            for elapsed in [0, 1, 499, 500, 999, 7_000, 7_499, 7_999].map(milliseconds) {
                let now = boot + milliseconds(started) + elapsed;
                let told = wall_clock_of(elapsed.as_secs() as Tick, now, elapsed);
                let behind = now.duration_since(told).as_millis();
                assert!((0..2000).contains(&behind), "{started} {elapsed:?}: {behind}");
                let later = now + milliseconds(2_345);
                let again = elapsed + milliseconds(2_345);
                assert_eq!(told, wall_clock_of(elapsed.as_secs() as Tick, later, again));
            }
        }
    }
}
