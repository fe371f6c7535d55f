//! Lists the names in a directory. This is the version of `directory.rs` for systems other than
//! Linux. Unlike `directory.rs`, it allocates.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

/// Calls `visit` with the name of each entry until `visit` returns `Break`. Skips names that are
/// not UTF-8.
///
/// # Errors
/// Fails if the directory cannot be read.
pub fn for_each_name(
    directory: &Path,
    mut visit: impl FnMut(&str) -> ControlFlow<()>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        if let Some(name) = entry?.file_name().to_str()
            && visit(name).is_break()
        {
            break;
        }
    }
    Ok(())
}
