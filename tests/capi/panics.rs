//! Tests that a panic inside the library becomes a status, and that every exported function that
//! can panic catches panics.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use vipool_testing::{have, target_dir, workspace_root};

use crate::build::run_command;

const PROGRAM_SOURCE: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <vipool.h>

vipool_status vipool_panic(void);
vipool_status vipool_panic_silent(void);

static void *run(void *argument)
{
    (void)argument;
    printf("%d %s\n", (int)vipool_panic(), vipool_last_error());
    printf("%d %s\n", (int)vipool_panic_silent(), vipool_last_error());
    return NULL;
}

int main(void)
{
    pthread_t thread;
    vipool_farm *farm = NULL;
    vipool_farm_new(&farm);
    vipool_farm_free(farm);
    run(NULL);
    pthread_create(&thread, NULL, run, NULL);
    pthread_join(thread, NULL);
    return 0;
}
"#;

#[test]
fn panic_becomes_a_status_in_c() {
    if !have(&["cc"]) {
        return;
    }
    // With `--cfg vipool_panic`, the library has two additional functions, which panic. The target
    // directory is separate, so that this library does not replace the normal library.
    let target_directory = target_dir().join("capi-panic");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["rustc", "--quiet", "--package", "vipool", "--lib", "--features", "capi"]);
    cargo.args(["--crate-type", "cdylib", "--jobs", "2", "--target-dir"]).arg(&target_directory);
    run_command(cargo.args(["--", "--cfg", "vipool_panic"]).current_dir(workspace_root()));

    let (source, program) = (target_directory.join("panic.c"), target_directory.join("panic"));
    fs::write(&source, PROGRAM_SOURCE).unwrap();
    let library_directory = target_directory.join("debug");
    // The program loads the library by its SONAME, but cargo names the file libvipool.so.
    let soname = library_directory.join("libvipool.so.0.1");
    let _ = fs::remove_file(&soname);
    symlink("libvipool.so", soname).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"]);
    cc.arg(workspace_root().join("include"))
        .arg(source)
        .arg(library_directory.join("libvipool.so"));
    cc.arg(format!("-Wl,-rpath,{}", library_directory.display()))
        .args(["-lpthread", "-o"])
        .arg(&program);
    run_command(&mut cc);
    let output = run_command(&mut Command::new(program));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-10 made on purpose\n".repeat(4));
    // The library prints nothing.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Functions that cannot panic, because they only return an existing text or a number.
const CANNOT_PANIC: &[&str] = &[
    "vipool_last_error",
    "vipool_now",
    "vipool_reason_get_name",
    "vipool_reason_get_text",
    "vipool_status_get_name",
    "vipool_status_get_text",
    "vipool_version",
    "vipool_version_number",
];

#[test]
fn every_function_catches_panics() {
    // The functions that catch panics, and the helpers that call these functions.
    let guards = ["catch_panic(", "silent(", "silent_or(", "silent_status("];
    let helpers = [
        "decide(",
        "decide_for_socket(",
        "decide_for_ip(",
        "write_predicate(",
        "make_farm(",
        "change_farm(",
        "change_range(",
        "change_address(",
    ];
    let guards = guards.into_iter().chain(helpers);
    let mut function_count = 0;
    for file in fs::read_dir(workspace_root().join("src/capi")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        for function_text in text.split("#[unsafe(no_mangle)]").skip(1) {
            let (signature, body) = function_text.split_once(" {\n").unwrap();
            let name = signature.split("fn ").nth(1).unwrap().split('(').next().unwrap();
            let body = body.split("\n}\n").next().unwrap();
            let is_guarded = guards.clone().any(|guard| body.contains(guard));
            assert!(is_guarded || CANNOT_PANIC.contains(&name), "{name} does not catch panics");
            function_count += 1;
        }
    }
    assert!(function_count > 100, "only {function_count} functions were found");
}
