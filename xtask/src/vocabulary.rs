//! The list of words that the language rules of the project exclude: `xtask/vocabulary.txt`.

use crate::Error;

/// The path of the list, which is not checked against itself.
pub const FILE: &str = "xtask/vocabulary.txt";

/// A phrase to avoid.
pub struct Entry<'a> {
    pub phrase: &'a str,
    pub replacement: &'a str,
}

/// Parses the list.
///
/// # Errors
/// If a line is not `PHRASE -> REPLACEMENT`.
pub fn parse(text: &str) -> Result<Vec<Entry<'_>>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#')
    });
    lines
        .map(|(index, line)| {
            let (phrase, replacement) = line
                .split_once(" -> ")
                .ok_or_else(|| format!("{FILE}:{}: not PHRASE -> REPLACEMENT", index + 1))?;
            Ok(Entry { phrase: phrase.trim(), replacement: replacement.trim() })
        })
        .collect()
}

impl Entry<'_> {
    /// Returns whether the line contains the phrase as whole words. `lower` is the line in lower
    /// case.
    pub fn is_in(&self, line: &str, lower: &str) -> bool {
        let text = if self.phrase.chars().any(char::is_uppercase) { line } else { lower };
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        text.match_indices(self.phrase).any(|(start, phrase)| {
            !text[..start].ends_with(is_word) && !text[start + phrase.len()..].starts_with(is_word)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_found(phrase: &str, line: &str) -> bool {
        Entry { phrase, replacement: "" }.is_in(line, &line.to_lowercase())
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
    fn malformed_line_is_reported_with_its_number() {
        let error = parse("# a comment\nphrase without arrow\n").err().expect("an error");
        assert_eq!(error.to_string(), "xtask/vocabulary.txt:2: not PHRASE -> REPLACEMENT");
    }
}
