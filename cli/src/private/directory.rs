//! Where a user's private map is: a directory that nobody else can have planted or can change.
//!
//! `$XDG_RUNTIME_DIR/vipool`, or `/tmp/vipool-UID` where that is not set or not the user's (su
//! keeps the variable), or `/run/vipool-private` for root, or where `VIPOOL_PRIVATE` says (tests
//! and the demo, which are not to meet the user's own); below it one directory per network
//! namespace, since 127.0.0.0/8 is one per namespace.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::unistd::Uid;

/// The directory of this user's private map in this network namespace, whether it is there or not.
pub fn path() -> anyhow::Result<PathBuf> {
    let namespace = fs::metadata("/proc/self/ns/net")
        .context("cannot tell the network namespace: /proc is not mounted")?
        .ino();
    Ok(parent().join(format!("net-{namespace}")))
}

/// Makes the directory if it is not there, and checks that it is ours alone.
pub fn make() -> anyhow::Result<PathBuf> {
    let path = path()?;
    for directory in [&parent(), &path] {
        make_one(directory)?;
    }
    Ok(path)
}

/// A number for the user, or for the place that `VIPOOL_PRIVATE` names: different ones for
/// different private maps, as far as possible.
pub fn seed() -> u32 {
    match elsewhere() {
        None => Uid::effective().as_raw(),
        Some(parent) => {
            let mut hasher = DefaultHasher::new();
            parent.hash(&mut hasher);
            hasher.finish() as u32
        }
    }
}

fn elsewhere() -> Option<PathBuf> {
    std::env::var_os("VIPOOL_PRIVATE").map(PathBuf::from)
}

fn parent() -> PathBuf {
    if let Some(parent) = elsewhere() {
        return parent;
    }
    let uid = Uid::effective();
    if uid.is_root() {
        return PathBuf::from("/run/vipool-private");
    }
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .filter(|path| fs::metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == uid.as_raw()))
        .map(|path| path.join("vipool"))
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/vipool-{uid}")))
}

fn make_one(path: &Path) -> anyhow::Result<()> {
    let uid = Uid::effective();
    // What root's sessions run may be another user's program, which has to read the map.
    let mode = if uid.is_root() { 0o755 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            bail!("cannot make the directory {} for your private map: {error}", path.display());
        }
        _ => {}
    }
    let refused = |why: &str| {
        format!(
            "{} {why}: it is not used for your private map. Have it removed, or set \
             XDG_RUNTIME_DIR to a directory of your own",
            path.display()
        )
    };
    let directory = open(path).with_context(|| refused("is no directory of yours"))?;
    let metadata = directory.metadata()?;
    if metadata.uid() != uid.as_raw() {
        bail!(refused(&format!("belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        bail!(refused("can be written by others"));
    }
    Ok(())
}

/// Opens a directory, and nothing that a symlink leads to.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}
