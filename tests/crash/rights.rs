//! What other users may do to a map, and what they may plant.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use vipool::Tick;
use vipool::map::{Map, MapError, Reader};

use crate::forks::plan;
use crate::process::{Child, Event, become_user};
use crate::view::{Directory, id};

const OTHER: u32 = 65_534;

#[test]
fn another_user_may_read_the_map_and_nothing_else() {
    if !vipool_testing::have(&["root"]) {
        return;
    }
    let directory = Directory::new("rights");
    let map = Map::create(&directory.0, &plan(9)).unwrap();
    let user = vipool::map::OpenOptions { user: Some("ann"), ..Default::default() };
    map.open_session(id(1), &user, Tick::ZERO).unwrap();
    let mode = |name: &str| directory.0.join(name).metadata().unwrap().mode() & 0o777;
    let modes = ["map", "sessions", "journal", "lock"].map(mode);
    assert_eq!(modes, [0o644, 0o640, 0o640, 0o600]);
    let mut child = Child::start(|| {
        become_user(OTHER);
        let reader = Reader::attach(&directory.0).unwrap();
        let row = &reader.sessions()[0];
        assert_eq!((row.session, row.user.as_deref()), (id(1), None));
        for (name, write) in [
            ("map", true),
            ("sessions", false),
            ("sessions", true),
            ("journal", false),
            ("lock", false),
        ] {
            let opened = OpenOptions::new().read(!write).write(write).open(directory.0.join(name));
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::PermissionDenied, "{name}");
        }
        let denied = |error: MapError| matches!(error, MapError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied);
        assert!(denied(Map::open(&directory.0).unwrap_err()));
        assert!(denied(Map::create(&directory.0, &plan(9)).unwrap_err()));
        assert!(fs::remove_file(directory.0.join("map")).is_err());
    });
    assert_eq!(child.wait(), Event::Exited(0));
    assert_eq!(map.sessions().unwrap()[0].user.as_deref(), Some("ann"));
}

/// What somebody may have put at a path.
fn plant(what: &str, at: &Path, victim: &Path) {
    _ = fs::remove_file(at);
    match what {
        "symlink" => symlink(victim, at).unwrap(),
        "hard link" => fs::hard_link(victim, at).unwrap(),
        "another user's file" => {
            fs::copy(victim, at).unwrap();
            chown(at, Some(OTHER), Some(OTHER)).unwrap();
        }
        "file that all may write" => {
            fs::copy(victim, at).unwrap();
            fs::set_permissions(at, fs::Permissions::from_mode(0o666)).unwrap();
        }
        "pipe" => {
            let path = CString::new(at.to_str().unwrap()).unwrap();
            // SAFETY: the path ends with a zero.
            assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o644) }, 0);
        }
        _ => unreachable!(),
    }
}

const PLANTS: [&str; 5] =
    ["symlink", "hard link", "another user's file", "file that all may write", "pipe"];

#[test]
fn what_was_planted_at_a_path_is_refused_or_removed_and_never_written_to() {
    if !vipool_testing::have(&["root"]) {
        return;
    }
    for what in PLANTS {
        for name in ["map", "sessions", "journal", "lock", "map.new", "sessions.new", "journal.new"]
        {
            let (directory, elsewhere) = (Directory::new("planted"), Directory::new("elsewhere"));
            let at = directory.0.join(name);
            // A good map of another directory, so that only its being planted is wrong.
            let other = Map::create(&elsewhere.0, &plan(9)).unwrap();
            other.open_session(id(1), &Default::default(), Tick::ZERO).unwrap();
            drop(other);
            let victim = elsewhere.0.join(name.trim_end_matches(".new"));
            let before = fs::read(&victim).unwrap();
            Map::create(&directory.0, &plan(9)).unwrap();
            plant(what, &at, &victim);
            let (attached, opened) = (Reader::attach(&directory.0), Map::open(&directory.0));
            let made = Map::create(&directory.0, &plan(9));
            let untrusted = |error: Option<MapError>| match error {
                Some(MapError::Untrusted { reason, .. }) => !reason.is_empty(),
                _ => false,
            };
            let refused =
                [untrusted(attached.err()), untrusted(opened.err()), untrusted(made.err())];
            let expected = match name {
                "map" => [true, true, true],
                "lock" => [false, true, true],
                // Ignored, and replaced by a new one.
                _ => [false, false, false],
            };
            assert_eq!(refused, expected, "a {what} at {name}");
            assert_eq!(fs::read(&victim).unwrap(), before, "a {what} at {name}");
            if expected == [false; 3] {
                let map = Map::open(&directory.0).unwrap();
                assert!(map.sessions().unwrap().is_empty());
                for name in ["sessions", "journal"] {
                    let found = directory.0.join(name).symlink_metadata().unwrap();
                    assert!(found.is_file() && found.uid() == 0, "a {what} at {name}");
                }
            }
        }
    }
}

#[test]
fn a_directory_in_the_way_is_an_error_that_names_it() {
    let directory = Directory::new("in-the-way");
    fs::create_dir(directory.0.join("map.new")).unwrap();
    let error = Map::create(&directory.0, &plan(9)).unwrap_err().to_string();
    assert!(error.contains("map.new"), "{error}");
}
