//! Prints the rows, as a table or as JSON objects.

use crate::Scenario;
use crate::churn::Churn;

/// The output format and the row filter.
pub struct Report {
    json: bool,
    /// Only rows whose name contains this text are measured.
    filter: String,
}

/// One line of the table.
pub struct Row {
    name: String,
    scenario: Scenario,
    /// The value in nanoseconds, or in the unit that the name contains.
    figure: f64,
    /// The ratio to the floor or to the reference in the name, if there is one.
    ratio: Option<f64>,
}

impl Row {
    /// Creates a row from the figure and ratio of each block. The row contains the medians.
    pub fn from_blocks(name: &str, scenario: Scenario, mut blocks: Vec<(f64, f64)>) -> Self {
        let middle = blocks.len() / 2;
        blocks.sort_by(|a, b| a.1.total_cmp(&b.1));
        let ratio = Some(blocks[middle].1);
        blocks.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { name: name.to_owned(), scenario, figure: blocks[middle].0, ratio }
    }

    /// Creates a row without a ratio.
    pub fn without_ratio(name: &str, scenario: Scenario, figure: f64) -> Self {
        Self { name: name.to_owned(), scenario, figure, ratio: None }
    }
}

impl Report {
    /// Creates a report and prints the head of the table.
    pub fn new(json: bool, filter: String) -> Self {
        if !json {
            println!("ns for a close and an open, or for the operation in the name");
            println!(
                "the ratio is to the floor, measured in alternation, or to the reference in the name\n"
            );
            println!(
                "{:<52} {:>5} {:>5} {:>7} {:>7} {:>12} {:>9}",
                "name", "size", "full", "churn", "threads", "ns", "ratio"
            );
        }
        Self { json, filter }
    }

    /// Returns whether a row of this name is selected.
    pub fn selects(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// Prints a row.
    pub fn print(&self, row: &Row) {
        let Row { name, scenario: Scenario { size, occupancy, churn, threads }, figure, ratio } =
            row;
        let churn = match churn {
            Churn::Random => "random",
            Churn::Sticky => "sticky",
        };
        if self.json {
            let ratio = ratio.map(|ratio| (ratio * 100.0).round() / 100.0);
            let object = serde_json::json!({
                "name": name, "size": size, "occupancy": occupancy, "churn": churn,
                "threads": threads, "ns": (figure * 10.0).round() / 10.0, "ratio": ratio,
            });
            println!("{object}");
        } else {
            let prefix = 32 - size.ilog2();
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            println!(
                "{name:<52} /{prefix:<4} {occupancy:>3} % {churn:>7} {threads:>7} {figure:>12.1} {ratio:>9}"
            );
        }
    }
}
