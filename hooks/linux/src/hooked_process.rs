//! The state of this process, a [`HookedProcess`]. It contains the session, the rule and the map.
//! If there is no state, the hooks rewrite no call.
//!
//! `initialize` creates the state when the dynamic linker loads this library. If a new map replaces
//! the current map, a hook adds a newer version of the state. Invariant: no version is ever freed or
//! unmapped, so a hook in any thread, signal handler or vfork child may hold a reference (see
//! [`VersionChain`]).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::c_char;
use vipool::discovery;
use vipool::map::{Reader, VersionChain};
use vipool::policy::ProgramView;
use vipool::rewrite::{HookedProcess, KernelListeners, LiveSystem, Rewriter};
use vipool::session::Handle;

use crate::identity::{IdentityStore, ProcessIdentity, c_strings};
use crate::{errno, fd_facts};

/// The rewriter of this process.
pub type ProcessRewriter<'a> = Rewriter<'a, LiveSystem<'static>>;

/// The default directory of the map. `VIPOOL_MAP` can contain another directory.
const DEFAULT_MAP_DIRECTORY: &[u8] = b"/run/vipool";

/// The map and its replacements.
static MAPS: VersionChain<Reader> = VersionChain::new();
/// The versions of the state, one per map. Empty if the program is not listed or has no session.
static PROCESS_VERSIONS: VersionChain<HookedProcess> = VersionChain::new();
/// The identity of this process. It is used to find the rule in a new map.
static IDENTITY: IdentityStore = IdentityStore::empty();

/// Returns the newest known version of the state. Does not check whether the map was replaced.
#[inline]
pub fn cached() -> Option<&'static HookedProcess> {
    PROCESS_VERSIONS.newest()
}

/// Returns the version of the state for the current map.
#[inline]
pub fn current() -> Option<&'static HookedProcess> {
    let process = PROCESS_VERSIONS.newest()?;
    if process.is_superseded() { follow_new_map() } else { Some(process) }
}

/// Maps the new map file, and returns the version of the state for the new map. If the new map
/// cannot be used, returns the newest version. After such a failure, most calls return this version
/// without a new attempt and without a system call (see [`VersionChain::follow`]).
///
/// This function has no cancellation point, because a hooked function may have none, and because
/// the frames of this library own files during this function.
#[cold]
fn follow_new_map() -> Option<&'static HookedProcess> {
    let identity = IDENTITY.get()?;
    let saved_errno = errno::get();
    let process = PROCESS_VERSIONS
        .hooked_process(&MAPS, as_path(identity.directory), |map| find_rule(map, &identity));
    errno::set(saved_errno);
    process
}

/// Creates the state of this process, if a rule lists the program and the process belongs to a
/// session. This function is called once, when the dynamic linker loads this library.
///
/// # Safety
/// `arguments` and `environment` are the argument vector and the environment of the process.
pub unsafe fn initialize(arguments: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: getauxval has no preconditions.
    let may_trust_environment = unsafe { libc::getauxval(libc::AT_SECURE) } == 0;
    let read_variable = |name: &[u8]| {
        // SAFETY: guaranteed by the caller.
        let mut variables = unsafe { c_strings(environment) };
        variables
            .find_map(|assignment| assignment.strip_prefix(name)?.strip_prefix(b"="))
            .filter(|_| may_trust_environment)
    };
    if read_variable(b"VIPOOL_DISABLE").is_some_and(|value| value == b"1") {
        return;
    }
    let directory = read_variable(b"VIPOOL_MAP").filter(|value| !value.is_empty());
    let directory = directory.unwrap_or(DEFAULT_MAP_DIRECTORY);
    let Some(map) = MAPS.map(as_path(directory)) else { return };
    let mut path_buffers = [[0; _]; 2];
    // SAFETY: guaranteed by the caller.
    let identity = unsafe { ProcessIdentity::current(arguments, directory, &mut path_buffers) };
    let Some(identity) = identity else { return };
    let Some(program) = find_rule(map, &identity) else { return };
    let session = match read_variable(b"VIPOOL_LEASE") {
        Some(handle_text) => {
            let handle = Handle::parse(handle_text).filter(|handle| map.is_live(handle));
            handle.map(|handle| handle.session)
        }
        None => {
            discovery::session_of_process(map, discovery::Process::This).map(|(session, _)| session)
        }
    };
    let Some(session) = session else { return };
    // SAFETY: this function runs once. Other threads read the identity only after a version of the
    // state exists, and no version exists yet.
    let Some(identity) = (unsafe { IDENTITY.store(&identity) }) else { return };
    let system =
        LiveSystem { reader: map, policy: map.policy(), program, listeners: KernelListeners };
    let first_version = || Some(HookedProcess::new(system, session, as_path(identity.directory)));
    if let Some(process) = PROCESS_VERSIONS.get_or_init(first_version) {
        fd_facts::scan_inherited_fds(process);
    }
}

/// Returns the rule that matches this process, or a rule with `inherit` that matches an ancestor.
fn find_rule(map: &'static Reader, identity: &ProcessIdentity<'_>) -> Option<ProgramView<'static>> {
    let policy = map.policy();
    if let Some(found) = policy.find(&identity.executable()) {
        return Some(found.program);
    }
    if !policy.programs().any(|rule| rule.flags().inherit) {
        return None;
    }
    Some(discovery::inherited_rule(&policy, discovery::Process::This)?.0)
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
