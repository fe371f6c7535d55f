//! Checks every tracked file for text that the repository must not contain, and every Markdown page
//! for dead links.

use std::fs;
use std::process::Command;

use crate::run::{Log, root};
use crate::{Error, vocabulary};

/// The check prints a note for each Rust file that has more lines than this number.
const MAX_LINES: usize = 500;

/// Returns the texts that no file may contain. Most of these texts mark unfinished work, are paths
/// on one machine, or name a package registry. The function joins each text from parts, so that
/// this file does not contain the text.
fn forbidden_texts() -> Vec<String> {
    let split_texts = [
        ["/wo", "rk/"],
        ["/.lib", "rary"],
        ["crates", ".io"],
        ["npm", "js."],
        ["pypi", ".org"],
        ["issues ", "show"],
        ["/roo", "t/"],
        ["/ho", "me/user"],
        ["co-autho", "red-by"],
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimpl", "emented!("],
        ["dbg", "!("],
    ];
    split_texts.iter().map(|parts| parts.concat()).collect()
}

/// Returns the relative links from a page to files that do not exist.
fn dead_links(page: &str, text: &str) -> Vec<String> {
    let page = root().join(page);
    let directory = page.parent().expect("a file is in a directory");
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#', ' ']).next())
        .filter(|link| !link.is_empty() && !link.contains(':') && !directory.join(link).exists())
        .map(str::to_owned)
        .collect()
}

/// Returns whether a line contains a forbidden text. Case matters only if the text has capital
/// letters.
fn contains_text(line: &str, lowercase_line: &str, text: &str) -> bool {
    let line = if text.chars().any(char::is_uppercase) { line } else { lowercase_line };
    line.contains(text)
}

/// Returns whether the file may contain forbidden texts and excluded words.
fn is_exempt(name: &str) -> bool {
    name == "Cargo.lock" || name.ends_with("/Cargo.lock") || name == "LICENSE"
}

/// Checks all files that git tracks. Also checks that the index of `docs/` lists every page of that
/// directory.
pub fn check(log: &mut Log) -> Result<(), Error> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output()?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let forbidden_texts = forbidden_texts();
    let vocabulary_text = fs::read_to_string(root().join(vocabulary::FILE))?;
    let vocabulary = vocabulary::parse(&vocabulary_text)?;
    let mut finding_count = 0;
    for name in String::from_utf8(output.stdout)?.split_terminator('\0') {
        let Ok(text) = fs::read_to_string(root().join(name)) else {
            continue; // the file is deleted or binary
        };
        let line_count = text.lines().count();
        if name.ends_with(".rs") && line_count > MAX_LINES {
            log.write_line(&format!("note: {name}: {line_count} lines, consider a split"))?;
        }
        if name.ends_with(".md") {
            for link in dead_links(name, &text) {
                log.write_line(&format!("{name}: dead link: {link}"))?;
                finding_count += 1;
            }
        }
        if is_exempt(name) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let (line_number, lowercase_line) = (index + 1, line.to_lowercase());
            for text in
                forbidden_texts.iter().filter(|text| contains_text(line, &lowercase_line, text))
            {
                log.write_line(&format!("{name}:{line_number}: forbidden text {text:?}"))?;
                finding_count += 1;
            }
            if name == vocabulary::FILE {
                continue;
            }
            for entry in vocabulary.iter().filter(|entry| entry.is_in(line, &lowercase_line)) {
                let vocabulary::Entry { phrase, replacement, is_enforced } = entry;
                let prefix = if *is_enforced { "" } else { "note: " };
                finding_count += usize::from(*is_enforced);
                log.write_line(&format!(
                    "{prefix}{name}:{line_number}: {phrase:?} (write: {replacement})"
                ))?;
            }
        }
    }
    let index = fs::read_to_string(root().join("docs/README.md"))?;
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "README.md" && !index.contains(&format!("({name})")) {
            log.write_line(&format!("docs/README.md does not list docs/{name}"))?;
            finding_count += 1;
        }
    }
    if finding_count > 0 { Err(format!("{finding_count} findings").into()) } else { Ok(()) }
}
