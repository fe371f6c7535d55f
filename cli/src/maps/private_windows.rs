//! Private maps do not exist on Windows: users claim loopback blocks by abstract AF_UNIX names,
//! which only Linux has. This module has the same functions, and they return an error.

use std::path::{Path, PathBuf};

use anyhow::bail;
use vipool::map::Map;

const NOT_SUPPORTED: &str = "this server has no map (an administrator creates it with 'vipool up'; \
                             --map names another map; private maps need Linux)";

/// A private map. [`open`] never returns one.
pub struct PrivateMap {
    pub map: Map,
    pub claim: Claim,
}

/// A claim on a block. It has no values.
pub enum Claim {}

/// Returns an error with the remedy.
pub fn open(_farm: Option<&Path>, _program: Option<&Path>) -> anyhow::Result<PrivateMap> {
    bail!("{NOT_SUPPORTED}")
}

/// Returns an error with the remedy.
pub fn path() -> anyhow::Result<PathBuf> {
    bail!("{NOT_SUPPORTED}")
}

/// Returns `None`: only private maps use the farm file of a user.
pub fn default_farm_file() -> Option<PathBuf> {
    None
}
