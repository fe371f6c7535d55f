//! Logons through the real libpam, sshd, su and sudo. Each scenario of `scenarios.sh` runs in
//! mount, network and process namespaces of its own, over its own /run and user database: nothing
//! is left on the machine, whatever becomes of it.

#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use vipool_testing::{cargo, have, preload, target_dir, vipool, workspace};

fn module() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo(&["build", "--package", "vipool-pam", "--profile", "hook"]);
        target_dir().join("hook/libpam_vipool.so")
    })
}

/// Runs a scenario; its output is shown when it fails.
fn scenario(name: &str, needs: &[&str]) {
    if !have(&["root", "ip", "unshare"]) || !have(needs) {
        return;
    }
    let output = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "bash"])
        .arg(workspace().join("pam/tests/scenarios.sh"))
        .arg(name)
        .env("VIPOOL", vipool())
        .env("MODULE", module())
        .env("PRELOAD", preload())
        .output()
        .expect("unshare runs");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&text));
}

#[test]
fn a_logon_opens_and_a_logoff_closes() {
    scenario("open_and_close", &["pamtester"]);
}

#[test]
fn who_is_served() {
    scenario("who_is_served", &["pamtester"]);
}

#[test]
fn exhaustion_is_told_and_refused_only_where_the_policy_says_so() {
    scenario("exhausted", &["pamtester"]);
}

#[test]
fn nothing_keeps_anybody_out() {
    scenario("nothing_keeps_anybody_out", &["pamtester", "python3"]);
}

#[test]
fn names_of_any_bytes() {
    scenario("any_bytes", &["pamtester", "python3"]);
}

#[test]
fn su_and_sudo_inside_ssh_leave_the_lease_alone() {
    scenario("ssh_su_sudo", &["sshd", "sudo", "python3"]);
}
