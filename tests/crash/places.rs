//! Maps where they do not belong or do not fit: a full file system, another network namespace,
//! another boot.

use std::fs;
use std::path::Path;

use vipool::Tick;
use vipool::map::{CloseError, Map, MapError, OpenError, OpenOptions, Reader};

use crate::forks::plan;
use crate::process::{Child, Event, mount_tmpfs, unshare};
use crate::view::{Directory, id};

const ANY: OpenOptions<'_> =
    OpenOptions { user: None, pool: None, address: None, client: None, leader: None };

/// Runs this in a child in new namespaces; skips the test where there may be none.
fn apart(flags: i32, run: impl FnOnce()) {
    const NO_NAMESPACES: i32 = 77;
    let mut child = Child::start(|| {
        if !unshare(flags) {
            std::process::exit(NO_NAMESPACES);
        }
        run();
    });
    match child.wait() {
        Event::Exited(0) => {}
        Event::Exited(NO_NAMESPACES) => {
            vipool_testing::record_skip(
                "namespaces",
                "run the tests as root or allow user namespaces",
            );
        }
        other => panic!("the child: {other:?}"),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_full_tmpfs_is_an_error_at_creation_and_never_a_signal_later() {
    let directory = Directory::new("full");
    apart(libc::CLONE_NEWNS, || {
        mount_tmpfs(&directory.0, "size=256k");
        let full = |result: Result<Map, MapError>| match result {
            Err(MapError::Io { source, .. }) => source.raw_os_error() == Some(libc::ENOSPC),
            _ => false,
        };
        // Neither the map fits, nor beside a map that does its private twin.
        assert!(full(Map::create(&directory.0, &plan(100_000))));
        assert!(full(Map::create(&directory.0, &plan(2_000))));
        assert_eq!(names(&directory.0), ["lock"]);
        let map = Map::create(&directory.0, &plan(100)).unwrap();
        let opened = map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
        let reader = Reader::attach(&directory.0).unwrap();
        // A new configuration that does not fit leaves the old map as it was.
        assert!(full(Map::create(&directory.0, &plan(100_000))));
        assert!(!reader.is_superseded() && reader.is_live(&opened.handle));
        // Full to the last byte by others: everything goes on, since all of it was allocated.
        _ = fs::write(directory.0.join("filler"), vec![1; 1 << 20]);
        for number in 2..=100 {
            map.open_session(id(number), &ANY, Tick::ZERO).unwrap();
        }
        assert!(full(Map::create(&directory.0, &plan(101))));
        map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        assert_eq!(names(&directory.0), ["filler", "journal", "lock", "map", "sessions"]);
    });
}

#[test]
fn a_map_of_another_network_namespace_is_not_ours() {
    let directory = Directory::new("netns");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    apart(libc::CLONE_NEWNET, || {
        assert!(matches!(Map::open(&directory.0), Err(MapError::OtherBoot(_))));
        assert!(matches!(Reader::attach(&directory.0), Err(MapError::OtherBoot(_))));
        // Whoever makes one there all the same gets an empty one,
        let theirs = Map::create(&directory.0, &plan(9)).unwrap();
        assert!(theirs.sessions().unwrap().is_empty());
        fs::write(directory.0.join("made"), "").unwrap();
    });
    if directory.0.join("made").exists() {
        // and who had the old one open is told.
        assert!(matches!(
            map.open_session(id(2), &ANY, Tick::ZERO),
            Err(OpenError::Map(MapError::OtherBoot(_)))
        ));
    }
}

#[test]
fn a_map_of_another_boot_is_not_ours() {
    let directory = Directory::new("boot");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let opened = map.open_session(id(1), &ANY, Tick::ZERO).unwrap();
    drop(map);
    // The machine is started again: the file is of a boot that has another hash.
    let path = directory.0.join("map");
    let mut bytes = fs::read(&path).unwrap();
    let boot = opened.handle.boot.to_ne_bytes();
    let at = bytes.windows(8).position(|window| window == boot).unwrap();
    bytes[at] ^= 4;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Map::open(&directory.0), Err(MapError::OtherBoot(_))));
    assert!(matches!(Reader::attach(&directory.0), Err(MapError::OtherBoot(_))));
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    assert!(map.sessions().unwrap().is_empty());
    let mut handle = map.open_session(id(1), &ANY, Tick::ZERO).unwrap().handle;
    handle.boot ^= 4;
    assert!(matches!(map.close_by_handle(&handle, Tick::ZERO), Err(CloseError::Foreign)));
    assert!(!map.reader().unwrap().is_live(&handle));
}
