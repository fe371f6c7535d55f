//! Runs rows of the socket matrix for aarch64 in qemu's user mode, without and with the hook. Only
//! the step `aarch64` of the long test run starts this test (`cargo xtask test aarch64`).

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{
    MATRIX_SOURCES, TestHost, cross_compile, in_namespace, listed_program, output_of,
    start_until_ready,
};
use vipool::policy::LoopbackConnect;
use vipool_testing::{cargo, target_dir};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const SYSROOT: &str = "/usr/aarch64-linux-gnu";
/// The rows that need no special policy and no second session. The test skips a row that fails
/// without the hook, for example because the row needs a listener of the host (row 23).
const ROWS: &[&str] = &[
    "1",
    "3",
    "4",
    "5",
    "7",
    "8",
    "9",
    "10",
    "12",
    "13",
    "14",
    "15",
    "16",
    "17",
    "18",
    "20",
    "21",
    "22",
    "23",
    "24",
    "25",
    "25-messages",
    "26",
    "28",
    "32",
    "33",
    "34",
    "35",
    "38",
];

fn matrix_program() -> PathBuf {
    cross_compile("aarch64-linux-gnu-gcc", "matrix-aarch64", MATRIX_SOURCES)
}

fn hook_path() -> PathBuf {
    target_dir().join(TARGET).join("hook/libvipool_preload.so")
}

#[test]
#[ignore = "a part of the long run: cargo xtask test aarch64"]
fn rewriting_keeps_results_on_aarch64() {
    let needs = &["qemu-aarch64", "aarch64-linux-gnu-gcc", TARGET];
    let prepare = || {
        matrix_program();
        let linker = format!("target.{TARGET}.linker=\"aarch64-linux-gnu-gcc\"");
        cargo(&[
            "build",
            "--package",
            "vipool-preload",
            "--profile",
            "hook",
            "--target",
            TARGET,
            "--config",
            &linker,
        ]);
    };
    in_namespace("rewriting_keeps_results_on_aarch64", needs, prepare, || {
        // qemu's user mode does not support sock_diag, so the hook cannot query listeners. With
        // this rule, a connect to 127.0.0.1 always goes to L, so the hook needs no query.
        let mut rule = listed_program(matrix_program());
        rule.flags.loopback_connect = LoopbackConnect::Own;
        let host = TestHost::new(vec![rule]);
        let emulated_command = |mut command: Command, variables: &[(&str, &str)]| {
            command.args(["-L", SYSROOT]);
            for (name, value) in variables {
                command.arg("-E").arg(format!("{name}={value}"));
            }
            command.arg(matrix_program());
            command
        };
        let external_command = host.external_command("qemu-aarch64");
        let _service = start_until_ready(emulated_command(external_command, &[]).arg("serve"));
        let session = host.session(1);
        let (v, l, v6, l6) = (session.v(), session.l(), session.v6(), session.l6());
        let address_variables =
            [("MATRIX_V", &*v), ("MATRIX_L", &*l), ("MATRIX_V6", &*v6), ("MATRIX_L6", &*l6)];
        let map_directory: &Path = &host.directory;
        let lease = session.handle.to_string();
        let hook_variables = [
            ("LD_PRELOAD", hook_path().to_str().unwrap().to_owned()),
            ("VIPOOL_MAP", map_directory.to_str().unwrap().to_owned()),
            ("VIPOOL_LEASE", lease),
            ("MATRIX_LISTED", "1".to_owned()),
        ];
        let hook_variables = hook_variables.each_ref().map(|(name, value)| (*name, &**value));
        let mut compared_row_count = 0;
        for row in ROWS {
            let unhooked_output =
                emulated_command(Command::new("qemu-aarch64"), &address_variables)
                    .arg(row)
                    .output()
                    .unwrap();
            if !unhooked_output.status.success() {
                // The row fails even without the hook, so there is nothing to compare.
                println!(
                    "row {row} fails under qemu without the hook: {}",
                    String::from_utf8_lossy(&unhooked_output.stdout)
                );
                continue;
            }
            let variables = [&address_variables[..], &hook_variables[..]].concat();
            let hooked_output =
                output_of(emulated_command(Command::new("qemu-aarch64"), &variables).arg(row));
            assert_eq!(
                String::from_utf8_lossy(&unhooked_output.stdout),
                hooked_output,
                "row {row}"
            );
            compared_row_count += 1;
        }
        assert!(compared_row_count > 20, "only {compared_row_count} rows could be compared");
    });
}
