//! Formats numbers and names in messages and tables.

use std::fmt::Display;

/// Returns the number with the matching form of its noun: "1 address", "2 addresses".
pub fn pluralize<N: Display + PartialEq + From<u8>>(
    number: N,
    singular: &str,
    plural: &str,
) -> String {
    let noun = if number == N::from(1) { singular } else { plural };
    format!("{number} {noun}")
}

/// Escapes the characters of a name that a terminal would interpret. Keeps backslashes and
/// quotation marks, because they are usual in names such as `DOMAIN\user` and `o'brien`.
pub fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for part in name.split_inclusive(['\\', '\'', '"']) {
        let without_marks = part.trim_end_matches(['\\', '\'', '"']);
        escaped.extend(without_marks.escape_debug());
        escaped.push_str(&part[without_marks.len()..]);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noun_agrees_with_its_number() {
        let texts = [0usize, 1, 2].map(|number| pluralize(number, "address", "addresses"));
        assert_eq!(texts, ["0 addresses", "1 address", "2 addresses"]);
    }

    #[test]
    fn only_control_characters_are_escaped() {
        for (name, escaped) in [
            ("alice", "alice"),
            ("DOMAIN\\alice", "DOMAIN\\alice"),
            ("o'brien \"x\"", "o'brien \"x\""),
            ("\u{1b}[2J\n", "\\u{1b}[2J\\n"),
            ("\\\\\r", "\\\\\\r"),
            ("Müller", "Müller"),
        ] {
            assert_eq!(escape(name), escaped);
        }
    }
}
