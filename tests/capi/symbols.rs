//! Tests of the names and the number of the exported functions, and of their use in examples and
//! tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use vipool_testing::workspace_root;

/// Functions whose names contain no object, because they belong to the whole library.
const FUNCTIONS_WITHOUT_OBJECT: &[&str] = &[
    "vipool_last_error",
    "vipool_now",
    "vipool_utf16_to_utf8",
    "vipool_version",
    "vipool_version_number",
];

/// The objects in the names of functions. A name consists of the prefix `vipool_`, an object, a
/// verb and optional further words, for example `vipool_farm_add_pool_rule`.
const OBJECTS: &[&str] = &[
    "interface_list",
    "client",
    "executable",
    "farm",
    "handle",
    "ip",
    "journal",
    "leader",
    "listener",
    "map",
    "plan",
    "range",
    "reader",
    "reason",
    "rewrite",
    "rewriter",
    "session",
    "settings",
    "snapshot",
    "status",
];

/// The verbs in the names of functions. Each verb has the same meaning in all names. `from` and
/// `to` count as verbs. After the object `rewrite`, a name needs no verb, for example
/// `vipool_rewrite_visible_address`.
const VERBS: &[&str] = &[
    "add",
    "check",
    "choose",
    "close",
    "create",
    "drain",
    "find",
    "format",
    "free",
    "from",
    "get",
    "intersect",
    "is",
    "list",
    "load",
    "make",
    "mark",
    "new",
    "open",
    "parse",
    "reap",
    "reconcile",
    "recover",
    "remove",
    "reserve",
    "set",
    "to",
    "undrain",
    "unreserve",
    "update",
    "validate",
];

fn read_symbols() -> Vec<String> {
    let text = fs::read_to_string(workspace_root().join("include/symbols.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn library_exports_at_most_115_functions() {
    assert!(read_symbols().len() <= 115, "{} functions", read_symbols().len());
}

#[test]
fn every_function_is_named_by_object_and_verb() {
    for symbol in
        read_symbols().iter().filter(|symbol| !FUNCTIONS_WITHOUT_OBJECT.contains(&symbol.as_str()))
    {
        let name = symbol.strip_prefix("vipool_").unwrap();
        let object_and_verb = OBJECTS
            .iter()
            .find_map(|object| Some((*object, name.strip_prefix(object)?.strip_prefix('_')?)));
        let (object, name_after_object) =
            object_and_verb.unwrap_or_else(|| panic!("{symbol}: unknown object"));
        let verb = name_after_object.split('_').next().unwrap();
        assert!(object == "rewrite" || VERBS.contains(&verb), "{symbol}: unknown verb {verb}");
    }
}

/// Adds all words of the files below a directory to `words`.
fn add_words(directory: &Path, words: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // The abuse test calls every function, and this file only lists names. These files do not
        // show that a function has an example or its own test.
        let is_excluded =
            ["abuse.c", "abuse.rs", "symbols.rs"].iter().any(|file| path.ends_with(file));
        if path.is_dir() {
            add_words(&path, words);
        } else if !is_excluded {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let is_in_word =
                |character: char| character.is_ascii_alphanumeric() || character == '_';
            words.extend(text.split(|character| !is_in_word(character)).map(str::to_owned));
        }
    }
}

#[test]
fn every_function_is_used_in_an_example_or_a_test() {
    let mut words = BTreeSet::new();
    for directory in ["examples", "tests/both", "tests/capi"] {
        add_words(&workspace_root().join(directory), &mut words);
    }
    let unused_functions: Vec<_> =
        read_symbols().into_iter().filter(|symbol| !words.contains(symbol)).collect();
    assert_eq!(unused_functions, [""; 0], "functions without an example or a test");
}
