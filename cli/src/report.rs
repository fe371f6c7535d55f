//! What a map says, as plain values: the source of every table and of the JSON that scripts read
//! (docs/json.md).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use vipool::map::{Map, MapError, PoolStatus, Reader, SessionRow, Tick};
use vipool::os::clock;
use vipool::session::SessionId;

/// Raised when a field changes its meaning or goes; new fields do not raise it.
const SCHEMA: u32 = 1;

/// All that `status` shows.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub schema: u32,
    /// The directory of the map.
    pub map: PathBuf,
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
    pub addresses: u32,
    pub free: u32,
    pub used: u32,
    pub cooling: u32,
    pub lingering: u32,
    pub reserved: u32,
    pub drained: u32,
    pub peak: u32,
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
        let (reader, rows) = match Map::open(directory) {
            Ok(map) => (map.reader()?, map.sessions()?),
            Err(error) if is_denied(&error) => {
                let reader = Reader::attach(directory)?;
                let mut rows = reader.sessions();
                rows.retain(|row| Some(row.session) == own);
                (reader, rows)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            schema: SCHEMA,
            map: directory.to_owned(),
            pools: reader.pools().into_iter().map(PoolReport::from).collect(),
            sessions: rows.iter().map(|row| SessionReport::new(&reader, row)).collect(),
        })
    }
}

/// Whether a map cannot be opened for writing because this user may not.
pub fn is_denied(error: &MapError) -> bool {
    matches!(error, MapError::Io { source, .. }
        if source.kind() == std::io::ErrorKind::PermissionDenied)
}

impl From<PoolStatus> for PoolReport {
    fn from(pool: PoolStatus) -> Self {
        Self {
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

/// The wall-clock time of a second after boot, as the clock is set now.
pub fn wall_clock(tick: Tick) -> Timestamp {
    let ago = i64::from(clock::now()) - i64::from(tick);
    let now = Timestamp::now().round(jiff::Unit::Second).unwrap_or_else(|_| Timestamp::now());
    now.checked_sub(SignedDuration::from_secs(ago)).unwrap_or(now)
}
