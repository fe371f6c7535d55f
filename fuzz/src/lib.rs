//! Shared code of the fuzz targets: corrupts valid files, and runs operations on a map with a
//! corrupted file.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;

use tempfile::TempDir;
use vipool::Tick;
use vipool::map::{Leader, MAP_FILE, Map, OpenOptions, Plan, Probe, Reader, SESSIONS_FILE};
use vipool::pool::{Pool, PoolKind};
use vipool::session::{Handle, SessionId, SessionKind};

/// Derives a file from fuzzer input.
///
/// The first byte of the input is the mode. Depending on the mode, the file is the rest of the
/// input, a changed copy of `valid`, or a changed and truncated copy. With a copy, the fuzzer also
/// reaches the code after the header checks.
///
/// Each change takes three bytes of input: an offset (two bytes) and a mask of the bits to flip.
/// The offset is taken modulo the length of the part that the mode changes.
pub fn corrupt(input: &[u8], valid: &[u8]) -> Vec<u8> {
    let Some((mode, rest)) = input.split_first() else { return Vec::new() };
    if mode % 4 == 0 {
        return rest.to_vec();
    }
    let mut bytes = valid.to_vec();
    for change in rest.chunks_exact(3) {
        let offset = usize::from(u16::from_le_bytes([change[0], change[1]]));
        // Mode 1 changes only the first 256 bytes, which contain the header.
        let length = if mode % 4 == 1 { bytes.len().min(256) } else { bytes.len() };
        if length > 0 {
            bytes[offset % length] ^= change[2];
        }
    }
    if mode % 4 == 3 {
        bytes.truncate(bytes.len() * usize::from(*mode) / 256);
    }
    bytes
}

/// A small map with free, leased, cooling, reserved and drained slots, in a temporary directory.
struct Template {
    directory: TempDir,
    /// The valid bytes of the map file.
    map: Vec<u8>,
    /// The valid bytes of the sessions file.
    sessions: Vec<u8>,
    /// The handle of an open session.
    handle: Handle,
}

impl Template {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let pool = |name, kind, range: &str| {
            Pool::new(name, kind, &[range.parse().expect("a range")], 64).expect("a pool")
        };
        let plan = Plan::new([
            pool("default", PoolKind::VirtualIp, "10.0.0.0/27"),
            pool("default", PoolKind::VirtualIp, "2001:db8::/64"),
            pool("loopback", PoolKind::Loopback, "127.3.4.0/28"),
        ])
        .with_settings(vipool::map::Settings::without_cool_down());
        let map = Map::create(directory.path(), &plan).expect("a valid plan");
        let handles = (1..8).map(|number| {
            let user = format!("user{}", number % 3);
            let client = Some("192.0.2.7".parse().expect("an address"));
            let leader = Some(Leader { pid: 1, start_time: 7, pid_namespace: 0 });
            let options =
                OpenOptions::new().with_user(user.as_str()).with_client(client).with_leader(leader);
            map.open_session(session_id(number), &options, Tick::from_secs(1))
                .expect("a free address")
                .handle
        });
        let handle = handles.last().expect("seven sessions");
        map.close_session(session_id(3), Tick::from_secs(2)).expect("an open session");
        map.drain(&"10.0.0.9".parse().expect("a range"), Tick::from_secs(2)).expect("a valid map");
        map.reserve("10.0.0.12".parse().expect("an address"), "user9", Tick::from_secs(2))
            .expect("an address of the pool");
        drop(map);
        let read_file = |name| fs::read(directory.path().join(name)).expect("the file exists");
        let (map, sessions) = (read_file(MAP_FILE), read_file(SESSIONS_FILE));
        Self { directory, map, sessions, handle }
    }

    /// Overwrites a file in place. The file keeps its owner, and existing mappings see the change.
    fn overwrite(&self, file_name: &str, bytes: &[u8]) {
        let path = self.directory.path().join(file_name);
        let mut file = fs::OpenOptions::new().write(true).open(path).expect("the file exists");
        file.write_all(bytes).expect("the file is writable");
        file.set_len(bytes.len() as u64).expect("the file can be truncated");
    }
}

fn session_id(number: u64) -> SessionId {
    SessionId::new(SessionKind::CommandLine, number).expect("a small number")
}

/// Reports no sockets and only dead leaders, so that `reap` frees as much as possible.
struct ExitedLeaderProbe;

impl Probe for ExitedLeaderProbe {
    fn has_sockets(&mut self, _address: IpAddr) -> bool {
        false
    }
    fn has_exited(&mut self, _leader: &Leader) -> bool {
        true
    }
}

/// Corrupts the map file or the sessions file of a valid map. Then reads and changes the map: first
/// through a reader and a writer that were opened before the corruption, then through new ones.
pub fn exercise_corrupted_file(file_name: &str, input: &[u8]) {
    thread_local!(static TEMPLATE: Template = Template::new());
    TEMPLATE.with(|template| {
        let valid = if file_name == MAP_FILE { &template.map } else { &template.sessions };
        template.overwrite(MAP_FILE, &template.map);
        template.overwrite(SESSIONS_FILE, &template.sessions);
        let reader = Reader::attach(template.directory.path()).expect("a valid map");
        let writer = Map::open(template.directory.path()).expect("a valid map");
        let bytes = corrupt(input, valid);
        // A mapped file must not shrink, because its readers would receive SIGBUS.
        let mut resized = bytes.clone();
        resized.resize(valid.len(), 0);
        template.overwrite(file_name, &resized);
        run_all_reads(&reader, &template.handle);
        run_all_writes(&writer);
        drop((reader, writer));
        template.overwrite(MAP_FILE, &template.map);
        template.overwrite(SESSIONS_FILE, &template.sessions);
        template.overwrite(file_name, &bytes);
        if let Ok(reader) = Reader::attach(template.directory.path()) {
            run_all_reads(&reader, &template.handle);
        }
        if let Ok(writer) = Map::open(template.directory.path()) {
            run_all_writes(&writer);
        }
    });
}

fn run_all_reads(reader: &Reader, handle: &Handle) {
    for number in 0..10 {
        if let Some((handle, leases)) = reader.find(session_id(number)) {
            let _ = (reader.is_live(&handle), reader.addresses(&leases));
        }
    }
    let _ = (reader.leases_of(handle), reader.is_superseded(), reader.settings());
    let _ = reader.pool_kind("10.0.0.5".parse().expect("an address"));
    let _ = (reader.pools(), reader.sessions(), reader.policy().programs().count());
}

fn run_all_writes(map: &Map) {
    let _ = map.sessions();
    let _ = map.open_session(session_id(20), &OpenOptions::default(), Tick::from_secs(9));
    let options = OpenOptions::new().with_user("user0");
    let _ = map.open_session(session_id(21), &options, Tick::from_secs(9));
    let _ = map.close_session(session_id(2), Tick::from_secs(9));
    let _ = map.undrain(&"10.0.0.0/27".parse().expect("a range"), Tick::from_secs(9));
    let _ = map.unreserve("10.0.0.12".parse().expect("an address"), Tick::from_secs(9));
    let _ = map.reap(Tick::from_secs(9), 16, &mut ExitedLeaderProbe);
    // Recover last, so that the operations above find the corruption.
    let _ = map.recover();
    // Whatever the bytes are, no two sessions lease the same address.
    let mut holders = HashMap::new();
    for row in map.sessions().unwrap_or_default() {
        for lease in row.leases.iter() {
            let holder = holders.insert((lease.pool, lease.slot), row.session);
            assert!(holder.is_none_or(|holder| holder == row.session));
        }
    }
}
