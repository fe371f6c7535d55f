//! What a program is given so that it runs in a session: the hook layer and its lease.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::bail;
use vipool::session::Handle;

/// The file of the hook layer.
pub const OBJECT: &str = "libvipool_preload.so";
/// Where packages install it.
const INSTALLED: [&str; 2] = ["/usr/lib/vipool", "/usr/local/lib/vipool"];

/// Finds the hook layer: where `VIPOOL_PRELOAD` says, beside this binary, or where it is installed.
pub fn find() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIPOOL_PRELOAD").map(PathBuf::from) {
        return usable(&path).map(|()| path);
    }
    let own = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let own = own.as_deref().and_then(Path::parent);
    let beside = own.into_iter().flat_map(|own| [own.to_owned(), own.join("../lib/vipool")]);
    let candidates: Vec<_> = beside.chain(INSTALLED.map(PathBuf::from)).collect();
    match candidates.iter().map(|directory| directory.join(OBJECT)).find(|path| path.exists()) {
        Some(path) => usable(&path).map(|()| path),
        None => bail!(
            "the hook layer {OBJECT} is not installed: it was looked for in {}. Install it \
             there, build it (cargo build -p vipool-preload), or say where it is in \
             VIPOOL_PRELOAD",
            candidates.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The dynamic linker would only warn, in the program's own output, and run it without the hook.
fn usable(path: &Path) -> anyhow::Result<()> {
    if let Err(error) = std::fs::File::open(path) {
        bail!("the hook layer {} cannot be read: {error}", path.display());
    }
    if path.as_os_str().as_encoded_bytes().iter().any(|byte| b" :".contains(byte)) {
        bail!(
            "the hook layer {} has a space or colon in its path, which LD_PRELOAD cannot \
             express (ld.so(8)): install it elsewhere",
            path.display()
        );
    }
    Ok(())
}

/// What the environment of a program in a session has in addition. `map` is the directory of the
/// map where that is not the system's.
pub fn environment(
    object: &Path,
    handle: &Handle,
    map: Option<&Path>,
) -> BTreeMap<&'static str, OsString> {
    let mut environment = BTreeMap::from([
        ("LD_PRELOAD", appended(std::env::var_os("LD_PRELOAD"), object)),
        ("VIPOOL_LEASE", handle.to_string().into()),
    ]);
    if let Some(map) = map {
        environment.insert("VIPOOL_MAP", map.into());
    }
    environment
}

/// What is preloaded already stays, and stays first.
fn appended(present: Option<OsString>, object: &Path) -> OsString {
    let mut list = present.unwrap_or_default();
    let is_object = |part: &[u8]| part == object.as_os_str().as_encoded_bytes();
    if list.as_encoded_bytes().split(|byte| b" :".contains(byte)).any(is_object) {
        return list;
    }
    if !list.is_empty() {
        list.push(":");
    }
    list.push(object);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preloaded_stays() {
        let object = Path::new("/usr/lib/vipool/libvipool_preload.so");
        let with = |present: &str| appended(Some(present.into()), object).into_string().unwrap();
        assert_eq!(appended(None, object), object.as_os_str());
        assert_eq!(with("/a.so"), "/a.so:/usr/lib/vipool/libvipool_preload.so");
        assert_eq!(
            with("/a.so /usr/lib/vipool/libvipool_preload.so"),
            with("/a.so /usr/lib/vipool/libvipool_preload.so")
        );
        let twice = with(&with("/a.so"));
        assert_eq!(twice, with("/a.so"));
    }
}
