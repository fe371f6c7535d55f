//! Tests of the rules of farm.toml that choose the pool of a session's virtual IP.

use vipool::farm::Farm;
use vipool::map::Map;

use crate::support::{PrivateMap, text};

const FARM: &str = r#"
[[range]]
addresses = "10.77.0.10-10.77.0.19"
[[range]]
addresses = "10.77.0.20-10.77.0.29"
pool = "people"
[[range]]
addresses = "10.77.0.30-10.77.0.39"
pool = "groups"
[[range]]
addresses = "10.77.0.40-10.77.0.49"
pool = "programs"
[pool.people]
users = ["ada"]
[pool.groups]
groups = ["GROUP"]
[pool.programs]
programs = ["LINK"]
[pool.elsewhere]
users = ["eve"]
"#;

/// Creates a map from [`FARM`], with `group` as the group of the pool `groups`. Changes no network
/// interface. Returns the temporary directory, and the path of the map's directory in it.
fn create_map(group: &str) -> (PrivateMap, String) {
    let private_map = PrivateMap::new();
    let link = private_map.path().join("show");
    std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
    let farm = FARM.replace("GROUP", group).replace("LINK", link.to_str().unwrap());
    let (farm, report) = Farm::parse(&farm);
    assert!(!report.has_errors(), "{report}");
    let directory = private_map.path().join("system");
    std::fs::create_dir(&directory).unwrap();
    Map::create(&directory, &farm.plan("any", None).plan).unwrap();
    (private_map, directory.to_str().unwrap().to_owned())
}

/// Returns the last octet of the first pool address in a text.
fn last_octet(output_text: &str) -> u8 {
    let suffix = output_text.split("10.77.0.").nth(1).unwrap_or_else(|| panic!("{output_text}"));
    suffix.split(|character: char| !character.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn pool_rules_choose_the_pool() {
    let group = nix::unistd::Group::from_gid(0.into()).unwrap().expect("group 0").name;
    let (private_map, map) = create_map(&group);
    for (number, (arguments, pool_octet)) in [
        (&["--user", "ada"][..], 20),
        (&["--user", "root"], 30),
        (&["--user", "bob"], 10),
        (&["--user", "eve"], 10),
        (&["--user", "ada", "--pool", "groups"], 30),
        (&["--user", "ada", "--pool", "default"], 10),
    ]
    .into_iter()
    .enumerate()
    {
        let session = number.to_string();
        let open_arguments = ["session", "open", &session, "--map", &map];
        let output = private_map.output(&[&open_arguments[..], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        let output_text = text(&output.stdout);
        assert_eq!(last_octet(&output_text) / 10 * 10, pool_octet, "{arguments:?}: {output_text}");
    }
}

#[test]
fn unknown_groups_give_no_address_of_another_pool() {
    if !vipool_testing::have(&["root", "unshare"]) {
        return;
    }
    let (private_map, map) = create_map("students");
    // In this mount namespace, the user database is unavailable: its only sources are /etc/passwd
    // and /etc/group, which do not exist.
    let script = "mount --make-rprivate / && mount -t tmpfs none /etc && \
                  printf 'passwd: files\\ngroup: files\\n' > /etc/nsswitch.conf && exec \"$@\"";
    let without_user_database = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_vipool")]);
        private_map.set_environment(command.args(arguments));
        command.output().unwrap()
    };
    let open = ["session", "open", "1", "--map", &map, "--user"];
    let output = without_user_database(&[&open[..], &["bob"]].concat());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    let error = text(&output.stderr);
    assert!(error.contains("cannot determine the groups of user \"bob\""), "{error}");
    let run = ["run", "--map", &map, "--session", "1", "--", "sh", "-c", "echo $VIPOOL_LEASE"];
    let output = without_user_database(&run);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "\n", "the program runs outside the session");
    let output = without_user_database(&[&["run", "--require"], &run[1..]].concat());
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    // The rules for users need no groups.
    let output = without_user_database(&[&open[..], &["ada"]].concat());
    assert_eq!(last_octet(&text(&output.stdout)), 20, "{output:?}");
    // Here the user database is available, and the user is not in the group of the rule.
    let output = private_map.output(&[&["session", "open", "2"], &open[3..], &["bob"]].concat());
    assert_eq!(last_octet(&text(&output.stdout)), 10, "{output:?}");
}

#[test]
fn program_rules_choose_the_pool() {
    let (private_map, map) = create_map("no-such-group");
    let link = private_map.path().join("show");
    let list_command =
        format!("{} session list --map {map} --json | tr -d ' \\n'", env!("CARGO_BIN_EXE_vipool"));
    for (session, program, pool_octet) in [("1", link.to_str().unwrap(), 40), ("2", "sh", 10)] {
        let run_arguments =
            ["run", "--map", &map, "--session", session, "--", program, "-c", &list_command];
        let output = private_map.output(&run_arguments);
        let output_text = text(&output.stdout);
        assert_eq!(last_octet(&output_text) / 10 * 10, pool_octet, "{output:?}");
    }
}

#[test]
fn first_use_allocation_opens_sessions_for_listed_programs_only() {
    let private_map = PrivateMap::new();
    let (farm, report) = Farm::parse(
        r#"
[[range]]
addresses = "10.77.0.10-10.77.0.19"
[sessions]
allocate = "first-use"
[[program]]
path = "/bin/sh"
features = ["virtual-ip"]
"#,
    );
    assert!(!report.has_errors(), "{report}");
    let directory = private_map.path().join("system");
    std::fs::create_dir(&directory).unwrap();
    let mut plan = farm.plan("any", None).plan;
    plan.policy.resolve_links(|path| std::fs::canonicalize(path));
    Map::create(&directory, &plan).unwrap();
    let map = directory.to_str().unwrap();
    for (program, expects_lease) in [("sh", true), ("env", false)] {
        let run_arguments = ["run", "--session", "1", "--map", map, "--", program];
        let program_arguments: &[&str] = if program == "sh" { &["-c", "env"] } else { &[] };
        let output = private_map.output(&[&run_arguments[..], program_arguments].concat());
        assert!(output.status.success(), "{output:?}");
        assert_eq!(text(&output.stdout).contains("VIPOOL_LEASE="), expects_lease, "{output:?}");
        assert_eq!(text(&output.stderr), "");
    }
}
