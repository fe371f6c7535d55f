//! Tests of the files that commands read and write, such as links that another user planted, and
//! damaged maps.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use vipool::Tick;
use vipool::map::{Map, OpenOptions, Plan};
use vipool::pool::{Pool, PoolKind};
use vipool_testing::have;

use crate::support::{PrivateMap, text};

/// A farm with loopback addresses only, so that `vipool up` adds no address to an interface.
const FARM: &str = "[loopback]\nranges = \"127.77.0.0-127.77.0.199\"\n";

fn create_map(directory: &Path) -> Map {
    let range = ["127.99.0.2-127.99.0.99".parse().unwrap()];
    let pool = Pool::new("loopback", PoolKind::Loopback, &range, u32::MAX).unwrap();
    Map::create(directory, &Plan::new([pool])).unwrap()
}

fn open(map: &Map, session: &str, user: &str) {
    let options = OpenOptions::new().with_user(user);
    map.open_session(session.parse().unwrap(), &options, Tick::now()).unwrap();
}

/// Runs a shell script in a new network namespace and a new mount namespace. In the script, `$DIR`
/// is `directory`, and `vipool` is a function that runs `vipool` with a time limit. If the limit
/// expires, the function returns 124.
pub fn run_isolated(directory: &Path, script: &str) -> Output {
    let functions = "vipool() { timeout 20 $VIPOOL \"$@\"; }\n";
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", &format!("{functions}{script}")]);
    command.env("VIPOOL", env!("CARGO_BIN_EXE_vipool")).env("DIR", directory);
    command.env_remove("VIPOOL_MAP").env_remove("VIPOOL_LEASE").output().unwrap()
}

fn file_names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn root_follows_no_link_in_the_directory_of_a_user() {
    if !have(&["root", "unshare"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let target = root.path().join("target");
    fs::write(&target, "incomplete line").unwrap();
    let farm = root.path().join("farm.toml");
    fs::write(&farm, FARM).unwrap();
    let directory = root.path().join("planted");
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(12), Some(12)).unwrap();
    let planted = ["history.log", "last-users", "last-users.new", "assigned.json.new"];
    for name in planted {
        symlink(&target, directory.join(name)).unwrap();
    }
    symlink(root.path().join("absent"), directory.join("assigner.lock")).unwrap();
    assert!(
        Command::new("mkfifo").arg(directory.join("assigned.json")).status().unwrap().success()
    );
    let before = file_names(&directory);
    for command in [
        "who 127.99.0.2",
        "history",
        "gc",
        "status",
        "session open 7",
        "drain --all",
        "up --farm $DIR/../farm.toml --server any",
        "down",
        "down --force",
    ] {
        let output = run_isolated(&directory, &format!("vipool {command} --map $DIR"));
        assert!(matches!(output.status.code(), Some(1)), "{command}: {output:?}");
        assert_eq!(fs::read(&target).unwrap(), b"incomplete line", "{command}");
        assert_eq!(file_names(&directory), before, "{command}");
        assert_eq!(file_names(root.path()), ["farm.toml", "planted", "target"], "{command}");
    }
}

#[test]
fn unusable_state_file_does_not_stop_down() {
    if !have(&["root", "unshare"]) {
        return;
    }
    for damage in [
        "mkfifo $DIR/assigned.json",
        "truncate -s 1T $DIR/assigned.json",
        "echo garbled > $DIR/assigned.json",
        "ln -s /etc/passwd $DIR/assigned.json",
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("farm.toml"), FARM).unwrap();
        let script = format!(
            "vipool up --farm $DIR/farm.toml --server any --map $DIR > /dev/null || exit 3
             rm -f $DIR/assigned.json
             {damage}
             vipool down --map $DIR || exit 4
             vipool up --farm $DIR/farm.toml --server any --map $DIR > /dev/null || exit 5
             vipool down --map $DIR"
        );
        let output = run_isolated(directory.path(), &script);
        assert!(output.status.success(), "{damage}: {output:?}");
        assert!(text(&output.stderr).contains("carries the mark of vipool"), "{output:?}");
        assert!(!directory.path().join("assigned.json").exists(), "{damage}");
    }
}

#[test]
fn state_directory_is_not_readable_by_others() {
    if !have(&["root", "unshare"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("farm.toml"), FARM).unwrap();
    let script = "umask 022
        mount -t tmpfs none /run && mount -t tmpfs none /var/lib || exit 3
        vipool up --farm $DIR/farm.toml --server any > /dev/null || exit 4
        vipool down > /dev/null || exit 5
        stat -c %a /run/vipool /var/lib/vipool";
    let output = run_isolated(directory.path(), script);
    assert_eq!(text(&output.stdout), "755\n750\n", "{output:?}");
}

#[test]
fn reading_commands_write_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let map = create_map(directory.path());
    open(&map, "7", "alice");
    let path = directory.path();
    let vipool = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vipool"));
        command.args(arguments).arg("--map").arg(path).env_remove("VIPOOL_LEASE").output().unwrap()
    };
    let before = file_names(path);
    let who = vipool(&["who", "127.99.0.2"]);
    assert!(text(&who.stdout).contains("session 7 of user alice"), "{who:?}");
    assert!(text(&vipool(&["history"]).stdout).contains("alice"));
    assert_eq!(file_names(path), before);
    assert!(vipool(&["gc"]).status.success());
    let history = path.join("history.log");
    let history_text = fs::read_to_string(&history).unwrap();
    fs::write(&history, format!("{history_text}incomplete")).unwrap();
    open(&map, "8", "bob");
    assert!(text(&vipool(&["history"]).stdout).contains("bob"));
    assert_eq!(fs::read_to_string(&history).unwrap(), format!("{history_text}incomplete"));
}

#[test]
fn reader_of_the_history_cannot_block_gc() {
    let directory = tempfile::tempdir().unwrap();
    let map = create_map(directory.path());
    open(&map, "7", "alice");
    let gc = || {
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_vipool"), "gc", "--map"]).arg(directory.path());
        command.output().unwrap()
    };
    assert!(gc().status.success());
    let history = File::open(directory.path().join("history.log")).unwrap();
    history.lock().unwrap();
    open(&map, "8", "bob");
    let output = gc();
    assert!(output.status.success(), "{output:?}");
    // Only the owner can open the lock file, so no other user can hold the lock. While the lock is
    // held, `gc` cannot write the history, but it still does its other work.
    let lock = directory.path().join("history.log.lock");
    assert_eq!(fs::metadata(&lock).unwrap().permissions().mode() & 0o777, 0o600);
    let lock = File::open(lock).unwrap();
    lock.lock().unwrap();
    let output = gc();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("freed 0 addresses"), "{output:?}");
    assert!(text(&output.stderr).contains("another vipool process writes"), "{output:?}");
}

#[test]
fn metrics_replace_regular_files_only() {
    let directory = tempfile::tempdir().unwrap();
    create_map(directory.path());
    let target = directory.path().join("target");
    fs::write(&target, "target").unwrap();
    let link = directory.path().join("stdout");
    symlink(&target, &link).unwrap();
    let metrics = |output: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vipool"));
        command.args(["metrics", "--map"]).arg(directory.path()).arg("--output").arg(output);
        command.output().unwrap()
    };
    let output = metrics(&link);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("not a regular file"), "{output:?}");
    assert!(link.is_symlink());
    assert_eq!(fs::read(&target).unwrap(), b"target");
    assert_eq!(metrics(directory.path()).status.code(), Some(1));
    for _ in 0..2 {
        let file = directory.path().join("vipool.prom");
        assert!(metrics(&file).status.success());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

#[test]
fn farm_that_removes_most_addresses_needs_a_flag() {
    if !have(&["root", "unshare"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("farm.toml"), FARM).unwrap();
    fs::write(path.join("smaller.toml"), FARM.replace("199", "99")).unwrap();
    fs::write(path.join("tiny.toml"), FARM.replace("199", "49")).unwrap();
    fs::write(path.join("empty.toml"), "# nothing\n").unwrap();
    let script = "
        up() { file=$1; shift; vipool up --farm $DIR/$file --server any --map $DIR/map \"$@\" > /dev/null; }
        slots() { vipool status --map $DIR/map --json | tr -d ' \\n' | grep -o '\"addresses\":[0-9]*'; }
        up farm.toml || exit 3
        up smaller.toml || exit 4
        up farm.toml || exit 5
        before=$(slots)
        up tiny.toml && exit 6
        up empty.toml && exit 7
        up empty.toml --allow-shrink && exit 8
        [ \"$(slots)\" = \"$before\" ] || exit 9
        up tiny.toml --allow-shrink || exit 10
        up tiny.toml || exit 11";
    let output = run_isolated(path, script);
    assert!(output.status.success(), "{output:?}");
    let errors = text(&output.stderr);
    assert!(errors.contains("leaves 25 of 100 loopback addresses"), "{errors}");
    assert!(errors.contains("the file has no keys"), "{errors}");
}

#[test]
fn status_works_on_a_read_only_file_system() {
    if !have(&["root", "unshare"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    open(&create_map(directory.path()), "7", "alice");
    let script = "mount --bind $DIR $DIR && mount -o remount,ro,bind $DIR || exit 3
        vipool status --map $DIR && vipool metrics --map $DIR";
    // The map belongs to the network namespace of this test, so the script runs in this namespace.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("vipool() {{ $VIPOOL \"$@\"; }}\n{script}")]);
    command.env("VIPOOL", env!("CARGO_BIN_EXE_vipool")).env("DIR", directory.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let status = text(&output.stdout);
    assert!(status.contains("127.99.0.2") && status.contains("vipool_sessions 1"), "{status}");
}

#[test]
fn file_size_limit_does_not_kill_the_process() {
    let directory = tempfile::tempdir().unwrap();
    create_map(directory.path());
    let script = "ulimit -f 0; exec $VIPOOL session open 7 --client 192.0.2.7 --map $DIR";
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("VIPOOL", env!("CARGO_BIN_EXE_vipool"));
    let output = command.env("DIR", directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("file too large"), "{output:?}");
}

#[test]
fn client_is_not_among_the_arguments_and_not_inherited() {
    let private_map = PrivateMap::new();
    let mut command = private_map.vipool(&["run", "--private", "-s", "1", "--", "sh", "-c"]);
    command.arg("echo client=$VIPOOL_CLIENT").env("VIPOOL_CLIENT", "192.0.2.7");
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "client=\n", "{output:?}");
    let history = private_map.json_output(&["history", "--private"]);
    assert_eq!(history[0]["client"], "192.0.2.7", "{history}");
}

#[test]
fn messages_contain_the_cause_once() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("map")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vipool"));
    let output = command.args(["gc", "--map"]).arg(directory.path()).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(errors.matches("Is a directory").count(), 1, "{errors}");
}

/// Creates a map with `vipool up`, opens two sessions, runs the shell command `damage`, and runs
/// `vipool repair`. The exit status is that of `vipool repair`.
fn repair(damage: &str) -> (TempDir, Output) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("farm.toml"), FARM).unwrap();
    let script = format!(
        "plan='--farm farm.toml --server any'
         cd $DIR
         vipool up $plan --map map > /dev/null || exit 3
         vipool repair $plan --map map || exit 4
         vipool session open 1 --user ann --map map || exit 5
         vipool session open 2 --user bob --map map || exit 6
         {damage}
         vipool up $plan --map map && exit 7
         vipool repair $plan --map map; result=$?
         vipool status --map map || exit 8
         vipool up $plan --map map > /dev/null || exit 9
         exit $result"
    );
    let output = run_isolated(directory.path(), &script);
    (directory, output)
}

#[test]
fn repair_keeps_readable_leases() {
    if !have(&["root", "unshare"]) {
        return;
    }
    let (directory, output) = repair("printf damaged | dd of=map/map conv=notrunc 2> /dev/null");
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output.stderr).contains("run 'vipool repair'"), "{output:?}");
    let (printed, names) = (text(&output.stdout), file_names(&directory.path().join("map")));
    assert!(printed.contains("is not damaged: nothing was changed"), "{printed}");
    assert!(printed.contains("kept 2 sessions with their addresses"), "{printed}");
    assert!(names.contains(&"map.damaged-1".to_owned()), "{names:?}");
    assert!(names.contains(&"sessions.damaged-1".to_owned()), "{names:?}");
}

/// The machine restarted while session 9 was open, and its release is not in the history yet.
#[test]
fn repair_does_not_report_leases_of_an_earlier_boot() {
    if !have(&["root", "unshare", "python3"]) {
        return;
    }
    let damage = r#"python3 - <<'END'
import zlib
record = ('{"time":"2026-01-01T00:00:00Z","event":"assigned","session":"9",'
          '"address":"10.77.0.9","user":"old","boot":"00000000000000aa","number":1}')
path = "map/history.log"
lines = open(path).read()
open(path, "w").write(f"{zlib.crc32(record.encode()):08x} {record}\n{lines}")
END
printf damaged | dd of=map/map conv=notrunc 2> /dev/null"#;
    let (_, output) = repair(damage);
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    assert!(printed.contains("kept 2 sessions with their addresses"), "{printed}");
    assert!(!printed.contains("was lost"), "{printed}");
}

#[test]
fn repair_reports_and_drains_lost_leases() {
    if !have(&["root", "unshare"]) {
        return;
    }
    let (_, output) = repair("truncate -s 100 map/map");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = text(&output.stdout);
    assert!(printed.contains("kept 0 sessions with their addresses"), "{printed}");
    for user in ["ann", "bob"] {
        assert!(
            printed.contains(&format!("of {user} was lost; the address is drained")),
            "{printed}"
        );
    }
    assert!(text(&output.stderr).contains("lost 2 leases"), "{output:?}");
}
