//! The state file lists the addresses and ports that `vipool up` added to this machine. `down`
//! and the next `up` remove only addresses and ports on this list.
//!
//! Invariant: an assigner writes the file before it adds an address and after it deletes an
//! address. A rename replaces the file atomically. So if an assigner is killed, the file lists every
//! address that it added. The file may also list addresses that are not on an interface. Removing
//! such an address is harmless. The file is valid for one boot and one network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::netlink::InterfaceAddress;
use super::port_set::PortSet;

const STATE_FILE: &str = "assigned.json";
const LOCK_FILE: &str = "assigner.lock";
/// Maximum wait for the lock. A killed assigner exits within this time, and the kernel then
/// releases its lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The state file, locked: no other assigner can run as long as this value lives.
pub struct AssignerState {
    path: PathBuf,
    /// All addresses and ports that an assigner added or was about to add.
    pub assigned: AssignedResources,
    _lock: File,
}

/// The addresses and ports that an assigner added, and the drain state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedResources {
    /// Addresses on interfaces.
    pub addresses: BTreeSet<InterfaceAddress>,
    /// Ports in `ip_local_reserved_ports`.
    pub ports: PortSet,
    /// Whether `down` drained the server because sessions were open.
    pub draining: bool,
    /// The sizes of the pools in the plan of the last `up`.
    pub planned: PlannedSizes,
}

/// The number of addresses in the pools of a plan.
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
    /// Locks and reads the file in the directory of the map. Creates the directory if necessary.
    ///
    /// # Errors
    /// Another assigner runs, or the directory or the file cannot be used.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            // Only root may open the file, because any user who can open the file can lock it.
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("cannot open {} (run as root)", lock_path.display()))?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "cannot lock {}: another 'vipool up' or 'vipool down' is running",
                    lock_path.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).context(format!("cannot lock {}", lock_path.display()));
                }
            }
        }
        let path = directory.join(STATE_FILE);
        let assigned = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).with_context(|| {
                format!(
                    "{} is damaged (first remove the pool addresses that 'ip -4 address show scope \
                     host' lists, then remove this file)",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => AssignedResources::default(),
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
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

    /// Writes `assigned`, which lists no address and no port that the file does not list yet. If the
    /// file system is full, prints a message and leaves the file: its longer list is harmless.
    ///
    /// # Errors
    /// The file cannot be written for another reason, or cannot be removed.
    pub fn write_shorter(&mut self, assigned: AssignedResources) -> anyhow::Result<()> {
        match self.write(assigned.clone()) {
            Err(error) if is_out_of_space(&error) => {
                eprintln!("vipool: {error:#}: the older content of the file stays in place");
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

/// Returns the addresses on the interfaces that carry the mark of an assigner.
fn marked_addresses() -> anyhow::Result<BTreeSet<InterfaceAddress>> {
    let mut netlink = Netlink::open().context("cannot open a routing socket")?;
    let present = netlink.addresses()?.into_iter();
    let marked = present.filter(|(_, state)| state.is_pool_like && state.is_marked);
    Ok(marked.map(|(entry, _)| entry).collect())
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
    fn second_assigner_and_damaged_file_are_rejected() {
        let directory = new_directory("lock");
        let state = AssignerState::open(&directory).unwrap();
        let error = AssignerState::open(&directory).err().unwrap();
        assert!(error.to_string().contains("is running"), "{error}");
        drop(state);
        fs::write(directory.join(STATE_FILE), b"{\"boot\"").unwrap();
        let error = AssignerState::open(&directory).err().unwrap();
        assert!(error.to_string().contains("damaged"), "{error}");
        fs::remove_dir_all(directory).unwrap();
    }
}
