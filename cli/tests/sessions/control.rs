//! Tests of the commands that administer and monitor addresses.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan, Settings};
use vipool::pool::{Pool, PoolKind};
use vipool_testing::have;

use crate::support::{PrivateMap, text};
use crate::users::InstalledFiles;

/// Opens a session if it is not open, and returns its loopback address.
fn open_and_get_address(private_map: &PrivateMap, session: &str) -> String {
    private_map.output(&["session", "open", session, "--private"]);
    let status = private_map.json_output(&["status", "--private"]);
    let sessions = status["sessions"].as_array().unwrap();
    let row = sessions.iter().find(|row| row["session"] == session).unwrap();
    row["loopback"].as_str().unwrap().to_owned()
}

#[test]
fn drained_addresses_are_not_allocated() {
    let private_map = PrivateMap::new();
    let first_address = open_and_get_address(&private_map, "1");
    let whole_block = format!("{}.0/24", first_address.rsplit_once('.').unwrap().0);
    let drain_output = private_map.output(&["drain", &whole_block, "--private"]);
    assert!(
        text(&drain_output.stdout)
            .contains("127 addresses are drained (leased until the sessions close: 1)"),
        "{drain_output:?}"
    );
    assert_eq!(private_map.output(&["session", "open", "2", "--private"]).status.code(), Some(75));
    assert_eq!(
        open_and_get_address(&private_map, "1"),
        first_address,
        "an open session keeps its address"
    );
    private_map.output(&["undrain", &whole_block, "--private"]);
    assert_ne!(open_and_get_address(&private_map, "2"), first_address);

    private_map.output(&["drain", "--all", "--private"]);
    assert_eq!(private_map.json_output(&["status", "--private"])["draining"], true);
    let refused_open = private_map.output(&["session", "open", "3", "--private"]);
    assert_eq!(refused_open.status.code(), Some(75));
    assert!(
        text(&refused_open.stderr).contains("the server or the pool is drained"),
        "{refused_open:?}"
    );
    private_map.output(&["undrain", "--all", "--private"]);
    open_and_get_address(&private_map, "3");

    let refused_drain = private_map.output(&["drain", "10.9.8.0/24", "--private"]);
    assert_eq!(refused_drain.status.code(), Some(1));
    assert!(text(&refused_drain.stderr).contains("10.9.8.0"), "{refused_drain:?}");
}

#[test]
fn reserved_addresses_are_allocated_to_their_user_only() {
    let private_map = PrivateMap::new();
    let first_address = open_and_get_address(&private_map, "1");
    let address = format!("{}.99", first_address.rsplit_once('.').unwrap().0);
    private_map.output(&["reserve", &address, "alice", "--private"]);
    let refused_open =
        private_map.output(&["session", "open", "2", "--private", "--address", &address]);
    assert!(text(&refused_open.stderr).contains("reserved for another user"), "{refused_open:?}");
    let owner_open = private_map.output(&["session", "open", "3", "--private", "--user", "alice"]);
    assert!(text(&owner_open.stdout).contains(&address), "{owner_open:?}");
    let address_rows = &private_map.json_output(&["addresses", "--private"]);
    let row =
        address_rows.as_array().unwrap().iter().find(|row| row["address"] == *address).unwrap();
    assert_eq!((&row["state"], &row["reserved"]), (&"used".into(), &true.into()));
    assert!(private_map.output(&["unreserve", &address, "--private"]).status.success());
    assert_eq!(private_map.output(&["unreserve", &address, "--private"]).status.code(), Some(1));
}

#[test]
fn all_reports_have_the_same_counts() {
    let private_map = PrivateMap::new();
    open_and_get_address(&private_map, "1");
    open_and_get_address(&private_map, "2");
    let status = private_map.json_output(&["status", "--private"]);
    let pool = &status["pools"][0];
    assert_eq!((&status["schema"], &pool["used"]), (&1.into(), &2.into()));
    let states = ["free", "used", "cooling", "lingering", "reserved", "drained"];
    let sum: u64 = states.iter().map(|state| pool[*state].as_u64().unwrap()).sum();
    assert_eq!(pool["addresses"], sum);

    let table = text(&private_map.output(&["status", "--private"]).stdout);
    assert!(table.starts_with("POOL "), "{table}");
    let watch_output = text(&private_map.output(&["watch", "--count", "1", "--private"]).stdout);
    assert!(watch_output.ends_with(&format!("{table}\n")), "{watch_output}");

    let file = private_map.path().join("vipool.prom");
    private_map.output(&["metrics", "--private", "--output", file.to_str().unwrap()]);
    let metrics = std::fs::read_to_string(file).unwrap();
    assert_eq!(metrics, text(&private_map.output(&["metrics", "--private"]).stdout));
    assert!(metrics.contains("state=\"used\"} 2\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    let drawing = text(&private_map.output(&["addresses", "--private"]).stdout);
    assert!(drawing.starts_with("loopback: 127 addresses\n"), "{drawing}");
    assert!(drawing.contains("  ##..."), "{drawing}");
}

#[test]
fn gc_frees_addresses_without_sockets() {
    let private_map = PrivateMap::new();
    let farm = private_map.write_farm(2, "pass", std::path::Path::new("sh"));
    let content = std::fs::read_to_string(&farm).unwrap();
    std::fs::write(&farm, content.replace("check-in-use = false", "check-in-use = true")).unwrap();
    let open_arguments = ["session", "open", "1", "--private", "--farm", &farm];
    let opened = private_map.output(&open_arguments);
    let line = text(&opened.stdout);
    let address = line.trim().rsplit(' ').next().unwrap();
    let listener = std::net::TcpListener::bind((address, 0)).unwrap();
    private_map.output(&["session", "close", "1", "--private"]);
    let freed_and_lingering =
        |report: &serde_json::Value| (report["freed"].as_u64(), report["lingering"].as_u64());
    assert_eq!(
        freed_and_lingering(&private_map.json_output(&["gc", "--private"])),
        (Some(0), Some(1))
    );
    let status = private_map.json_output(&["status", "--private"]);
    assert_eq!(status["pools"][0]["lingering"], 1);
    drop(listener);
    // Another test may fork a process, which inherits the listener and closes it at exec. Until
    // then, the address lingers.
    let mut runs = (0..600).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        freed_and_lingering(&private_map.json_output(&["gc", "--private"]))
    });
    let changed_counts = runs.find(|counts| *counts != (Some(0), Some(1)));
    assert_eq!(changed_counts, Some((Some(1), Some(0))));
}

#[test]
fn users_see_and_join_only_their_own_session() {
    if !have(&["root", "setpriv"]) {
        return;
    }
    let installed = InstalledFiles::new();
    let directory = installed.path("run");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let range = ["127.99.0.2-127.99.0.99".parse().unwrap()];
    let pool = Pool::new("loopback", PoolKind::Loopback, &range, u32::MAX).unwrap();
    let map =
        Map::create(&directory, &Plan::new([pool]).with_settings(Settings::without_cool_down()))
            .unwrap();
    let open = |session: &str, user| {
        let options = OpenOptions::new().with_user(user);
        map.open_session(session.parse().unwrap(), &options, Tick::now()).unwrap()
    };
    open("audit:7", "alice");
    let own_handle = open("audit:8", "bob").handle.to_string();

    let as_user = |arguments: &[&str]| {
        let mut command = installed.vipool(54_321);
        command.args(arguments).env("VIPOOL_MAP", &directory).env("VIPOOL_LEASE", &own_handle);
        command.output().unwrap()
    };
    let status = as_user(&["status", "--json"]);
    let status: serde_json::Value =
        serde_json::from_slice(&status.stdout).unwrap_or_else(|_| panic!("{status:?}"));
    assert_eq!(status["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(status["sessions"][0]["session"], "audit:8");
    assert_eq!(status["sessions"][0]["user"], serde_json::Value::Null);
    assert_eq!((&status["open_sessions"], &status["pools"][0]["used"]), (&2.into(), &2.into()));
    for command in ["status", "watch --count=1", "session list"] {
        let output = text(&as_user(&command.split(' ').collect::<Vec<_>>()).stdout);
        assert!(output.contains("audit:8"), "{output}");
        assert!(output.contains("Not shown: 1 open session (only root can see"), "{output}");
    }
    let mut other_logon = installed.vipool(54_321);
    other_logon.args(["run", "-s", "5", "--", "true"]).env("VIPOOL_MAP", &directory);
    let output = other_logon.env("VIPOOL_LEASE", "").env_remove("XDG_SESSION_ID").output().unwrap();
    let has_audit_session = std::fs::read_to_string("/proc/self/sessionid")
        .is_ok_and(|session| session.trim() != u32::MAX.to_string());
    let expected = match has_audit_session {
        true => "cannot join session 5: the session of your logon is ",
        false => "cannot join session 5: this logon has no session",
    };
    assert!(text(&output.stderr).contains(expected), "{output:?}");

    let joined_output = as_user(&["run", "--", "sh", "-c", "echo $VIPOOL_LEASE"]);
    assert_eq!(text(&joined_output.stdout).trim(), own_handle, "{joined_output:?}");
    let other_output = as_user(&["run", "-s", "audit:7", "--", "echo", "ran"]);
    assert!(
        text(&other_output.stderr).contains("the session of your logon is audit:8"),
        "{other_output:?}"
    );
    assert_eq!(text(&other_output.stdout), "ran\n");
    for arguments in [vec!["session", "close", "audit:7"], vec!["drain", "--all"]] {
        let output = as_user(&arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("ermission"), "{output:?}");
    }
}

#[test]
fn history_reports_the_past_user_of_an_address() {
    let private_map = PrivateMap::new();
    let open_arguments =
        ["session", "open", "7", "--private", "--user", "alice", "--client", "192.0.2.7"];
    let opened = text(&private_map.output(&open_arguments).stdout);
    let address = opened.trim().rsplit(' ').next().unwrap();
    let who = |extra_arguments: &[&str]| {
        private_map.output(&[&["who", address, "--private"], extra_arguments].concat())
    };
    let current_answer = text(&who(&[]).stdout);
    assert!(current_answer.contains("session 7 of user alice at 192.0.2.7"), "{current_answer}");
    // The shell kills `vipool run`, so that `vipool run` cannot close the session.
    let mut killed_run = private_map.vipool(&["run", "--private", "-s", "8", "--", "sh", "-c"]);
    killed_run.arg("kill -9 $PPID");
    killed_run.output().unwrap();
    assert_eq!(private_map.open_sessions(), ["7", "8"]);
    private_map.output(&["session", "close", "7", "--private"]);
    private_map.output(&["session", "close", "8", "--private"]);
    assert_eq!(who(&["--at", "2001-01-01"]).status.code(), Some(1));

    let history = private_map.json_output(&["history", "--private", "--address", address]);
    let events: Vec<_> = history.as_array().unwrap().iter().map(|row| &row["event"]).collect();
    assert_eq!(events, ["assigned", "released"]);
    let answer_after_release = who(&["--at", "2999-01-01"]);
    assert_eq!(
        (
            answer_after_release.status.code(),
            text(&answer_after_release.stdout).contains("was not leased")
        ),
        (Some(1), true)
    );
    let assigned_at = history[0]["time"].as_str().unwrap();
    if assigned_at != history[1]["time"] {
        let past_answer = text(&who(&["--at", assigned_at]).stdout);
        assert!(past_answer.contains("session 7 of user alice"), "{past_answer}");
    }
    let csv =
        text(&private_map.output(&["history", "--private", "--csv", "--user", "alice"]).stdout);
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(csv.lines().nth(1).unwrap().contains(",assigned,7,"), "{csv}");
}

#[test]
fn repeated_gc_collects_events_before_its_next_maintenance() {
    let private_map = PrivateMap::new();
    open_and_get_address(&private_map, "1");
    let history_file = private_map.map_directory().join("history.log");
    let mut command = private_map.vipool(&["gc", "--private", "--every", "600"]);
    command.stdout(std::process::Stdio::piped());
    let mut gc = vipool_testing::ChildGuard::start(&mut command);
    let wait_for_events = |expected_count: usize| {
        let event_count = || {
            std::fs::read_to_string(&history_file)
                .unwrap_or_default()
                .matches("\"assigned\"")
                .count()
        };
        (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            event_count() == expected_count
        })
    };
    assert!(wait_for_events(1), "the first maintenance collects the events");
    open_and_get_address(&private_map, "2");
    assert!(wait_for_events(2), "the events of the second session are collected at once");
    gc.0.kill().unwrap();
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut gc.0.stdout.take().unwrap(), &mut printed).unwrap();
    assert_eq!(printed, "", "no address became free");
}
