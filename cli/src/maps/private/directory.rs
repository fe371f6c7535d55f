//! The directory of a user's private map. This module checks that the user owns the directory and
//! that no other user can change it.
//!
//! The parent directory is the first of these directories that applies:
//! - `$VIPOOL_PRIVATE`. Tests and the demo set this variable, so that they do not use the user's
//!   own maps.
//! - `/run/vipool-private` for root.
//! - `$XDG_RUNTIME_DIR/vipool`, if the user owns `$XDG_RUNTIME_DIR`. After su(1) the variable can
//!   contain the directory of another user.
//! - `/tmp/vipool-UID`, unless another user created this directory.
//! - A directory `/tmp/vipool-UID.RANDOM` that belongs to the user.
//!
//! The parent directory has one subdirectory per network namespace, because each namespace has its
//! own 127.0.0.0/8.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::unistd::Uid;

/// Returns the directory of this user's private map in this network namespace, even if the
/// directory does not exist.
///
/// # Errors
/// /proc is not mounted.
pub fn path() -> anyhow::Result<PathBuf> {
    let namespace = fs::metadata("/proc/self/ns/net")
        .context("cannot determine the network namespace: is /proc mounted?")?
        .ino();
    Ok(parent_directory().join(format!("net-{namespace}")))
}

/// Creates the directory if it does not exist, and checks that only this user can change it.
///
/// # Errors
/// The directory cannot be created, or another user owns it or can write to it.
pub fn create() -> anyhow::Result<PathBuf> {
    let path = path()?;
    for directory in path.parent().into_iter().chain([&*path]) {
        create_checked(directory)?;
    }
    Ok(path)
}

fn override_directory() -> Option<PathBuf> {
    std::env::var_os("VIPOOL_PRIVATE").map(PathBuf::from)
}

fn parent_directory() -> PathBuf {
    if let Some(parent) = override_directory() {
        return parent;
    }
    let uid = Uid::effective();
    if uid.is_root() {
        return PathBuf::from("/run/vipool-private");
    }
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .filter(|path| {
            fs::metadata(path)
                .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid.as_raw())
        })
        .map(|path| path.join("vipool"))
        .unwrap_or_else(|| temporary_directory(Path::new("/tmp"), uid))
}

/// Returns the parent directory in `/tmp`, even if the directory does not exist yet.
///
/// If another user has created `/tmp/vipool-UID`, the name has a random suffix. The other user
/// cannot predict this name, and cannot remove the directory, because `/tmp` has the sticky bit.
fn temporary_directory(temporary_root: &Path, uid: Uid) -> PathBuf {
    let owner = |path: &Path| fs::symlink_metadata(path).map(|metadata| metadata.uid()).ok();
    let default_path = temporary_root.join(format!("vipool-{uid}"));
    if owner(&default_path).is_none_or(|owner| owner == uid.as_raw()) {
        return default_path;
    }
    let prefix = format!("vipool-{uid}.");
    let entries = fs::read_dir(temporary_root).into_iter().flatten().flatten();
    let own_entries = entries.filter(|entry| {
        entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())
            && owner(&entry.path()) == Some(uid.as_raw())
    });
    own_entries.map(|entry| entry.path()).min().unwrap_or_else(|| {
        // The standard library seeds the hasher with random bytes of the operating system.
        let random = RandomState::new().build_hasher().finish();
        temporary_root.join(format!("{prefix}{random:016x}"))
    })
}

fn create_checked(path: &Path) -> anyhow::Result<()> {
    let uid = Uid::effective();
    // Root may run a program in a session as another user, and that user must be able to read the
    // map.
    let mode = if uid.is_root() { 0o755 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            bail!("cannot create the directory {} for your private map: {error}", path.display());
        }
        _ => {}
    }
    let describe_refusal = |reason: &str| {
        format!(
            "cannot use {} for your private map: it {reason} (remove it, or set XDG_RUNTIME_DIR \
             to a directory that you own)",
            path.display()
        )
    };
    let directory = open_directory(path)
        .with_context(|| describe_refusal("is not a directory that you can read"))?;
    let metadata =
        directory.metadata().with_context(|| format!("cannot examine {}", path.display()))?;
    if metadata.uid() != uid.as_raw() {
        bail!(describe_refusal(&format!("belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        bail!(describe_refusal("can be written by other users"));
    }
    Ok(())
}

/// Opens a directory. Fails for a symlink, because another user could have created the link.
fn open_directory(path: &Path) -> std::io::Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_of_another_user_is_not_used() {
        let temporary_root = tempfile::tempdir().unwrap();
        let own_uid = Uid::effective();
        let default_path = temporary_root.path().join(format!("vipool-{own_uid}"));
        assert_eq!(temporary_directory(temporary_root.path(), own_uid), default_path);
        fs::create_dir(&default_path).unwrap();
        assert_eq!(temporary_directory(temporary_root.path(), own_uid), default_path);

        // All directories of this test belong to `own_uid`, which is another user than `other_uid`.
        let other_uid = Uid::from_raw(own_uid.as_raw() + 1);
        fs::create_dir(temporary_root.path().join(format!("vipool-{other_uid}"))).unwrap();
        fs::create_dir(temporary_root.path().join(format!("vipool-{other_uid}.0"))).unwrap();
        let paths: Vec<PathBuf> =
            (0..2).map(|_| temporary_directory(temporary_root.path(), other_uid)).collect();
        assert_ne!(paths[0], paths[1], "the names are random");
        for path in paths {
            assert!(!path.exists(), "{path:?}");
        }
    }
}
