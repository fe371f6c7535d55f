//! Control and monitor.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan};
use vipool::pool::{Pool, PoolKind};
use vipool_testing::have;

use crate::support::{Place, text};
use crate::users::Installed;

/// The only address of a session.
fn address(place: &Place, session: &str) -> String {
    place.output(&["session", "open", session, "--private"]);
    let status = place.json(&["status", "--private"]);
    let sessions = status["sessions"].as_array().unwrap();
    let row = sessions.iter().find(|row| row["session"] == session).unwrap();
    row["loopback"].as_str().unwrap().to_owned()
}

#[test]
fn drained_addresses_are_given_to_nobody() {
    let place = Place::new();
    let held = address(&place, "1");
    let all = format!("{}.0/24", held.rsplit_once('.').unwrap().0);
    let drained = place.output(&["drain", &all, "--private"]);
    assert!(text(&drained.stdout).contains("127 addresses are drained (1 of them"), "{drained:?}");
    assert_eq!(place.output(&["session", "open", "2", "--private"]).status.code(), Some(75));
    assert_eq!(address(&place, "1"), held, "who has one keeps it");
    place.output(&["undrain", &all, "--private"]);
    assert_ne!(address(&place, "2"), held);

    place.output(&["drain", "--all", "--private"]);
    assert_eq!(place.json(&["status", "--private"])["draining"], true);
    let refused = place.output(&["session", "open", "3", "--private"]);
    assert_eq!(refused.status.code(), Some(75));
    assert!(text(&refused.stderr).contains("draining"), "{refused:?}");
    place.output(&["undrain", "--all", "--private"]);
    address(&place, "3");

    let elsewhere = place.output(&["drain", "10.9.8.0/24", "--private"]);
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(text(&elsewhere.stderr).contains("10.9.8.0"), "{elsewhere:?}");
}

#[test]
fn reserved_addresses_are_their_users() {
    let place = Place::new();
    let first = address(&place, "1");
    let wanted = format!("{}.99", first.rsplit_once('.').unwrap().0);
    place.output(&["reserve", &wanted, "alice", "--private"]);
    let others = place.output(&["session", "open", "2", "--private", "--address", &wanted]);
    assert!(text(&others.stderr).contains("reserved for another user"), "{others:?}");
    let hers = place.output(&["session", "open", "3", "--private", "--user", "alice"]);
    assert!(text(&hers.stdout).contains(&wanted), "{hers:?}");
    let pools = &place.json(&["addresses", "--private"]);
    let row = pools.as_array().unwrap().iter().find(|row| row["address"] == *wanted).unwrap();
    assert_eq!((&row["state"], &row["reserved"]), (&"used".into(), &true.into()));
    assert!(place.output(&["unreserve", &wanted, "--private"]).status.success());
    assert_eq!(place.output(&["unreserve", &wanted, "--private"]).status.code(), Some(1));
}

#[test]
fn the_numbers_are_the_same_everywhere() {
    let place = Place::new();
    address(&place, "1");
    address(&place, "2");
    let status = place.json(&["status", "--private"]);
    let pool = &status["pools"][0];
    assert_eq!((&status["schema"], &pool["used"]), (&1.into(), &2.into()));
    let states = ["free", "used", "cooling", "lingering", "reserved", "drained"];
    let sum: u64 = states.iter().map(|state| pool[*state].as_u64().unwrap()).sum();
    assert_eq!(pool["addresses"], sum);

    let table = text(&place.output(&["status", "--private"]).stdout);
    assert!(table.starts_with("POOL "), "{table}");
    let watched = text(&place.output(&["watch", "--count", "1", "--private"]).stdout);
    assert!(watched.ends_with(&format!("{table}\n")), "{watched}");

    let file = place.path().join("vipool.prom");
    place.output(&["metrics", "--private", "--output", file.to_str().unwrap()]);
    let metrics = std::fs::read_to_string(file).unwrap();
    assert_eq!(metrics, text(&place.output(&["metrics", "--private"]).stdout));
    assert!(metrics.contains("state=\"used\"} 2\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    let drawn = text(&place.output(&["addresses", "--private"]).stdout);
    assert!(drawn.starts_with("loopback: 127 addresses\n"), "{drawn}");
    assert!(drawn.contains("  ##..."), "{drawn}");
}

#[test]
fn gc_frees_what_nothing_is_bound_to() {
    let place = Place::new();
    let farm = place.farm(2, "pass", std::path::Path::new("sh"));
    let content = std::fs::read_to_string(&farm).unwrap();
    std::fs::write(&farm, content.replace("check-in-use = false", "check-in-use = true")).unwrap();
    let open = ["session", "open", "1", "--private", "--farm", &farm];
    let opened = place.output(&open);
    let line = text(&opened.stdout);
    let address = line.trim().rsplit(' ').next().unwrap();
    let left_behind = std::net::TcpListener::bind((address, 0)).unwrap();
    place.output(&["session", "close", "1", "--private"]);
    let freed = |said: &serde_json::Value| (said["freed"].as_u64(), said["lingering"].as_u64());
    assert_eq!(freed(&place.json(&["gc", "--private"])), (Some(0), Some(1)));
    let status = place.json(&["status", "--private"]);
    assert_eq!(status["pools"][0]["lingering"], 1);
    drop(left_behind);
    // A process that another test has just forked has it until it becomes its program.
    let mut looks = (0..600).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        freed(&place.json(&["gc", "--private"]))
    });
    let last = looks.find(|said| *said != (Some(0), Some(1)));
    assert_eq!(last, Some((Some(1), Some(0))));
}

#[test]
fn a_user_sees_the_own_row_only_and_joins_the_own_session() {
    if !have(&["root", "setpriv"]) {
        return;
    }
    let installed = Installed::new();
    let directory = installed.path("run");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let range = ["127.99.0.2-127.99.0.99".parse().unwrap()];
    let pool = Pool::new("loopback", PoolKind::Loopback, &range, u32::MAX).unwrap();
    let map = Map::create(&directory, &Plan::new([pool])).unwrap();
    let open = |session: &str, user| {
        let options = OpenOptions::new().with_user(user);
        map.open_session(session.parse().unwrap(), &options, Tick::now()).unwrap()
    };
    open("audit:7", "alice");
    let own = open("audit:8", "bob").handle.to_string();

    let as_user = |arguments: &[&str]| {
        let mut command = installed.vipool(54_321);
        command.args(arguments).env("VIPOOL_MAP", &directory).env("VIPOOL_LEASE", &own);
        command.output().unwrap()
    };
    let status = as_user(&["status", "--json"]);
    let status: serde_json::Value =
        serde_json::from_slice(&status.stdout).unwrap_or_else(|_| panic!("{status:?}"));
    assert_eq!(status["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(status["sessions"][0]["session"], "audit:8");
    assert_eq!(status["sessions"][0]["user"], serde_json::Value::Null);
    assert_eq!((&status["open_sessions"], &status["pools"][0]["used"]), (&2.into(), &2.into()));

    let joined = as_user(&["run", "--", "sh", "-c", "echo $VIPOOL_LEASE"]);
    assert_eq!(text(&joined.stdout).trim(), own, "{joined:?}");
    let other = as_user(&["run", "-s", "audit:7", "--", "echo", "ran"]);
    assert!(text(&other.stderr).contains("the session of your logon is audit:8"), "{other:?}");
    assert_eq!(text(&other.stdout), "ran\n");
    for refused in [vec!["session", "close", "audit:7"], vec!["drain", "--all"]] {
        let output = as_user(&refused);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("ermission"), "{output:?}");
    }
}

#[test]
fn the_history_says_who_had_an_address() {
    let place = Place::new();
    let open = ["session", "open", "7", "--private", "--user", "alice", "--client", "192.0.2.7"];
    let opened = text(&place.output(&open).stdout);
    let address = opened.trim().rsplit(' ').next().unwrap();
    let who = |more: &[&str]| place.output(&[&["who", address, "--private"], more].concat());
    let now = text(&who(&[]).stdout);
    assert!(now.contains("session 7 of user alice at 192.0.2.7"), "{now}");
    // Killed before it could close: found by the next look.
    let mut killed = place.vipool(&["run", "--private", "-s", "8", "--", "sh", "-c"]);
    killed.arg("kill -9 $PPID");
    killed.output().unwrap();
    assert_eq!(place.open_sessions(), ["7", "8"]);
    place.output(&["session", "close", "7", "--private"]);
    place.output(&["session", "close", "8", "--private"]);
    assert_eq!(who(&["--at", "2001-01-01"]).status.code(), Some(1));

    let history = place.json(&["history", "--private", "--address", address]);
    let events: Vec<_> = history.as_array().unwrap().iter().map(|row| &row["event"]).collect();
    assert_eq!(events, ["assigned", "released"]);
    let gone = who(&["--at", "2999-01-01"]);
    assert_eq!(
        (gone.status.code(), text(&gone.stdout).contains("was not leased")),
        (Some(1), true)
    );
    let from = history[0]["time"].as_str().unwrap();
    if from != history[1]["time"] {
        let then = text(&who(&["--at", from]).stdout);
        assert!(then.contains("session 7 of user alice"), "{then}");
    }
    let csv = text(&place.output(&["history", "--private", "--csv", "--user", "alice"]).stdout);
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(csv.lines().nth(1).unwrap().contains(",assigned,7,"), "{csv}");
}
