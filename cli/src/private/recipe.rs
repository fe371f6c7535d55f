//! What the private map was made from: kept beside it, so that the next `run` can tell whether
//! the map still is what it would make, and adds to it otherwise.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

const FILE: &str = "made-from.json";

/// The farm file, and the programs that were run without one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The block of 127.0.0.0/8 that the map's addresses are of.
    pub block: Option<Ipv4Addr>,
    /// The farm file, if one was given.
    pub farm: Option<PathBuf>,
    /// Programs listed because they were run, in the order of their first run.
    pub programs: Vec<PathBuf>,
    /// A digest of the plan: the map is made anew when it changes.
    pub plan: u64,
}

impl Recipe {
    /// What the map in this directory was made from; the empty recipe if there is none.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join(FILE);
        match fs::read(&path) {
            // A file that does not read is one of another version: the map is made anew.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Takes the place of the recipe in this directory, whole or not at all.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(FILE);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
