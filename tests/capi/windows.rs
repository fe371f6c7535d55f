//! Tests of the library for Windows: a DLL with an import library and a .def file. A C program
//! links the DLL and runs under Wine.

use std::collections::BTreeSet;
use std::fs;

use vipool_testing::{cargo, have, target_dir, wine, workspace_root};

use crate::build::stdout_of;

#[test]
fn dll_exports_all_symbols_and_links_with_c() {
    if !have(&wine::NEEDS) {
        return;
    }
    let folder = target_dir().join("capi-windows");
    fs::create_dir_all(&folder).unwrap();
    let def_file = folder.join("vipool.def");
    // The linker also writes a .def file, from which lib.exe of MSVC can make an import library.
    let output_def = format!("-Clink-arg=-Wl,--output-def,{}", def_file.display());
    let cargo_arguments =
        ["rustc", "-p", "vipool", "--lib", "--features", "capi", "--crate-type", "cdylib"];
    cargo(
        &[&cargo_arguments[..], &["--target", wine::TARGET, "--jobs", "2", "--config"]]
            .concat()
            .iter()
            .copied()
            .chain([&*format!("target.{}.rustflags=[{output_def:?}]", wine::TARGET)])
            .collect::<Vec<_>>(),
    );
    let build_directory = target_dir().join(wine::TARGET).join("debug");

    let exported_functions: BTreeSet<String> = fs::read_to_string(&def_file)
        .unwrap()
        .lines()
        .filter_map(|line| line.trim().split(' ').next())
        .filter(|name| name.starts_with("vipool_"))
        .map(str::to_owned)
        .collect();
    let symbol_list = fs::read_to_string(workspace_root().join("include/symbols.txt")).unwrap();
    assert_eq!(exported_functions, symbol_list.lines().map(str::to_owned).collect());

    fs::copy(build_directory.join("vipool.dll"), folder.join("vipool.dll")).unwrap();
    let program = folder.join("first_session.exe");
    let include = format!("-I{}", workspace_root().join("include").display());
    let import_library = build_directory.join("libvipool.dll.a");
    let arguments = ["-std=c99", "-Wpedantic", &include, import_library.to_str().unwrap()];
    wine::compile_c(&workspace_root().join("examples/c/first_session.c"), &program, &arguments);
    let output = stdout_of(&mut wine::command(&program)).replace("\r\n", "\n");
    assert!(output.contains("127.0.0.1 becomes    127.3.0.2\n"), "{output}");
    assert!(output.contains("VIPOOL_ERR_STALE"), "{output}");
}
