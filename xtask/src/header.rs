//! Generates `include/vipool.h` from `src/capi/`, with cbindgen and `cbindgen.toml`.
//!
//! The header is checked in. Building the crate never runs cbindgen, so the build of a program that
//! embeds vipool does not need cbindgen.
//!
//! cbindgen writes all types before all functions. This module groups the declarations by task into
//! the sections of [`SECTIONS`], adds a table of contents, and writes enums and constants in the
//! form of C89, see [`to_c89`].

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;

use crate::Error;
use crate::run::root;

/// The sections of the header. Each entry has the title and the modules of `src/capi/`. A section
/// uses only its own types and the types of earlier sections.
const SECTIONS: &[(&str, &[&str])] = &[
    ("Statuses and errors", &["status", "error"]),
    ("Version, clock and text", &["version", "text"]),
    ("Addresses and ranges", &["address"]),
    ("Sessions, handles and leases", &["session", "leader"]),
    ("Network interfaces", &["interface"]),
    ("Settings, process list and programs", &["settings", "process_list", "executable"]),
    ("Agent: the farm", &["farm", "farm_build", "farm_settings"]),
    ("Agent: the plan of one server", &["plan"]),
    ("Agent: events", &["event"]),
    ("Agent: creating and opening a map", &["map"]),
    ("Agent: opening and closing sessions", &["map_session"]),
    ("Agent: administration", &["maintenance"]),
    ("Agent and hook: client addresses", &["client"]),
    ("Hook and monitor: reading a map", &["reader"]),
    ("Monitor: snapshots and slots", &["snapshot"]),
    ("Monitor: the journal", &["journal"]),
    ("Hook: the rule and the lease of a process", &["rule", "process"]),
    ("Hook: sockets, outcomes and reasons", &["reason", "outcome", "socket", "listener"]),
    ("Hook: the rewriter", &["rewriter"]),
    ("Hook: rewrite calls", &["rewrite", "packet_info", "visible"]),
];

const EXTERN_C_BEGIN: &str = "#ifdef __cplusplus\nextern \"C\" {\n#endif // __cplusplus\n";
const EXTERN_C_END: &str = "#ifdef __cplusplus\n}  // extern \"C\"\n#endif  // __cplusplus\n";
const C89_EXTERN_C_BEGIN: &str = "#ifdef __cplusplus\nextern \"C\" {\n#endif\n";
const C89_EXTERN_C_END: &str = "#ifdef __cplusplus\n}\n#endif\n";
const GUARD_END: &str = "#endif  /* VIPOOL_H */\n";

/// Generates the header and writes it. With `check`, compares it with the existing file instead.
pub fn run(check: bool) -> Result<(), Error> {
    let header = group_by_section(&generate()?)?;
    let path = root().join("include/vipool.h");
    if check {
        if fs::read_to_string(&path).unwrap_or_default() != header {
            return Err("include/vipool.h differs from src/capi/: run `cargo xtask header`".into());
        }
    } else {
        fs::create_dir_all(root().join("include"))?;
        fs::write(path, header)?;
    }
    Ok(())
}

/// Returns the output of cbindgen.
fn generate() -> Result<String, Error> {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml"))?;
    let modules = SECTIONS.iter().flat_map(|(_, modules)| modules.iter());
    let mut header = Vec::new();
    modules
        .fold(cbindgen::Builder::new().with_config(config), |builder, module| {
            builder.with_src(root().join("src/capi").join(module).with_extension("rs"))
        })
        .generate()
        .map_err(|error| format!("cbindgen: {error}"))?
        .write(&mut header);
    Ok(String::from_utf8(header)?)
}

/// A declaration with its comment.
struct Item<'a> {
    name: &'a str,
    text: &'a str,
}

/// Groups the declarations by the sections of [`SECTIONS`].
fn group_by_section(header: &str) -> Result<String, Error> {
    let header = header.replace(EXTERN_C_BEGIN, "").replace(EXTERN_C_END, "");
    let declarations_start = header.find("/**\n").ok_or("cbindgen wrote no declaration")?;
    let (preamble, declarations) = header.split_at(declarations_start);
    let declarations =
        declarations.strip_suffix(GUARD_END).ok_or("the include guard is missing")?;
    let mut items = HashMap::new();
    for item in split_items(declarations) {
        items.insert(item.name, item.text);
    }

    let mut table_of_contents = String::from("/*\n * Contents\n *\n");
    let mut body = String::new();
    for (index, (title, modules)) in SECTIONS.iter().enumerate() {
        let number = index + 1;
        writeln!(table_of_contents, " * {number:>2}. {title}")?;
        writeln!(body, "/* {}\n * {number}. {title}\n */\n", "=".repeat(80))?;
        for module in *modules {
            let source = root().join("src/capi").join(module).with_extension("rs");
            let source = fs::read_to_string(source)?;
            for name in declared_names(&source) {
                if let Some(text) = items.remove(&*name) {
                    writeln!(body, "{}\n", to_c89(&name, text.trim_end(), &source)?)?;
                }
            }
        }
    }
    table_of_contents.push_str(" */\n");
    if !items.is_empty() {
        return Err(format!("in no section of the header: {:?}", items.keys()).into());
    }
    let preamble = preamble.trim_end();
    Ok(format!(
        "{preamble}\n\n{table_of_contents}\n{C89_EXTERN_C_BEGIN}\n{body}{C89_EXTERN_C_END}\n{GUARD_END}"
    ))
}

/// Converts an enum or a constant to a form that every C and C++ compiler accepts.
///
/// Unlike a macro, this form is still present after preprocessing. The function returns other
/// declarations unchanged.
///
/// An enum becomes an integer type and an enum without a name, because a tag and a typedef of the
/// same name are not valid in C++. A constant becomes the only member of an enum without a name.
/// For a `u32` constant (a flag), the header also has a macro of the same name, so that the value
/// is unsigned. The version numbers stay macros, so that the preprocessor can compare them.
fn to_c89(name: &str, text: &str, source: &str) -> Result<String, Error> {
    let (comment, code) = text.split_once("*/\n").ok_or("a declaration without a comment")?;
    if let Some(code) = code.strip_prefix("enum ") {
        let (name_and_type, after_brace) =
            code.split_once("\n {\n").ok_or("an enum without a body")?;
        let (body, _) = after_brace.split_once(",\n};").ok_or("an enum without an end")?;
        let (_, after_colon) =
            name_and_type.split_once("  : ").ok_or("an enum without an integer type")?;
        let integer_type = after_colon.lines().next().unwrap_or_default();
        return Ok(format!("{comment}*/\ntypedef {integer_type} {name};\nenum {{\n{body}\n}};"));
    }
    let Some(value) = code.strip_prefix("#define ").and_then(|code| code.split(' ').nth(1)) else {
        return Ok(text.to_owned());
    };
    if name.starts_with("VIPOOL_VERSION_") {
        return Ok(text.to_owned());
    }
    let is_unsigned = source.contains(&format!("pub const {name}: u32 ="));
    let constant = format!("{comment}*/\nenum {{ {name} = {value} }};");
    Ok(if is_unsigned { format!("{constant}\n#define {name} {value}u") } else { constant })
}

/// Splits declarations at their comments, which begin in the first column.
fn split_items(declarations: &str) -> Vec<Item<'_>> {
    let mut starts: Vec<usize> =
        declarations.match_indices("\n/**\n").map(|(index, _)| index + 1).collect();
    starts.insert(0, 0);
    starts.push(declarations.len());
    let texts = starts.windows(2).map(|bounds| &declarations[bounds[0]..bounds[1]]);
    texts.map(|text| Item { name: declared_name(text), text }).collect()
}

/// Returns the name that a C declaration declares.
fn declared_name(text: &str) -> &str {
    let code = text.split_once("*/").map_or("", |(_, code)| code).trim_start();
    if let Some((_, after_asterisk)) = code.split_once("(*")
        && code.starts_with("typedef")
        && !code.starts_with("typedef struct")
    {
        return after_asterisk.split(')').next().unwrap_or_default();
    }
    if let Some(rest) = code.strip_prefix("enum ") {
        return rest.split_whitespace().next().unwrap_or_default();
    }
    let words =
        code.split(|character| !is_name_character(character)).filter(|word| !word.is_empty());
    let mut names = words.filter(|word| {
        word.to_ascii_lowercase().starts_with("vipool_") && *word != "vipool_status"
    });
    names.next().unwrap_or_default()
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Returns the names of the public items of a source file, in order.
fn declared_names(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in source.lines() {
        let Some(line) = line.strip_prefix("pub ") else { continue };
        let keywords = ["const ", "struct ", "enum ", "type ", "unsafe extern \"C\" fn "];
        let keywords = keywords.into_iter().chain(["extern \"C\" fn "]);
        if let Some(rest) = keywords.into_iter().find_map(|keyword| line.strip_prefix(keyword)) {
            let end = rest.find(|character| !is_name_character(character));
            names.push(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    names
}
