//! A user's private map. A private map needs no root, and contains only loopback addresses.
//!
//! There is one map per user and network namespace ([`directory`]). Its addresses come from a /24
//! of 127.0.0.0/8 ([`block`]). The block belongs to the user as long as a program runs in one of
//! the sessions ([`claim`]). The plan of the map comes from the user's farm file. Without a farm
//! file, `vipool run` adds a rule with the feature `loopback` for every program that it runs. The
//! child processes of the program inherit this rule. If the plan changes, the map is created again
//! ([`inputs`]). The open sessions move to the new map.

mod block;
mod claim;
mod directory;
mod inputs;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use vipool::farm::Farm;
use vipool::map::{Map, MapError, Plan, Reader, Settings};
use vipool::policy::{Features, Policy, Program, ProgramFlags, WildcardBind};
use vipool::pool::{Pool, PoolKind};
use vipool::system::map_directory;

use block::Block;
pub use claim::Claim;
pub use directory::path;
use inputs::MapInputs;

use super::reap;
use crate::system::file_lock;
use crate::text::pluralize;

/// Maximum wait for another process of the same user that creates the map.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// An open private map, and the claim on its addresses.
pub struct PrivateMap {
    pub map: Map,
    pub directory: PathBuf,
    pub claim: Claim,
}

/// Opens the private map. Creates the map if it does not exist or if its plan has changed.
///
/// `farm` is the farm file for the map. Without a farm file, this function adds `program` to the
/// process list. The map never uses a block that contains addresses of the system's map.
///
/// # Errors
/// The map cannot be used or created, or no block of loopback addresses is available.
pub fn open(farm: Option<&Path>, program: Option<&Path>) -> anyhow::Result<PrivateMap> {
    let directory = directory::create()?;
    // The lock is released when this function returns and the file closes.
    let _lock = file_lock::lock(
        &directory.join("create.lock"),
        LOCK_TIMEOUT,
        "another vipool process of yours holds the lock",
    )?;
    let old_inputs = MapInputs::read(&directory)?;
    let existing_map = match Map::open(&directory) {
        Ok(map) => Some(map),
        Err(MapError::Missing(_) | MapError::OtherBoot(_)) => None,
        Err(error) => {
            return Err(error).context(format!(
                "cannot use your private map (if none of your programs needs it, remove {})",
                directory.display()
            ));
        }
    };
    let open_session_count = match &existing_map {
        Some(map) => {
            // No timer runs 'vipool gc' for private maps. So close sessions whose 'vipool run' was
            // killed, and free cooled addresses here.
            reap::reap_all(map)?;
            map.sessions()?.len()
        }
        None => 0,
    };

    let preferred_block = old_inputs.block.map(Block::containing);
    let system_map = Reader::attach(&map_directory()).ok();
    let is_excluded = |block: Block| {
        let range = block.range();
        let mut addresses = (0..=range.span()).filter_map(|offset| range.nth(offset));
        system_map
            .as_ref()
            .is_some_and(|map| addresses.any(|address| map.pool_kind(address).is_some()))
    };
    let claim = Claim::acquire(&directory, preferred_block, is_excluded)
        .context("cannot claim loopback addresses for your private map")?;
    if open_session_count > 0 && Some(claim.block) != preferred_block {
        bail!(
            "another user has taken the loopback addresses of your {} (close these sessions; \
             'vipool session list --private' lists them)",
            pluralize(open_session_count, "open session", "open sessions")
        );
    }

    let (inputs, plan) =
        build_plan(&old_inputs, open_session_count > 0, farm, program, claim.block)?;
    let map = match existing_map {
        Some(map) if inputs.plan_digest == old_inputs.plan_digest => map,
        _ => {
            let map = Map::create(&directory, &plan)?;
            inputs.write(&directory)?;
            map
        }
    };
    Ok(PrivateMap { map, directory, claim })
}

/// Returns the user's default farm file, `~/.config/vipool/farm.toml`, if it exists.
pub fn default_farm_file() -> Option<PathBuf> {
    let home_config = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
    let xdg_config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config_directory = xdg_config.filter(|path| path.is_absolute()).or_else(home_config)?;
    let path = config_directory.join("vipool/farm.toml");
    path.exists().then_some(path)
}

/// Returns the inputs of the map, and the plan that results from these inputs.
///
/// If `should_keep_old` is true, the new inputs include the farm file and the programs of
/// `old_inputs`. The caller sets `should_keep_old` if a session is open.
fn build_plan(
    old_inputs: &MapInputs,
    should_keep_old: bool,
    farm: Option<&Path>,
    program: Option<&Path>,
    block: Block,
) -> anyhow::Result<(MapInputs, Plan)> {
    let mut inputs = if should_keep_old { old_inputs.clone() } else { MapInputs::default() };
    inputs.block = Some(block.network());
    match (farm, program) {
        (Some(farm), _) => inputs.farm = Some(std::path::absolute(farm)?),
        (None, Some(program)) if !inputs.programs.iter().any(|listed| listed == program) => {
            inputs.programs.push(program.to_owned());
        }
        _ => {}
    }
    let (mut policy, settings, max_slots) = match &inputs.farm {
        Some(farm) => read_farm(farm)?,
        None => (Policy::default(), Settings::without_cool_down(), u32::MAX),
    };
    // Without a farm file, vipool itself is also listed, and the program inherits the rule from
    // vipool. So the rule still applies after the program has replaced itself with another program
    // (exec), as wrappers do.
    let own_executable = std::env::current_exe().and_then(|path| path.canonicalize());
    let own_executable = own_executable.ok().filter(|_| inputs.farm.is_none());
    for program in inputs.programs.iter().chain(&own_executable) {
        policy.programs.push(
            Program::new(program.to_str().context("the program's path is not UTF-8")?.to_owned())
                .with_features(Features::default().with_loopback(true))
                .with_flags(
                    ProgramFlags::default()
                        .with_wildcard(WildcardBind::Loopback)
                        .with_inherit(true),
                ),
        );
    }
    let pool = Pool::new("loopback", PoolKind::Loopback, &[block.range()], max_slots)?;
    let plan = Plan::new([pool]).with_policy(policy).with_settings(settings);
    let mut hasher = DefaultHasher::new();
    format!("{plan:?}").hash(&mut hasher);
    inputs.plan_digest = hasher.finish();
    Ok((inputs, plan))
}

/// Returns the policy and settings of a farm file, and the number of sessions for which it has
/// loopback addresses. Ignores the addresses of the farm file, because a private map uses the
/// addresses of its block.
fn read_farm(file: &Path) -> anyhow::Result<(Policy, Settings, u32)> {
    let (mut farm, report) = Farm::load(file);
    if report.has_errors() {
        bail!("{report}");
    }
    // The servers of a farm differ only in their virtual IPs. A private map does not use virtual
    // IPs.
    farm.servers.clear();
    let mut plan = farm.plan("", None).plan;
    plan.policy.resolve_links(|path| fs::canonicalize(path));
    // Pool rules choose among pools of virtual IPs, and a private map has no such pool.
    plan.policy.pool_rules.clear();
    let loopback_pools = plan.pools.iter().filter(|pool| pool.kind() == PoolKind::Loopback);
    let max_slots = loopback_pools.map(Pool::slot_count).sum();
    Ok((plan.policy, plan.settings, max_slots))
}
