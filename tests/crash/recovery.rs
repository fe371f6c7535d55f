//! Helpers that read the leases of a map, and that recover a copy of a map as the next writer does
//! after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use vipool::Tick;
use vipool::map::{Leader, Map, OpenOptions, Probe};
use vipool::session::{Lease, SessionId, SessionKind};

/// A directory that is removed when the value is dropped. The directory is in `/dev/shm` if
/// `/dev/shm` exists.
pub struct TestDirectory(pub PathBuf);

impl TestDirectory {
    pub fn new(name: &str) -> Self {
        let shared_memory = Path::new("/dev/shm");
        let parent =
            if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("vipool-crash-{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The leases of a map, by pool number and slot number.
pub type LeaseTable = BTreeMap<(u16, u32), LeaseRecord>;

/// A lease and the attributes of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    pub lease: Lease,
    pub user: Option<String>,
    client: Option<IpAddr>,
    leader: Option<Leader>,
    since: Tick,
}

/// Reports no sockets and only live leaders.
pub struct IdleProbe;

impl Probe for IdleProbe {
    fn has_sockets(&mut self, _: IpAddr) -> bool {
        false
    }

    fn has_exited(&mut self, _: &Leader) -> bool {
        false
    }
}

/// Returns the id of the session with this number.
pub fn session_id(number: u64) -> SessionId {
    SessionId::new(SessionKind::CommandLine, number).unwrap()
}

/// Returns the leases of all sessions, and checks that no slot is leased twice.
pub fn all_leases(map: &Map) -> LeaseTable {
    let rows = map.sessions().unwrap();
    let mut table = LeaseTable::new();
    for row in rows {
        for lease in row.leases.iter() {
            let user = row.user.clone();
            let (client, leader, since) = (row.client, row.leader, row.since);
            let record = LeaseRecord { lease, user, client, leader, since };
            let previous_record = table.insert((lease.pool, lease.slot), record);
            assert!(previous_record.is_none(), "a slot is leased twice");
        }
    }
    table
}

/// Recovers a copy of a map as the next writer would, and returns the leases.
///
/// `map` and `sessions` are the contents of the two files. The function also checks that the
/// counters match the sessions. It checks that every address can be allocated exactly once, unless
/// the address is leased, reserved or drained.
pub fn recover_copy(map: &[u8], sessions: &[u8]) -> LeaseTable {
    let map = Map::from_bytes(map, sessions).unwrap();
    // This close fails, because the session does not exist. Like every operation, it first recovers
    // the map if necessary.
    assert!(map.close_session(session_id(99_999_999), Tick::ZERO).is_err());
    let leases = all_leases(&map);
    let reader = map.reader().unwrap();
    let mut unleased_count = 0;
    for (pool_number, pool) in reader.pools().iter().enumerate() {
        let lease_count =
            leases.keys().filter(|(number, _)| usize::from(*number) == pool_number).count();
        assert_eq!(pool.leased as usize, lease_count, "{pool:?}");
        let withheld_count = pool.reserved + pool.drained;
        unleased_count += pool.free + pool.cooling + pool.lingering;
        assert_eq!(
            pool.slots,
            pool.leased + withheld_count + pool.free + pool.cooling + pool.lingering
        );
    }
    // Allocate all addresses that are free after the longest cool-down.
    let seconds_after_cool_down = u32::MAX - 1;
    map.drain_server(false).unwrap();
    map.reap(Tick::from_secs(seconds_after_cool_down), u32::MAX, &mut IdleProbe).unwrap();
    let mut allocated_addresses: BTreeSet<IpAddr> =
        leases.values().map(|record| record.lease.address).collect();
    assert_eq!(allocated_addresses.len(), leases.len(), "an address is leased twice");
    for number in 0..=u64::from(unleased_count) {
        let Ok(opened) = map.open_session(
            session_id(1 << 40 | number),
            &OpenOptions::default(),
            Tick::from_secs(seconds_after_cool_down),
        ) else {
            break;
        };
        for lease in opened.leases.iter() {
            assert!(
                allocated_addresses.insert(lease.address),
                "{} is allocated twice",
                lease.address
            );
        }
    }
    assert_eq!(
        allocated_addresses.len(),
        leases.len() + unleased_count as usize,
        "an address leaked"
    );
    leases
}
