//! What the fuzz targets share.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;

use tempfile::TempDir;
use vipool::map::{Leader, MAP_FILE, Map, OpenOptions, Plan, Probe, Reader, SESSIONS_FILE};
use vipool::pool::{Pool, PoolKind};
use vipool::session::{Handle, SessionId, SessionKind};

/// Bytes made from fuzzer input: the input itself, or a valid file with the changes that the
/// input spells, so that what is deep inside is reached too. Each change is three bytes: where
/// (two, within the length) and what to flip.
pub fn damaged(input: &[u8], valid: &[u8]) -> Vec<u8> {
    let Some((first, rest)) = input.split_first() else { return Vec::new() };
    if first % 4 == 0 {
        return rest.to_vec();
    }
    let mut bytes = valid.to_vec();
    for change in rest.chunks_exact(3) {
        // Beginnings hold the headers, and matter most.
        let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let length = if first % 4 == 1 { bytes.len().min(256) } else { bytes.len() };
        if length > 0 {
            bytes[place % length] ^= change[2];
        }
    }
    if first % 4 == 3 {
        bytes.truncate(bytes.len() * usize::from(*first) / 256);
    }
    bytes
}

/// The files of a small map with sessions in every state, in a directory of its own.
struct Template {
    directory: TempDir,
    map: Vec<u8>,
    sessions: Vec<u8>,
    handle: Handle,
}

impl Template {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let pool = |name, kind, range: &str| {
            Pool::new(name, kind, &[range.parse().expect("a range")], 64).expect("a pool")
        };
        let plan = Plan {
            pools: vec![
                pool("default", PoolKind::VirtualIp, "10.0.0.0/27"),
                pool("default", PoolKind::VirtualIp, "2001:db8::/64"),
                pool("loopback", PoolKind::Loopback, "127.3.4.0/28"),
            ],
            ..Plan::default()
        };
        let map = Map::create(directory.path(), &plan).expect("a map can be made");
        let opened = (1..8).map(|number| {
            let user = format!("user{}", number % 3);
            let client = Some("192.0.2.7".parse().expect("an address"));
            let leader = Some(Leader { pid: 1, start_time: 7, pid_namespace: 0 });
            let options =
                OpenOptions { user: Some(&user), client, leader, ..OpenOptions::default() };
            map.open_session(session(number), &options, 1).expect("there is room").handle
        });
        let handle = opened.last().expect("some");
        map.close_session(session(3), 2).expect("open");
        map.drain(&"10.0.0.9".parse().expect("a range"), 2).expect("a map");
        map.reserve("10.0.0.12".parse().expect("an address"), "user9", 2).expect("in the pool");
        drop(map);
        let read = |name| fs::read(directory.path().join(name)).expect("the map is there");
        let (map, sessions) = (read(MAP_FILE), read(SESSIONS_FILE));
        Self { directory, map, sessions, handle }
    }

    /// Writes over a file in place: its owner stays, and who has it mapped sees it.
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.directory.path().join(name);
        let mut file = fs::OpenOptions::new().write(true).open(path).expect("the map is there");
        file.write_all(bytes).expect("it can be written");
        file.set_len(bytes.len() as u64).expect("it can be cut");
    }
}

fn session(number: u64) -> SessionId {
    SessionId::new(SessionKind::CommandLine, number).expect("small")
}

/// Says that everything is gone, so that all that can be freed is.
struct NothingLives;

impl Probe for NothingLives {
    fn has_sockets(&mut self, _address: IpAddr) -> bool {
        false
    }
    fn is_gone(&mut self, _leader: &Leader) -> bool {
        true
    }
}

/// Damages one of the two files as the input spells, and does everything with the map that can be
/// done: before, beside and after.
pub fn use_damaged(name: &str, input: &[u8]) {
    thread_local!(static TEMPLATE: Template = Template::new());
    TEMPLATE.with(|template| {
        let valid = if name == MAP_FILE { &template.map } else { &template.sessions };
        template.put(MAP_FILE, &template.map);
        template.put(SESSIONS_FILE, &template.sessions);
        // Half of all inputs strike while the map is in use.
        let attached = Reader::attach(template.directory.path()).expect("it is whole");
        let writer = Map::open(template.directory.path()).expect("it is whole");
        let bytes = damaged(input, valid);
        // A file that is in use is never cut.
        let mut in_use = bytes.clone();
        in_use.resize(valid.len(), 0);
        template.put(name, &in_use);
        read_all(&attached, &template.handle);
        write_all(&writer);
        drop((attached, writer));
        template.put(MAP_FILE, &template.map);
        template.put(SESSIONS_FILE, &template.sessions);
        template.put(name, &bytes);
        if let Ok(reader) = Reader::attach(template.directory.path()) {
            read_all(&reader, &template.handle);
        }
        if let Ok(writer) = Map::open(template.directory.path()) {
            write_all(&writer);
        }
    });
}

fn read_all(reader: &Reader, handle: &Handle) {
    for number in 0..10 {
        if let Some((handle, leases)) = reader.find(session(number)) {
            let _ = (reader.is_live(&handle), reader.addresses(&leases));
        }
    }
    let _ = (reader.leases_of(handle), reader.is_superseded(), reader.settings());
    let _ = reader.kind_of("10.0.0.5".parse().expect("an address"));
    let _ = (reader.pools(), reader.sessions(), reader.policy().programs().count());
}

fn write_all(map: &Map) {
    let _ = map.sessions();
    let _ = map.open_session(session(20), &OpenOptions::default(), 9);
    let options = OpenOptions { user: Some("user0"), ..OpenOptions::default() };
    let _ = map.open_session(session(21), &options, 9);
    let _ = map.close_session(session(2), 9);
    let _ = map.undrain(&"10.0.0.0/27".parse().expect("a range"), 9);
    let _ = map.unreserve("10.0.0.12".parse().expect("an address"), 9);
    let _ = map.reap(9, 16, &mut NothingLives);
    // Not earlier: what is done before finds the damage unless the damage says so itself.
    let _ = map.recover();
    // Whatever the bytes are, no address is held by two.
    let mut holders = HashMap::new();
    for row in map.sessions().unwrap_or_default() {
        for lease in row.leases.iter() {
            let holder = holders.insert((lease.pool, lease.slot), row.session);
            assert!(holder.is_none_or(|other| other == row.session));
        }
    }
}
