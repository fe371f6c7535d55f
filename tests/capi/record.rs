//! Compares the sizes, offsets and constants of the C ABI with the checked-in record
//! (`include/abi.txt`, for 64-bit systems). A C program prints the actual values. If a struct
//! begins with its size, the test also checks that its layout is the same in C and Rust.
//!
//! New entries are allowed, and so are new fields at the end of a struct that begins with its size.
//! After such an addition, run the test with `VIPOOL_BLESS=1` to write the record. After any other
//! change, the test fails even with this variable.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use vipool::capi::layout::Versioned;
use vipool_testing::{have, target_dir, workspace_root};

use crate::build::{Language, compile, stdout_of};
use crate::header::Header;

/// Returns a C program that prints every size, offset and constant of the header.
fn record_program(header: &Header) -> String {
    let mut code = String::from(
        "#include <stdio.h>\n#include <vipool.h>\n\
         #define FIELD(S, F) printf(\"  \" #F \" %zu %zu\\n\", offsetof(S, F), sizeof(((S *)0)->F))\n\
         int main(void) {\n",
    );
    for header_struct in &header.structs {
        let name = &header_struct.name;
        writeln!(code, "printf(\"{name} %zu\\n\", sizeof({name}));").unwrap();
        for field in &header_struct.fields {
            writeln!(code, "FIELD({name}, {field});").unwrap();
        }
    }
    for constant in &header.constants {
        writeln!(code, "printf(\"{constant} %ld\\n\", (long)({constant}));").unwrap();
    }
    code.push_str("return 0;\n}\n");
    code
}

#[test]
fn abi_equals_the_record() {
    if !have(&["cc", "c++"]) {
        return;
    }
    let header = Header::read();
    let source = target_dir().join("capi-record.c");
    fs::write(&source, record_program(&header)).unwrap();
    let current_abi = stdout_of(&mut Command::new(compile(&source, Language::C99, "record", &[])));
    let abi_in_cpp = stdout_of(&mut Command::new(compile(&source, Language::Cpp17, "record", &[])));
    assert_eq!(current_abi, abi_in_cpp);
    check_rust_layouts(&header, &current_abi);

    let record_file = workspace_root().join("include/abi.txt");
    let recorded_abi = fs::read_to_string(&record_file).unwrap_or_default();
    let changed_entries = changed_entries(&recorded_abi, &current_abi);
    assert_eq!(changed_entries, [""; 0], "existing programs would break");
    if std::env::var_os("VIPOOL_BLESS").is_some() {
        fs::write(&record_file, &current_abi).unwrap();
        return;
    }
    assert_eq!(
        current_abi, recorded_abi,
        "the ABI has additions: run with VIPOOL_BLESS=1 and review the change"
    );
}

/// Parses a record. Returns the size of each struct with the lines of its fields, and the value of
/// each constant.
fn parse_entries(record: &str) -> BTreeMap<&str, (&str, Vec<&str>)> {
    let mut entries = BTreeMap::new();
    let mut name = "";
    for line in record.lines() {
        if let Some(field) = line.strip_prefix("  ") {
            let (_, fields): &mut (&str, Vec<&str>) =
                entries.get_mut(name).expect("a struct before its fields");
            fields.push(field);
        } else {
            let value;
            (name, value) = line.split_once(' ').expect("a name and a value");
            entries.insert(name, (value, Vec::new()));
        }
    }
    entries
}

/// Returns the names of the recorded entries that the current ABI lacks or changes incompatibly.
/// New fields at the end of a struct that begins with its size are compatible. Every other change
/// of an entry is incompatible.
fn changed_entries<'a>(recorded_abi: &'a str, current_abi: &str) -> Vec<&'a str> {
    let current_entries = parse_entries(current_abi);
    let is_preserved = |name: &str, value: &str, fields: &[&str]| {
        let Some((current_value, current_fields)) = current_entries.get(name) else { return false };
        let parse_number = |text: &str| text.parse::<i64>().expect("a number");
        let may_grow = fields.first().is_some_and(|field| field.starts_with("size 0 "));
        let is_compatible = match may_grow {
            true => parse_number(value) <= parse_number(current_value),
            false => value == *current_value && fields.len() == current_fields.len(),
        };
        is_compatible && current_fields.starts_with(fields)
    };
    let recorded_entries = parse_entries(recorded_abi).into_iter();
    recorded_entries
        .filter(|(name, (value, fields))| !is_preserved(name, value, fields))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn changes_are_detected_for_each_struct() {
    let record = "a 16\n  size 0 8\n  x 8 8\nb 16\n  size 0 8\n  y 8 8\nc 4\n  z 0 4\nN 7\n";
    let changed_by = |recorded: &str, replacement: &str| {
        changed_entries(record, &record.replace(recorded, replacement))
    };
    assert_eq!(changed_entries(record, record), [""; 0]);
    assert_eq!(
        changed_by("a 16\n  size 0 8\n  x 8 8\n", "a 24\n  size 0 8\n  x 8 8\n  v 16 8\n"),
        [""; 0]
    );
    // The struct `b` counts as changed, although the struct `a` has an equal field.
    assert_eq!(changed_by("  y 8 8", "  x 8 8"), ["b"]);
    assert_eq!(
        changed_by("a 16\n  size 0 8\n  x 8 8", "a 24\n  size 0 8\n  v 8 8\n  x 16 8"),
        ["a"]
    );
    assert_eq!(changed_by("c 4\n  z 0 4", "c 8\n  z 0 4\n  w 4 4"), ["c"]);
    assert_eq!(changed_by("N 7", "N 8"), ["N"]);
    assert_eq!(changed_by("c 4\n  z 0 4\n", ""), ["c"]);
}

/// Checks that every struct that begins with its size has the same layout in C and Rust.
fn check_rust_layouts(header: &Header, current_abi: &str) {
    let mut names = Vec::new();
    macro_rules! check {
        ($($module:ident::$name:ident)*) => {
            $({
                use vipool::capi::$module::$name;
                names.push($name::NAME);
                let mut expected = format!("{} {}\n", $name::NAME, size_of::<$name>());
                for (field, offset, size) in $name::FIELDS {
                    writeln!(expected, "  {field} {offset} {size}").unwrap();
                }
                assert!(current_abi.contains(&expected), "in Rust:\n{expected}");
            })*
        };
    }
    check! {
        event::vipool_event
        executable::vipool_executable
        farm::vipool_finding
        farm_settings::vipool_rewrite_settings
        farm_build::vipool_server
        farm_build::vipool_server_range
        interface::vipool_interface
        journal::vipool_journal_page
        journal::vipool_journal_row
        maintenance::vipool_admin_change
        maintenance::vipool_probe
        maintenance::vipool_reap_report
        map::vipool_map_options
        map_session::vipool_closed_session
        map_session::vipool_open_options
        map_session::vipool_opened_session
        outcome::vipool_outcome
        plan::vipool_assignment
        plan::vipool_plan_options
        process_list::vipool_program
        reader::vipool_found_session
        reader::vipool_map_info
        rewriter::vipool_rewriter_options
        rule::vipool_rule
        rule::vipool_match_row
        session::vipool_addresses
        settings::vipool_settings
        snapshot::vipool_pool_row
        snapshot::vipool_session_row
        snapshot::vipool_slot_row
        socket::vipool_socket
        visible::vipool_host_addresses
    }
    for sized_struct in header.structs.iter().filter(|item| item.fields[0] == "size") {
        let name = &*sized_struct.name;
        assert!(names.contains(&name), "add {name} to the list above");
    }
}
