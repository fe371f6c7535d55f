//! Stores the inputs from which the plan of a private map is built.
//!
//! The file is in the directory of the map. Each `vipool run` builds a plan and compares its
//! digest with the saved digest. If the digests differ, the command creates a new map.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use vipool::trusted_file;

const FILE_NAME: &str = "map-inputs.json";
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The inputs of a private map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapInputs {
    /// First address of the loopback block that contains the map's addresses.
    pub block: Option<Ipv4Addr>,
    /// The farm file, if there is one.
    pub farm: Option<PathBuf>,
    /// The programs that were run without a farm file, in the order of their first run.
    pub programs: Vec<PathBuf>,
    /// A digest of the plan. If the digest changes, the map is created again.
    pub plan_digest: u64,
}

impl MapInputs {
    /// Reads the inputs of the map in `directory`. Returns empty inputs if there is no file or if
    /// the file cannot be parsed.
    ///
    /// # Errors
    /// The file exists but cannot be read.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE_NAME);
        match trusted_file::read(&path, MAX_FILE_BYTES) {
            // A file that does not parse comes from another version of vipool. Empty inputs cause
            // a new map.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Replaces the file in `directory` atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(FILE_NAME);
        trusted_file::replace(&path, &serde_json::to_vec_pretty(self)?, 0o600)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
