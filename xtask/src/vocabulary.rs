//! Reads `xtask/vocabulary.txt`, the list of words and phrases that the repository must not
//! contain.

use crate::Error;

/// The path of the list. The check of the vocabulary skips this file, because it contains all the
/// phrases.
pub const FILE: &str = "xtask/vocabulary.txt";

/// A phrase to avoid.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub phrase: &'a str,
    pub replacement: &'a str,
    /// Whether an occurrence fails the check.
    pub is_enforced: bool,
}

/// Parses the list.
///
/// # Errors
/// Returns an error unless each line is empty, a comment, `[enforced]`, `[noted]` or
/// `PHRASE -> REPLACEMENT`.
pub fn parse(text: &str) -> Result<Vec<Entry<'_>>, Error> {
    let mut is_enforced = true;
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match line.trim() {
            "" => {}
            comment if comment.starts_with('#') => {}
            "[enforced]" => is_enforced = true,
            "[noted]" => is_enforced = false,
            line => {
                let (phrase, replacement) = line
                    .split_once(" -> ")
                    .ok_or_else(|| format!("{FILE}:{}: not PHRASE -> REPLACEMENT", index + 1))?;
                entries.push(Entry { phrase, replacement, is_enforced });
            }
        }
    }
    Ok(entries)
}

impl Entry<'_> {
    /// Returns whether the line contains the phrase as whole words. Case matters only if the phrase
    /// has capital letters.
    pub fn is_in(&self, line: &str, lowercase_line: &str) -> bool {
        let text = if self.phrase.chars().any(char::is_uppercase) { line } else { lowercase_line };
        let is_word_character = |character: char| character.is_alphanumeric() || character == '_';
        text.match_indices(self.phrase).any(|(start, phrase)| {
            !text[..start].ends_with(is_word_character)
                && !text[start + phrase.len()..].starts_with(is_word_character)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_found(phrase: &str, line: &str) -> bool {
        Entry { phrase, replacement: "", is_enforced: true }.is_in(line, &line.to_lowercase())
    }

    #[test]
    fn phrases_match_whole_words_only() {
        assert!(is_found("riddle of", "A Riddle of names."));
        assert!(!is_found("riddle of", "A riddle offered"));
        assert!(is_found("Riddle", "enum Riddle {"));
        assert!(!is_found("Riddle", "a riddle, Riddles, MyRiddle"));
        assert!(!is_found("riddle_of", "my_riddle_of"));
    }

    #[test]
    fn sections_decide_whether_an_entry_is_enforced() {
        let entries = parse("[noted]\na -> b\n[enforced]\nc d -> e\n").expect("a valid list");
        let expected_entries = [
            Entry { phrase: "a", replacement: "b", is_enforced: false },
            Entry { phrase: "c d", replacement: "e", is_enforced: true },
        ];
        assert_eq!(entries, expected_entries);
    }

    #[test]
    fn malformed_line_is_reported_with_its_number() {
        let error = parse("# a comment\nphrase without arrow\n").expect_err("a malformed line");
        assert_eq!(error.to_string(), "xtask/vocabulary.txt:2: not PHRASE -> REPLACEMENT");
    }
}
