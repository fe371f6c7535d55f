//! The rows, as a table or as an object each.

use crate::At;
use crate::churn::Churn;

/// Where rows go, and which are wanted.
pub struct Report {
    json: bool,
    only: String,
}

/// One line of the table.
pub struct Row {
    name: String,
    at: At,
    /// Nanoseconds, or what the name says.
    figure: f64,
    /// To the floor, or what the name says; none where there is nothing to compare with.
    ratio: Option<f64>,
}

impl Row {
    /// The medians of blocks: figure and ratio.
    pub fn of(name: &str, at: At, mut pairs: Vec<(f64, f64)>) -> Self {
        let middle = pairs.len() / 2;
        pairs.sort_by(|a, b| a.1.total_cmp(&b.1));
        let ratio = Some(pairs[middle].1);
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { name: name.to_owned(), at, figure: pairs[middle].0, ratio }
    }

    /// A figure by itself.
    pub fn alone(name: &str, at: At, figure: f64) -> Self {
        Self { name: name.to_owned(), at, figure, ratio: None }
    }
}

impl Report {
    /// Prints the head of the table.
    pub fn new(json: bool, only: String) -> Self {
        if !json {
            println!("ns for a close and an open, or for what the name says;");
            println!("the ratio is to the floor, measured in turn, or to what the name says\n");
            println!(
                "{:<42} {:>5} {:>5} {:>7} {:>7} {:>12} {:>9}",
                "name", "size", "full", "churn", "threads", "ns", "ratio"
            );
        }
        Self { json, only }
    }

    /// Whether a row of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// Prints a row.
    pub fn row(&self, row: &Row) {
        let Row { name, at: At { size, occupancy, churn, threads }, figure, ratio } = row;
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
                "{name:<42} /{prefix:<4} {occupancy:>3} % {churn:>7} {threads:>7} {figure:>12.1} {ratio:>9}"
            );
        }
    }
}
