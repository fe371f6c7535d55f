//! `vipool up`: adds this server's addresses to its interfaces and creates the map.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use indicatif::HumanBytes;
use vipool::Tick;
use vipool::farm::{Farm, ServerPlan};
use vipool::interface::Interface;
use vipool::map::{Map, MapError};
use vipool::system::SystemProbe;

use super::down::leased_addresses;
use super::farm_args::{FarmArgs, is_missing};
use crate::assigner::PortSet;
use crate::assigner::plan::{
    check_not_shrunk, desired_addresses, host_interfaces, planned_sizes, probe_destinations,
    without_addresses,
};
use crate::assigner::reserved_ports::set_reserved_ports;
use crate::assigner::state::{AssignedResources, AssignerState};
use crate::assigner::{InterfaceAddress, add_addresses, remove_addresses};
use crate::event_log;
use crate::maps::client::remove_stale_client_files;
use crate::maps::last_users;

/// Add this server's addresses to its interfaces and create the map
///
/// For each range of this server, the command finds the interface whose subnet contains the range.
/// It probes the network for hosts that already use the addresses (ARP, and IPv6 duplicate address
/// detection). The probes take about eight seconds for any number of addresses. Then the command
/// adds the addresses in a form that the host never uses as its own source address, and creates the
/// map. Run this command again after a change of farm.toml. Open sessions keep their addresses.
/// A farm file that takes more than half of its addresses from the server changes nothing, unless
/// you use --allow-shrink.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool up
  vipool up ./farm.toml --server ts1 --no-probe")]
pub struct Up {
    #[command(flatten)]
    plan: PlanArgs,
    /// The directory for the map
    #[arg(long, value_name = "DIRECTORY", default_value = "/run/vipool")]
    map: PathBuf,
    /// Do not probe the network by ARP
    #[arg(long)]
    no_probe: bool,
    /// Accept a farm file with less than half of the addresses of the previous one, or with none
    #[arg(long)]
    allow_shrink: bool,
}

/// The size from which `up` reports the size of the map before it creates the map: creating a map
/// of this size takes about a second.
const LARGE_MAP_BYTES: u64 = 64 << 20;

/// Options that select the plan of this server.
#[derive(clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    farm: FarmArgs,
    /// This server's name in the farm file [default: the host name]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
}

impl PlanArgs {
    /// Reads the farm file and prints its findings. Returns the farm, the plan of this server and
    /// the interfaces of this host.
    ///
    /// # Errors
    /// The farm file has errors, or the interfaces cannot be listed.
    pub fn load(&self) -> anyhow::Result<(Farm, ServerPlan, Vec<Interface>)> {
        let (farm, mut report) = Farm::load(&self.farm.path());
        let server = match &self.server {
            Some(server) => server.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        let interfaces = host_interfaces().context("cannot list the interfaces")?;
        let mut server_plan = farm.plan(&server, Some(&interfaces));
        server_plan.plan.policy.resolve_links(|path| fs::canonicalize(path));
        report.extend(server_plan.findings.iter().cloned());
        report.extend(farm.missing_programs(is_missing));
        if !report.is_empty() {
            err!("{report}");
        }
        if report.has_errors() {
            bail!("{} has errors; nothing was changed", self.farm.path().display());
        }
        Ok((farm, server_plan, interfaces))
    }
}

impl Up {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (farm, server_plan, interfaces) = self.plan.load()?;
        let mut state = AssignerState::open(&self.map)?;
        let new_sizes = planned_sizes(&server_plan.plan);
        if !self.allow_shrink {
            check_not_shrunk(state.assigned.planned, new_sizes).with_context(|| {
                format!(
                    "{} removes addresses; nothing was changed (check the file, or use \
                     --allow-shrink)",
                    self.plan.farm.path().display()
                )
            })?;
        }
        let pool_addresses = desired_addresses(&server_plan)?;
        let destinations = probe_destinations(&server_plan, &interfaces);
        let result = add_addresses(&mut state, &pool_addresses, !self.no_probe, &destinations)?;
        let has_map = Map::open(&self.map).is_ok();
        // If the map was lost, the sockets show which addresses running sessions still use.
        let mut probe = SystemProbe::new().context("cannot read the kernel's socket tables")?;
        let unusable_addresses = result.conflict_reasons.keys().copied().collect();
        let plan = without_addresses(server_plan.plan, &unusable_addresses);
        if plan.file_bytes() >= LARGE_MAP_BYTES {
            let (size, directory) = (HumanBytes(plan.file_bytes()), self.map.display());
            errln!("vipool: the map takes {size} in {directory}: creating it takes a while");
        }
        let map =
            Map::create_after_loss(&self.map, &plan, Tick::now(), &mut probe).map_err(|error| {
                match error {
                    MapError::Damaged { .. } => anyhow!("{error} (run 'vipool repair')"),
                    error => error.into(),
                }
            })?;
        // The last users in an existing map are more recent than those in the file.
        if !has_map {
            last_users::restore(&map, &self.map);
        }
        remove_stale_client_files(&map, &self.map);
        if state.assigned.draining {
            map.drain_server(false)?;
        }
        let assigned = state.assigned.clone();
        state.write(AssignedResources { draining: false, planned: new_sizes, ..assigned })?;
        let leased_by_sessions = leased_addresses(&map)?.unwrap_or_default();
        let is_needed = |entry: &InterfaceAddress| {
            result.usable_addresses.contains(entry)
                || leased_by_sessions.contains(&entry.address)
                || !has_map && probe.has_sockets(entry.address)
        };
        let (removed_count, _) = remove_addresses(&mut state, is_needed)?;
        let fixed_ports = farm.fixed_ports();
        let fixed_ports =
            PortSet(fixed_ports.iter().flat_map(|range| range.first..=range.last).collect());
        set_reserved_ports(&mut state, &fixed_ports)?;

        let lingering_count: u32 = map.reader()?.pools().iter().map(|pool| pool.lingering).sum();
        if !has_map && lingering_count > 0 {
            errln!(
                "vipool: {lingering_count} addresses are in use without a session, as after the \
                 loss of a map: no session gets them before 'vipool gc' finds no sockets on them"
            );
        }
        for (address, reason) in &result.conflict_reasons {
            event_log::log_conflict(*address, reason);
            errln!("vipool: cannot lease {address}: {reason}");
        }
        outln!(
            "{} addresses are usable ({} added, {removed_count} removed, {} not usable)",
            result.usable_addresses.len(),
            result.added_count,
            result.conflict_reasons.len()
        )?;
        Ok(ExitCode::SUCCESS)
    }
}
