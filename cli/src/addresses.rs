//! `vipool addresses`: a map of the pools in the terminal, a character for each address.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use vipool::map::{PoolStatus, Reader, SlotRow, SlotState};

use crate::place::Place;

/// Addresses in a line.
const WIDTH: usize = 64;
/// More than this are not drawn, but for the lines with something in them.
const MOST_EMPTY_LINES: usize = 64;

/// Show which addresses are free, used, cooling, drained
///
/// A line is 64 addresses, beginning with the one it is labelled with. Lines of addresses that
/// have never been used are left out of large pools.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool addresses
  vipool addresses --pool default --json")]
pub struct Addresses {
    /// This pool only
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// One address for scripts.
#[derive(Serialize)]
struct Row<'a> {
    pool: &'a str,
    address: String,
    state: &'static str,
    reserved: bool,
    drained: bool,
}

impl Addresses {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let map = Reader::attach(&self.place.directory()?)?;
        let wanted = |pool: &PoolStatus| {
            // A number without a name is that of a pool that is gone.
            !pool.name.is_empty() && self.pool.as_ref().is_none_or(|name| *name == pool.name)
        };
        let pools: Vec<_> = (0u16..).zip(map.pools()).filter(|(_, pool)| wanted(pool)).collect();
        if let (Some(name), true) = (&self.pool, pools.is_empty()) {
            bail!("there is no pool named {name:?}");
        }
        if self.json {
            let rows: Vec<_> = pools
                .iter()
                .flat_map(|(number, pool)| {
                    map.slots(*number).into_iter().map(|row| json(pool, row))
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
            return Ok(ExitCode::SUCCESS);
        }
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        for (number, pool) in &pools {
            print!("{}", draw(&pool.name, &map.slots(*number), colour));
        }
        println!("\n. free   # used   c cooling   l lingering   r reserved   d drained");
        Ok(ExitCode::SUCCESS)
    }
}

fn json(pool: &PoolStatus, row: SlotRow) -> Row<'_> {
    let state = match row.state {
        SlotState::Free => "free",
        SlotState::Used => "used",
        SlotState::Cooling => "cooling",
        SlotState::Lingering => "lingering",
    };
    let (reserved, drained) = (row.reserved, row.drained);
    Row { pool: &pool.name, address: row.address.to_string(), state, reserved, drained }
}

/// The character for an address, and its colour (ECMA-48).
fn sign(row: &SlotRow) -> (char, u8) {
    match row.state {
        SlotState::Used => ('#', 32),
        _ if row.drained => ('d', 31),
        SlotState::Cooling => ('c', 36),
        SlotState::Lingering => ('l', 33),
        SlotState::Free if row.reserved => ('r', 35),
        SlotState::Free => ('.', 2),
    }
}

fn draw(name: &str, slots: &[SlotRow], colour: bool) -> String {
    let mut text = format!("{}: {} addresses\n", name.escape_debug(), slots.len());
    let lines: Vec<_> = slots.chunks(WIDTH).collect();
    let label = lines.iter().map(|line| line[0].address.to_string().len()).max().unwrap_or(0);
    let mut left_out = 0;
    for line in &lines {
        let idle = line.iter().all(|row| sign(row).0 == '.');
        if idle && lines.len() > MOST_EMPTY_LINES {
            left_out += line.len();
            continue;
        }
        let _ = write!(text, "{:label$}  ", line[0].address.to_string());
        for run in line.chunk_by(|a, b| sign(a) == sign(b)) {
            let (character, code) = sign(&run[0]);
            let signs = character.to_string().repeat(run.len());
            let _ = if colour {
                write!(text, "\x1b[{code}m{signs}\x1b[0m")
            } else {
                write!(text, "{signs}")
            };
        }
        text.push('\n');
    }
    if left_out > 0 {
        let _ = writeln!(text, "({left_out} free addresses are not drawn)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(states: &[(SlotState, bool, bool)]) -> Vec<SlotRow> {
        let address = |at: usize| std::net::Ipv4Addr::from_bits(0x0a00_0500 + at as u32).into();
        let row = |(at, &(state, reserved, drained)): (usize, &_)| SlotRow {
            address: address(at),
            state,
            reserved,
            drained,
        };
        states.iter().enumerate().map(row).collect()
    }

    #[test]
    fn each_address_has_its_sign() {
        use SlotState::{Cooling, Free, Lingering, Used};
        let mut states = vec![
            (Free, false, false),
            (Used, false, false),
            (Used, true, true),
            (Cooling, false, false),
            (Lingering, false, false),
            (Free, true, false),
            (Free, false, true),
        ];
        states.resize(66, (Free, false, false));
        let text = draw("default", &slots(&states), false);
        let first = format!("10.0.5.0   .##clrd{}", ".".repeat(57));
        assert_eq!(text, format!("default: 66 addresses\n{first}\n10.0.5.64  ..\n"));
    }

    #[test]
    fn large_pools_are_drawn_where_something_is() {
        let mut states = vec![(SlotState::Free, false, false); 10_000];
        states[5000].0 = SlotState::Used;
        let text = draw("default", &slots(&states), true);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\x1b[32m#\x1b[0m"), "{text}");
        assert!(text.ends_with("(9936 free addresses are not drawn)\n"), "{text}");
    }
}
