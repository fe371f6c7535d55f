//! Tables for people: columns two spaces apart, no frame, so that they also cut and grep well.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table with these column titles; those that end in `#` (which is not shown) hold numbers.
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

/// The table as text, without blanks at the ends of its lines.
pub fn render(table: &Table) -> String {
    table.trim_fmt() + "\n"
}
