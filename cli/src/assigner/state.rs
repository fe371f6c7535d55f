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
use crate::system::{disk_space, file_lock};

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
    machine: Machine,
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
    /// Whether `up` creates a map that does not have the drains, the reservations and the last
    /// users yet. If that `up` fails, the next `up` restores them.
    pub restoring: bool,
    /// Whether `repair` replaces a map whose lost leases are not drained yet. If that `repair`
    /// fails, the next `repair` drains them.
    pub repairing: bool,
    /// The sizes of the pools in the plan of the last `up`.
    pub planned: PlannedSizes,
}

/// The numbers of slots in the pools of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSizes {
    pub virtual_ips: u32,
    pub loopback: u32,
}

/// The boot and the network namespace for which the file is valid.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Machine {
    boot: String,
    network_namespace: u64,
}

impl Machine {
    fn current() -> anyhow::Result<Self> {
        const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
        const NAMESPACE_FILE: &str = "/proc/thread-self/ns/net";
        let context = |path: &str| format!("cannot read {path}");
        let boot = fs::read_to_string(BOOT_ID_FILE).with_context(|| context(BOOT_ID_FILE))?;
        let namespace = fs::metadata(NAMESPACE_FILE).with_context(|| context(NAMESPACE_FILE))?;
        Ok(Self { boot: boot.trim().to_owned(), network_namespace: namespace.ino() })
    }
}

/// The JSON in the file.
#[derive(Serialize, Deserialize)]
struct FileContents {
    #[serde(flatten)]
    machine: Machine,
    ports: String,
    draining: bool,
    #[serde(default)]
    restoring: bool,
    #[serde(default)]
    repairing: bool,
    #[serde(default)]
    planned: PlannedSizes,
    /// Addresses by interface index.
    addresses: BTreeMap<u32, Vec<IpAddr>>,
}

impl AssignerState {
    /// Takes the lock and reads the state file in `directory`, the directory of the map.
    ///
    /// Creates the directory if necessary. If the file is damaged or not trusted, prints the reason.
    /// In this case, `assigned` contains every address that carries the mark of vipool
    /// (`netlink::POOL_ADDRESS_PROTOCOL`), so that `down` can still remove these addresses.
    ///
    /// # Errors
    /// Another assigner runs, the directory cannot be used, other users can change it, or the system
    /// cannot read the file.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        trusted_file::create_directory(directory, 0o755)
            .with_context(|| format!("cannot use {} (run as root)", directory.display()))?;
        let lock = file_lock::lock(
            &directory.join(LOCK_FILE),
            LOCK_TIMEOUT,
            "another 'vipool up' or 'vipool down' is running",
        )?;
        let path = directory.join(STATE_FILE);
        let machine = Machine::current()?;
        let recorded_resources = match trusted_file::read(&path, MAX_FILE_BYTES) {
            Ok(bytes) => parse(&bytes, &machine),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(AssignedResources::default())
            }
            Err(error) if trusted_file::is_refusal(&error) => Err(error.into()),
            // The file may be intact, and only this file lists the ports.
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
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
        Ok(Self { path, assigned, machine, _lock: lock })
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
                machine: self.machine.clone(),
                ports: assigned.ports.to_string(),
                draining: assigned.draining,
                restoring: assigned.restoring,
                repairing: assigned.repairing,
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
            Err(error) if disk_space::is_exhausted(&error) => {
                errln!("vipool: {error:#}: the older content of the file stays in place");
                self.assigned = assigned;
                Ok(())
            }
            result => result,
        }
    }
}

fn parse(bytes: &[u8], machine: &Machine) -> anyhow::Result<AssignedResources> {
    let contents: FileContents = serde_json::from_slice(bytes)?;
    if contents.machine != *machine {
        return Ok(AssignedResources::default());
    }
    let addresses = contents
        .addresses
        .into_iter()
        .flat_map(|(interface, addresses)| {
            addresses.into_iter().map(move |address| InterfaceAddress { interface, address })
        })
        .collect();
    let FileContents { draining, restoring, repairing, planned, .. } = contents;
    let ports = contents.ports.parse()?;
    Ok(AssignedResources { addresses, ports, draining, restoring, repairing, planned })
}

/// Returns the addresses with the mark of vipool, from all interfaces.
fn marked_addresses() -> anyhow::Result<BTreeSet<InterfaceAddress>> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let present_addresses = netlink.addresses()?.into_iter();
    let marked_entries =
        present_addresses.filter(|(_, state)| state.is_pool_like && state.is_marked);
    Ok(marked_entries.map(|(entry, _)| entry).collect())
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
            restoring: true,
            repairing: true,
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
