//! Findings about a farm, and their display.
//!
//! A finding contains the key of the value with the problem (`range[1].addresses[0]`). The TOML
//! reader records the position of the value of each key. [`Report::extend`] uses these positions to
//! add the position to each finding.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The farm works, but perhaps not as intended.
    Warning,
    /// The farm cannot be used.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Warning => "warning",
            Level::Error => "error",
        })
    }
}

/// One error or warning about a farm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The severity.
    pub level: Level,
    /// The kind of the finding, as a fixed word such as `overlap`.
    pub code: &'static str,
    /// The key, such as `range[1].addresses[0]` (indices begin at 0). Empty if the finding is about
    /// no single key, for example about the whole file.
    pub key: String,
    /// The value that caused the finding. May be empty.
    pub value: String,
    /// The description of the problem.
    pub message: String,
    /// The remedy.
    pub remedy: String,
    /// The position of the value in the text of farm.toml. `None` if the position is unknown.
    pub position: Option<Position>,
}

/// The position of a value in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Line. The first line is 1.
    pub line: usize,
    /// Column in characters. The first column is 1.
    pub column: usize,
    /// Offset of the first byte of the value.
    pub start: usize,
    /// Offset after the last byte of the value.
    pub end: usize,
}

impl Finding {
    pub(super) fn new(
        (level, code): (Level, &'static str),
        key: impl Into<String>,
        value: impl fmt::Display,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            level,
            code,
            key: key.into(),
            value: value.to_string(),
            message: message.into(),
            remedy: remedy.into(),
            position: None,
        }
    }
}

impl fmt::Display for Finding {
    /// Writes one line, without the position.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level, self.message)?;
        if !self.key.is_empty() {
            write!(f, " [{}]", self.key)?;
        }
        write!(f, ": {}", self.remedy)
    }
}

/// The findings about one file, sorted by their position in the file. The report also contains the
/// text of the file, because its `Display` output shows the lines of the findings.
#[derive(Clone, Debug, Default)]
pub struct Report {
    file: Option<PathBuf>,
    source: String,
    positions: Positions,
    findings: Vec<Finding>,
}

/// The byte range of the value of each key.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions(HashMap<String, (usize, usize)>);

impl Positions {
    pub(super) fn insert(&mut self, key: String, span: std::ops::Range<usize>) {
        self.0.insert(key, (span.start, span.end));
    }

    /// Returns the byte range of the value of `key`. If this key is not recorded, returns the byte
    /// range of the innermost recorded key that contains it.
    fn find(&self, key: &str) -> Option<(usize, usize)> {
        let mut containing_key = key;
        loop {
            if let Some(span) = self.0.get(containing_key) {
                return Some(*span);
            }
            containing_key = &containing_key[..containing_key.rfind(['.', '['])?];
        }
    }
}

impl Report {
    pub(super) fn new(source: &str, positions: Positions) -> Self {
        Self { file: None, source: source.to_owned(), positions, findings: Vec::new() }
    }

    /// Sets the path of the file.
    #[must_use]
    pub fn with_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Adds the findings that the report does not contain yet, and looks up their positions.
    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for mut finding in findings {
            if finding.position.is_none() {
                let span = self.positions.find(&finding.key);
                finding.position = span.map(|(start, end)| locate(&self.source, start, end));
            }
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        self.findings.sort_by_key(|finding| finding.position.map(|position| position.start));
    }

    /// Removes the findings with another code that are at the same place as a finding with this
    /// code. "The same place" means that both values begin on the same line, or that the finding
    /// with this code begins inside the value of the other finding.
    pub(super) fn suppress_others_at(&mut self, code: &str) {
        let findings_with_code = self.findings.iter().filter(|finding| finding.code == code);
        let suppressing_positions: Vec<Position> =
            findings_with_code.filter_map(|finding| finding.position).collect();
        let is_suppressed = |position: Position| {
            suppressing_positions.iter().any(|suppressing| {
                suppressing.line == position.line
                    || (position.start..=position.end).contains(&suppressing.start)
            })
        };
        self.findings
            .retain(|finding| finding.code == code || !finding.position.is_some_and(is_suppressed));
    }

    /// Returns the position of a byte range of the file.
    pub(super) fn position(&self, start: usize, end: usize) -> Position {
        locate(&self.source, start, end)
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the findings, sorted by their position in the file.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Returns whether the report contains the text of a file. Returns false if the file is empty
    /// or could not be read as text.
    #[must_use]
    pub fn has_text(&self) -> bool {
        !self.source.is_empty()
    }

    /// Returns whether there are no findings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Returns the number of findings with this severity.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// Returns whether the farm cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Level::Error) > 0
    }

    fn write_finding(&self, finding: &Finding, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        let Some(position) = finding.position else {
            if self.file.is_some() {
                write!(f, " ")?;
            }
            return writeln!(f, "{finding}");
        };
        writeln!(
            f,
            "{}:{}: {}: {}",
            position.line, position.column, finding.level, finding.message
        )?;
        let line = self.source.lines().nth(position.line - 1).unwrap_or_default();
        let line_number = position.line.to_string();
        let gutter = " ".repeat(line_number.len());
        // The indent keeps tabs, so that the caret is below the value.
        let indent: String = line
            .chars()
            .take(position.column - 1)
            .map(|character| if character == '\t' { '\t' } else { ' ' })
            .collect();
        let marked_text = self.source.get(position.start..position.end).unwrap_or_default();
        let first_line = marked_text.lines().next().unwrap_or_default();
        let caret_count = first_line.chars().count().max(1);
        writeln!(f, "{gutter} |\n{line_number} | {line}")?;
        writeln!(f, "{gutter} | {indent}{}", "^".repeat(caret_count))?;
        writeln!(f, "{gutter} = {}", finding.remedy)
    }
}

/// Writes each finding with its position, the message, the line with carets below the value, and
/// the remedy.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| self.write_finding(finding, f))
    }
}

impl std::error::Error for Report {}

/// Returns the position of a byte range of `source`.
pub(super) fn locate(source: &str, start: usize, end: usize) -> Position {
    let start = floor_char_boundary(source, start);
    let preceding_text = &source[..start];
    let line_start = preceding_text.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: preceding_text.matches('\n').count() + 1,
        column: preceding_text[line_start..].chars().count() + 1,
        start,
        end: floor_char_boundary(source, end).max(start),
    }
}

/// Returns the last character boundary at or before a byte offset.
fn floor_char_boundary(source: &str, offset: usize) -> usize {
    let mut candidates = (0..=offset.min(source.len())).rev();
    candidates.find(|candidate| source.is_char_boundary(*candidate)).unwrap_or(0)
}

/// Returns the known name that is most similar to `name`, if it is similar enough.
pub(super) fn find_nearest<'n>(
    name: &str,
    known_names: impl Iterator<Item = &'n str>,
) -> Option<&'n str> {
    known_names
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns a remedy for an unknown name: "did you mean …?", or the known names.
pub(super) fn suggest<'n>(
    name: &str,
    known_names: impl Iterator<Item = &'n str> + Clone,
) -> String {
    if let Some(nearest_name) = find_nearest(name, known_names.clone()) {
        return format!("did you mean {nearest_name:?}?");
    }
    let listed_names: Vec<&str> = known_names.take(20).collect();
    if listed_names.is_empty() {
        "no name is defined".to_owned()
    } else {
        format!("known: {}", listed_names.join(", "))
    }
}

/// Returns a name as part of a key, in quotes if TOML requires them.
pub(super) fn quote_key_part(name: &str) -> String {
    let is_bare =
        |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}
