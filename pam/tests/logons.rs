//! Logons through the real libpam, sshd, su and sudo, on one server and on a farm, and the package
//! with its units. Each scenario of the scripts beside this file runs in mount, network and process
//! namespaces of its own, over its own /run and user database: nothing is left on the machine,
//! whatever becomes of it.

#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use vipool_testing::{cargo, effort, have, preload_path, target_dir, vipool_path, workspace_root};

fn module() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo(&["build", "--package", "vipool-pam", "--profile", "hook"]);
        target_dir().join("hook/libpam_vipool.so")
    })
}

/// The Debian package, with the unoptimised command.
fn package() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build_package)
}

fn build_package() -> PathBuf {
    let mut xtask = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    xtask.args(["run", "--quiet", "--package", "xtask", "--target-dir"]).arg(target_dir());
    let status = xtask.args(["--", "deb", "--debug"]).current_dir(workspace_root()).status();
    assert!(status.expect("cargo runs").success(), "the package is not made");
    target_dir().join("deb/vipool.deb")
}

/// Runs a scenario on one server.
fn logons(name: &str, needs: &[&str]) {
    scenario("logons.sh", name, needs);
}

/// Runs a scenario on a farm.
fn farm(name: &str, needs: &[&str]) {
    scenario("farm.sh", name, needs);
}

/// Runs a scenario; its output is shown when it fails.
fn scenario(script: &str, name: &str, needs: &[&str]) {
    if !have(&["root", "ip", "unshare"]) || !have(needs) {
        return;
    }
    let mut command = Command::new("unshare");
    if script != "logons.sh" && script != "farm.sh" {
        command.env("DEB", package());
    }
    let output = command
        .args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "bash"])
        .arg(workspace_root().join("pam/tests").join(script))
        .arg(name)
        .env("VIPOOL", vipool_path())
        .env("MODULE", module())
        .env("PRELOAD", preload_path())
        .env("ROUNDS", effort("20", "300"))
        .env("LOGONS", effort("50", "200"))
        .output()
        .expect("unshare runs");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&text));
}

#[test]
fn a_logon_opens_and_a_logoff_closes() {
    logons("open_and_close", &["pamtester"]);
}

#[test]
fn who_is_served() {
    logons("who_is_served", &["pamtester"]);
}

#[test]
fn exhaustion_is_told_and_refused_only_where_the_policy_says_so() {
    logons("exhausted", &["pamtester"]);
}

#[test]
fn nothing_keeps_anybody_out() {
    logons("nothing_keeps_anybody_out", &["pamtester", "python3"]);
}

#[test]
fn users_neither_write_nor_read_what_is_not_theirs() {
    logons("not_for_users", &["pamtester", "python3", "setpriv"]);
}

#[test]
fn names_of_any_bytes() {
    logons("any_bytes", &["pamtester", "python3"]);
}

#[test]
fn su_and_sudo_inside_ssh_leave_the_lease_alone() {
    logons("ssh_su_sudo", &["sshd", "sudo", "python3"]);
}

#[test]
fn login_on_a_terminal() {
    logons("on_a_terminal", &["login", "script", "python3"]);
}

#[test]
fn the_stack_of_a_display_manager() {
    logons("display_manager", &["pamtester", "lightdm", "python3"]);
}

#[test]
fn addresses_at_first_use_are_not_for_the_logon() {
    logons("first_use", &["pamtester", "python3"]);
}

#[test]
fn desktops_through_xrdp() {
    logons("desktops", &["xrdp-sesrun", "Xvnc", "openssl", "ss", "python3"]);
}

#[test]
fn two_servers_of_one_farm() {
    farm("two_servers", &["nc", "python3"]);
}

#[test]
fn up_and_down_killed_at_any_moment() {
    farm("killed_up", &["python3"]);
}

#[test]
fn every_ssh_logon_has_its_own_address() {
    farm("many_ssh_logons", &["sshd", "nc", "python3"]);
}

#[test]
fn logons_killed_at_any_moment() {
    farm("killed_logons", &["python3"]);
}

#[test]
fn the_package_comes_and_goes() {
    scenario(
        "package.sh",
        "comes_and_goes",
        &["cargo-deb", "dpkg-deb", "sshd", "nc", "ss", "python3"],
    );
}

#[test]
fn the_units_under_systemd() {
    scenario(
        "systemd.sh",
        "units",
        &[
            "systemd",
            "systemd-nspawn",
            "cargo-deb",
            "dpkg-deb",
            "sshd",
            "nc",
            "ss",
            "setpriv",
            "python3",
        ],
    );
}
