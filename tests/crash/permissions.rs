//! Tests of file permissions: other users can only read the map file. Files that they plant in the
//! directory of a map are refused or replaced.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use vipool::Tick;
use vipool::map::{Map, MapError, Reader};

use crate::process::{Child, WaitStatus, switch_user};
use crate::processes::plan;
use crate::recovery::{TestDirectory, session_id};

const OTHER_UID: u32 = 65_534;

#[test]
fn other_users_can_read_the_map_file_only() {
    if !vipool_testing::have(&["root"]) {
        return;
    }
    let directory = TestDirectory::new("rights");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let user = vipool::map::OpenOptions::new().with_user("ann");
    map.open_session(session_id(1), &user, Tick::ZERO).unwrap();
    let mode = |name: &str| directory.0.join(name).metadata().unwrap().mode() & 0o777;
    let modes = ["map", "sessions", "journal", "lock", "reload"].map(mode);
    assert_eq!(modes, [0o644, 0o640, 0o640, 0o600, 0o600]);
    let mut child = Child::start(|| {
        switch_user(OTHER_UID);
        let reader = Reader::attach(&directory.0).unwrap();
        let row = &reader.sessions()[0];
        assert_eq!((row.session, row.user.as_deref()), (session_id(1), None));
        for (name, is_write_access) in [
            ("map", true),
            ("sessions", false),
            ("sessions", true),
            ("journal", false),
            ("lock", false),
            ("reload", false),
        ] {
            let result = OpenOptions::new()
                .read(!is_write_access)
                .write(is_write_access)
                .open(directory.0.join(name));
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied, "{name}");
        }
        let is_denied = |error: MapError| matches!(error, MapError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied);
        assert!(is_denied(Map::open(&directory.0).unwrap_err()));
        assert!(is_denied(Map::create(&directory.0, &plan(9)).unwrap_err()));
        assert!(fs::remove_file(directory.0.join("map")).is_err());
    });
    assert_eq!(child.wait(), WaitStatus::Exited(0));
    assert_eq!(map.sessions().unwrap()[0].user.as_deref(), Some("ann"));
}

/// Plants a file of this kind at `path`. A link refers to `victim`. Any other regular file is a
/// copy of `victim`. vipool must never change `victim`.
fn plant(kind: &str, path: &Path, victim: &Path) {
    _ = fs::remove_file(path);
    match kind {
        "symlink" => symlink(victim, path).unwrap(),
        "hard link" => fs::hard_link(victim, path).unwrap(),
        "another user's file" => {
            fs::copy(victim, path).unwrap();
            chown(path, Some(OTHER_UID), Some(OTHER_UID)).unwrap();
        }
        "world-writable file" => {
            fs::copy(victim, path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        "pipe" => {
            let path = CString::new(path.to_str().unwrap()).unwrap();
            // SAFETY: the path ends with NUL.
            assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o644) }, 0);
        }
        _ => unreachable!(),
    }
}

const PLANTED_KINDS: [&str; 5] =
    ["symlink", "hard link", "another user's file", "world-writable file", "pipe"];

#[test]
fn planted_files_are_refused_or_replaced_and_never_written_to() {
    if !vipool_testing::have(&["root"]) {
        return;
    }
    for kind in PLANTED_KINDS {
        for name in [
            "map",
            "sessions",
            "journal",
            "lock",
            "reload",
            "map.new",
            "sessions.new",
            "journal.new",
        ] {
            let (directory, other_directory) =
                (TestDirectory::new("planted"), TestDirectory::new("elsewhere"));
            let path = directory.0.join(name);
            // Plant a valid file of another map, so that only the type, the link count, the owner
            // or the mode of the file is wrong.
            let other_map = Map::create(&other_directory.0, &plan(9)).unwrap();
            other_map.open_session(session_id(1), &Default::default(), Tick::ZERO).unwrap();
            drop(other_map);
            let victim = other_directory.0.join(name.trim_end_matches(".new"));
            let original_bytes = fs::read(&victim).unwrap();
            Map::create(&directory.0, &plan(9)).unwrap();
            plant(kind, &path, &victim);
            let attach_result = Reader::attach(&directory.0);
            let open_result = Map::open(&directory.0);
            let create_result = Map::create(&directory.0, &plan(9));
            let is_untrusted = |error: Option<MapError>| match error {
                Some(MapError::Untrusted { reason, .. }) => !reason.is_empty(),
                _ => false,
            };
            let refusals = [
                is_untrusted(attach_result.err()),
                is_untrusted(open_result.err()),
                is_untrusted(create_result.err()),
            ];
            let expected_refusals = match name {
                "map" => [true, true, true],
                "lock" => [false, true, true],
                // Only a process that creates or repairs the map opens this file.
                "reload" => [false, false, true],
                // vipool ignores these files and replaces them.
                _ => [false, false, false],
            };
            assert_eq!(refusals, expected_refusals, "a {kind} at {name}");
            assert_eq!(fs::read(&victim).unwrap(), original_bytes, "a {kind} at {name}");
            if expected_refusals == [false; 3] {
                let map = Map::open(&directory.0).unwrap();
                assert!(map.sessions().unwrap().is_empty());
                for name in ["sessions", "journal"] {
                    let metadata = directory.0.join(name).symlink_metadata().unwrap();
                    assert!(metadata.is_file() && metadata.uid() == 0, "a {kind} at {name}");
                }
            }
        }
    }
}

#[test]
fn error_names_a_directory_at_the_path_of_a_new_file() {
    let directory = TestDirectory::new("directory-at-path");
    fs::create_dir(directory.0.join("map.new")).unwrap();
    let error = Map::create(&directory.0, &plan(9)).unwrap_err().to_string();
    assert!(error.contains("map.new"), "{error}");
}
