//! `vipool up` on Windows: makes the map. Addresses are put onto interfaces by other means.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use vipool::farm::Farm;
use vipool::map::Map;
use vipool::os::place::map_directory;
use vipool::os::trust::{self, Refused};
use vipool::os::{clock, interfaces};

use crate::place::last_users;

/// Make the map of this server, from which sessions are served
///
/// Each range of this server is matched to the interface whose subnet it is in. The addresses are
/// not put onto the interfaces: New-NetIPAddress with -SkipAsSource does that (docs/windows.md). Run
/// it again after a change of farm.toml: open sessions keep their addresses.
#[derive(clap::Args)]
#[command(after_help = "Example, as an administrator:
  vipool up --farm C:\\ProgramData\\vipool\\farm.toml")]
pub struct Up {
    /// The farm file [default: farm.toml in the directory of the map]
    #[arg(long, value_name = "FILE")]
    farm: Option<PathBuf>,
    /// This server's name in the farm file [default: the computer's name]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// The directory to make the map in [default: vipool in ProgramData]
    #[arg(long, value_name = "DIRECTORY")]
    map: Option<PathBuf>,
}

impl Up {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.map.unwrap_or_else(map_directory);
        let file = self.farm.unwrap_or_else(|| directory.join("farm.toml"));
        let (farm, mut report) = Farm::load(&file);
        let server = match self.server {
            Some(server) => server,
            None => std::env::var("COMPUTERNAME").context("name this server by --server")?,
        };
        let interfaces = interfaces::list().context("cannot list the interfaces")?;
        let planned = farm.plan(&server, Some(&interfaces));
        report.extend(planned.findings.iter().cloned());
        if !report.is_empty() {
            eprint!("{report}");
        }
        if report.has_errors() {
            bail!("nothing is changed: {} has errors", file.display());
        }
        make(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let map = Map::create(&directory, &planned.plan)?;
        if let Err(error) = map.recall_users(&last_users(&directory), clock::now()) {
            eprintln!("vipool: users may get other addresses than before: {error}");
        }
        let addresses: u32 = map.reader()?.pools().iter().map(|pool| pool.slots).sum();
        println!("the map in {} has {addresses} addresses", directory.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Makes the directory of the map, or sees to it that users can't write to it.
fn make(directory: &Path) -> anyhow::Result<()> {
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match trust::directory(directory) {
        Ok(()) => Ok(()),
        Err(Refused::Io(error)) => Err(error.into()),
        Err(Refused::Untrusted(why)) => bail!("{why}: look at what is in it, and remove it"),
    }
}
