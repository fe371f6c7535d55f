//! The state file lists the addresses and ports that `vipool up` added to this machine. `down`
//! and the next `up` remove only addresses and ports on this list.
//!
//! Invariant: an assigner writes the file before it adds an address and after it deletes an
//! address. A rename replaces the file atomically. So if an assigner is killed, the file lists
//! every address that it added. The file may also list addresses that are not on an interface.
//! Removing such an address is harmless. The file is valid for one boot and one network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use vipool::trusted_file;

use super::netlink::{InterfaceAddress, Netlink};
use super::port_set::PortSet;
use crate::system::file_lock;

pub const STATE_FILE: &str = "assigned.json";
const LOCK_FILE: &str = "assigner.lock";
/// Maximum wait for the lock. A killed assigner exits within this time, and the kernel then
/// releases its lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum size of the state file. It has room for millions of addresses.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The state file, locked: no other assigner can run as long as this value lives.
pub struct AssignerState {
    path: PathBuf,
    /// The recorded resources. An interrupted run may not have added all of them.
    pub assigned: AssignedResources,
    _lock: File,
}

/// The addresses and ports that an assigner added, the drain state, and the sizes of the pools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedResources {
    /// Addresses on interfaces.
    pub addresses: BTreeSet<InterfaceAddress>,
    /// Ports in `ip_local_reserved_ports`.
    pub ports: PortSet,
    /// Whether `down` drained the server. The next `up` ends the drain, unless an administrator
    /// also drained the server.
    pub draining: bool,
    /// The sizes of the pools in the plan of the last `up`.
    pub planned: PlannedSizes,
}

/// The numbers of slots in the pools of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSizes {
    pub virtual_ips: u32,
    pub loopback: u32,
}

/// The JSON in the file.
#[derive(Serialize, Deserialize)]
struct FileContents {
    boot: String,
    network_namespace: u64,
    ports: String,
    draining: bool,
    #[serde(default)]
    planned: PlannedSizes,
    /// Addresses by interface index.
    addresses: BTreeMap<u32, Vec<IpAddr>>,
}

impl AssignerState {
    /// Takes the lock and reads the state file in `directory`, the directory of the map.
    ///
    /// Creates the directory if necessary. If the file cannot be used, prints the reason. In this
    /// case, `assigned` contains every address that carries the mark of vipool
    /// (`netlink::POOL_ADDRESS_PROTOCOL`), so that `down` can still remove these addresses.
    ///
    /// # Errors
    /// Another assigner runs, the directory cannot be used, or other users can change it.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        trusted_file::create_directory(directory, 0o755)
            .with_context(|| format!("cannot use {} (run as root)", directory.display()))?;
        let lock = file_lock::lock(
            &directory.join(LOCK_FILE),
            LOCK_TIMEOUT,
            "another 'vipool up' or 'vipool down' is running",
        )?;
        let path = directory.join(STATE_FILE);
        let recorded_resources = match trusted_file::read(&path, MAX_FILE_BYTES) {
            Ok(bytes) => parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(AssignedResources::default())
            }
            Err(error) => Err(error.into()),
        };
        let assigned = match recorded_resources {
            Ok(assigned) => assigned,
            Err(error) => {
                errln!(
                    "vipool: cannot use {}: {error:#}: every address that carries the mark of \
                     vipool counts as added by vipool",
                    path.display()
                );
                AssignedResources { addresses: marked_addresses()?, ..Default::default() }
            }
        };
        Ok(Self { path, assigned, _lock: lock })
    }

    /// Writes `assigned` to the file, or removes the file if `assigned` is empty.
    ///
    /// # Errors
    /// The file cannot be written or removed.
    pub fn write(&mut self, assigned: AssignedResources) -> anyhow::Result<()> {
        let context = || format!("cannot write {}", self.path.display());
        if assigned == AssignedResources::default() {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(context);
                }
                _ => {}
            }
        } else {
            let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
            for entry in &assigned.addresses {
                addresses.entry(entry.interface).or_default().push(entry.address);
            }
            let contents = FileContents {
                boot: boot_id()?,
                network_namespace: network_namespace()?,
                ports: assigned.ports.to_string(),
                draining: assigned.draining,
                planned: assigned.planned,
                addresses,
            };
            trusted_file::replace(&self.path, &serde_json::to_vec(&contents)?, 0o644)
                .with_context(context)?;
        }
        self.assigned = assigned;
        Ok(())
    }

    /// Writes `assigned`. The file must already list every address and port in `assigned`. If the
    /// file system is full, prints a message and does not change the file. The longer list in the
    /// file is harmless.
    ///
    /// # Errors
    /// The file cannot be written for another reason, or cannot be removed.
    pub fn write_subset(&mut self, assigned: AssignedResources) -> anyhow::Result<()> {
        match self.write(assigned.clone()) {
            Err(error) if is_out_of_space(&error) => {
                errln!("vipool: {error:#}: the older content of the file stays in place");
                self.assigned = assigned;
                Ok(())
            }
            result => result,
        }
    }
}

fn is_out_of_space(error: &anyhow::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

fn parse(bytes: &[u8]) -> anyhow::Result<AssignedResources> {
    let contents: FileContents = serde_json::from_slice(bytes)?;
    if contents.boot != boot_id()? || contents.network_namespace != network_namespace()? {
        return Ok(AssignedResources::default());
    }
    let addresses = contents
        .addresses
        .into_iter()
        .flat_map(|(interface, addresses)| {
            addresses.into_iter().map(move |address| InterfaceAddress { interface, address })
        })
        .collect();
    let FileContents { draining, planned, .. } = contents;
    Ok(AssignedResources { addresses, ports: contents.ports.parse()?, draining, planned })
}

/// Returns the addresses with the mark of vipool, from all interfaces.
fn marked_addresses() -> anyhow::Result<BTreeSet<InterfaceAddress>> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let present_addresses = netlink.addresses()?.into_iter();
    let marked_entries =
        present_addresses.filter(|(_, state)| state.is_pool_like && state.is_marked);
    Ok(marked_entries.map(|(entry, _)| entry).collect())
}

fn boot_id() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

fn network_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the path of a directory that does not exist.
    fn new_directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vipool-state-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn state_survives_reopening_and_empty_state_removes_the_file() {
        let directory = new_directory("reopen");
        let assigned = AssignedResources {
            addresses: ["10.0.5.7", "fd00::7"]
                .map(|text| InterfaceAddress { interface: 3, address: text.parse().unwrap() })
                .into(),
            ports: "4000-4001,5000".parse().unwrap(),
            draining: true,
            planned: PlannedSizes { virtual_ips: 2, loopback: 0 },
        };
        let mut state = AssignerState::open(&directory).unwrap();
        assert_eq!(state.assigned, AssignedResources::default());
        state.write(assigned.clone()).unwrap();
        drop(state);
        let mut state = AssignerState::open(&directory).unwrap();
        assert_eq!(state.assigned, assigned);
        state.write(AssignedResources::default()).unwrap();
        assert!(!directory.join(STATE_FILE).exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn second_assigner_is_refused_and_a_damaged_file_is_replaced() {
        let directory = new_directory("lock");
        let state = AssignerState::open(&directory).unwrap();
        let error = AssignerState::open(&directory).err().unwrap();
        assert!(error.to_string().contains("is running"), "{error}");
        drop(state);
        let path = directory.join(STATE_FILE);
        let assert_state_is_empty = || {
            let state = AssignerState::open(&directory).unwrap();
            assert_eq!(state.assigned.ports, PortSet::default());
        };
        fs::write(&path, b"{\"boot\"").unwrap();
        assert_state_is_empty();
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_state_is_empty();
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_state_is_empty();
        let mut state = AssignerState::open(&directory).unwrap();
        let draining_resources =
            AssignedResources { draining: true, ..AssignedResources::default() };
        state.write(draining_resources.clone()).unwrap();
        drop(state);
        assert_eq!(AssignerState::open(&directory).unwrap().assigned, draining_resources);
        fs::remove_dir_all(directory).unwrap();
    }
}
