//! The files of the history: the current file and the rotated files.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Maximum number of rotated files.
pub const MAX_ROTATED_FILES: u32 = 99;

/// Returns the rotated files by their number. File 1 is the newest. A number can be missing.
pub fn rotated_files(path: &Path) -> anyhow::Result<BTreeMap<u32, PathBuf>> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let context = || format!("cannot list {}", directory.display());
    let prefix = format!("{}.", path.file_name().unwrap_or_default().display());
    let mut files = BTreeMap::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(files),
        entries => entries.with_context(context)?,
    };
    for entry in entries {
        let name = entry.with_context(context)?.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(&prefix));
        let number: u32 = suffix.and_then(|suffix| suffix.parse().ok()).unwrap_or(0);
        // A name such as `history.log.01` is not the name of a rotated file.
        let is_rotated = suffix.is_some_and(|suffix| number.to_string() == suffix);
        if is_rotated && (1..=MAX_ROTATED_FILES).contains(&number) {
            files.insert(number, directory.join(name));
        }
    }
    Ok(files)
}

/// Returns the metadata of a file. The error names the file.
pub fn metadata(path: &Path) -> anyhow::Result<Metadata> {
    fs::metadata(path).with_context(|| format!("cannot examine {}", path.display()))
}

/// Renames a file. The error names the file.
pub fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))
}

/// Returns the path with a suffix, such as `history.log.1`.
pub fn suffixed_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}
