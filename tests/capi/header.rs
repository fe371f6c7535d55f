//! Parses the functions, structs and constants of `include/vipool.h`, and tests the header. Other
//! tests generate C programs from the parsed declarations, so they cover new functions and structs
//! automatically. The parser supports only the form that cbindgen writes.

use std::fs;
use std::process::Command;

use vipool_testing::{have, target_dir, workspace_root};

use crate::build::run_command;

/// The name and the C type of a parameter, or the name and the result type of a function. The
/// keyword `struct` is removed from the type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub c_type: String,
    pub name: String,
}

/// A function with its parameters.
#[derive(Clone, Debug)]
pub struct Function {
    pub result: Declaration,
    pub parameters: Vec<Declaration>,
}

/// A struct with the names of its fields.
#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<String>,
}

/// The declarations of the header.
#[derive(Clone, Debug, Default)]
pub struct Header {
    pub functions: Vec<Function>,
    pub structs: Vec<Struct>,
    /// Names of enum constants, and of macros that have a value and no parameters.
    pub constants: Vec<String>,
}

impl Header {
    pub fn read() -> Self {
        let text = fs::read_to_string(workspace_root().join("include/vipool.h")).unwrap();
        let mut header = Header::default();
        let mut statement = String::new();
        for line in strip_comments(&text).lines() {
            if let Some(macro_line) = line.trim().strip_prefix("#define ") {
                if let Some((name, _value)) = macro_line.split_once(' ')
                    && !name.contains('(')
                {
                    header.add_constant(name);
                }
                continue;
            }
            if line.starts_with('#') || line.starts_with("extern \"C\"") {
                continue;
            }
            statement.push_str(line);
            statement.push(' ');
            let brace_depth =
                statement.matches('{').count() as i32 - statement.matches('}').count() as i32;
            if brace_depth < 0 {
                // The closing brace of extern "C" is not part of a declaration.
                statement.clear();
            } else if brace_depth == 0 && statement.trim_end().ends_with(';') {
                header.add_declaration(&statement.split_whitespace().collect::<Vec<_>>().join(" "));
                statement.clear();
            }
        }
        header
    }

    /// Adds the name of a constant once. The header defines each flag twice: as an enum constant
    /// and as a macro.
    fn add_constant(&mut self, name: &str) {
        if self.constants.iter().all(|constant| constant != name) {
            self.constants.push(name.to_owned());
        }
    }

    fn add_declaration(&mut self, text: &str) {
        let body = text.split_once('{').and_then(|(_, body)| body.rsplit_once('}'));
        if let (Some((body, _)), true) = (body, text.starts_with("enum ")) {
            for name in body.split(',').filter_map(|item| item.split('=').next()) {
                self.add_constant(name.trim());
            }
        } else if let (Some((body, name)), true) = (body, text.starts_with("typedef struct ")) {
            let name = name.trim_matches([' ', ';']).to_owned();
            let fields = body.split(';').map(str::trim).filter(|field| !field.is_empty());
            self.structs.push(Struct { name, fields: fields.map(parse_field_name).collect() });
        } else if !text.starts_with("typedef ") && text.contains('(') {
            let (result_and_name, after_parenthesis) = text.split_once('(').unwrap();
            let parameter_list = after_parenthesis.trim_end_matches([')', ';', ' ']);
            let parameter_list = if parameter_list == "void" { "" } else { parameter_list };
            self.functions.push(Function {
                result: parse_declaration(result_and_name),
                parameters: parameter_list
                    .split(',')
                    .filter(|parameter| !parameter.is_empty())
                    .map(parse_declaration)
                    .collect(),
            });
        }
    }
}

fn strip_comments(text: &str) -> String {
    let mut comments_with_code = text.split("/*");
    let mut code = comments_with_code.next().unwrap_or_default().to_owned();
    for comment_with_code in comments_with_code {
        code.push_str(comment_with_code.split_once("*/").map_or("", |(_, code)| code));
    }
    code.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

/// Splits a declaration into type and name. For example, `const struct vipool_map *map` has the
/// type `const vipool_map *` and the name `map`.
fn parse_declaration(text: &str) -> Declaration {
    let text = text.trim();
    let name_start = text.rfind([' ', '*']).expect("a type and a name") + 1;
    let c_type = text[..name_start].replace("struct ", "").trim().to_owned();
    Declaration { c_type, name: text[name_start..].to_owned() }
}

fn parse_field_name(field: &str) -> String {
    if let Some((_, rest)) = field.split_once("(*") {
        return rest.split(')').next().unwrap().to_owned();
    }
    parse_declaration(field.split('[').next().unwrap()).name
}

/// Returns the name, the comment and the parameters of every documented function.
fn documented_functions(text: &str) -> Vec<(&str, &str, &str)> {
    let comments_with_code = text.split("\n/**\n").skip(1).filter_map(|item| item.split_once("*/"));
    comments_with_code
        .filter_map(|(comment, code)| {
            let (declaration, _) = code.trim_start().split_once(';')?;
            let (result_and_name, parameters) = declaration.split_once('(')?;
            let name = result_and_name.split([' ', '*']).next_back()?;
            let is_function =
                name.starts_with("vipool_") && !result_and_name.starts_with("typedef");
            is_function.then_some((name, comment, parameters))
        })
        .collect()
}

/// The comment of every function describes the parameters, the result, the errors and the use by
/// threads in a fixed form.
#[test]
fn every_function_is_documented_in_the_fixed_form() {
    let text = fs::read_to_string(workspace_root().join("include/vipool.h")).unwrap();
    let functions = documented_functions(&text);
    assert_eq!(functions.len(), Header::read().functions.len());
    for (name, comment, parameters) in functions {
        let lines: Vec<&str> = comment.lines().map(|line| line.trim_start_matches(" *")).collect();
        let has_label = |label: &str| lines.iter().any(|line| line.trim_start().starts_with(label));
        assert!(has_label("Threads:"), "{name}: the comment has no `Threads:`");
        let returns_status =
            text.contains(&format!("\nvipool_status {name}(")) && !has_label("Returns: the");
        assert!(!returns_status || has_label("Errors:"), "{name}: the comment has no `Errors:`");
        let returns_nothing = text.contains(&format!("\nvoid {name}("));
        assert!(
            returns_status || returns_nothing || has_label("Returns:"),
            "{name}: the comment has no `Returns:`"
        );
        for parameter in parameters.trim_end_matches(')').split(',') {
            let parameter = parameter.split([' ', '*']).next_back().unwrap();
            if parameter != "void" {
                assert!(
                    comment.contains(&format!("`{parameter}`")),
                    "{name}: the comment does not mention `{parameter}`"
                );
            }
        }
    }
}

#[test]
fn every_title_in_the_contents_has_a_section() {
    let text = fs::read_to_string(workspace_root().join("include/vipool.h")).unwrap();
    let (head, body) = text.split_once("extern \"C\" {").unwrap();
    let (_, contents) = head.split_once(" * Contents\n").unwrap();
    let titles = contents.lines().filter_map(|line| line.strip_prefix(" * ")?.split_once(". "));
    let titles: Vec<_> = titles.collect();
    assert!(titles.len() > 15);
    for (number, title) in titles {
        let heading = format!(" * {}. {title}\n", number.trim());
        assert!(body.contains(&heading), "{heading}");
    }
}

/// Returns the code of one of the quickstarts in the comment at the start of the header.
fn extract_quickstart(text: &str, title: &str) -> String {
    let (_, rest) = text.split_once(&format!("==== Quickstart: {title} ====\n")).unwrap();
    let section = rest.split("====").next().unwrap();
    let lines = section.lines().filter_map(|line| line.strip_prefix(" *     "));
    lines.map(|line| format!("    {line}\n")).collect()
}

#[test]
fn quickstarts_compile() {
    if !have(&["cc"]) {
        return;
    }
    let text = fs::read_to_string(workspace_root().join("include/vipool.h")).unwrap();
    let agent_code = extract_quickstart(&text, "an agent");
    let hook_code = extract_quickstart(&text, "a hook");
    assert!(agent_code.lines().count() > 15 && hook_code.lines().count() > 15);
    let source = target_dir().join("capi-quickstart.c");
    let code = format!(
        "#include <errno.h>\n#include <string.h>\n#include <sys/socket.h>\n#include <vipool.h>\n\
         void agent(vipool_is_alive_fn is_alive);\n\
         void agent(vipool_is_alive_fn is_alive)\n{{\n    vipool_farm *farm;\n    vipool_plan *plan;\n    \
         vipool_map *map;\n    vipool_session session;\n    vipool_status status;\n    \
         char lease[72];\n{agent_code}}}\n\
         int hook(int s, const struct sockaddr *address, socklen_t address_length, \
         const vipool_socket *facts, const char *path, size_t length, const char *lease);\n\
         int hook(int s, const struct sockaddr *address, socklen_t address_length, \
         const vipool_socket *facts, const char *path, size_t length, const char *lease)\n{{\n    \
         vipool_reader *reader;\n    vipool_rewriter *rewriter;\n{hook_code}}}\n"
    );
    fs::write(&source, code).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    run_command(cc.arg("-I").arg(workspace_root().join("include")).arg(source));
}

/// Runs the C compiler on the header alone, and returns the compiler's standard output. The tests
/// run concurrently, so this function writes no file.
fn compile_header(arguments: &[&str]) -> String {
    let mut cc = Command::new("cc");
    cc.args(arguments).arg("-I").arg(workspace_root().join("include"));
    cc.args(["-x", "c", "-include", "vipool.h", "/dev/null"]);
    String::from_utf8(run_command(&mut cc).stdout).unwrap()
}

#[test]
fn header_is_valid_in_every_version_of_c() {
    if !have(&["cc"]) {
        return;
    }
    for standard in ["-std=c89", "-std=c99", "-std=c11", "-std=c17"] {
        let warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wc++-compat", "-Wconversion"];
        let strict = ["-fsyntax-only", "-Wundef", "-Wsign-conversion", "-Werror", standard];
        compile_header(&[&warnings[..], &strict].concat());
    }
}

#[test]
fn preprocessed_header_has_every_constant() {
    if !have(&["cc"]) {
        return;
    }
    let text = compile_header(&["-E", "-P"]);
    let is_word_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words: Vec<&str> = text.split(|character| !is_word_part(character)).collect();
    let is_missing =
        |name: &String| !words.contains(&&**name) && !name.starts_with("VIPOOL_VERSION_");
    let missing_constants: Vec<String> =
        Header::read().constants.into_iter().filter(is_missing).collect();
    assert_eq!(missing_constants, [""; 0]);
}
