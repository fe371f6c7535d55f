//! `vipool up` on Windows: creates the map. The administrator adds the addresses to interfaces.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use vipool::farm::Farm;
use vipool::map::{Map, MapError};
use vipool::system;
use vipool::system::map_directory;

use crate::commands::farm_args::{FarmArgs, is_missing};
use crate::maps::last_users;

/// Create the map from which the sessions of this server get their addresses
///
/// For each range of this server, the command finds the interface whose subnet contains the range.
/// It does not add the addresses to the interfaces; use New-NetIPAddress with -SkipAsSource
/// (docs/windows.md). Run this command again after a change of farm.toml. Open sessions keep their
/// addresses.
#[derive(clap::Args)]
#[command(after_help = "Example, as an administrator:
  vipool up --farm C:\\ProgramData\\vipool\\farm.toml")]
pub struct Up {
    #[command(flatten)]
    farm: FarmArgs,
    /// This server's name in the farm file [default: the computer's name]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The directory for the map [default: vipool in ProgramData]
    #[arg(long, value_name = "DIRECTORY")]
    map: Option<PathBuf>,
}

impl Up {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.map.unwrap_or_else(map_directory);
        let file = self.farm.selected().map_or_else(|| directory.join("farm.toml"), Path::to_owned);
        let (farm, mut report) = Farm::load(&file);
        let server = match self.server {
            Some(server) => server,
            None => std::env::var("COMPUTERNAME")
                .context("cannot determine the computer's name (use --server)")?,
        };
        let interfaces = system::interfaces().context("cannot list the interfaces")?;
        let server_plan = farm.plan(&server, Some(&interfaces));
        report.extend(server_plan.findings.iter().cloned());
        report.extend(farm.missing_programs(is_missing));
        if !report.is_empty() {
            err!("{report}");
        }
        if report.has_errors() {
            bail!("{} has errors; nothing was changed", file.display());
        }
        create_directory(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let map = Map::create(&directory, &server_plan.plan)?;
        if let Err(error) = last_users::restore(&map, &directory) {
            errln!("vipool: users may get different addresses than before: {error}");
        }
        let address_count: u32 = map.reader()?.pools().iter().map(|pool| pool.slots).sum();
        outln!("the map in {} has {address_count} addresses", directory.display())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Creates the directory of the map, or secures an existing directory.
///
/// Only the system, the administrators and the owner can write to the directory. Fails if an
/// existing directory belongs to another user.
fn create_directory(directory: &Path) -> anyhow::Result<()> {
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match system::secure_map_directory(directory) {
        Ok(()) => Ok(()),
        Err(MapError::Io { source, .. }) => Err(source.into()),
        Err(MapError::Untrusted { reason, .. }) => {
            bail!("{reason} (check its contents, then remove it)")
        }
        Err(error) => Err(error.into()),
    }
}
