//! The ABI: sizes, offsets and numbers as a C compiler sees them, against the record that is
//! checked in (`include/abi.txt`, of a 64-bit system) and against Rust.
//!
//! What is in the record may grow but never change. After an addition, `VIPOOL_BLESS=1` writes the
//! record again; what was changed fails even then.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use vipool::capi::layout::Versioned;
use vipool_testing::{have, target_dir, workspace};

use crate::build::{Language, program, said};
use crate::header::Header;

/// A C program that prints every size, offset and number of the header.
fn prints_itself(header: &Header) -> String {
    let mut code = String::from(
        "#include <stdio.h>\n#include <vipool.h>\n\
         #define FIELD(S, F) printf(\"  \" #F \" %zu %zu\\n\", offsetof(S, F), sizeof(((S *)0)->F))\n\
         int main(void) {\n",
    );
    for item in &header.structs {
        let name = &item.name;
        writeln!(code, "printf(\"{name} %zu\\n\", sizeof({name}));").unwrap();
        for field in &item.fields {
            writeln!(code, "FIELD({name}, {field});").unwrap();
        }
    }
    for number in &header.numbers {
        writeln!(code, "printf(\"{number} %ld\\n\", (long)({number}));").unwrap();
    }
    code.push_str("return 0;\n}\n");
    code
}

#[test]
fn sizes_offsets_and_numbers_are_those_recorded() {
    if !have(&["cc", "c++"]) {
        return;
    }
    let header = Header::read();
    let source = target_dir().join("capi-record.c");
    fs::write(&source, prints_itself(&header)).unwrap();
    let seen = said(&mut Command::new(program(&source, Language::C99, "record", &[])));
    let in_cpp = said(&mut Command::new(program(&source, Language::Cpp17, "record", &[])));
    assert_eq!(seen, in_cpp);
    in_rust_too(&header, &seen);

    let record = workspace().join("include/abi.txt");
    let recorded = fs::read_to_string(&record).unwrap_or_default();
    let gone: Vec<_> = recorded.lines().filter(|line| !still_true(line, &seen)).collect();
    assert_eq!(gone, [""; 0], "no longer true: programs compiled before would break");
    if std::env::var_os("VIPOOL_BLESS").is_some() {
        fs::write(&record, &seen).unwrap();
        return;
    }
    assert_eq!(seen, recorded, "something is new: run with VIPOOL_BLESS=1 and review the change");
}

/// Whether a line of the record holds of the header as it is: fields and numbers stay what they
/// are; structs may only grow.
fn still_true(line: &str, seen: &str) -> bool {
    match line.split_once(' ') {
        Some((name, size)) if name.starts_with("vipool_") => {
            let now = seen.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let number = |text: &str| text.parse::<usize>().expect("a size");
            now.is_some_and(|now| number(size) <= number(now))
        }
        _ => seen.contains(&format!("{line}\n")),
    }
}

/// Every struct that begins with its size is, in Rust, as C sees it.
fn in_rust_too(header: &Header, seen: &str) {
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
                assert!(seen.contains(&expected), "in Rust:\n{expected}");
            })*
        };
    }
    check! {
        decision::vipool_outcome
        event::vipool_event
        explain::vipool_verdict_row
        farm::vipool_finding
        farm_rules::vipool_farm_rules
        farm_by_calls::vipool_server
        farm_by_calls::vipool_server_range
        interface::vipool_assignment
        interface::vipool_interface
        journal::vipool_journal_row
        list::vipool_program
        map::vipool_map_options
        names::vipool_host_addresses
        open::vipool_closed
        open::vipool_open_options
        open::vipool_opened
        plan::vipool_rules
        program::vipool_executable
        program::vipool_rule
        reader::vipool_found
        rewriter::vipool_rewriter_options
        session::vipool_addresses
        settings::vipool_settings
        snapshot::vipool_pool_row
        snapshot::vipool_session_row
        snapshot::vipool_slot_row
        socket::vipool_socket
        upkeep::vipool_changed
        upkeep::vipool_probe
        upkeep::vipool_reaped
    }
    let sized = header.structs.iter().filter(|item| item.fields[0] == "size");
    for item in sized {
        assert!(names.contains(&&*item.name), "add {} to the list above", item.name);
    }
}
