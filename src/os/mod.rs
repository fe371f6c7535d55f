//! The interface to the operating system, with one small module for each concern. Most of the
//! crate's unsafe calls of the operating system are in this module.

use std::path::Path;

pub(crate) mod clock;
#[cfg(unix)]
mod descriptors;
#[cfg_attr(not(target_os = "linux"), path = "directory_std.rs")]
pub(crate) mod directory;
pub(crate) mod fork;
#[cfg_attr(windows, path = "identity_windows.rs")]
pub(crate) mod identity;
#[cfg_attr(windows, path = "interfaces_windows.rs")]
pub(crate) mod interfaces;
#[cfg_attr(windows, path = "listeners_windows.rs")]
pub(crate) mod listeners;
pub(crate) mod lock;
pub(crate) mod map_directory;
#[cfg(any(target_os = "linux", windows))]
#[cfg_attr(windows, path = "probe_windows.rs")]
pub(crate) mod probe;
#[cfg(any(target_os = "linux", windows))]
#[cfg_attr(windows, path = "process_windows.rs")]
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod trust_error;
#[cfg_attr(windows, path = "trusted_file_windows.rs")]
pub(crate) mod trusted_file;
#[cfg(unix)]
pub(crate) mod uncancellable_file;
#[cfg_attr(windows, path = "users_windows.rs")]
pub(crate) mod users;

/// Returns the directory that contains the file at `path`: `.` if `path` is only a file name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
