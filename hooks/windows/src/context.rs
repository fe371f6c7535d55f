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

use crate::outcome::Outcome;
use crate::socket::LastError;
use crate::{program, variable};

/// The style of paths that everything here follows.
pub const STYLE: PathStyle = PathStyle::Windows;

/// The map, and those that took its place.
static MAPS: Succession<Reader> = Succession::new();
/// The program as it is rewritten; empty for one that is not listed, in which only the programs
/// that it starts are looked at.
static GUESTS: Succession<Guest> = Succession::new();
static PROCESS: OnceLock<Process> = OnceLock::new();

/// What stays the same whatever map there is.
struct Process {
    directory: PathBuf,
    session: Option<SessionId>,
    /// The id of the rule that a parent handed down; 0 for none.
    inherited: AtomicU64,
}

/// What is rewritten; `None` if the program was not listed when the hooks were set.
#[inline]
pub fn guest() -> Option<&'static Guest> {
    let guest = GUESTS.newest()?;
    if guest.is_over() { follow() } else { Some(guest) }
}

/// What decides for a call that is made now.
#[inline]
pub fn rewriter() -> Option<Rewriter<'static, Live<'static>>> {
    guest().map(Guest::rewriter)
}

/// The policy, as it is now, or as it was when there was room for another map last: a program that
/// is started under it looks for itself.
pub fn policy() -> Option<PolicyView<'static>> {
    MAPS.map(&PROCESS.get()?.directory).or_else(|| MAPS.newest()).map(Reader::policy)
}

/// The rule that this program hands down to its children; 0 for none.
pub fn handed_down() -> u64 {
    guest().map(Guest::program).filter(|program| program.inherit()).map_or(0, ProgramView::id)
}

/// The guest under the map that took the place of its own.
#[cold]
fn follow() -> Option<&'static Guest> {
    let error = LastError::save();
    let process = PROCESS.get()?;
    let guest = GUESTS.guest(&MAPS, &process.directory, |map| process.rule(map));
    error.restore();
    guest
}

/// Finds out what this process is in; whether its program is rewritten. `inherited` is the id of
/// the rule that a parent handed down; 0 stands for none.
pub fn make(inherited: u64) -> Result<Option<&'static Guest>, Outcome> {
    if variable::get::<2>("VIPOOL_DISABLE").is_some_and(|value| value.text() == b"1") {
        return Err(Outcome::Disabled);
    }
    let directory = PROCESS.get().map_or_else(variable::map_directory, |p| p.directory.clone());
    let map = MAPS.map(&directory).ok_or(Outcome::NoMap)?;
    let process = PROCESS.get_or_init(|| Process {
        directory,
        session: session(map),
        inherited: AtomicU64::new(0),
    });
    if inherited != 0 {
        process.inherited.store(inherited, Ordering::Relaxed);
    }
    if let Some(guest) = guest() {
        return Ok(Some(guest));
    }
    let Some(program) = process.rule(map) else { return Ok(None) };
    let session = process.session.ok_or(Outcome::NoSession)?;
    let live = Live { reader: map, policy: map.policy(), program, listeners: Kernel };
    Ok(GUESTS.follow(|_| false, |_| Some(Guest::new(live, session, &process.directory))))
}

impl Process {
    /// The rule of this program, by itself or by one that started it.
    fn rule<'m>(&self, map: &'m Reader) -> Option<ProgramView<'m>> {
        let policy = map.policy();
        let inherited = self.inherited.load(Ordering::Relaxed);
        program::own_rule(&policy).or_else(|| policy.inherited(inherited))
    }
}

/// The session of this process: that of the operating system, or, where the map's policy allows
/// it, the one of the lease that the environment names.
fn session(reader: &Reader) -> Option<SessionId> {
    if reader.policy().session_override()
        && let Some(lease) = variable::get::<128>("VIPOOL_LEASE")
    {
        let handle = Handle::parse(lease.text())?;
        return reader.is_live(&handle).then_some(handle.session);
    }
    process::session_of(std::process::id()).ok()
}
