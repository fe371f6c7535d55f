//! Reads typed values from TOML tables. The reader reports an invalid value as a finding and treats
//! the value as absent, so that one pass reports every error.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, Level, Positions, locate, quote_key_part, suggest};
use crate::policy::PortRange;

/// The level and the code of a finding about the type of a value.
const TYPE_ERROR: (Level, &str) = (Level::Error, "type");
/// The level and the code of a finding about a value of the right type.
const VALUE_ERROR: (Level, &str) = (Level::Error, "value");

/// Reads values, and collects their positions and the findings about them.
pub(super) struct TomlReader<'s> {
    source: &'s str,
    pub positions: Positions,
    pub findings: Vec<Finding>,
}

/// A value and its full key, such as `range[1].addresses`.
#[derive(Clone)]
pub(super) struct Value<'t> {
    pub key: String,
    value: &'t Spanned<DeValue<'t>>,
}

/// A table. [`Section::take`] marks a key as known. [`Section::finish`] reports the keys that are
/// not known.
pub(super) struct Section<'t> {
    /// The full key of the table. Empty for the root table.
    key: String,
    /// `None` if the file does not contain the table.
    table: Option<&'t DeTable<'t>>,
    known_keys: Vec<&'static str>,
}

impl<'s> TomlReader<'s> {
    pub fn new(source: &'s str) -> Self {
        Self { source, positions: Positions::default(), findings: Vec::new() }
    }

    fn record_value<'t>(&mut self, key: String, value: &'t Spanned<DeValue<'t>>) -> Value<'t> {
        self.positions.insert(key.clone(), value.span());
        Value { key, value }
    }

    fn add_finding(&mut self, mut finding: Finding, span: std::ops::Range<usize>) {
        finding.position = Some(locate(self.source, span.start, span.end));
        self.findings.push(finding);
    }

    fn report_type_error<T>(
        &mut self,
        value: &Value<'_>,
        expected: &str,
        remedy: impl Into<String>,
    ) -> Option<T> {
        let found_type = value.get().type_str();
        let message = format!("expected {expected}, got {} {found_type}", article(found_type));
        let finding = Finding::new(TYPE_ERROR, &value.key, value.display_text(), message, remedy);
        self.add_finding(finding, value.value.span());
        None
    }

    /// Reports a value that has the right type but is not valid.
    pub fn report_value_error(
        &mut self,
        value: &Value<'_>,
        message: String,
        remedy: impl Into<String>,
    ) {
        let finding = Finding::new(VALUE_ERROR, &value.key, value.display_text(), message, remedy);
        self.add_finding(finding, value.value.span());
    }

    pub fn read_text(&mut self, value: Value<'_>) -> Option<String> {
        match value.get() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => self.report_type_error(&value, "a string", "put the value in quotation marks"),
        }
    }

    pub fn read_boolean(&mut self, value: Value<'_>) -> Option<bool> {
        let boolean = value.get().as_bool();
        boolean.or_else(|| self.report_type_error(&value, "a boolean", "write true or false"))
    }

    pub fn read_integer(&mut self, value: Value<'_>, allowed: RangeInclusive<u32>) -> Option<u32> {
        let remedy = format!("write an integer from {} to {}", allowed.start(), allowed.end());
        let DeValue::Integer(integer) = value.get() else {
            return self.report_type_error(&value, "an integer", remedy);
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix());
        match number.ok().and_then(|number| u32::try_from(number).ok()) {
            Some(number) if allowed.contains(&number) => Some(number),
            _ => {
                self.report_value_error(&value, format!("{integer} is out of range"), remedy);
                None
            }
        }
    }

    /// Reads a string and parses it.
    pub fn read_parsed<T: FromStr<Err: Display>>(
        &mut self,
        value: Value<'_>,
        remedy: &str,
    ) -> Option<T> {
        let text = self.read_text(value.clone())?;
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.report_value_error(&value, error.to_string(), remedy);
                None
            }
        }
    }

    /// Reads a string that is one of `keywords`.
    pub fn read_keyword<T: Copy>(&mut self, value: Value<'_>, keywords: &[(&str, T)]) -> Option<T> {
        let text = self.read_text(value.clone())?;
        let found_keyword = keywords.iter().find(|(keyword, _)| *keyword == text);
        if found_keyword.is_none() {
            let remedy = suggest(&text, keywords.iter().map(|(keyword, _)| *keyword));
            self.report_value_error(&value, format!("unknown value {text:?}"), remedy);
        }
        found_keyword.map(|(_, meaning)| *meaning)
    }

    /// Reads a duration: a number of seconds, or a string with a unit ("90s", "2m", "1h", "1d").
    pub fn read_duration(&mut self, value: Value<'_>) -> Option<u32> {
        if let DeValue::Integer(_) = value.get() {
            return self.read_integer(value, 0..=MAX_SECONDS);
        }
        let remedy = "write a number with a unit: \"90s\", \"2m\", \"1h\" or \"1d\"";
        let text = self.read_text(value.clone())?;
        let seconds = parse_seconds(&text);
        if seconds.is_none() {
            self.report_value_error(&value, format!("{text:?} is not a duration"), remedy);
        }
        seconds
    }

    /// Reads a port or a range of ports: 80, "80", "7000-7010".
    pub fn read_port_range(&mut self, value: Value<'_>) -> Option<PortRange> {
        if let DeValue::Integer(_) = value.get() {
            let port = self.read_integer(value, 1..=65535)?;
            return Some(PortRange::from(port as u16));
        }
        self.read_parsed(value, "write a port (7000) or a range (\"7000-7010\"), from 1 to 65535")
    }

    /// Reads an array and returns the items for which `read_item` returns a value. A value that is
    /// not an array counts as an array with this value as its only item.
    pub fn read_list<T>(
        &mut self,
        value: Option<Value<'_>>,
        read_item: impl Fn(&mut Self, Value<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = value?;
        let DeValue::Array(array) = value.get() else {
            let only_item = Value { key: format!("{}[0]", value.key), ..value };
            return Some(read_item(self, only_item).into_iter().collect());
        };
        let mut items = Vec::new();
        for item_value in array.iter() {
            // The index counts only the returned items: the parsed farm contains only these.
            let item = self.record_value(format!("{}[{}]", value.key, items.len()), item_value);
            items.extend(read_item(self, item));
        }
        Some(items)
    }

    /// Reads a table.
    pub fn read_section<'t>(&mut self, value: Value<'t>) -> Option<Section<'t>> {
        match value.get() {
            DeValue::Table(table) => {
                Some(Section { key: value.key, table: Some(table), known_keys: Vec::new() })
            }
            _ => {
                let remedy = format!("begin the table with [{}]", value.key);
                self.report_type_error(&value, "a table", remedy)
            }
        }
    }

    /// Returns the keys of a table with their values, in the order of the file.
    pub fn read_named<'t>(&mut self, value: Option<Value<'t>>) -> Vec<(String, Value<'t>)> {
        let Some(section) = value.and_then(|value| self.read_section(value)) else {
            return Vec::new();
        };
        let mut entries: Vec<_> = section.table.into_iter().flatten().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let named_value = |(name, value): (&Spanned<_>, &'t Spanned<DeValue<'t>>)| {
            let name: &String = &String::from(AsRef::<str>::as_ref(name.get_ref()));
            let key = format!("{}.{}", section.key, quote_key_part(name));
            (name.clone(), self.record_value(key, value))
        };
        entries.into_iter().map(named_value).collect()
    }
}

impl<'t> Value<'t> {
    fn get(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    /// Returns the value as text for a finding. The text of an array or a table is empty.
    fn display_text(&self) -> String {
        match self.get() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.to_string(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Datetime(datetime) => datetime.to_string(),
            DeValue::Array(_) | DeValue::Table(_) => String::new(),
        }
    }
}

impl<'t> Section<'t> {
    /// Returns the root table of the file.
    pub fn root(table: &'t DeTable<'t>) -> Self {
        Self { key: String::new(), table: Some(table), known_keys: Vec::new() }
    }

    /// Returns a section for a table that the file does not contain.
    pub fn empty() -> Self {
        Self { key: String::new(), table: None, known_keys: Vec::new() }
    }

    /// Returns the value of a key, if present, and marks the key as known.
    pub fn take(&mut self, reader: &mut TomlReader, key: &'static str) -> Option<Value<'t>> {
        self.known_keys.push(key);
        let value = self.table?.get(key)?;
        Some(reader.record_value(self.full_key(key), value))
    }

    /// Reports every unknown key.
    pub fn finish(self, reader: &mut TomlReader) {
        for (name, _) in self.table.into_iter().flatten() {
            let known_keys = self.known_keys.iter().copied();
            if !known_keys.clone().any(|known_key| known_key == name.get_ref()) {
                let key = self.full_key(name.get_ref());
                let table_name = if self.key.is_empty() { "the file" } else { &self.key };
                let message = format!("unknown key {:?} in {table_name}", name.get_ref());
                let remedy = suggest(name.get_ref(), known_keys);
                let level_and_code = (Level::Error, "unknown-key");
                let finding = Finding::new(level_and_code, key, name.get_ref(), message, remedy);
                reader.add_finding(finding, name.span());
            }
        }
    }

    fn full_key(&self, name: &str) -> String {
        let part = quote_key_part(name);
        if self.key.is_empty() { part } else { format!("{}.{part}", self.key) }
    }
}

/// The longest duration of a setting in seconds: 136 years.
const MAX_SECONDS: u32 = u32::MAX - 1;

/// Returns the seconds of a duration with a unit, such as "2m".
pub(super) fn parse_seconds(text: &str) -> Option<u32> {
    let duration = text.trim();
    let digit_count =
        duration.find(|character: char| !character.is_ascii_digit()).unwrap_or(duration.len());
    let (number, unit) = duration.split_at(digit_count);
    let factor = match unit.trim_start() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(factor).filter(|seconds| *seconds <= MAX_SECONDS)
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
