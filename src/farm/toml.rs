//! Reads farm.toml: the file, its encoding and the syntax of TOML. Collects all findings in a
//! [`Report`]. The module `tables` converts the tables to a [`Farm`].

use std::io::Read;
use std::path::Path;

use toml::de::DeTable;

use super::Farm;
use super::finding::{Finding, Level, Report, locate};
use super::section::{Section, TomlReader};
use super::tables::read_farm;

/// The maximum size of a file in bytes. The file of a farm with a thousand servers has about a
/// tenth of this size.
const MAX_FILE_SIZE: u64 = 4 << 20;

impl Farm {
    /// Reads and validates a file.
    ///
    /// A value of a wrong type or format is absent from the farm, and the report contains an error
    /// about it. For a file that cannot be read, returns the default farm and a report with one
    /// error.
    #[must_use]
    pub fn load(file: &Path) -> (Farm, Report) {
        let (farm, report) = match read_bytes(file) {
            Ok(bytes) => parse_bytes(&bytes),
            Err(finding) => {
                let mut report = Report::default();
                report.extend([*finding]);
                (Farm::default(), report)
            }
        };
        (farm, report.with_file(file))
    }

    /// Parses and validates the text of a farm.toml.
    #[must_use]
    pub fn parse(text: &str) -> (Farm, Report) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (valid_text, syntax_findings) = remove_invalid_lines(text);
        let (table, _) = DeTable::parse_recoverable(&valid_text);
        let has_no_keys = table.get_ref().is_empty() && syntax_findings.is_empty();
        let mut reader = TomlReader::new(text);
        let farm = read_farm(&mut reader, Section::root(table.get_ref()));
        let mut report = Report::new(text, reader.positions);
        // A value that the reader could not read, or that is on a line with a syntax error, is
        // absent from the farm. Do not also report it as missing. A finding about a missing value
        // has an empty field `value`.
        let read_findings = reader.findings;
        let has_syntax_error = !syntax_findings.is_empty();
        let mut validation_findings =
            if has_syntax_error { farm.validate_present_values() } else { farm.validate() };
        validation_findings.retain(|finding| {
            let has_invalid_value = || {
                read_findings.iter().any(|read_finding| read_finding.key.starts_with(&finding.key))
            };
            !finding.value.is_empty() || !has_syntax_error && !has_invalid_value()
        });
        report.extend(syntax_findings);
        report.extend(read_findings);
        report.extend(validation_findings);
        if has_no_keys {
            // A file without keys is a mistake, for example a failed copy. With such a file,
            // `vipool up` would remove all addresses.
            report.extend([Finding::new(
                (Level::Error, "file"),
                "",
                "",
                "the file has no keys",
                "add the ranges and the programs; examples/farm.toml shows all keys",
            )]);
        }
        // The parser also returns a value without an end. Do not report other mistakes in such a
        // value.
        report.suppress_others_at("syntax");
        (farm, report)
    }
}

/// The maximum number of lines that [`remove_invalid_lines`] removes. It parses the whole text
/// again after each removal.
const MAX_INVALID_LINES: usize = 100;

/// Returns the text with blanks in place of the lines that have syntax errors, and one finding for
/// each syntax mistake.
///
/// One mistake can make the next lines invalid too. For example, an array without an end contains
/// the next lines. So adjacent invalid lines count as one mistake.
fn remove_invalid_lines(text: &str) -> (String, Vec<Finding>) {
    let mut valid_text = text.to_owned();
    let mut findings = Vec::new();
    let mut last_invalid_end: Option<usize> = None;
    for _ in 0..MAX_INVALID_LINES {
        let (_, errors) = DeTable::parse_recoverable(&valid_text);
        let span_of = |error: &toml::de::Error| error.span().unwrap_or(0..0);
        let Some(error) = errors.into_iter().min_by_key(|error| span_of(error).start) else {
            break;
        };
        let span = span_of(&error);
        let line_start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end =
            text[span.start..].find('\n').map_or(text.len(), |length| span.start + length);
        let follows_invalid_line = last_invalid_end.is_some_and(|invalid_end| {
            let text_between = valid_text.get(invalid_end..line_start);
            text_between.is_none_or(|lines| lines.trim().is_empty())
        });
        if !follows_invalid_line {
            let value = text.get(span.clone()).unwrap_or_default();
            let message = format!("invalid TOML: {}", error.message());
            let remedy = "fix this line, or an unfinished line before it";
            let mut finding = Finding::new((Level::Error, "syntax"), "", value, message, remedy);
            finding.position = Some(locate(text, span.start, span.end));
            findings.push(finding);
        }
        if valid_text[span.start..].trim().is_empty() {
            // The error is at the end of the text, for example because a value has no end. The
            // parser recovers such a value, so no line must be removed.
            break;
        }
        valid_text.replace_range(line_start..line_end, &" ".repeat(line_end - line_start));
        last_invalid_end = Some(line_end);
    }
    (valid_text, findings)
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, Box<Finding>> {
    let finding = |message: String, remedy: &str| {
        Box::new(Finding::new((Level::Error, "file"), "", file.display(), message, remedy))
    };
    let read_error = |error: std::io::Error| {
        finding(format!("cannot read the file: {error}"), "check its path and its permissions")
    };
    let mut bytes = Vec::new();
    let reader = std::fs::File::open(file).map_err(read_error)?;
    reader.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        return Err(finding(
            "the file is larger than 4 MiB".to_owned(),
            "check that this is a farm.toml",
        ));
    }
    Ok(bytes)
}

fn parse_bytes(bytes: &[u8]) -> (Farm, Report) {
    if is_utf16(bytes) {
        let mut report = Report::default();
        report.extend([Finding::new(
            (Level::Error, "encoding"),
            "",
            "",
            "the file is encoded in UTF-16",
            "save the file as UTF-8",
        )]);
        return (Farm::default(), report);
    }
    let error = match str::from_utf8(bytes) {
        Ok(text) => return Farm::parse(text),
        Err(error) => error,
    };
    let offset = error.valid_up_to();
    let (farm, mut report) = Farm::parse(&String::from_utf8_lossy(bytes));
    let remedy = "save the file as UTF-8";
    let level_and_code = (Level::Error, "encoding");
    let value = format!("{:#04x}", bytes[offset]);
    let message = format!("byte {offset} is not UTF-8");
    let mut finding = Finding::new(level_and_code, "", value, message, remedy);
    finding.position = Some(report.position(offset, offset + 1));
    report.extend([finding]);
    (farm, report)
}

/// Returns whether the bytes begin with a byte order mark of UTF-16, or with an ASCII character in
/// UTF-16.
fn is_utf16(bytes: &[u8]) -> bool {
    matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..])
        || matches!(bytes, [0, ascii, ..] | [ascii, 0, ..] if (1..0x80).contains(ascii))
}
