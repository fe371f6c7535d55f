//! What this process is in: the map, its session, its program's rule. Found when the hooks are set;
//! followed when another map takes the place of the first.
//!
//! Invariants: nothing here is ever freed or unmapped, so that a thread in a hook may hold it (see
//! [`Succession`]). A newer map is attached inside the hook that noticed it: the one place that
//! opens files, and allocates, on a hooked path.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use vipool::map::{Reader, Succession};
use vipool::os::process;
use vipool::policy::{PathStyle, PolicyView, ProgramView};
pub use vipool::rewrite::Guest;
use vipool::rewrite::{Kernel, Live, Rewriter};
use vipool::session::{Handle, SessionId};

use crate::install_status::InstallStatus;
use crate::socket::LastError;
use crate::{environment, program};

/// The style of paths that everything here follows.
pub const PATH_STYLE: PathStyle = PathStyle::Windows;

/// The map, and those that took its place.
static MAPS: Succession<Reader> = Succession::new();
/// The program as it is rewritten; empty for one that is not listed, in which only the programs
/// that it starts are looked at.
static HOOKED_PROCESSES: Succession<Guest> = Succession::new();
static PROCESS: OnceLock<Process> = OnceLock::new();

/// What stays the same whatever map there is.
struct Process {
    directory: PathBuf,
    session: Option<SessionId>,
    /// The id of the rule that a parent handed down; 0 for none.
    inherited_rule: AtomicU64,
}

/// What is rewritten; `None` if the program was not listed when the hooks were set.
#[inline]
pub fn hooked_process() -> Option<&'static Guest> {
    let hooked = HOOKED_PROCESSES.newest()?;
    if hooked.is_over() { attach_newest_map() } else { Some(hooked) }
}

/// What decides for a call that is made now.
#[inline]
pub fn rewriter() -> Option<Rewriter<'static, Live<'static>>> {
    hooked_process().map(Guest::rewriter)
}

/// The policy, as it is now, or as it was when there was room for another map last: a program that
/// is started under it looks for itself.
pub fn current_policy() -> Option<PolicyView<'static>> {
    MAPS.map(&PROCESS.get()?.directory).or_else(|| MAPS.newest()).map(Reader::policy)
}

/// The rule that this program hands down to its children; 0 for none.
pub fn rule_for_children() -> u64 {
    hooked_process()
        .map(Guest::program)
        .filter(|program| program.inherit())
        .map_or(0, ProgramView::id)
}

/// The hooked under the map that took the place of its own.
#[cold]
fn attach_newest_map() -> Option<&'static Guest> {
    let error = LastError::save();
    let process = PROCESS.get()?;
    let hooked =
        HOOKED_PROCESSES.guest(&MAPS, &process.directory, |map| process.matching_rule(map));
    error.restore();
    hooked
}

/// Finds out what this process is in; whether its program is rewritten. `inherited_rule` is the id of
/// the rule that a parent handed down; 0 stands for none.
pub fn initialize(inherited_rule: u64) -> Result<Option<&'static Guest>, InstallStatus> {
    if environment::read::<2>("VIPOOL_DISABLE").is_some_and(|value| value.as_bytes() == b"1") {
        return Err(InstallStatus::Disabled);
    }
    let directory = PROCESS.get().map_or_else(environment::map_directory, |p| p.directory.clone());
    let map = MAPS.map(&directory).ok_or(InstallStatus::NoMap)?;
    let process = PROCESS.get_or_init(|| Process {
        directory,
        session: find_session(map),
        inherited_rule: AtomicU64::new(0),
    });
    if inherited_rule != 0 {
        process.inherited_rule.store(inherited_rule, Ordering::Relaxed);
    }
    if let Some(hooked) = hooked_process() {
        return Ok(Some(hooked));
    }
    let Some(program) = process.matching_rule(map) else { return Ok(None) };
    let session = process.session.ok_or(InstallStatus::NoSession)?;
    let live = Live { reader: map, policy: map.policy(), program, listeners: Kernel };
    Ok(HOOKED_PROCESSES.follow(|_| false, |_| Some(Guest::new(live, session, &process.directory))))
}

impl Process {
    /// The rule of this program, by itself or by one that started it.
    fn matching_rule<'m>(&self, map: &'m Reader) -> Option<ProgramView<'m>> {
        let policy = map.policy();
        let inherited_rule = self.inherited_rule.load(Ordering::Relaxed);
        program::own_rule(&policy).or_else(|| policy.inherited(inherited_rule))
    }
}

/// The session of this process: that of the operating system, or, where the map's policy allows
/// it, the one of the lease that the environment names.
fn find_session(reader: &Reader) -> Option<SessionId> {
    if reader.policy().session_override()
        && let Some(lease) = environment::read::<128>("VIPOOL_LEASE")
    {
        let handle = Handle::parse(lease.as_bytes())?;
        return reader.is_live(&handle).then_some(handle.session);
    }
    process::session_of(std::process::id()).ok()
}
