//! Selects the map for a command: the system's map, the user's private map, or the map in a given
//! directory.

use std::path::{Path, PathBuf};

use anyhow::bail;
use vipool::map::MAP_FILE;
use vipool::system::map_directory;

use super::private;

/// Options that select the map. The default is the system's map. If the system has no map, the
/// default is the private map.
#[derive(clap::Args)]
pub struct MapArgs {
    /// Use your private map even if the system has a map
    #[arg(long)]
    private: bool,
    /// The directory of another map. 'vipool run' sets VIPOOL_MAP for programs that use such a map
    #[arg(long, value_name = "DIRECTORY", env = "VIPOOL_MAP", hide_env_values = true)]
    map: Option<PathBuf>,
}

/// The selected map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapSelection {
    /// The map in this directory, which can be the system's map.
    Directory(PathBuf),
    /// The user's private map.
    Private,
}

impl MapArgs {
    pub fn selection(&self) -> MapSelection {
        let system_directory = map_directory();
        match &self.map {
            _ if self.private => MapSelection::Private,
            Some(map) if private::path().is_ok_and(|private_path| private_path == *map) => {
                MapSelection::Private
            }
            Some(map) => MapSelection::Directory(map.clone()),
            // If the system cannot examine the file, opening the map reports the reason.
            None if system_directory.join(MAP_FILE).try_exists().unwrap_or(true) => {
                MapSelection::Directory(system_directory)
            }
            None => MapSelection::Private,
        }
    }

    /// Returns whether an option or the environment selects the map.
    #[cfg(target_os = "linux")]
    pub fn is_explicit(&self) -> bool {
        self.private || self.map.is_some()
    }

    /// Returns the directory of the map. Checks that the map exists if it is the private map.
    ///
    /// Without `--private`, the error describes how to create the system's map or a private map.
    ///
    /// # Errors
    /// The command uses the private map, and this map does not exist or its directory cannot be
    /// determined.
    pub fn existing_directory(&self) -> anyhow::Result<PathBuf> {
        let directory = self.directory()?;
        let is_private = self.selection() == MapSelection::Private;
        if is_private && !directory.join(MAP_FILE).try_exists().unwrap_or(true) {
            if self.private {
                bail!("you have no private map ('vipool run --private' creates it)");
            }
            bail!(
                "the system has no map in {} ('vipool up' creates it), and you have no private map \
                 ('vipool run' creates it)",
                map_directory().display()
            );
        }
        Ok(directory)
    }

    /// Returns the directory of the map, which may not exist yet.
    ///
    /// # Errors
    /// The directory of the private map cannot be determined.
    pub fn directory(&self) -> anyhow::Result<PathBuf> {
        match self.selection() {
            MapSelection::Directory(directory) => Ok(directory),
            MapSelection::Private => private::path(),
        }
    }
}

/// Returns the value of VIPOOL_MAP for programs in a session. Returns `None` for the system's map,
/// because programs use that map by default.
pub fn map_variable(directory: &Path) -> Option<&Path> {
    (directory != map_directory()).then_some(directory)
}
