//! Tests of maps in a full file system, in other namespaces, and after a reboot.

use std::fs;
use std::path::Path;
use std::process::Command;

use vipool::Tick;
use vipool::map::{CloseError, Map, MapError, OpenError, OpenOptions, Reader};

use crate::process::{Child, WaitStatus, mount_tmpfs, unshare};
use crate::processes::plan;
use crate::recovery::{TestDirectory, session_id};

const ANONYMOUS: OpenOptions<'_> = OpenOptions::new();

/// Runs the closure in a child that is in new namespaces. Skips the test if the system forbids new
/// namespaces.
fn run_in_namespaces(flags: i32, run: impl FnOnce()) {
    const EXIT_NO_NAMESPACES: i32 = 77;
    let mut child = Child::start(|| {
        if !unshare(flags) {
            std::process::exit(EXIT_NO_NAMESPACES);
        }
        run();
    });
    match child.wait() {
        WaitStatus::Exited(0) => {}
        WaitStatus::Exited(EXIT_NO_NAMESPACES) => {
            vipool_testing::record_skip(
                "namespaces",
                "run the tests as root or allow user namespaces",
            );
        }
        status => panic!("the child: {status:?}"),
    }
}

/// Returns the sorted names of the files in a directory.
fn file_names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_time_namespace_does_not_change_the_tick() {
    const EXPECTED_TICK: &str = "VIPOOL_EXPECTED_TICK";
    if let Ok(expected) = std::env::var(EXPECTED_TICK) {
        assert!(Tick::now().as_secs().abs_diff(expected.parse().unwrap()) < 600);
        return;
    }
    run_in_namespaces(libc::CLONE_NEWTIME, || {
        fs::write("/proc/self/timens_offsets", "boottime 1000000 0").unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "environment::a_time_namespace_does_not_change_the_tick"])
            .env(EXPECTED_TICK, Tick::now().as_secs().to_string())
            .status();
        assert!(status.unwrap().success());
    });
}

#[test]
fn full_tmpfs_fails_at_creation_and_never_raises_a_signal_later() {
    let directory = TestDirectory::new("full");
    run_in_namespaces(libc::CLONE_NEWNS, || {
        mount_tmpfs(&directory.0, "size=256k");
        let is_full = |result: Result<Map, MapError>| match result {
            Err(MapError::Io { source, .. }) => source.raw_os_error() == Some(libc::ENOSPC),
            _ => false,
        };
        // The first map file is larger than the file system. The second map file fits, but leaves
        // no space for its sessions file.
        assert!(is_full(Map::create(&directory.0, &plan(100_000))));
        assert!(is_full(Map::create(&directory.0, &plan(2_000))));
        assert_eq!(file_names(&directory.0), ["lock", "reload"]);
        let map = Map::create(&directory.0, &plan(100)).unwrap();
        let opened = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
        let reader = Reader::attach(&directory.0).unwrap();
        // If the map of a new plan does not fit, the old map stays unchanged.
        assert!(is_full(Map::create(&directory.0, &plan(100_000))));
        assert!(!reader.is_superseded() && reader.is_live(&opened.handle));
        // Fill the file system with another file. The map still works, because all its blocks are
        // already allocated.
        _ = fs::write(directory.0.join("filler"), vec![1; 1 << 20]);
        for number in 2..=100 {
            map.open_session(session_id(number), &ANONYMOUS, Tick::ZERO).unwrap();
        }
        assert!(is_full(Map::create(&directory.0, &plan(101))));
        map.close_by_handle(&opened.handle, Tick::ZERO).unwrap();
        assert_eq!(
            file_names(&directory.0),
            ["filler", "journal", "lock", "map", "reload", "sessions"]
        );
    });
}

#[test]
fn map_of_another_network_namespace_is_refused() {
    let directory = TestDirectory::new("netns");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    run_in_namespaces(libc::CLONE_NEWNET, || {
        assert!(matches!(Map::open(&directory.0), Err(MapError::OtherBoot(_))));
        assert!(matches!(Reader::attach(&directory.0), Err(MapError::OtherBoot(_))));
        // A map that is created in the new namespace is empty.
        let foreign_map = Map::create(&directory.0, &plan(9)).unwrap();
        assert!(foreign_map.sessions().unwrap().is_empty());
        fs::write(directory.0.join("created"), "").unwrap();
    });
    if directory.0.join("created").exists() {
        // The map file now belongs to the network namespace of the child, so the writer of the old
        // map fails.
        assert!(matches!(
            map.open_session(session_id(2), &ANONYMOUS, Tick::ZERO),
            Err(OpenError::Map(MapError::OtherBoot(_)))
        ));
    }
}

#[test]
fn map_of_another_boot_is_refused() {
    let directory = TestDirectory::new("boot");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let opened = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap();
    drop(map);
    // Simulate a reboot: change the boot hash in the file.
    let path = directory.0.join("map");
    let mut bytes = fs::read(&path).unwrap();
    let boot = opened.handle.boot.to_ne_bytes();
    let offset = bytes.windows(8).position(|window| window == boot).unwrap();
    bytes[offset] ^= 4;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(Map::open(&directory.0), Err(MapError::OtherBoot(_))));
    assert!(matches!(Reader::attach(&directory.0), Err(MapError::OtherBoot(_))));
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    assert!(map.sessions().unwrap().is_empty());
    let mut handle = map.open_session(session_id(1), &ANONYMOUS, Tick::ZERO).unwrap().handle;
    handle.boot ^= 4;
    assert!(matches!(map.close_by_handle(&handle, Tick::ZERO), Err(CloseError::Foreign)));
    assert!(!map.reader().unwrap().is_live(&handle));
}
