//! `vipool repair`: replaces a damaged map with a new map, which keeps the readable leases.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use vipool::Tick;
use vipool::map::{Map, MapError};
use vipool::range::Range;

use super::audit;
use super::plan_args::PlanArgs;
use crate::assigner::plan::{desired_addresses, without_unusable_addresses};
use crate::assigner::state::{AssignedResources, AssignerState};
use crate::history::{self, AdminAction, Record, RecordKind};
use crate::text::{escape, pluralize};

/// Replace a damaged map with a new map, which keeps the readable leases
///
/// No other command replaces a damaged map. This command renames the damaged files to map.damaged-N
/// and sessions.damaged-N, and builds a new map from the farm file. Sessions whose leases are
/// readable keep their addresses, and their programs continue. The command lists the addresses that
/// the history shows as leased but whose leases are not readable. It drains these addresses,
/// because programs can still use them. Use the farm file with which the damaged map was created:
/// it determines where the leases are in the map. If the map is not damaged, nothing changes.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status: 0 every lease was kept, or the map is not damaged; 1 leases were lost, or the
command failed

Example:
  vipool repair"
)]
pub struct Repair {
    #[command(flatten)]
    plan: PlanArgs,
    /// The directory of the map
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/vipool")]
    map: PathBuf,
}

impl Repair {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (_, server_plan, _) = self.plan.load()?;
        let mut state = AssignerState::open(&self.map)?;
        // The damaged map contained only the addresses that 'vipool up' could use.
        let unusable_addresses: BTreeSet<IpAddr> = desired_addresses(&server_plan)?
            .difference(&state.assigned.addresses)
            .map(|entry| entry.address)
            .collect();
        let plan = without_unusable_addresses(server_plan.plan, &unusable_addresses);
        let was_repairing = state.assigned.repairing;
        let is_damaged = matches!(Map::open(&self.map), Err(MapError::Damaged { .. }));
        if is_damaged {
            // If this command fails after it has replaced the map, the next one drains the addresses
            // of lost leases.
            state.write(AssignedResources { repairing: true, ..state.assigned.clone() })?;
        }
        let report = Map::repair(&self.map, &plan)?;
        if report.is_none() && !was_repairing {
            outln!("the map in {} is not damaged: nothing was changed", self.map.display())?;
            return Ok(ExitCode::SUCCESS);
        }
        // Drain the addresses of lost leases before the command prints, because printing can fail.
        let map = Map::open(&self.map)?;
        let sessions_text = pluralize(map.sessions()?.len(), "session", "sessions");
        let lost_records = lost_leases(&self.map)?;
        let lost_ranges: Vec<Range> =
            lost_records.iter().filter_map(|record| record.address).map(Range::from).collect();
        for range in &lost_ranges {
            map.drain(range, Tick::now())?;
        }
        let drains: Vec<_> =
            lost_ranges.iter().map(|range| AdminAction::Drain(Some(*range))).collect();
        audit::record_change(&self.map, &drains)?;
        state.write(AssignedResources { repairing: false, ..state.assigned.clone() })?;
        if let Some(report) = report {
            outln!("the map was damaged: {}", report.reason)?;
            for file in &report.set_aside {
                outln!("set aside as {}", file.display())?;
            }
            if !report.kept_leases {
                outln!("the damaged map does not belong to this farm file and this boot")?;
            }
        }
        outln!("kept {sessions_text} with their addresses")?;
        for record in &lost_records {
            let Some(address) = record.address else { continue };
            outln!(
                "the lease of {address} by session {} of {} was lost; the address is drained \
                 ('vipool undrain {address}' after the programs of the session have ended)",
                record.session.as_deref().unwrap_or("?"),
                escape(record.user.as_deref().unwrap_or("an unknown user"))
            )?;
        }
        if !lost_records.is_empty() {
            bail!("lost {}", pluralize(lost_records.len(), "lease", "leases"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns a release record for each lease that the history shows as held but that the map lacks.
/// Leases of earlier boots have ended with their programs, so they are not lost.
fn lost_leases(directory: &Path) -> anyhow::Result<Vec<Record>> {
    let (mut records, _) = history::read(&history::history_file(directory))?;
    let boot = history::format_boot(audit::current_boot()?);
    records.retain(|record| record.boot == boot);
    let mut new_records = history::pending(directory, &records)?;
    new_records.retain(|record| record.event == RecordKind::Released && record.reconciled);
    Ok(new_records)
}
