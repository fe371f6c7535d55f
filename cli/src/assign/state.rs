//! What `vipool up` added to this machine, so that `down`, or the next `up`, takes away exactly
//! that.
//!
//! Invariant: the file is written before anything is added and after anything is deleted, by
//! rename. So it always names at least what was added, whatever moment a run was killed at; what
//! it names beyond that is found missing on the interfaces. It counts for one boot and one network
//! namespace.

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

use super::netlink::Bound;
use super::ports::Ports;

const FILE: &str = "assigned.json";
const LOCK: &str = "assigner.lock";
/// One that was killed needs a moment to go.
const PATIENCE: Duration = Duration::from_secs(1);

/// The file, held against other assigners for as long as this lives.
pub struct State {
    path: PathBuf,
    /// What was added, or was about to be.
    pub added: Added,
    _lock: File,
}

/// What was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Addresses.
    pub addresses: BTreeSet<Bound>,
    /// Ports reserved in `ip_local_reserved_ports`.
    pub ports: Ports,
    /// Whether `down` made the server drain, since sessions were open.
    pub draining: bool,
}

/// The file's contents.
#[derive(Serialize, Deserialize)]
struct Record {
    boot: String,
    network_namespace: u64,
    ports: String,
    draining: bool,
    /// Addresses by index of their interface.
    addresses: BTreeMap<u32, Vec<IpAddr>>,
}

impl State {
    /// Reads the file in the directory of the map, which is made if it is not there.
    ///
    /// # Errors
    /// Another assigner is at work, or the directory or file cannot be used.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            // Who may open it may lock it.
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}: are you root?", path.display()))?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "another 'vipool up' or 'vipool down' is at work on {}",
                    directory.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).context(format!("cannot lock {}", path.display()));
                }
            }
        }
        let path = directory.join(FILE);
        let added = match fs::read(&path) {
            Ok(bytes) => read(&bytes).with_context(|| {
                format!(
                    "{} is damaged: take away by hand what 'ip -4 address show scope host' names \
                     beside the loopback's, then this file",
                    path.display()
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Added::default(),
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
        };
        Ok(Self { path, added, _lock: lock })
    }

    /// Records this. When there is nothing, the file goes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, added: Added) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", self.path.display());
        if added == Added::default() {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(cannot);
                }
                _ => {}
            }
        } else {
            let mut addresses: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
            for bound in &added.addresses {
                addresses.entry(bound.interface).or_default().push(bound.address);
            }
            let record = Record {
                boot: boot()?,
                network_namespace: network_namespace()?,
                ports: added.ports.to_string(),
                draining: added.draining,
                addresses,
            };
            let new = self.path.with_extension("new");
            fs::write(&new, serde_json::to_vec(&record)?).with_context(cannot)?;
            fs::rename(&new, &self.path).with_context(cannot)?;
        }
        self.added = added;
        Ok(())
    }
}

fn read(bytes: &[u8]) -> anyhow::Result<Added> {
    let record: Record = serde_json::from_slice(bytes)?;
    if record.boot != boot()? || record.network_namespace != network_namespace()? {
        return Ok(Added::default());
    }
    let addresses = record
        .addresses
        .into_iter()
        .flat_map(|(interface, list)| {
            list.into_iter().map(move |address| Bound { interface, address })
        })
        .collect();
    Ok(Added { addresses, ports: record.ports.parse()?, draining: record.draining })
}

fn boot() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

fn network_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vipool-state-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn what_was_written_is_read_and_nothing_leaves_no_file() {
        let directory = directory("comes-back");
        let added = Added {
            addresses: ["10.0.5.7", "fd00::7"]
                .map(|text| Bound { interface: 3, address: text.parse().unwrap() })
                .into(),
            ports: "4000-4001,5000".parse().unwrap(),
            draining: true,
        };
        let mut state = State::open(&directory).unwrap();
        assert_eq!(state.added, Added::default());
        state.write(added.clone()).unwrap();
        drop(state);
        let mut state = State::open(&directory).unwrap();
        assert_eq!(state.added, added);
        state.write(Added::default()).unwrap();
        assert!(!directory.join(FILE).exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn one_assigner_at_a_time_and_damage_is_named() {
        let directory = directory("one");
        let state = State::open(&directory).unwrap();
        let error = State::open(&directory).err().unwrap();
        assert!(error.to_string().contains("at work"), "{error}");
        drop(state);
        fs::write(directory.join(FILE), b"{\"boot\"").unwrap();
        let error = State::open(&directory).err().unwrap();
        assert!(error.to_string().contains("damaged"), "{error}");
        fs::remove_dir_all(directory).unwrap();
    }
}
