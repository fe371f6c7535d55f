//! Tests of the dependencies, the SONAME, the imports and the exports of the shared library in the
//! release profile. Also tests the libraries that `cargo xtask library` builds.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use vipool_testing::{have, workspace_root};

use crate::build::{run_command, shared_library, stdout_of};

#[test]
fn library_needs_only_libc_and_libgcc_s() {
    if !have(&["cc"]) {
        return;
    }
    let dynamic_section = stdout_of(Command::new("readelf").arg("--dynamic").arg(shared_library()));
    let needed_libraries: BTreeSet<&str> = dynamic_section
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.rsplit_once('[')?.1.split('.').next())
        .collect();
    // Thread-local variables add the dynamic linker to the dependencies. The dynamic linker is
    // always loaded.
    let allowed_libraries =
        BTreeSet::from(["libc", "libgcc_s", "ld-linux-x86-64", "ld-linux-aarch64"]);
    assert!(needed_libraries.is_subset(&allowed_libraries), "{needed_libraries:?}");

    let stripped_library = shared_library().with_file_name("libvipool-stripped.so");
    run_command(Command::new("strip").arg(shared_library()).arg("-o").arg(&stripped_library));
    println!("stripped: {} bytes", fs::metadata(&stripped_library).unwrap().len());
}

#[test]
fn shared_library_has_a_soname() {
    if !have(&["cc"]) {
        return;
    }
    let dynamic_section = stdout_of(Command::new("readelf").arg("--dynamic").arg(shared_library()));
    assert!(dynamic_section.contains("Library soname: [libvipool.so.0.1]"), "{dynamic_section}");
}

/// Each function in the list below can change the host process. The library imports none of them,
/// so it cannot call them. `abuse.c` also checks that no function of the library leaves a thread
/// running.
#[test]
fn library_imports_no_function_that_changes_the_host_process() {
    if !have(&["nm"]) {
        return;
    }
    let symbols = stdout_of(
        Command::new("nm")
            .args(["--dynamic", "--undefined-only", "--format=posix"])
            .arg(shared_library()),
    );
    let imported_functions: BTreeSet<&str> =
        symbols.lines().filter_map(|line| line.split([' ', '@']).next()).collect();
    assert!(
        imported_functions.contains("mmap") || imported_functions.contains("mmap64"),
        "{imported_functions:?}"
    );
    for name in [
        "pthread_create",
        "thrd_create",
        "clone",
        "fork",
        "vfork",
        "posix_spawn",
        "posix_spawnp",
        "execve",
        "execvp",
        "system",
        "popen",
        "setenv",
        "putenv",
        "unsetenv",
        "signal",
        "sigaction",
        "exit",
        "_exit",
        "syslog",
        "setlocale",
        "chdir",
        "dlopen",
    ] {
        assert!(!imported_functions.contains(name), "the library calls {name}");
    }
}

/// The library exports exactly the functions of the header.
#[test]
fn library_exports_the_functions_of_the_header() {
    if !have(&["nm"]) {
        return;
    }
    let header = fs::read_to_string(workspace_root().join("include/vipool.h")).unwrap();
    let code: String = header.split("/*").map(|part| part.split("*/").last().unwrap()).collect();
    let declared_functions: BTreeSet<&str> = code
        .split(|character: char| {
            !character.is_ascii_alphanumeric() && character != '_' && character != '('
        })
        .filter_map(|word| word.split_once('(').map(|(name, _)| name))
        .filter(|name| name.starts_with("vipool_"))
        .collect();
    let symbol_list = fs::read_to_string(workspace_root().join("include/symbols.txt")).unwrap();
    assert_eq!(declared_functions, symbol_list.lines().collect());
    let symbols = stdout_of(
        Command::new("nm")
            .args(["--dynamic", "--defined-only", "--format=posix"])
            .arg(shared_library()),
    );
    let exported_functions: BTreeSet<&str> =
        symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(exported_functions, declared_functions);
}

/// `cargo xtask library` hides all symbols that are not functions of the header, and gives the
/// shared library a SONAME and symbol versions.
#[test]
fn distributed_libraries_export_only_the_functions_of_the_header() {
    if !have(&["cc", "nm"]) {
        return;
    }
    let target_dir = vipool_testing::target_dir();
    vipool_testing::cargo(&["build", "--package", "xtask"]);
    stdout_of(Command::new(target_dir.join("debug/xtask")).arg("library"));
    let folder = target_dir.join("library");
    let symbol_list = fs::read_to_string(workspace_root().join("include/symbols.txt")).unwrap();
    let expected_symbols: BTreeSet<&str> = symbol_list.lines().collect();
    let archive_listing = stdout_of(
        Command::new("nm")
            .args(["--extern-only", "--defined-only", "--format=posix"])
            .arg(folder.join("libvipool.a")),
    );
    let archive_symbols: BTreeSet<&str> = archive_listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(archive_symbols, expected_symbols);

    let shared_library = folder.join("libvipool.so");
    let dynamic_listing = stdout_of(
        Command::new("nm")
            .args(["--dynamic", "--extern-only", "--defined-only", "--format=posix"])
            .arg(&shared_library),
    );
    let is_function = |name: &&str| name.starts_with("vipool_");
    let exported_functions: BTreeSet<&str> = dynamic_listing
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(is_function)
        .collect();
    let versioned_functions: BTreeSet<String> =
        expected_symbols.iter().map(|name| format!("{name}@@VIPOOL_0.1")).collect();
    assert_eq!(exported_functions, versioned_functions.iter().map(String::as_str).collect());
    let dynamic_section = stdout_of(Command::new("readelf").arg("--dynamic").arg(&shared_library));
    assert!(dynamic_section.contains("Library soname: [libvipool.so.0.1]"), "{dynamic_section}");
}
