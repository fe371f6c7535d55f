//! The hook layer: its shared object, and the environment with which a program loads the shared
//! object.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use vipool::session::Handle;

/// File name of the hook layer's shared object.
pub const HOOK_FILE: &str = "libvipool_preload.so";
/// The directories in which a package or an administrator installs the shared object.
const INSTALL_DIRECTORIES: [&str; 2] = ["/usr/lib/vipool", "/usr/local/lib/vipool"];

/// Finds the hook layer's shared object.
///
/// The environment variable `VIPOOL_PRELOAD` can contain the path of this file. Without this
/// variable, the function searches the directory of this binary, `../lib/vipool` relative to that
/// directory, and the install directories.
///
/// # Errors
/// The file does not exist, cannot be read, or has a path that LD_PRELOAD does not allow.
pub fn find_hook() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIPOOL_PRELOAD").map(PathBuf::from) {
        return check_loadable(&path).map(|()| path);
    }
    let own_executable = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let executable_directory = own_executable.as_deref().and_then(Path::parent);
    let directories_near_binary = executable_directory
        .into_iter()
        .flat_map(|directory| [directory.to_owned(), directory.join("../lib/vipool")]);
    let candidate_directories: Vec<_> =
        directories_near_binary.chain(INSTALL_DIRECTORIES.map(PathBuf::from)).collect();
    match candidate_directories
        .iter()
        .map(|directory| directory.join(HOOK_FILE))
        .find(|path| path.exists())
    {
        Some(path) => check_loadable(&path).map(|()| path),
        None => bail!(
            "cannot find the hook layer {HOOK_FILE} in {} (install it there, build it with \
             'cargo build -p vipool-preload', or set VIPOOL_PRELOAD to its path)",
            candidate_directories
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}

/// Checks that the hook file is readable and that LD_PRELOAD allows its path. Otherwise, the
/// dynamic linker would print a warning to the program's own output and run the program without the
/// hook.
fn check_loadable(path: &Path) -> anyhow::Result<()> {
    if let Err(error) = std::fs::File::open(path) {
        bail!("cannot read the hook layer {}: {error}", path.display());
    }
    if path.as_os_str().as_encoded_bytes().iter().any(|byte| b" :".contains(byte)) {
        bail!(
            "cannot load the hook layer {}: LD_PRELOAD allows no space or colon in a path \
             (ld.so(8); install it in another directory)",
            path.display()
        );
    }
    Ok(())
}

/// Returns the environment variables to set for a program in a session.
///
/// `map` is the directory of the map, or `None` for the system's map.
pub fn hook_environment(
    hook_file: &Path,
    handle: &Handle,
    map: Option<&Path>,
) -> BTreeMap<&'static str, OsString> {
    let mut environment = BTreeMap::from([
        ("LD_PRELOAD", append_preload(std::env::var_os("LD_PRELOAD"), hook_file)),
        ("VIPOOL_LEASE", handle.to_string().into()),
    ]);
    if let Some(map) = map {
        environment.insert("VIPOOL_MAP", map.into());
    }
    environment
}

/// Appends the hook to an LD_PRELOAD list, unless the list already contains the hook.
fn append_preload(current_list: Option<OsString>, hook_file: &Path) -> OsString {
    let mut list = current_list.unwrap_or_default();
    let is_hook = |entry: &[u8]| entry == hook_file.as_os_str().as_encoded_bytes();
    if list.as_encoded_bytes().split(|byte| b" :".contains(byte)).any(is_hook) {
        return list;
    }
    if !list.is_empty() {
        list.push(":");
    }
    list.push(hook_file);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hook_is_appended_once_after_other_libraries() {
        let hook = Path::new("/usr/lib/vipool/libvipool_preload.so");
        let append = |current_list: &str| {
            append_preload(Some(current_list.into()), hook).into_string().unwrap()
        };
        assert_eq!(append_preload(None, hook), hook.as_os_str());
        assert_eq!(append("/a.so"), "/a.so:/usr/lib/vipool/libvipool_preload.so");
        assert_eq!(
            append("/a.so /usr/lib/vipool/libvipool_preload.so"),
            "/a.so /usr/lib/vipool/libvipool_preload.so"
        );
        assert_eq!(append(&append("/a.so")), append("/a.so"));
    }
}
