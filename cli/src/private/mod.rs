//! A user's own map, without root: loopback addresses only.
//!
//! One map per user and network namespace ([`directory`]), with the addresses of a /24 that is the
//! user's for as long as a program runs in one of the sessions ([`block`]). What it is made from
//! is a farm file of the user's, or nothing: then every program that is run, and what it starts,
//! is listed with the feature `loopback` ([`recipe`]). A plan that differs from the map's makes a new map, to which
//! the open sessions are carried over.

mod block;
mod directory;
mod recipe;

use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vipool::farm::Farm;
use vipool::map::{Map, MapError, Plan, Reader, Settings};
use vipool::os::place::map_directory;
use vipool::policy::{Features, Policy, Program, WildcardBind};
use vipool::pool::{Pool, PoolKind};

use block::Block;
pub use block::Claim;
pub use directory::path;
use recipe::Recipe;

use crate::gc;

/// How long another process of the same user may take to make the map.
const DEADLINE: Duration = Duration::from_secs(2);

/// The private map, open, and the claim on its addresses.
pub struct Private {
    pub map: Map,
    pub directory: PathBuf,
    pub claim: Claim,
}

/// Opens the private map; makes it, or makes it anew, if it is not what it should be.
///
/// `farm` is the farm file it is to follow; `program` is to be listed where there is none.
/// Addresses of the system's map are left alone.
pub fn open(farm: Option<&Path>, program: Option<&Path>) -> anyhow::Result<Private> {
    let directory = directory::make()?;
    // Closed at the end of this function, and with it unlocked.
    let _lock = lock(&directory)?;
    let old = Recipe::read(&directory)?;
    let existing = match Map::open(&directory) {
        Ok(map) => Some(map),
        Err(MapError::Missing(_) | MapError::OtherBoot(_)) => None,
        Err(error) => {
            return Err(error).context(format!(
                "your private map cannot be used; if no program of yours needs it, remove {}",
                directory.display()
            ));
        }
    };
    let open_sessions = match &existing {
        Some(map) => {
            // No timer does it here: sessions whose 'vipool run' was killed are closed after a
            // while, and addresses that have cooled down become free.
            gc::collect(map)?;
            map.sessions()?.len()
        }
        None => 0,
    };

    let preferred = old.block.map(Block::of);
    let system = Reader::attach(&map_directory()).ok();
    let taken = |block: Block| {
        let mut addresses = (0..=block.range().span()).filter_map(|i| block.range().nth(i));
        system.as_ref().is_some_and(|map| addresses.any(|address| map.pool_kind(address).is_some()))
    };
    let claim = Claim::take(&directory, directory::seed(), preferred, taken)
        .context("cannot claim loopback addresses of your own")?;
    if open_sessions > 0 && Some(claim.block) != preferred {
        bail!(
            "the loopback addresses of your {open_sessions} open sessions are used by somebody \
             else now: close these sessions ('vipool session list --private')"
        );
    }

    let (recipe, plan) = plan(&old, open_sessions > 0, farm, program, claim.block)?;
    let map = match existing {
        Some(map) if recipe.plan == old.plan => map,
        _ => {
            let map = Map::create(&directory, &plan)?;
            recipe.write(&directory)?;
            map
        }
    };
    Ok(Private { map, directory, claim })
}

/// The farm file of a user who gives none: `~/.config/vipool/farm.toml`, if it is there.
pub fn farm_of_user() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".config"));
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let path = config.filter(|path| path.is_absolute()).or_else(home)?.join("vipool/farm.toml");
    path.exists().then_some(path)
}

/// What the map is to be made from, and the plan that this gives.
///
/// Programs that were listed because they were run stay listed as long as a session is open, and
/// so does the farm file.
fn plan(
    old: &Recipe,
    keep: bool,
    farm: Option<&Path>,
    program: Option<&Path>,
    block: Block,
) -> anyhow::Result<(Recipe, Plan)> {
    let mut recipe = if keep { old.clone() } else { Recipe::default() };
    recipe.block = Some(block.network());
    match (farm, program) {
        (Some(farm), _) => recipe.farm = Some(std::path::absolute(farm)?),
        (None, Some(program)) if !recipe.programs.iter().any(|listed| listed == program) => {
            recipe.programs.push(program.to_owned());
        }
        _ => {}
    }
    let (mut policy, settings, slots) = match &recipe.farm {
        Some(farm) => of_farm(farm)?,
        None => (Policy::default(), Settings::default(), u32::MAX),
    };
    // Programs hand the rule down to what they start; vipool's own is for those that become
    // another one on the way, as wrapper scripts do.
    let own = std::env::current_exe().and_then(|path| path.canonicalize());
    let own = own.ok().filter(|_| recipe.farm.is_none());
    for program in recipe.programs.iter().chain(&own) {
        policy.programs.push(Program {
            pattern: program.to_str().context("the program's path is not UTF-8")?.to_owned(),
            features: Features { loopback: true, ..Features::default() },
            wildcard: WildcardBind::Loopback,
            inherit: true,
            ..Program::default()
        });
    }
    let pool = Pool::new("loopback", PoolKind::Loopback, &[block.range()], slots)?;
    let plan = Plan { pools: vec![pool], policy, settings, ..Plan::default() };
    let mut digest = DefaultHasher::new();
    format!("{plan:?}").hash(&mut digest);
    recipe.plan = digest.finish();
    Ok((recipe, plan))
}

/// What a farm file says of programs and sessions, and for how many sessions its loopback
/// addresses are enough. Which addresses those are is not for a private map to choose.
fn of_farm(file: &Path) -> anyhow::Result<(Policy, Settings, u32)> {
    let (farm, report) = Farm::load(file);
    if report.has_errors() {
        bail!("{report}");
    }
    // Servers divide the virtual IPs among them; the rest is the same for all.
    let farm = Farm { servers: Vec::new(), ..farm };
    let mut plan = farm.plan("", None).plan;
    plan.policy.resolve_links(|path| fs::canonicalize(path));
    // They choose among pools of virtual IPs, of which a private map has none.
    plan.policy.pool_rules.clear();
    let loopback = plan.pools.iter().filter(|pool| pool.kind() == PoolKind::Loopback);
    let slots = loopback.map(Pool::slots).sum();
    Ok((plan.policy, plan.settings, slots))
}

fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("making.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + DEADLINE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => {
                bail!("busy: another 'vipool' of yours has {} locked", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}
