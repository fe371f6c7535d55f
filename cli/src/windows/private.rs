//! Private maps are not there on Windows: the loopback blocks of users are claimed by names that
//! Linux alone has.

use std::path::{Path, PathBuf};

use anyhow::bail;
use vipool::map::Map;

const NONE: &str = "this server has no map: an administrator makes it by 'vipool up', or name one by \
                    --map (private maps are for Linux alone)";

/// What a private map would be; never made.
pub struct Private {
    pub map: Map,
    pub claim: Claim,
}

/// What a claim on addresses would be; never made.
pub enum Claim {}

/// There is none: the error says what to do.
pub fn open(_farm: Option<&Path>, _program: Option<&Path>) -> anyhow::Result<Private> {
    bail!("{NONE}")
}

/// The directory of a private map; there is none.
pub fn path() -> anyhow::Result<PathBuf> {
    bail!("{NONE}")
}

/// The farm file of the user; only private maps have one.
pub fn farm_of_user() -> Option<PathBuf> {
    None
}
