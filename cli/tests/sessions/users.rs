//! Tests of private maps with several users.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use vipool_testing::{ChildGuard, have, preload_path};

use crate::support::{TerminateOnDrop, page_server, text, wait_for_line};

/// A directory that every user can read, with copies of `vipool`, the hook layer and the page
/// server.
pub struct InstalledFiles {
    directory: tempfile::TempDir,
}

impl InstalledFiles {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        for (source, name) in [
            (Path::new(env!("CARGO_BIN_EXE_vipool")), "vipool"),
            (preload_path(), "libvipool_preload.so"),
            (page_server(), "page"),
        ] {
            let installed_file = directory.path().join(name);
            std::fs::copy(source, &installed_file).unwrap();
            std::fs::set_permissions(&installed_file, Permissions::from_mode(0o755)).unwrap();
        }
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns a `vipool` command that runs as the user `uid`. Its environment lacks
    /// XDG_RUNTIME_DIR, so the private map of the user is in /tmp.
    pub fn vipool(&self, uid: u32) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}"));
        command.args(["--clear-groups", "--"]).arg(self.path("vipool"));
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command
    }

    /// Returns the page that a client gets in a session of the user `uid`.
    fn fetch(&self, uid: u32, session: &str, port: u16) -> String {
        let mut command = self.vipool(uid);
        command.args(["run", "--private", "-s", session, "--"]).arg(self.path("page"));
        let output = command.args(["fetch", &port.to_string()]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        text(&output.stdout)
    }
}

/// Two user ids that no other test uses. Dropping the value removes the private directories of
/// these users.
struct TestUsers([u32; 2]);

impl TestUsers {
    fn new() -> Self {
        static TEST_COUNT: AtomicU32 = AtomicU32::new(0);
        let test_number = TEST_COUNT.fetch_add(1, Ordering::Relaxed);
        let first_uid = 200_000 + 16 * (std::process::id() % 100_000) + 2 * test_number;
        Self([first_uid, first_uid + 1])
    }
}

impl Drop for TestUsers {
    fn drop(&mut self) {
        for uid in self.0 {
            let name = format!("vipool-{uid}");
            for entry in std::fs::read_dir("/tmp").unwrap().flatten() {
                let file_name = entry.file_name().into_string().unwrap_or_default();
                if file_name == name || file_name.starts_with(&format!("{name}.")) {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
            }
        }
    }
}

#[test]
fn users_have_separate_sessions_on_the_same_port() {
    if !have(&["root", "setpriv"]) {
        return;
    }
    let users = TestUsers::new();
    let installed = InstalledFiles::new();
    let (host, port) = crate::support::host_listener();
    drop(host);
    let mut servers = Vec::new();
    for uid in users.0 {
        for session in ["1", "2"] {
            let file = installed.path(&format!("{uid}-{session}"));
            std::fs::write(&file, format!("{uid} {session}\n")).unwrap();
            let mut command = installed.vipool(uid);
            command.args(["run", "--private", "-s", session, "--"]).arg(installed.path("page"));
            command.args(["serve", &port.to_string()]).arg(file).stdout(Stdio::piped());
            let mut server = ChildGuard::start(&mut command);
            wait_for_line(server.0.stdout.take().unwrap(), "Serving HTTP on 127.0.0.1 port");
            servers.push(TerminateOnDrop(server));
        }
    }
    for uid in users.0 {
        for session in ["1", "2"] {
            assert_eq!(installed.fetch(uid, session, port), format!("{uid} {session}\n"));
        }
        let output = installed.vipool(uid).args(["session", "list", "--private"]).output().unwrap();
        let list = text(&output.stdout);
        assert_eq!(list.lines().count(), 3, "{list}");
        assert!(list.contains(&uid.to_string()), "{list}");
    }
}

#[test]
fn directory_owned_by_another_user_is_ignored() {
    if !have(&["root", "setpriv"]) {
        return;
    }
    let users = TestUsers::new();
    let installed = InstalledFiles::new();
    // Root owns this directory, because the test runs as root.
    let foreign_directory = PathBuf::from(format!("/tmp/vipool-{}", users.0[0]));
    std::fs::create_dir(&foreign_directory).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = installed.vipool(users.0[0]);
        text(&command.args(arguments).output().unwrap().stdout)
    };
    let opened = run(&["session", "open", "1", "--private"]);
    assert!(opened.starts_with("Session 1 is open: 127."), "{opened}");
    let address = opened.trim().rsplit(' ').next().unwrap();
    let lease = run(&["run", "--private", "-s", "1", "--", "sh", "-c", "echo $VIPOOL_LEASE"]);
    assert!(lease.len() > 1, "{lease:?}");
    let list = run(&["session", "list", "--private"]);
    assert!(list.contains(address), "the later commands find the same map: {list}");
    assert_eq!(std::fs::read_dir(foreign_directory).unwrap().count(), 0);
}

#[test]
fn root_can_run_programs_as_another_user() {
    if !have(&["root"]) {
        return;
    }
    let private_map = crate::support::PrivateMap::new();
    std::fs::set_permissions(private_map.path(), Permissions::from_mode(0o755)).unwrap();
    let run_arguments = ["run", "--private", "-s", "1", "--user", "nobody", "--", "sh", "-c"];
    let script = "id -u; id -g; id -G; echo $USER $HOME; echo ${VIPOOL_LEASE:+leased}; exit 3";
    let output = private_map.output(&[&run_arguments[..], &[script]].concat());
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let expected = format!(
        "{0}\n{1}\n{1}\nnobody {2}\nleased\n",
        nobody.uid,
        nobody.gid,
        nobody.dir.display()
    );
    assert_eq!(text(&output.stdout), expected, "{output:?}");
    assert_eq!(output.status.code(), Some(3));

    let output =
        private_map.output(&["run", "--private", "-s", "1", "-u", "no-such-user", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("no-such-user"), "{output:?}");
}

#[test]
fn block_held_by_another_user_is_not_used() {
    if !have(&["root", "setpriv", "python3"]) {
        return;
    }
    let users = TestUsers::new();
    let [uid, other_uid] = users.0;
    let installed = InstalledFiles::new();
    let open = |session: &str| {
        let mut command = installed.vipool(uid);
        text(&command.args(["session", "open", session, "--private"]).output().unwrap().stdout)
    };
    let block_of = |line: &str| {
        let address = line.trim().rsplit(' ').next().unwrap();
        address.rsplit_once('.').unwrap().0.to_owned()
    };
    let first_block = block_of(&open("1"));

    // No `vipool run` of the first user is running, so no process claims the user's loopback block.
    // The other user claims it by binding an abstract socket whose name contains the block.
    let holder_script = "import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind('\\0vipool/' + sys.argv[1])
listener.listen()
print('held', flush=True)
sys.stdin.read()";
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={other_uid}")).args([
        "--clear-groups",
        "python3",
        "-c",
        holder_script,
        &first_block,
    ]);
    // Use the system's python3, because the test users may not have access to another python3.
    command.env("PATH", "/usr/bin:/bin");
    let mut holder = ChildGuard::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    wait_for_line(holder.0.stdout.take().unwrap(), "held");

    let mut command = installed.vipool(uid);
    let run_arguments =
        ["run", "--private", "-s", "1", "--", "sh", "-c", "echo lease=$VIPOOL_LEASE"];
    let output = command.args(run_arguments).output().unwrap();
    assert!(
        text(&output.stderr).contains("another user has taken the loopback addresses"),
        "{output:?}"
    );
    assert_eq!(text(&output.stdout), "lease=\n", "the program runs outside the session");

    // If the map has no open session, the next open gives it another block.
    let mut command = installed.vipool(uid);
    assert!(
        command.args(["session", "close", "1", "--private"]).output().unwrap().status.success()
    );
    let opened_text = open("2");
    assert!(opened_text.contains("is open: 127."), "{opened_text}");
    assert_ne!(block_of(&opened_text), first_block);
}
