//! Windows has no private maps: the claims on loopback blocks need abstract AF_UNIX names, which
//! only Linux has. The functions of this module replace those of the module `private`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use vipool::map::Map;

const NOT_SUPPORTED: &str = "this server has no map (an administrator creates it with 'vipool up'; \
                             --map names another map; private maps need Linux)";

/// A private map. On Windows [`open`] never returns a private map.
pub struct PrivateMap {
    pub map: Map,
    pub directory: PathBuf,
    pub claim: Claim,
}

/// A claim on a loopback block. This type has no values.
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
