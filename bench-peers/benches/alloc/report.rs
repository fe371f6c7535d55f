//! Prints each result as a row of a table or as a JSON object.

use crate::Scenario;
use crate::churn::Churn;

/// The output format and the row filter.
pub struct Report {
    json: bool,
    /// The bench measures only rows whose names contain this text.
    filter: String,
}

/// One row of the table.
pub struct Row {
    name: String,
    scenario: Scenario,
    /// The result in nanoseconds, or in the unit that the name contains.
    value: f64,
    /// The ratio to the floor or to the reference in the name, if there is one.
    ratio: Option<f64>,
}

impl Row {
    /// Creates a row from the result and the ratio of each block. The row contains the medians.
    pub fn from_blocks(name: &str, scenario: Scenario, mut blocks: Vec<(f64, f64)>) -> Self {
        let middle = blocks.len() / 2;
        blocks.sort_by(|left, right| left.1.total_cmp(&right.1));
        let ratio = Some(blocks[middle].1);
        blocks.sort_by(|left, right| left.0.total_cmp(&right.0));
        Self { name: name.to_owned(), scenario, value: blocks[middle].0, ratio }
    }

    /// Creates a row without a ratio.
    pub fn without_ratio(name: &str, scenario: Scenario, value: f64) -> Self {
        Self { name: name.to_owned(), scenario, value, ratio: None }
    }
}

impl Report {
    /// Creates a report. Prints the head of the table, unless the output is JSON.
    pub fn new(json: bool, filter: String) -> Self {
        if !json {
            println!("ns: the time of a close and an open, or of the operation in the name");
            println!("ratio: compared with the floor, or with the reference in the name\n");
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
        let Row { name, scenario: Scenario { size, occupancy, churn, threads }, value, ratio } =
            row;
        let churn = match churn {
            Churn::Anonymous => "random",
            Churn::Sticky => "sticky",
        };
        if self.json {
            let ratio = ratio.map(|ratio| (ratio * 100.0).round() / 100.0);
            let object = serde_json::json!({
                "name": name, "size": size, "occupancy": occupancy, "churn": churn,
                "threads": threads, "ns": (value * 10.0).round() / 10.0, "ratio": ratio,
            });
            println!("{object}");
        } else {
            let prefix = 32 - size.ilog2();
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            println!(
                "{name:<52} /{prefix:<4} {occupancy:>3} % {churn:>7} {threads:>7} {value:>12.1} {ratio:>9}"
            );
        }
    }
}
