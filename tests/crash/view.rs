//! What a map holds, as a writer sees it that comes after a dead one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use vipool::Tick;
use vipool::map::{Leader, Map, OpenOptions, Probe};
use vipool::session::{Lease, SessionId, SessionKind};

/// A directory of its own, in memory where there is a tmpfs, removed when dropped.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("vipool-crash-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Every lease, by pool and slot.
pub type Held = BTreeMap<(u16, u32), Tenant>;

/// A lease, and what is known of the session that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub lease: Lease,
    user: Option<String>,
    client: Option<IpAddr>,
    leader: Option<Leader>,
    since: Tick,
}

impl Tenant {
    /// The same, of whom nothing is known but the lease.
    pub fn nameless(&self) -> Self {
        Self { user: None, client: None, leader: None, ..self.clone() }
    }
}

/// Nobody has sockets, and every leader lives.
pub struct Quiet;

impl Probe for Quiet {
    fn has_sockets(&mut self, _: IpAddr) -> bool {
        false
    }

    fn is_gone(&mut self, _: &Leader) -> bool {
        false
    }
}

pub fn id(number: u64) -> SessionId {
    SessionId::new(SessionKind::CommandLine, number).unwrap()
}

/// What the sessions of a map hold, and nothing is held twice.
pub fn held(map: &Map) -> Held {
    let rows = map.sessions().unwrap();
    let mut held = Held::new();
    for row in rows {
        for lease in row.leases.iter() {
            let user = row.user.clone();
            let (client, leader, since) = (row.client, row.leader, row.since);
            let tenant = Tenant { lease, user, client, leader, since };
            let other = held.insert((lease.pool, lease.slot), tenant);
            assert!(other.is_none(), "a slot is held twice");
        }
    }
    held
}

/// Does something on a copy of these bytes, as the next writer would, and answers what is held. Along the way: its counters agree with
/// its sessions, and every address that is not held, reserved or drained comes out exactly once.
pub fn recovered(map: &[u8], sessions: &[u8]) -> Held {
    let map = Map::from_bytes(map, sessions).unwrap();
    // Nothing else makes it whole: whether that is needed the map itself has to say.
    assert!(map.close_session(id(99_999_999), Tick::ZERO).is_err());
    let held = held(&map);
    let reader = map.reader().unwrap();
    let mut idle = 0;
    for (number, pool) in reader.pools().iter().enumerate() {
        let used = held.keys().filter(|(pool, _)| usize::from(*pool) == number).count();
        assert_eq!(pool.used as usize, used, "{pool:?}");
        let kept = pool.reserved + pool.drained;
        idle += pool.free + pool.cooling + pool.lingering;
        assert_eq!(pool.slots, pool.used + kept + pool.free + pool.cooling + pool.lingering);
    }
    // When everything has cooled, to sessions that nobody else has.
    let late = u32::MAX - 1;
    map.drain_server(false).unwrap();
    map.reap(Tick::from_secs(late), u32::MAX, &mut Quiet).unwrap();
    let mut out: BTreeSet<IpAddr> = held.values().map(|tenant| tenant.lease.address).collect();
    assert_eq!(out.len(), held.len(), "an address is held twice");
    for number in 0..=u64::from(idle) {
        let Ok(opened) =
            map.open_session(id(1 << 40 | number), &OpenOptions::default(), Tick::from_secs(late))
        else {
            break;
        };
        for lease in opened.leases.iter() {
            assert!(out.insert(lease.address), "{} comes out twice", lease.address);
        }
    }
    assert_eq!(out.len(), held.len() + idle as usize, "an address leaked");
    held
}
