//! Tables for terminals. Columns are two spaces apart and there is no frame, so that awk(1) and
//! grep(1) can process a table.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Creates a table with these column titles. If a title ends in `#`, its column contains numbers
/// and is right-aligned. The `#` is not printed.
pub fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(titles.iter().map(|title| title.trim_end_matches('#')));
    for (column, title) in table.column_iter_mut().zip(titles) {
        column.set_padding((0, 2));
        if title.ends_with('#') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Returns the table as text, without trailing blanks.
pub fn render(table: &Table) -> String {
    table.trim_fmt() + "\n"
}

/// Formats a time for a terminal, in the local time zone.
pub fn local_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
