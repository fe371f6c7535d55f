//! The context of this process: the map, the session of the process, and the rule of its program.
//!
//! `vipool_hook_install` determines the context. When a newer map supersedes the current map, the
//! next hooked call attaches the newer map.
//!
//! Invariants:
//! - This module never frees a [`HookedProcess`] and never unmaps a map, so a thread in a hook may
//!   keep references to them (see [`VersionChain`]).
//! - In a hooked socket call, only attaching a newer map opens files or uses the heap.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use vipool::map::{Reader, VersionChain};
use vipool::policy::{PolicyView, ProgramView};
pub use vipool::rewrite::HookedProcess;
use vipool::rewrite::{KernelListeners, LiveSystem, Rewriter};
use vipool::session::SessionId;
use vipool::system;

use crate::install_status::InstallStatus;
use crate::last_error::LastError;
use crate::{environment, program};

/// The map and its newer versions.
static MAPS: VersionChain<Reader> = VersionChain::new();
/// The state of the program under each version of the map. The chain is empty if no rule applies to
/// the program. In that case, only the functions that start processes are hooked.
static HOOKED_PROCESSES: VersionChain<HookedProcess> = VersionChain::new();
static PROCESS: OnceLock<ProcessContext> = OnceLock::new();

/// The part of the context that does not depend on the version of the map.
struct ProcessContext {
    map_directory: PathBuf,
    session: Option<SessionId>,
    /// The id of the rule inherited from the parent process; 0 for none.
    inherited_rule: AtomicU64,
}

/// Returns the state of this program under the newest map. Returns `None` if no rule applied to the
/// program when the hooks were installed.
#[inline]
pub fn hooked_process() -> Option<&'static HookedProcess> {
    let hooked_process = HOOKED_PROCESSES.newest()?;
    if hooked_process.is_superseded() { attach_newest_map() } else { Some(hooked_process) }
}

/// Returns the rewriter for the current call.
#[inline]
pub fn rewriter() -> Option<Rewriter<'static, LiveSystem<'static>>> {
    hooked_process().map(HookedProcess::rewriter)
}

/// Returns the policy of the newest map. If this process cannot attach that map, returns the policy
/// of the newest map that it has attached. The caller needs the newest map, because a new child
/// process attaches that map.
pub fn current_policy() -> Option<PolicyView<'static>> {
    MAPS.map(&PROCESS.get()?.map_directory).map(Reader::policy)
}

/// Returns the id of the rule that the children of this program inherit; 0 for none.
pub fn rule_for_children() -> u64 {
    hooked_process()
        .map(HookedProcess::program)
        .filter(|program| program.flags().inherit)
        .map_or(0, ProgramView::id)
}

/// Attaches the map that supersedes the current one. Returns the state under that map.
#[cold]
fn attach_newest_map() -> Option<&'static HookedProcess> {
    let saved_error = LastError::save();
    let process = PROCESS.get()?;
    let hooked_process = HOOKED_PROCESSES
        .hooked_process(&MAPS, &process.map_directory, |map| process.matching_rule(map));
    saved_error.restore();
    hooked_process
}

/// Determines the context of this process. Returns the state of the program, or `None` if no rule
/// applies to the program.
///
/// `inherited_rule` is the id of the rule inherited from the parent process; 0 for none.
///
/// # Errors
/// Returns the reason why no hook can be installed.
pub fn initialize(inherited_rule: u64) -> Result<Option<&'static HookedProcess>, InstallStatus> {
    if environment::read::<2>("VIPOOL_DISABLE").is_some_and(|value| value.as_bytes() == b"1") {
        return Err(InstallStatus::Disabled);
    }
    let map_directory = PROCESS
        .get()
        .map_or_else(environment::map_directory, |process| process.map_directory.clone());
    let map = MAPS.map(&map_directory).ok_or(InstallStatus::NoMap)?;
    let process = PROCESS.get_or_init(|| ProcessContext {
        map_directory,
        session: find_session(map),
        inherited_rule: AtomicU64::new(0),
    });
    if inherited_rule != 0 {
        process.inherited_rule.store(inherited_rule, Ordering::Relaxed);
    }
    if let Some(hooked_process) = hooked_process() {
        return Ok(Some(hooked_process));
    }
    let Some(program) = process.matching_rule(map) else { return Ok(None) };
    let session = process.session.ok_or(InstallStatus::NoSession)?;
    let system =
        LiveSystem { reader: map, policy: map.policy(), program, listeners: KernelListeners };
    Ok(HOOKED_PROCESSES
        .get_or_init(|| Some(HookedProcess::new(system, session, &process.map_directory))))
}

impl ProcessContext {
    /// Returns the rule that the process list has for this program, or else the inherited rule.
    fn matching_rule<'m>(&self, map: &'m Reader) -> Option<ProgramView<'m>> {
        let policy = map.policy();
        let inherited_rule = self.inherited_rule.load(Ordering::Relaxed);
        program::own_rule(&policy).or_else(|| policy.find_inherited(inherited_rule))
    }
}

/// Returns the session to which the operating system assigns this process.
fn find_session(reader: &Reader) -> Option<SessionId> {
    test_session(reader).unwrap_or_else(|| system::process_session(std::process::id()).ok())
}

/// Returns the session that `VIPOOL_LEASE` names, or `Some(None)` if the value is not the handle of
/// a live lease. Returns `None` if `VIPOOL_LEASE` is unset or `VIPOOL_TEST_SESSION` is not 1. Only
/// test builds read these variables, because a process must not choose its session.
#[cfg(feature = "test-session")]
fn test_session(reader: &Reader) -> Option<Option<SessionId>> {
    let is_enabled = environment::read::<2>("VIPOOL_TEST_SESSION")?.as_bytes() == b"1";
    let handle_text = environment::read::<128>("VIPOOL_LEASE").filter(|_| is_enabled)?;
    let handle = vipool::session::Handle::parse(handle_text.as_bytes());
    Some(handle.filter(|handle| reader.is_live(handle)).map(|handle| handle.session))
}

#[cfg(not(feature = "test-session"))]
fn test_session(_reader: &Reader) -> Option<Option<SessionId>> {
    None
}
