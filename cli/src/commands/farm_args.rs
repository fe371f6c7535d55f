//! The options that select the farm file.

use std::path::{Path, PathBuf};

/// Selects the farm file, by an argument or by an option.
#[derive(clap::Args)]
pub struct FarmArgs {
    #[cfg_attr(unix, doc = "The farm file [default: /etc/vipool/farm.toml]")]
    #[cfg_attr(windows, doc = "The farm file [default: farm.toml in ProgramData\\vipool]")]
    #[arg(value_name = "FARM.TOML")]
    file: Option<PathBuf>,
    /// The farm file, in place of the argument
    #[arg(long, value_name = "FARM.TOML", conflicts_with = "file")]
    farm: Option<PathBuf>,
}

impl FarmArgs {
    /// Returns the selected farm file. The default is the farm file of this machine.
    pub fn path(&self) -> PathBuf {
        self.selected().map_or_else(machine_farm_file, Path::to_owned)
    }

    /// Returns the farm file that the command line selects.
    pub fn selected(&self) -> Option<&Path> {
        self.file.as_deref().or(self.farm.as_deref())
    }
}

/// Returns whether a program file of the process list is missing. Returns false if that is unknown,
/// for example because the caller may not search the directory.
pub fn is_missing(path: &Path) -> bool {
    path.try_exists().is_ok_and(|exists| !exists)
}

/// Returns the farm file of this machine.
#[cfg(unix)]
pub fn machine_farm_file() -> PathBuf {
    PathBuf::from("/etc/vipool/farm.toml")
}

/// Returns the farm file of this machine.
#[cfg(windows)]
pub fn machine_farm_file() -> PathBuf {
    vipool::system::map_directory().join("farm.toml")
}
