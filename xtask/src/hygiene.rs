//! What the repository must not hold: words of the place it was written at, and files that
//! nobody wants to read.

use std::fs;
use std::process::Command;

use crate::Error;
use crate::run::{Log, root};

/// Longer than this and a source file is told, so that somebody splits it.
const LONG_FILE: usize = 500;

/// Texts that no file may hold, each written so that this file does not hold it either.
fn forbidden() -> Vec<String> {
    let joined = [
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
    joined.iter().map(|parts| parts.concat()).collect()
}

/// The links of a page that name a file which is not there.
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

/// Looks through every file that git knows, and for pages that the index of docs/ leaves out.
pub fn check(log: &mut Log) -> Result<(), Error> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output()?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let forbidden = forbidden();
    let mut found = 0;
    for name in String::from_utf8(output.stdout)?.split_terminator('\0') {
        let Ok(text) = fs::read_to_string(root().join(name)) else {
            continue; // deleted, or not a text
        };
        let lines = text.lines().count();
        if name.ends_with(".rs") && lines > LONG_FILE {
            log.say(&format!("{name}: {lines} lines: could it be two files?"))?;
        }
        if name.ends_with(".md") {
            for link in dead_links(name, &text) {
                log.say(&format!("{name}: a link leads nowhere: {link}"))?;
                found += 1;
            }
        }
        if name == "Cargo.lock" || name.ends_with("/Cargo.lock") || name == "LICENSE" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for word in &forbidden {
                let hit = if word.chars().any(char::is_uppercase) {
                    line.contains(&**word)
                } else {
                    lower.contains(&**word)
                };
                if hit {
                    log.say(&format!("{name}:{}: holds {word:?}", number + 1))?;
                    found += 1;
                }
            }
        }
    }
    let index = fs::read_to_string(root().join("docs/README.md"))?;
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "README.md" && !index.contains(&format!("({name})")) {
            log.say(&format!("docs/README.md does not name docs/{name}"))?;
            found += 1;
        }
    }
    if found > 0 { Err(format!("{found} lines hold what none should").into()) } else { Ok(()) }
}
