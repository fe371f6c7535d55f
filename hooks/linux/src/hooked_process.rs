//! Whether this process is rewritten, and by what: found while it is loaded, then only read.
//!
//! Invariants: nothing here is ever freed or unmapped, so that a hook in any thread, signal handler
//! or vfork child may hold it (see [`Succession`]).

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use libc::c_char;
use vipool::map::{Reader, Succession};
use vipool::os::lease;
use vipool::policy::ProgramView;
pub use vipool::rewrite::HookedProcess;
use vipool::rewrite::{KernelListeners, LiveSystem, Rewriter};
use vipool::session::Handle;

use crate::identity::{IdentityStore, ProcessIdentity, c_strings};
use crate::{errno, facts};

/// Decides for this process.
pub type ProcessRewriter<'a> = Rewriter<'a, LiveSystem<'static>>;

/// Where the map is unless the environment says otherwise.
const MAP_DIRECTORY: &[u8] = b"/run/vipool";

/// The map, and those that took its place.
static MAPS: Succession<Reader> = Succession::new();
/// What is rewritten; empty for a process that is not.
static PROCESSES: Succession<HookedProcess> = Succession::new();

/// The guest that this process is or was, if it is one: nearly always still the same.
#[inline]
pub fn cached() -> Option<&'static HookedProcess> {
    PROCESSES.newest()
}

/// The guest that this process is, if it is one.
#[inline]
pub fn current() -> Option<&'static HookedProcess> {
    let process = PROCESSES.newest()?;
    if process.is_superseded() { follow_replaced_map() } else { Some(process) }
}

/// The guest under the map that took the place of its own.
#[cold]
fn follow_replaced_map() -> Option<&'static HookedProcess> {
    let identity = IDENTITY.get()?;
    let saved_errno = errno::get();
    let process = PROCESSES
        .hooked_process(&MAPS, as_path(identity.directory), |map| find_rule(map, &identity));
    errno::set(saved_errno);
    process
}

/// What this process is, for when the map is replaced.
static IDENTITY: IdentityStore = IdentityStore::empty();

/// Finds out what this process is. Called once, while it is loaded.
///
/// # Safety
/// `arguments` and `environment` are those of the process.
pub unsafe fn load(arguments: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: takes a number.
    let may_trust_environment = unsafe { libc::getauxval(libc::AT_SECURE) } == 0;
    let variable = |name: &[u8]| {
        // SAFETY: the caller's promise.
        let mut variables = unsafe { c_strings(environment) };
        variables
            .find_map(|text| text.strip_prefix(name)?.strip_prefix(b"="))
            .filter(|_| may_trust_environment)
    };
    if variable(b"VIPOOL_DISABLE").is_some_and(|value| value == b"1") {
        return;
    }
    let directory = variable(b"VIPOOL_MAP").filter(|value| !value.is_empty());
    let directory = directory.unwrap_or(MAP_DIRECTORY);
    let Some(map) = MAPS.map(as_path(directory)) else { return };
    let mut scratch = [[0; _]; 2];
    // SAFETY: the caller's promise.
    let identity = unsafe { ProcessIdentity::of_this_process(arguments, directory, &mut scratch) };
    let Some(identity) = identity else { return };
    let Some(program) = find_rule(map, &identity) else { return };
    let session = match variable(b"VIPOOL_LEASE") {
        Some(text) => {
            let handle = Handle::parse(text).filter(|handle| map.is_live(handle));
            handle.map(|handle| handle.session)
        }
        None => lease::of_process(map, lease::Process::This).map(|(session, _)| session),
    };
    let Some(session) = session else { return };
    node_name();
    // SAFETY: nothing else runs yet that could look.
    let Some(identity) = (unsafe { IDENTITY.store(&identity) }) else { return };
    let system =
        LiveSystem { reader: map, policy: map.policy(), program, listeners: KernelListeners };
    let first_version = |_: Option<&HookedProcess>| {
        Some(HookedProcess::new(system, session, as_path(identity.directory)))
    };
    if let Some(process) = PROCESSES.follow(|_| true, first_version) {
        facts::scan_inherited_fds(process);
    }
}

/// The rule of the process list that this process falls under, by itself or by one that started
/// it.
fn find_rule(map: &'static Reader, identity: &ProcessIdentity<'_>) -> Option<ProgramView<'static>> {
    let policy = map.policy();
    if let Some(found) = policy.find(&identity.executable()) {
        return Some(found.program);
    }
    if !policy.programs().any(|rule| rule.inherit()) {
        return None;
    }
    Some(lease::inherited(&policy, lease::Process::This)?.0)
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The name that the host gave itself when this process was loaded, as a C string that stays.
pub fn node_name() -> *mut c_char {
    static NAME: OnceLock<libc::utsname> = OnceLock::new();
    // Looked up while the process is loaded: from then on nobody waits for it.
    let name = NAME.get_or_init(|| {
        let mut name = MaybeUninit::<libc::utsname>::zeroed();
        // SAFETY: there is room for one, and all zeros would be fine too.
        unsafe {
            libc::uname(name.as_mut_ptr());
            name.assume_init()
        }
    });
    name.nodename.as_ptr().cast_mut()
}
