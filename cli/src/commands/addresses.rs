//! `vipool addresses`: draws the pools in the terminal, one character per address.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use vipool::map::{PoolStatus, Reader, SlotRow, SlotState};
use vipool::range::Range;

use crate::maps::selection::MapArgs;
use crate::output::print_json;
use crate::text::{escape, pluralize};

/// Maximum number of addresses per line.
const LINE_WIDTH: usize = 64;
/// Maximum number of lines of a pool that is shown completely. For a larger pool, lines with only
/// free addresses are not shown.
const MAX_LINES_WITHOUT_OMISSION: usize = 64;

/// Show which addresses are free, used, cooling or drained
///
/// Each line shows up to 64 consecutive addresses and begins with the first of them. For large
/// pools, the command omits lines with only free addresses.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool addresses
  vipool addresses --pool default --json")]
pub struct Addresses {
    /// Show only this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    map: MapArgs,
}

/// One address in the JSON output.
#[derive(Serialize)]
struct AddressRow<'a> {
    pool: &'a str,
    address: String,
    state: &'static str,
    reserved: bool,
    drained: bool,
}

impl Addresses {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let map = Reader::attach(&self.map.existing_directory()?)?;
        let is_selected = |pool: &PoolStatus| {
            // An entry without a name belongs to a removed pool.
            !pool.name.is_empty() && self.pool.as_ref().is_none_or(|name| *name == pool.name)
        };
        let pools: Vec<_> =
            (0u16..).zip(map.pools()).filter(|(_, pool)| is_selected(pool)).collect();
        if let (Some(name), true) = (&self.pool, pools.is_empty()) {
            bail!("there is no pool named {name:?} ('vipool status' lists the pools)");
        }
        if self.json {
            let rows: Vec<_> = pools
                .iter()
                .flat_map(|(number, pool)| {
                    map.slots(*number).into_iter().map(|row| json_row(pool, row))
                })
                .collect();
            print_json(&rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let is_coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for (number, pool) in &pools {
            out!("{}", draw_pool(&pool.name, &map.slots(*number), is_coloured))?;
        }
        outln!("\n. free   # used   c cooling   l lingering   r reserved   d drained")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn json_row(pool: &PoolStatus, row: SlotRow) -> AddressRow<'_> {
    let state = match row.state {
        SlotState::Free => "free",
        SlotState::Leased => "used",
        SlotState::Cooling => "cooling",
        SlotState::Lingering => "lingering",
    };
    let (reserved, drained) = (row.reserved, row.drained);
    AddressRow { pool: &pool.name, address: row.address.to_string(), state, reserved, drained }
}

/// Returns the character for an address, and its colour code (ECMA-48).
fn symbol(row: &SlotRow) -> (char, u8) {
    match row.state {
        SlotState::Leased => ('#', 32),
        _ if row.drained => ('d', 31),
        SlotState::Cooling => ('c', 36),
        SlotState::Lingering => ('l', 33),
        SlotState::Free if row.reserved => ('r', 35),
        SlotState::Free => ('.', 2),
    }
}

fn draw_pool(name: &str, slots: &[SlotRow], is_coloured: bool) -> String {
    let mut text =
        format!("{}: {}\n", escape(name), pluralize(slots.len(), "address", "addresses"));
    // The order of slots is not always the order of addresses: if a range grows, its new slots are
    // appended to the pool.
    let mut slots = slots.to_vec();
    slots.sort_unstable_by_key(|row| row.address);
    let is_next = |row: &SlotRow, next: &SlotRow| {
        Range::new(row.address, next.address).is_some_and(|range| range.count() == 2)
    };
    let lines: Vec<_> =
        slots.chunk_by(is_next).flat_map(|consecutive| consecutive.chunks(LINE_WIDTH)).collect();
    let label_width = lines.iter().map(|line| line[0].address.to_string().len()).max().unwrap_or(0);
    let mut hidden_address_count = 0;
    for line in &lines {
        let is_free = line.iter().all(|row| symbol(row).0 == '.');
        if is_free && lines.len() > MAX_LINES_WITHOUT_OMISSION {
            hidden_address_count += line.len();
            continue;
        }
        let _ = write!(text, "{:label_width$}  ", line[0].address.to_string());
        for equal_rows in line.chunk_by(|left, right| symbol(left) == symbol(right)) {
            let (character, colour_code) = symbol(&equal_rows[0]);
            let symbols = character.to_string().repeat(equal_rows.len());
            let _ = if is_coloured {
                write!(text, "\x1b[{colour_code}m{symbols}\x1b[0m")
            } else {
                write!(text, "{symbols}")
            };
        }
        text.push('\n');
    }
    if hidden_address_count > 0 {
        let hidden = pluralize(hidden_address_count, "free address", "free addresses");
        let _ = writeln!(text, "(not shown: {hidden})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a slot for each entry of `states`. An entry is `(state, reserved, drained)`.
    fn slots(states: &[(SlotState, bool, bool)]) -> Vec<SlotRow> {
        let address =
            |index: usize| std::net::Ipv4Addr::from_bits(0x0a00_0500 + index as u32).into();
        let row = |(index, &(state, reserved, drained)): (usize, &_)| {
            SlotRow::new(address(index), state).with_reserved(reserved).with_drained(drained)
        };
        states.iter().enumerate().map(row).collect()
    }

    #[test]
    fn each_state_has_a_symbol() {
        use SlotState::{Cooling, Free, Leased, Lingering};
        let mut states = vec![
            (Free, false, false),
            (Leased, false, false),
            (Leased, true, true),
            (Cooling, false, false),
            (Lingering, false, false),
            (Free, true, false),
            (Free, false, true),
        ];
        states.resize(66, (Free, false, false));
        let text = draw_pool("default", &slots(&states), false);
        let first_line = format!("10.0.5.0   .##clrd{}", ".".repeat(57));
        assert_eq!(text, format!("default: 66 addresses\n{first_line}\n10.0.5.64  ..\n"));
    }

    #[test]
    fn lines_start_at_gaps_and_are_sorted_by_address() {
        let row = |address: &str, state| SlotRow::new(address.parse().unwrap(), state);
        let slots = [
            row("10.0.5.20", SlotState::Leased),
            row("10.0.5.21", SlotState::Free),
            row("10.0.5.30", SlotState::Cooling),
            row("10.0.5.18", SlotState::Free),
            row("10.0.5.19", SlotState::Leased),
        ];
        let expected = "default: 5 addresses\n10.0.5.18  .##.\n10.0.5.30  c\n";
        assert_eq!(draw_pool("default", &slots, false), expected);
    }

    #[test]
    fn lines_of_free_addresses_are_hidden_in_large_pools() {
        let mut states = vec![(SlotState::Free, false, false); 10_000];
        states[5000].0 = SlotState::Leased;
        let text = draw_pool("default", &slots(&states), true);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\x1b[32m#\x1b[0m"), "{text}");
        assert!(text.ends_with("(not shown: 9936 free addresses)\n"), "{text}");
    }
}
