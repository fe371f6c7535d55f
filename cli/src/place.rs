//! Which map a command is about, the system's or a private one, and what lies beside it.

use std::path::{Path, PathBuf};

use vipool::os::place::map_directory;

/// Options that choose the map; without them the system's, if there is one, else your own.
#[derive(clap::Args)]
pub struct Place {
    /// Your own private map, also where the system has one
    #[arg(long)]
    private: bool,
    /// The directory of another map (for tests; programs in a private session have it set)
    #[arg(long, value_name = "DIRECTORY", env = "VIPOOL_MAP", hide_env_values = true)]
    map: Option<PathBuf>,
}

/// A choice of map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The system's, or that in a directory which was named.
    At(PathBuf),
    /// The user's own.
    Private,
}

impl Place {
    pub fn which(&self) -> Which {
        let system = map_directory();
        match &self.map {
            _ if self.private => Which::Private,
            Some(map) if crate::private::path().is_ok_and(|own| own == *map) => Which::Private,
            Some(map) => Which::At(map.clone()),
            None if system.join(vipool::map::MAP_FILE).exists() => Which::At(system),
            None => Which::Private,
        }
    }

    /// Whether one was chosen at all.
    #[cfg(target_os = "linux")]
    pub fn is_named(&self) -> bool {
        self.private || self.map.is_some()
    }

    /// The directory of the map, whether there is one or not.
    pub fn directory(&self) -> anyhow::Result<PathBuf> {
        match self.which() {
            Which::At(directory) => Ok(directory),
            Which::Private => crate::private::path(),
        }
    }
}

/// What programs are told of the directory: nothing where it is the one they look in anyway.
pub fn told(directory: &Path) -> Option<&Path> {
    (directory != map_directory()).then_some(directory)
}

/// Where it is kept over a restart who had an address last: beside a map that is not the system's.
pub fn last_users(directory: &Path) -> PathBuf {
    // On Windows the map's directory is not gone with the boot.
    if cfg!(unix) && directory == map_directory() {
        PathBuf::from("/var/lib/vipool/last-users")
    } else {
        directory.join("last-users")
    }
}

/// Saves who had an address last, for the next start of the machine. Best effort.
pub fn save_users(map: &vipool::map::Map, directory: &Path) {
    let file = last_users(directory);
    if let Some(parent) = file.parent() {
        let mut directory = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o750);
        // If it cannot be made, the save says why.
        let _ = directory.recursive(true).create(parent);
    }
    if let Err(error) = map.save_users(&file) {
        eprintln!("vipool: users may get other addresses after a restart: {error}");
    }
}

/// Forgets the clients of sessions that are closed, by whomever. Best effort: nobody but the user
/// of such a session could read them.
pub fn sweep_clients(map: &vipool::map::Map, directory: &Path) {
    let swept = map.reader().map_err(|error| error.to_string()).and_then(|reader| {
        vipool::os::client::sweep(directory, |handle| reader.is_live(handle))
            .map_err(|error| error.to_string())
    });
    if let Err(error) = swept {
        eprintln!("vipool: files of clients are left in {}: {error}", directory.display());
    }
}
