//! `vipool reservations`: lists the reserved addresses with their users.

use std::net::IpAddr;
use std::process::ExitCode;

use serde::Serialize;
use vipool::farm::Farm;
use vipool::map::{Map, SlotState};

use super::farm_args::FarmArgs;
use crate::history::AdminState;
use crate::maps::selection::MapArgs;
use crate::output::print_json;
use crate::table::{self, table};
use crate::text::escape;

/// Show the reserved addresses with their users
///
/// A reservation comes from the farm file, or from 'vipool reserve'. The map contains only hashes
/// of the user names. So the command takes the names from the farm file and from the history, and
/// compares them with the hashes. If neither contains the name, the command shows "-".
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool reservations
  vipool reservations --json | jq '.[] | select(.user == \"alice\")'")]
pub struct Reservations {
    #[command(flatten)]
    farm: FarmArgs,
    /// Print JSON (docs/json.md describes the fields)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    map: MapArgs,
}

#[derive(Serialize)]
struct ReservationRow {
    address: IpAddr,
    user: Option<String>,
    /// `farm.toml` or `vipool reserve`. `None` if the user is unknown.
    origin: Option<&'static str>,
    /// Whether a session has a lease of the address.
    used: bool,
}

impl Reservations {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let directory = self.map.existing_directory()?;
        let map = Map::open(&directory)?;
        let reader = map.reader()?;
        let (farm, _) = Farm::load(&self.farm.path());
        let admin_state = AdminState::read(&directory, reader.boot())?;
        let find_farm_reservation = |address: IpAddr| {
            let mut reservations = farm.reservations.iter();
            reservations.find(|reservation| reservation.address == address)
        };
        let mut rows = Vec::new();
        let pools = (0u16..).zip(reader.pools()).filter(|(_, pool)| pool.reserved > 0);
        let slots = pools.flat_map(|(number, _)| reader.slots(number));
        for slot in slots.filter(|slot| slot.reserved) {
            let candidates = [
                find_farm_reservation(slot.address)
                    .map(|reservation| (&reservation.user, "farm.toml")),
                admin_state.reservations.get(&slot.address).map(|user| (user, "vipool reserve")),
            ];
            let mut known_user = None;
            for (user, origin) in candidates.into_iter().flatten() {
                if known_user.is_none() && map.is_reserved_for(slot.address, user)? {
                    known_user = Some((user.clone(), origin));
                }
            }
            let (user, origin) = known_user.unzip();
            let used = slot.state == SlotState::Leased;
            rows.push(ReservationRow { address: slot.address, user, origin, used });
        }
        if self.json {
            print_json(&rows)?;
        } else if rows.is_empty() {
            outln!("No address is reserved.")?;
        } else {
            out!("{}", render(&rows))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn render(rows: &[ReservationRow]) -> String {
    let mut reservation_table = table(&["ADDRESS", "USER", "ORIGIN", "USED"]);
    for row in rows {
        let user = row.user.as_deref().map(escape);
        reservation_table.add_row([
            row.address.to_string(),
            user.unwrap_or_else(|| "-".to_owned()),
            row.origin.unwrap_or("-").to_owned(),
            if row.used { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table::render(&reservation_table)
}
