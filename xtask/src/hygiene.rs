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
        [".lib", "rary"],
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

/// Looks through every file that git knows.
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
    if found > 0 { Err(format!("{found} lines hold what none should").into()) } else { Ok(()) }
}
