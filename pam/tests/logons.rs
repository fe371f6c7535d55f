//! Tests of logons through the real libpam, sshd, su and sudo, on one server and on a farm. Other
//! tests in this file check the Debian package and its systemd units.
//!
//! The scenarios are functions of the shell scripts in this directory. Each scenario runs in its
//! own mount, network and process namespaces, with its own /run and user database. Even a failed
//! scenario leaves no files or processes on the machine.

#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use vipool_testing::{cargo, effort, have, preload_path, target_dir, vipool_path, workspace_root};

/// Builds the PAM module and returns its path.
fn module() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        cargo(&["build", "--package", "vipool-pam", "--profile", "hook"]);
        target_dir().join("hook/libpam_vipool.so")
    })
}

/// Builds the Debian package and returns its path. The `vipool` in the package is not optimised.
fn package() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build_package)
}

fn build_package() -> PathBuf {
    let mut xtask = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    xtask.args(["run", "--quiet", "--package", "xtask", "--target-dir"]).arg(target_dir());
    xtask.env("DEBFULLNAME", "Package Test").env("DEBEMAIL", "packager@lists.debian.org");
    let status = xtask.args(["--", "deb", "--debug"]).current_dir(workspace_root()).status();
    assert!(status.expect("cargo runs").success(), "xtask deb failed");
    target_dir().join("deb/vipool.deb")
}

/// Runs a scenario with one server.
fn server_scenario(name: &str, needs: &[&str]) {
    run_scenario("logons.sh", name, needs);
}

/// Runs a scenario with one server, on which all logons of a user share one session.
fn shared_scenario(name: &str, needs: &[&str]) {
    run_scenario("shared.sh", name, needs);
}

/// Runs a scenario with a farm of two servers.
fn farm_scenario(name: &str, needs: &[&str]) {
    run_scenario("farm.sh", name, needs);
}

/// Runs a scenario of a script. Panics with the output if the scenario fails. Records a skip if a
/// need, such as root or a program, is missing.
fn run_scenario(script: &str, name: &str, needs: &[&str]) {
    if !have(&["root", "ip", "unshare"]) || !have(needs) {
        return;
    }
    let mut command = Command::new("unshare");
    if matches!(script, "package.sh" | "systemd.sh") {
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
fn logon_opens_and_logoff_closes_the_session() {
    server_scenario("open_and_close", &["pamtester"]);
}

#[test]
fn only_regular_users_get_sessions() {
    server_scenario("only_regular_users_get_sessions", &["pamtester"]);
}

#[test]
fn exhaustion_is_reported_and_refuses_logons_only_if_configured() {
    server_scenario("exhaustion", &["pamtester", "python3"]);
}

#[test]
fn faults_never_block_logons() {
    server_scenario("faults_never_block_logons", &["pamtester", "python3"]);
}

#[test]
fn users_cannot_read_or_write_foreign_files() {
    server_scenario("file_permissions", &["pamtester", "python3", "setpriv"]);
}

#[test]
fn down_works_without_space() {
    server_scenario("down_without_space", &["pamtester"]);
}

#[test]
fn addresses_of_running_sessions_survive_the_loss_of_the_map() {
    server_scenario("lost_map", &["python3"]);
}

#[test]
fn names_with_arbitrary_bytes_are_harmless() {
    server_scenario("arbitrary_names", &["pamtester", "python3"]);
}

#[test]
fn su_and_sudo_keep_the_lease_of_the_ssh_session() {
    server_scenario("ssh_su_sudo", &["sshd", "sudo", "python3"]);
}

#[test]
fn logons_of_a_user_share_one_session_until_the_last_logoff() {
    shared_scenario("ssh_logons", &["sshd", "python3"]);
}

#[test]
fn killed_logons_neither_close_nor_keep_a_shared_session() {
    shared_scenario("killed_logons", &["python3"]);
}

#[test]
fn limits_and_reservations_apply_to_the_shared_session() {
    shared_scenario("policies", &["pamtester", "python3"]);
}

#[test]
fn login_on_a_terminal_opens_a_session() {
    server_scenario("login_on_terminal", &["login", "script", "python3"]);
}

#[test]
fn display_manager_stack_opens_a_session() {
    server_scenario("display_manager", &["pamtester", "lightdm", "python3"]);
}

#[test]
fn first_use_allocation_opens_nothing_at_logon() {
    server_scenario("first_use", &["pamtester", "python3"]);
}

#[test]
fn xrdp_desktops_have_their_own_addresses() {
    server_scenario("desktops", &["xrdp-sesrun", "Xvnc", "openssl", "ss", "python3"]);
}

#[test]
fn two_servers_of_one_farm_assign_their_own_addresses() {
    farm_scenario("two_servers", &["nc", "python3"]);
}

#[test]
fn killed_up_or_down_is_completed_by_the_next_run() {
    farm_scenario("killed_up_and_down", &["python3"]);
}

#[test]
fn each_ssh_logon_has_its_own_address() {
    farm_scenario("concurrent_ssh_logons", &["sshd", "nc", "python3"]);
}

#[test]
fn killed_logons_lose_no_address() {
    farm_scenario("killed_logons", &["python3"]);
}

#[test]
fn package_installs_upgrades_and_leaves_no_files() {
    run_scenario(
        "package.sh",
        "install_upgrade_remove",
        &["cargo-deb", "dpkg-deb", "sshd", "nc", "ss", "python3"],
    );
}

#[test]
fn package_has_no_lintian_errors() {
    if !have(&["lintian", "cargo-deb", "dpkg-deb"]) {
        return;
    }
    let mut lintian = Command::new("lintian");
    let output =
        lintian.args(["--fail-on", "error"]).arg(package()).output().expect("lintian runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn systemd_units_manage_the_service() {
    run_scenario(
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
