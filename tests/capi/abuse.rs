//! Generates a C program from the header. The program calls every function with valid arguments,
//! with extreme numbers, with NULL for each pointer in turn, and with invalid sizes of each struct.
//! Eight threads make these calls at the same time. The program runs once under AddressSanitizer
//! and once under valgrind.
//!
//! If a new function has a parameter of a new type, the test fails until `valid_argument` supports
//! this type.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use vipool_testing::{have, target_dir};

use crate::build::{Language, compile, stdout_of};
use crate::header::{Declaration, Function, Header};
use crate::programs::{SANITIZED, under_valgrind};

/// Pointers that may be NULL according to the header. An entry begins with the name of a parameter.
/// If the name of a function follows, the entry applies to this function only.
const OPTIONAL_POINTERS: &[&str] = &[
    "addresses vipool_listener_find",
    "get_other_end",
    "get_source",
    "leader vipool_map_update_session",
    "client",
    "context",
    "source vipool_listener_find",
    "options vipool_map_create",
    "options vipool_map_open_bytes",
    "options vipool_map_create_in_memory",
    "options vipool_map_open",
    "options vipool_map_open_session",
    "out vipool_map_close_by_handle",
    "out vipool_map_close_session",
    "out vipool_map_drain",
    "out vipool_map_reap",
    "out vipool_map_reserve",
    "out vipool_map_undrain",
    "out vipool_map_unreserve",
    "out_closed vipool_map_reconcile",
    "out_found_by",
    "out_length",
    "out_parent",
    "out_port",
    "out_total",
    "program vipool_map_choose_pool",
    "probe vipool_map_reap",
    "sessions vipool_map_open_bytes",
    "user vipool_client_set",
    "address vipool_rewrite_send_packet_info",
];

/// The hand-written part of the program.
const PRELUDE: &str = include_str!("abuse.c");

fn is_optional(function: &Function, parameter: &Declaration) -> bool {
    let name_in_function = format!("{} {}", parameter.name, function.result.name);
    OPTIONAL_POINTERS.contains(&&*parameter.name) || OPTIONAL_POINTERS.contains(&&*name_in_function)
}

fn is_pointer(parameter: &Declaration) -> bool {
    parameter.c_type.ends_with('*') || parameter.c_type.ends_with("_fn")
}

/// Returns the name of the struct that a parameter points to, if the struct begins with its size.
fn sized_struct<'a>(
    parameter: &'a Declaration,
    sized_structs: &BTreeSet<String>,
) -> Option<&'a str> {
    let name = parameter.c_type.trim_start_matches("const ").strip_suffix(" *")?;
    sized_structs.contains(name).then_some(name)
}

/// Returns a valid argument for a parameter.
fn valid_argument(function: &Function, parameter: &Declaration) -> String {
    let (c_type, name) = (&*parameter.c_type, &*parameter.name);
    let c_string = |text: &str| format!("\"{text}\"");
    match (c_type, name) {
        ("const char *", "directory") => "fx->directory".into(),
        ("size_t", "directory_length") => "strlen(fx->directory)".into(),
        ("const uint16_t *", _) => "fx->utf16".into(),
        ("const char *", "text") => match &*function.result.name {
            "vipool_handle_parse" => c_string("0400000000000007.0.0.1.0123456789abcdef"),
            _ => c_string("7.7.7.7"),
        },
        ("size_t", "length") if function.result.name == "vipool_handle_parse" => "39".into(),
        ("size_t", "length") if function.result.name == "vipool_utf16_to_utf8" => {
            "fx->utf16_length".into()
        }
        ("size_t", "length") => "7".into(),
        ("const char *", _) => c_string("x"),
        ("size_t", "capacity") => {
            let has_rows = function.parameters.iter().any(|parameter| parameter.name == "rows");
            if has_rows { "1" } else { "256" }.into()
        }
        ("size_t", "first") => "0".into(),
        ("size_t", _) => "1".into(),
        ("char *", _) => "fx->buffer".into(),
        ("void *", _) => "NULL".into(),
        ("const void *", "map" | "sessions") => "fx->buffer".into(),
        ("uint64_t *", _) => "&fx->long_number".into(),
        ("const char *const *", _) => "fx->arguments".into(),
        ("const char **", _) => "&fx->text".into(),
        ("const vipool_interface **", _) => "&fx->interfaces".into(),
        ("vipool_ports *", _) => "&fx->ports".into(),
        ("const void *", _) => "fx->sockaddr.bytes".into(),
        ("uint32_t", "length") => "fx->sockaddr.length".into(),
        ("uint32_t", "draining" | "fast_open" | "pool") => "0".into(),
        ("uint32_t", "pid") => "0".into(),
        ("uint32_t", "now") => "1000".into(),
        ("uint32_t" | "int32_t" | "uint16_t" | "uint64_t", _) => "1".into(),
        ("vipool_session", _) => "fx->session".into(),
        ("size_t *", _) => "&fx->size".into(),
        ("uint32_t *", _) => "&fx->number".into(),
        ("int32_t *", _) => "&fx->signed_number".into(),
        ("uint16_t *", _) => "&fx->port".into(),
        ("vipool_session *", _) => "&fx->other_session".into(),
        ("vipool_is_alive_fn", _) => "is_alive".into(),
        (c_type, _) if c_type.ends_with("_fn") => "NULL".into(),
        (c_type, _) => {
            let pointed_type = c_type.trim_start_matches("const ").trim_end_matches('*').trim();
            match pointed_type {
                // The call creates an object. The program frees the object after the call.
                _ if c_type.ends_with("**") => {
                    format!("&fx->created_{}", &pointed_type["vipool_".len()..])
                }
                "vipool_range" if !c_type.starts_with("const") => "fx->ranges".into(),
                "vipool_ip" | "vipool_range" | "vipool_sockaddr" | "vipool_handle"
                | "vipool_leader" | "vipool_subnet" => {
                    let prefix = if c_type.starts_with("const") { "" } else { "out_" };
                    format!("&fx->{prefix}{}", &pointed_type["vipool_".len()..])
                }
                _ => format!("fx->{}", &pointed_type["vipool_".len()..]),
            }
        }
    }
}

/// Returns extreme numbers for a parameter. Returns none for a length, a count or a capacity,
/// because this number must match the memory that another argument points to.
fn extreme_values(parameter: &Declaration) -> &'static [&'static str] {
    match (&*parameter.c_type, &*parameter.name) {
        ("uint32_t", "length") => &[],
        ("uint32_t", _) => &["0", "77", "0xffffffffu"],
        ("int32_t", _) => &["0", "77", "-77", "-2147483647"],
        ("uint16_t", _) => &["0", "0xffff"],
        ("size_t", "first") => &["77", "(size_t)-1"],
        ("uint64_t" | "vipool_session", _) => &["0", "77", "(uint64_t)-1"],
        _ => &[],
    }
}

/// Appends all generated calls to one function to `code`.
fn write_calls(code: &mut String, function: &Function, sized_structs: &BTreeSet<String>) {
    let name = &function.result.name;
    let arguments: Vec<String> = function
        .parameters
        .iter()
        .map(|parameter| match sized_struct(parameter, sized_structs) {
            Some(pointed_type) => format!("(void *)fresh_{pointed_type}(fx)"),
            None => valid_argument(function, parameter),
        })
        .collect();
    let call_with = |index: usize, argument: &str| {
        let mut arguments = arguments.clone();
        arguments[index] = argument.to_owned();
        format!("{name}({})", arguments.join(", "))
    };
    // Later calls need the objects, so pass only NULL to a function that frees an object.
    let is_destructor = ["_free", "_close"].iter().any(|verb| name.ends_with(verb));
    if !is_destructor {
        let mut calls = vec![format!("{name}({})", arguments.join(", "))];
        for (index, parameter) in function.parameters.iter().enumerate() {
            calls.extend(extreme_values(parameter).iter().map(|number| call_with(index, number)));
        }
        for call in calls {
            match &*function.result.c_type {
                "vipool_status" => writeln!(code, "    expect_size_accepted({call}, \"{name}\");"),
                _ => writeln!(code, "    (void){call};"),
            }
            .unwrap();
            writeln!(code, "    free_results(fx);").unwrap();
        }
    }
    for (index, parameter) in function.parameters.iter().enumerate() {
        if is_pointer(parameter) {
            let call = call_with(index, "NULL");
            match &*function.result.c_type {
                _ if is_destructor => writeln!(code, "    {call};").unwrap(),
                "vipool_status" if !is_optional(function, parameter) => {
                    writeln!(
                        code,
                        "    expect({call}, VIPOOL_ERR_NULL, \"{name}: {}\");",
                        parameter.name
                    )
                    .unwrap();
                }
                _ => writeln!(code, "    (void){call};").unwrap(),
            }
            writeln!(code, "    free_results(fx);").unwrap();
        }
        let Some(pointed_type) = sized_struct(parameter, sized_structs) else { continue };
        let cut_size = format!("sizeof({pointed_type}) - 1");
        let unaligned_size = format!("sizeof({pointed_type}) + 4");
        for size in ["0", "7", "sizeof(void *)", "9", &cut_size, &unaligned_size, "(size_t)-1"] {
            let wrong_size_call =
                call_with(index, &format!("(void *)sized_{pointed_type}(fx, {size})"));
            writeln!(
                code,
                "    expect({wrong_size_call}, VIPOOL_ERR_STRUCT_SIZE, \"{name}: size {size}\");\n    free_results(fx);"
            )
            .unwrap();
        }
        let newer_size = format!("sizeof({pointed_type}) + 32");
        let newer_call =
            call_with(index, &format!("(void *)sized_{pointed_type}(fx, {newer_size})"));
        if parameter.c_type.starts_with("const") {
            writeln!(
                code,
                "    expect({newer_call}, VIPOOL_ERR_UNKNOWN_FIELD, \"{name}: non-zero tail\");\n    free_results(fx);"
            )
            .unwrap();
        } else {
            writeln!(
                code,
                "    expect_size_accepted({newer_call}, \"{name}: newer\");\n    free_results(fx);"
            )
            .unwrap();
        }
    }
}

/// Writes the source file of the program, and returns its path.
fn write_source() -> PathBuf {
    let header = Header::read();
    let sized_structs: BTreeSet<String> = header
        .structs
        .iter()
        .filter(|item| item.fields[0] == "size")
        .map(|item| item.name.clone())
        .collect();
    let parameters = header.functions.iter().flat_map(|function| &function.parameters);
    let used_structs: BTreeSet<&str> =
        parameters.filter_map(|parameter| sized_struct(parameter, &sized_structs)).collect();
    let mut code = PRELUDE.to_owned();
    for name in used_structs {
        writeln!(code, "SIZED({name})").unwrap();
    }
    writeln!(code, "static void abuse(struct fixture *fx)\n{{").unwrap();
    for function in &header.functions {
        write_calls(&mut code, function, &sized_structs);
    }
    code.push_str("}\n");
    let path = target_dir().join("capi-abuse.c");
    fs::write(&path, code).unwrap();
    path
}

/// Runs the program, and fails if its eight threads checked too few calls.
fn run_abuse_program(command: &mut Command) {
    let output = stdout_of(command);
    let call_count: u32 =
        output.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or_default();
    assert!(call_count > 8 * 550, "only {call_count} calls were checked");
}

#[test]
fn invalid_arguments_from_eight_threads_are_rejected() {
    if !have(&["cc", "valgrind"]) {
        return;
    }
    let source = write_source();
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let sanitized_program = compile(&source, Language::C99, "abuse", SANITIZED);
    run_abuse_program(Command::new(sanitized_program).arg(directories[0].path()));
    let plain_program = compile(&source, Language::C99, "abuse_valgrind", &[]);
    run_abuse_program(under_valgrind(&plain_program).arg(directories[1].path()));
}
