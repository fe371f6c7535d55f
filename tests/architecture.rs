//! Tests that the modules of the crate depend on each other in one direction only.
//!
//! The tests read the source and collect every path that begins with `crate`, `super` or `self`.
//! They fail if a cycle of dependencies exists between the folders of `src/`, or between the files
//! of a folder in `FOLDERS_WITH_LAYERED_FILES`. The tests ignore test modules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The folders whose files must not depend on each other in a cycle. `mod.rs` is an exception.
const FOLDERS_WITH_LAYERED_FILES: [&str; 6] =
    ["raw", "map", "map/types", "map/format", "map/engine", "map/replan"];

/// For each node (a folder or a file), the nodes on which it depends. Each dependency has a text
/// that names its cause: a source file, and a path that this file uses, such as `map::reader`.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// A source file of the crate.
struct SourceFile {
    /// The path in `src/`, without the extension.
    path: String,
    /// The path of the module, such as `["map", "format", "slot"]`.
    module: Vec<String>,
    text: String,
}

impl SourceFile {
    /// Returns the folder of the file. For a file directly in `src/`, returns the name of the file.
    fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(folder, _)| folder)
    }
}

fn find_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read_source() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    find_files(&root, &mut paths);
    paths.sort();
    let read_file = |path: &PathBuf| {
        let relative = path.strip_prefix(&root).unwrap().with_extension("");
        let path_text = relative.to_str().unwrap().replace('\\', "/");
        let mut module: Vec<String> = path_text.split('/').map(str::to_owned).collect();
        module.pop_if(|last| last == "mod" || last == "lib");
        let text = strip_tests_and_comments(&std::fs::read_to_string(path).unwrap());
        SourceFile { path: path_text, module, text }
    };
    let is_test = |file: &SourceFile| {
        file.module.iter().any(|name| name == "tests" || name == "model_checked")
    };
    paths.iter().map(read_file).filter(|file| !is_test(file)).collect()
}

/// Returns the text without comments and without the test module at the end of the file.
fn strip_tests_and_comments(text: &str) -> String {
    let is_test_attribute = |line: &&str| line.starts_with("#[cfg(") && line.contains("test");
    let lines: Vec<&str> = text.lines().collect();
    let tests_start = lines
        .windows(2)
        .position(|pair| is_test_attribute(&pair[0]) && pair[1].starts_with("mod tests {"))
        .unwrap_or(lines.len());
    let without_comment = |line: &&str| {
        let code_end = line.find("//").unwrap_or(line.len());
        format!("{}\n", &line[..code_end])
    };
    lines[..tests_start].iter().map(without_comment).collect()
}

/// Parses the path at the start of `text`, puts `prefix` before it, and appends it to `paths`. A
/// list in braces at the end of the path results in one path for each item. Returns the number of
/// parsed bytes.
fn parse_paths(text: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let is_identifier = |character: char| character.is_alphanumeric() || character == '_';
    let mut path = prefix.to_vec();
    let mut position = 0;
    loop {
        let rest = &text[position..];
        position += rest.len() - rest.trim_start().len();
        let rest = &text[position..];
        if rest.starts_with('{') {
            position += 1;
            loop {
                position += parse_paths(&text[position..], &path, paths);
                let rest = text[position..].trim_start();
                position = text.len() - rest.len();
                position += usize::from(!rest.is_empty());
                if !rest.starts_with(',') {
                    return position;
                }
            }
        }
        let length = rest.find(|character| !is_identifier(character)).unwrap_or(rest.len());
        if length > 0 {
            path.push(rest[..length].to_owned());
        }
        position += length;
        if length == 0 || !text[position..].starts_with("::") {
            break;
        }
        position += 2;
    }
    // Skip an alias or a glob up to the end of the list item.
    let rest = &text[position..];
    if rest.trim_start().starts_with("as ") || rest.starts_with('*') {
        position += rest.find([',', '}', ';']).unwrap_or(rest.len());
    }
    paths.push(path);
    position
}

/// Returns the paths in a file as absolute paths without the leading `crate`.
fn collect_paths(file: &SourceFile) -> Vec<Vec<String>> {
    let mut result = Vec::new();
    for keyword in ["crate::", "super::", "self::"] {
        for (position, _) in file.text.match_indices(keyword) {
            let previous = file.text[..position].chars().next_back();
            if previous.is_some_and(|character| {
                character == ':'
                    || character == '_'
                    || character == '$'
                    || character.is_alphanumeric()
            }) {
                continue;
            }
            let mut paths = Vec::new();
            parse_paths(&file.text[position..], &[], &mut paths);
            result.extend(paths.into_iter().map(|path| {
                let mut base = match path[0].as_str() {
                    "crate" => Vec::new(),
                    _ => file.module.clone(),
                };
                let mut names = path.iter().skip_while(|name| match name.as_str() {
                    "super" => base.pop().is_some(),
                    "crate" | "self" => true,
                    _ => false,
                });
                let rest: Vec<String> = names.by_ref().cloned().collect();
                base.extend(rest);
                base
            }));
        }
    }
    result
}

/// Returns the file of the innermost module that the path names.
fn resolve_file<'f>(
    modules: &BTreeMap<&[String], &'f SourceFile>,
    path: &[String],
) -> Option<&'f SourceFile> {
    (1..=path.len()).rev().find_map(|length| modules.get(&path[..length]).copied())
}

/// Returns the dependencies between nodes. `node_of` returns the node of a file, or `None` to
/// ignore the file.
fn build_graph(source: &[SourceFile], node_of: impl Fn(&SourceFile) -> Option<String>) -> Graph {
    let modules: BTreeMap<&[String], &SourceFile> =
        source.iter().map(|file| (&file.module[..], file)).collect();
    let mut graph = Graph::new();
    for file in source {
        let Some(from) = node_of(file) else { continue };
        for path in collect_paths(file) {
            let target = resolve_file(&modules, &path).and_then(&node_of);
            if let Some(to) = target.filter(|to| *to != from) {
                let cause = format!("src/{}.rs uses {}", file.path, path.join("::"));
                graph.entry(from.clone()).or_default().entry(to).or_insert(cause);
            }
        }
    }
    graph
}

/// Returns the causes of all dependencies in the first cycle found, or `None` if the graph has no
/// cycle.
fn find_cycle(graph: &Graph) -> Option<Vec<String>> {
    fn visit<'g>(
        graph: &'g Graph,
        node: &'g str,
        stack: &mut Vec<&'g str>,
        visited: &mut BTreeSet<&'g str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = stack.iter().position(|name| *name == node) {
            let cycle = [&stack[start..], &[node]].concat();
            return Some(cycle.windows(2).map(|pair| graph[pair[0]][pair[1]].clone()).collect());
        }
        if visited.contains(node) {
            return None;
        }
        stack.push(node);
        let next = graph.get(node).into_iter().flat_map(BTreeMap::keys);
        let cycle = next.filter_map(|next| visit(graph, next, stack, visited)).next();
        stack.pop();
        visited.insert(node);
        cycle
    }
    let mut visited = BTreeSet::new();
    graph.keys().find_map(|node| visit(graph, node, &mut Vec::new(), &mut visited))
}

#[test]
fn folders_have_no_dependency_cycles() {
    let source = read_source();
    // Ignore the root module, because it declares all other modules.
    let node_of =
        |file: &SourceFile| Some(file.folder().to_owned()).filter(|folder| folder != "lib");
    let graph = build_graph(&source, node_of);
    assert!(graph["map/engine"].contains_key("map/format"), "the parser finds no dependencies");
    assert_eq!(find_cycle(&graph), None);
}

#[test]
fn files_of_layered_folders_have_no_dependency_cycles() {
    let source = read_source();
    for folder in FOLDERS_WITH_LAYERED_FILES {
        let node_of = |file: &SourceFile| {
            let is_inside = file.folder() == folder && !file.path.ends_with("/mod");
            is_inside.then(|| file.path.clone())
        };
        assert_eq!(find_cycle(&build_graph(&source, node_of)), None);
    }
}

#[test]
fn cycles_are_detected() {
    let source_file = |path: &str, text: &str| SourceFile {
        path: path.to_owned(),
        module: path.split('/').map(str::to_owned).collect(),
        text: text.to_owned(),
    };
    let source = [
        source_file("low/words", "use crate::high::{reader::Reader, writer};"),
        source_file("high/reader", "use super::writer::Writer;"),
        source_file("high/writer", "fn load() { crate::low::words::load() }"),
    ];
    let by_folder = build_graph(&source, |file| Some(file.folder().to_owned()));
    assert_eq!(find_cycle(&by_folder).map(|cycle| cycle.len()), Some(2));
    let by_file = build_graph(&source, |file| Some(file.path.clone()));
    assert!(by_file["high/reader"].contains_key("high/writer"));
    let acyclic = build_graph(&source[1..], |file| Some(file.path.clone()));
    assert_eq!(find_cycle(&acyclic), None);
}
