//! Runs a test again in its own namespaces, so that it has its own ports, interfaces and mounts.

use std::env;
use std::process::{Command, Stdio};

use crate::{have, record_skip};

/// This variable is set in the run inside the namespaces.
pub const INSIDE_VARIABLE: &str = "VIPOOL_TEST_INSIDE";

/// Runs `body` in new namespaces, in another process that runs the test `name` again.
///
/// Before that, `prepare` runs outside the namespaces and builds the programs. The test is skipped
/// if one of `needs`, `ip` or the right to create namespaces is missing. Unless `needs` contains
/// "root", the namespaces need no privileges.
///
/// # Panics
/// Panics if the test fails inside the namespaces.
pub fn in_namespace(name: &str, needs: &[&str], prepare: impl FnOnce(), body: impl FnOnce()) {
    if env::var_os(INSIDE_VARIABLE).is_some() {
        return body();
    }
    if !have(&["ip"]) || !have(needs) || !can_unshare() {
        return;
    }
    prepare();
    let output = unshare_command(name, needs.contains(&"root"))
        .args([name, "--exact", "--include-ignored", "--nocapture"])
        .output()
        .expect("unshare starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let reports = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{reports}");
    eprint!("{reports}");
}

/// Runs this program again in new namespaces, and waits until the new process exits. The program is
/// skipped if one of `needs`, `ip` or the right to create namespaces is missing.
///
/// Returns `false` in the first process. In the new process, the function only returns `true`.
///
/// # Panics
/// Panics if the program fails inside the namespaces.
pub fn reenter(needs: &[&str]) -> bool {
    if env::var_os(INSIDE_VARIABLE).is_some() {
        return true;
    }
    if have(&["ip"]) && have(needs) && can_unshare() {
        let arguments: Vec<_> = env::args().skip(1).collect();
        let status = unshare_command("main", false).args(arguments).status();
        assert!(status.expect("unshare starts").success());
    }
    false
}

fn can_unshare() -> bool {
    let status = Command::new("unshare").args(["-Urn", "true"]).stderr(Stdio::null()).status();
    let is_allowed = status.is_ok_and(|status| status.success());
    if !is_allowed {
        record_skip("user namespaces", "sysctl kernel.unprivileged_userns_clone=1");
    }
    is_allowed
}

/// A shell script that runs its arguments as a command in another network namespace. This namespace
/// has its own tables of sockets, which are small. Without these settings, it uses the tables of the
/// machine: reading /proc/net then examines hundreds of thousands of buckets. Kernels before 6.3
/// lack one or both settings.
const SMALL_TABLES_SCRIPT: &str = "
    cd /proc/sys/net/ipv4
    { echo 64 > tcp_child_ehash_entries; echo 128 > udp_child_hash_entries; } 2> /dev/null
    cd \"$OLDPWD\"
    exec unshare --net -- \"$@\"";

/// Returns a command that runs this program in new namespaces.
///
/// If `needs_root` is true, no user namespace is created, because programs that change their user
/// need the real root. When the PID namespace ends, the kernel kills all remaining processes.
fn unshare_command(name: &str, needs_root: bool) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            if needs_root { "-nmupf" } else { "-Urnmupf" },
            "--mount-proc",
            "--kill-child",
            "--",
            "sh",
            "-c",
            SMALL_TABLES_SCRIPT,
            "sh",
        ])
        .arg(env::current_exe().expect("the test program has a path"))
        .env(INSIDE_VARIABLE, format!("{}-{name}", std::process::id()));
    command
}
