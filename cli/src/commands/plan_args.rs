//! The options that select the plan of this server.

use std::fs;

use anyhow::{Context, bail};
use vipool::farm::{Farm, ServerPlan};
use vipool::interface::Interface;

use super::farm_args::{FarmArgs, is_missing};
use crate::assigner::plan::host_interfaces;

/// Options that select the plan of this server.
#[derive(clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub farm: FarmArgs,
    /// This server's name in the farm file [default: the host name]
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
}

impl PlanArgs {
    /// Reads the farm file and prints its findings. Returns the farm, the plan of this server and
    /// the interfaces of this host.
    ///
    /// # Errors
    /// The farm file has errors, or the host name or the interfaces cannot be determined.
    pub fn load(&self) -> anyhow::Result<(Farm, ServerPlan, Vec<Interface>)> {
        let (farm, mut report) = Farm::load(&self.farm.path());
        let server_name = match &self.server {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
        };
        let interfaces = host_interfaces().context("cannot list the interfaces")?;
        let mut server_plan = farm.plan(&server_name, Some(&interfaces));
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
