//! What is wrong with a farm: values, and apart from them how they are shown.
//!
//! A finding names the key it is about (`range[1].addresses[0]`); where that key stands in the
//! file is looked up in the positions that reading left behind.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// It works, but perhaps not as meant.
    Warning,
    /// The farm can't be used as it is.
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

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A fixed word for this kind of finding, such as `overlap`.
    pub code: &'static str,
    /// The key it is about, such as `range[1].addresses[0]` (places count from 0); empty for the
    /// whole file.
    pub key: String,
    /// The value it is about; may be empty.
    pub value: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
    /// Where it stands, if it came from a file.
    pub position: Option<Position>,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// First byte, from 0.
    pub start: usize,
    /// The byte behind the last.
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
    /// One line, without the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level, self.message)?;
        if !self.key.is_empty() {
            write!(f, " [{}]", self.key)?;
        }
        write!(f, ": {}", self.remedy)
    }
}

/// The findings of one file, in its order, with what is needed to show them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    file: Option<PathBuf>,
    source: String,
    positions: Positions,
    findings: Vec<Finding>,
}

/// Where each key stands: bytes of its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Positions(HashMap<String, (usize, usize)>);

impl Positions {
    pub(super) fn insert(&mut self, key: String, span: std::ops::Range<usize>) {
        self.0.insert(key, (span.start, span.end));
    }

    /// The place of the key, or of the nearest one around it.
    fn find(&self, key: &str) -> Option<(usize, usize)> {
        let mut key = key;
        loop {
            if let Some(span) = self.0.get(key) {
                return Some(*span);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }
}

impl Report {
    pub(super) fn new(source: &str, positions: Positions) -> Self {
        Self { file: None, source: source.to_owned(), positions, findings: Vec::new() }
    }

    /// Says which file the findings are about.
    pub fn with_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Adds findings, such as those of a plan, each put where it stands in the file.
    pub fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for mut finding in findings {
            if finding.position.is_none() {
                let span = self.positions.find(&finding.key);
                finding.position = span.map(|(start, end)| position(&self.source, start, end));
            }
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        self.findings.sort_by_key(|finding| finding.position.map(|place| place.start));
    }

    /// Drops what was found on a line that also has a finding of this code.
    pub(super) fn drop_beside(&mut self, code: &str) {
        let line = |finding: &Finding| finding.position.map(|place| place.line);
        let told: HashSet<_> = self.findings.iter().filter(|f| f.code == code).map(line).collect();
        self.findings.retain(|finding| finding.code == code || !told.contains(&line(finding)));
    }

    /// The place of these bytes of the file.
    pub(super) fn position(&self, start: usize, end: usize) -> Position {
        position(&self.source, start, end)
    }

    /// The file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What was found, in the order of the file.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many findings are of this level.
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// Whether the farm can't be used.
    pub fn has_errors(&self) -> bool {
        self.count(Level::Error) > 0
    }

    fn show(&self, finding: &Finding, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        let Some(place) = finding.position else {
            if self.file.is_some() {
                write!(f, " ")?;
            }
            return writeln!(f, "{finding}");
        };
        writeln!(f, "{}:{}: {}: {}", place.line, place.column, finding.level, finding.message)?;
        let line = self.source.lines().nth(place.line - 1).unwrap_or_default();
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands under the value.
        let indent: String = line
            .chars()
            .take(place.column - 1)
            .map(|character| if character == '\t' { '\t' } else { ' ' })
            .collect();
        let marked = self.source.get(place.start..place.end).unwrap_or_default();
        let width = marked.lines().next().map_or(0, |line| line.chars().count()).max(1);
        writeln!(f, "{gutter} |\n{number} | {line}")?;
        writeln!(f, "{gutter} | {indent}{}", "^".repeat(width))?;
        writeln!(f, "{gutter} = {}", finding.remedy)
    }
}

/// The text form: place, what is wrong, the line with carets under the value, what to do.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| self.show(finding, f))
    }
}

impl std::error::Error for Report {}

pub(super) fn position(source: &str, start: usize, end: usize) -> Position {
    let start = floor(source, start);
    let before = &source[..start];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        start,
        end: floor(source, end).max(start),
    }
}

/// The nearest character boundary at or below a byte.
fn floor(source: &str, byte: usize) -> usize {
    (0..=byte.min(source.len())).rev().find(|at| source.is_char_boundary(*at)).unwrap_or(0)
}

/// The known name nearest to one that is not known, if it is near enough to be meant.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean …?", or the names there are.
pub(super) fn suggest<'n>(name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    if let Some(nearest) = nearest(name, known.clone()) {
        return format!("did you mean {nearest:?}?");
    }
    let names: Vec<&str> = known.take(20).collect();
    if names.is_empty() {
        "there is none".to_owned()
    } else {
        format!("known: {}", names.join(", "))
    }
}

/// A name as part of a key: quoted where it would not be read as one part.
pub(super) fn key_part(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { format!("{name:?}") }
}
