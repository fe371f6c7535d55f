//! The state of the machine that the tests compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use vipool::client_file;
use vipool::map::{Map, SlotState};

use crate::machine::{
    HISTORY_DIRECTORY, MAP_DIRECTORY, RESERVED_PORTS_FILE, file_paths, interface_addresses,
    private_map_directory,
};

/// The open sessions with their users and addresses.
pub type Sessions = BTreeMap<String, (Option<String>, Vec<IpAddr>)>;

/// The state of the machine, without times and without the order of events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    pub sessions: Sessions,
    /// The addresses that are not free, with their state.
    slots: BTreeMap<IpAddr, String>,
    is_draining: bool,
    /// The records of sessions in the history.
    events: Vec<String>,
    /// The records of administrators in the history. A command that is repeated after a failure is
    /// recorded again, so the number of equal records does not count.
    actions: BTreeSet<String>,
    pub last_users: String,
    private_sessions: Sessions,
    /// The programs on the process list of the private map.
    private_programs: Value,
    /// The addresses on the interface.
    addresses: BTreeSet<Ipv6Addr>,
    reserved_ports: String,
    assigned: Value,
    unusable: String,
    /// The clients that programs of the sessions can read.
    clients: BTreeMap<String, Option<IpAddr>>,
    client_file_count: usize,
    /// The names and modes of the files, except the client files, which have random names.
    file_names: Vec<String>,
}

impl State {
    /// Reads the state.
    pub fn read() -> Self {
        let mut state = Self {
            last_users: read_file(HISTORY_DIRECTORY, "last-users"),
            private_sessions: sessions_in(&private_map_directory()),
            private_programs: read_json(private_map_directory(), "map-inputs.json")["programs"]
                .take(),
            addresses: interface_addresses(),
            reserved_ports: fs::read_to_string(RESERVED_PORTS_FILE).unwrap(),
            assigned: assigned(),
            unusable: read_file(MAP_DIRECTORY, "unusable.json"),
            ..Self::default()
        };
        state.read_map();
        state.read_history();
        let names = file_paths().into_iter().map(|path| {
            let mode = path.metadata().unwrap().permissions().mode();
            format!("{} {mode:o}", path.file_name().unwrap().display())
        });
        let is_client_file = |name: &String| name.starts_with("client.");
        let (client_files, file_names): (Vec<_>, Vec<_>) = names.partition(is_client_file);
        (state.client_file_count, state.file_names) = (client_files.len(), file_names);
        state
    }

    fn read_map(&mut self) {
        let directory = Path::new(MAP_DIRECTORY);
        let Ok(map) = Map::open(directory) else { return };
        self.sessions = sessions();
        for row in map.sessions().unwrap() {
            let client = client_file::read(directory, &row.handle);
            self.clients.insert(row.session.to_string(), client);
        }
        let reader = map.reader().unwrap();
        self.is_draining = reader.is_draining();
        let pools = 0..reader.pools().len() as u16;
        for slot in pools.flat_map(|pool| reader.slots(pool)) {
            if slot.state != SlotState::Free || slot.reserved || slot.drained {
                let text = format!("{:?} {} {}", slot.state, slot.reserved, slot.drained);
                self.slots.insert(slot.address, text);
            }
        }
    }

    fn read_history(&mut self) {
        // A rotated file and the next file can contain the same record.
        let mut lines = BTreeSet::new();
        for path in file_paths() {
            if path.starts_with(HISTORY_DIRECTORY) && path.to_str().unwrap().contains(".log") {
                lines.extend(fs::read_to_string(path).unwrap().lines().map(str::to_owned));
            }
        }
        for line in lines {
            let (_checksum, json) = line.split_once(' ').expect("a checksum and a record");
            let mut record: Value = serde_json::from_str(json).expect("a complete record");
            let fields = record.as_object_mut().unwrap();
            for name in ["time", "number", "boot"] {
                fields.remove(name);
            }
            let is_action = fields.contains_key("administrator");
            let text = record.to_string();
            if is_action {
                self.actions.insert(text);
            } else {
                self.events.push(text);
            }
        }
        self.events.sort();
    }
}

/// Returns the open sessions of the system's map.
pub fn sessions() -> Sessions {
    sessions_in(Path::new(MAP_DIRECTORY))
}

/// Returns the open sessions of a map, or no sessions if there is no map.
fn sessions_in(directory: &Path) -> Sessions {
    let Ok(map) = Map::open(directory) else { return Sessions::new() };
    let rows = map.sessions().unwrap();
    let addresses = rows.iter().flat_map(|row| row.leases.iter()).map(|lease| lease.address);
    let distinct_addresses: BTreeSet<IpAddr> = addresses.clone().collect();
    assert_eq!(distinct_addresses.len(), addresses.count(), "two sessions have the same address");
    rows.into_iter()
        .map(|row| {
            let addresses = row.leases.iter().map(|lease| lease.address).collect();
            (row.session.to_string(), (row.user, addresses))
        })
        .collect()
}

/// Checks that the state file lists every pool address that is on the interface.
pub fn check_assigned(context: &str) {
    let assigned = assigned().to_string();
    for address in interface_addresses() {
        assert!(assigned.contains(&format!("\"{address}\"")), "{context}: {address} {assigned}");
    }
}

/// Returns the contents of the assigner's state file.
fn assigned() -> Value {
    read_json(MAP_DIRECTORY, "assigned.json")
}

fn read_json(directory: impl AsRef<Path>, name: &str) -> Value {
    match &*read_file(directory, name) {
        "" => Value::Null,
        text => serde_json::from_str(text).expect("the old or the new contents"),
    }
}

fn read_file(directory: impl AsRef<Path>, name: &str) -> String {
    fs::read_to_string(directory.as_ref().join(name)).unwrap_or_default()
}
