//! Whether this process is rewritten, and by what: found while it is loaded, then only read.
//!
//! Invariants: nothing here is ever freed or unmapped, so that a hook in any thread, signal handler
//! or vfork child may hold it (see [`Succession`]).

use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use libc::c_char;
use vipool::map::{Reader, Succession};
use vipool::os::lease;
use vipool::policy::{Executable, PathStyle, ProgramView, script_of};
pub use vipool::rewrite::Guest;
use vipool::rewrite::{Kernel, Live, Rewriter};
use vipool::session::Handle;

use crate::errno;

/// Decides for this process.
pub type Decider<'a> = Rewriter<'a, Live<'static>>;

/// Where the map is unless the environment says otherwise.
const MAP_DIRECTORY: &[u8] = b"/run/vipool";

/// The map, and those that took its place.
static MAPS: Succession<Reader> = Succession::new();
/// What is rewritten; empty for a process that is not.
static GUESTS: Succession<Guest> = Succession::new();

/// The guest that this process is, if it is one.
#[inline]
pub fn active() -> Option<&'static Guest> {
    let guest = GUESTS.newest()?;
    if guest.is_over() { follow() } else { Some(guest) }
}

/// The guest under the map that took the place of its own.
#[cold]
fn follow() -> Option<&'static Guest> {
    let process = PROCESS.get()?;
    let before = errno::get();
    let guest = GUESTS.guest(&MAPS, path(process.directory.bytes()), |map| rule(map, process));
    errno::set(before);
    guest
}

/// What this process is, kept for when the map is replaced.
static PROCESS: OnceLock<Process> = OnceLock::new();

struct Process {
    directory: Text,
    executable: Text,
    invoked_as: Text,
    script: Text,
}

/// Finds out what this process is. Called once, while it is loaded.
///
/// # Safety
/// `arguments` and `environment` are those of the process.
pub unsafe fn load(arguments: *const *const c_char, environment: *const *const c_char) {
    // SAFETY: takes a number.
    let trusted = unsafe { libc::getauxval(libc::AT_SECURE) } == 0;
    let variable = |name: &[u8]| {
        // SAFETY: the caller's promise.
        let mut variables = unsafe { texts(environment) };
        variables.find_map(|text| text.strip_prefix(name)?.strip_prefix(b"=")).filter(|_| trusted)
    };
    if variable(b"VIPOOL_DISABLE").is_some_and(|value| value == b"1") {
        return;
    }
    let directory = variable(b"VIPOOL_MAP").filter(|value| !value.is_empty());
    let Some(directory) = Text::copy(directory.unwrap_or(MAP_DIRECTORY)) else { return };
    let Some(map) = MAPS.map(path(directory.bytes())) else { return };
    let executable = Text::fill(|buffer| {
        // SAFETY: the buffer is as long as is said.
        let length = unsafe {
            libc::readlink(c"/proc/self/exe".as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        };
        usize::try_from(length).ok()
    });
    let Some(executable) = executable else { return };
    // SAFETY: the auxiliary vector holds a C string there, or nothing.
    let invoked_as = unsafe {
        let name = libc::getauxval(libc::AT_EXECFN) as *const c_char;
        if name.is_null() { &[] } else { CStr::from_ptr(name).to_bytes() }
    };
    // SAFETY: the caller's promise.
    let script = script_of(unsafe { texts(arguments) }.skip(1)).unwrap_or_default();
    let process = Process {
        directory,
        executable,
        invoked_as: Text::copy(invoked_as).unwrap_or_default(),
        script: full_path(script).or_else(|| Text::copy(script)).unwrap_or_default(),
    };
    // Nothing else runs yet that could look.
    let process = PROCESS.get_or_init(|| process);
    let Some(program) = rule(map, process) else { return };
    let session = match variable(b"VIPOOL_LEASE") {
        Some(text) => {
            let handle = Handle::parse(text).filter(|handle| map.is_live(handle));
            handle.map(|handle| handle.session)
        }
        None => lease::of_process(map, lease::Process::This).map(|(session, _)| session),
    };
    let Some(session) = session else { return };
    node_name();
    let live = Live { reader: map, policy: map.policy(), program, listeners: Kernel };
    GUESTS.follow(|_| true, |_| Some(Guest::new(live, session, path(process.directory.bytes()))));
}

/// The rule of the process list that this process falls under, by itself or by one that started
/// it.
fn rule(map: &'static Reader, process: &Process) -> Option<ProgramView<'static>> {
    let policy = map.policy();
    let itself = Executable {
        path: process.executable.bytes(),
        invoked_as: process.invoked_as.some(),
        script: process.script.some(),
        style: PathStyle::Posix,
    };
    if let Some(found) = policy.find(&itself) {
        return Some(found.program);
    }
    if !policy.programs().any(|rule| rule.inherit()) {
        return None;
    }
    Some(lease::inherited(&policy, lease::Process::This)?.0)
}

fn path(bytes: &[u8]) -> &Path {
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

/// The path of a script that was given relative to the working directory.
fn full_path(script: &[u8]) -> Option<Text> {
    if script.is_empty() || script.first() == Some(&b'/') {
        return None;
    }
    Text::fill(|buffer| {
        // SAFETY: the buffer is as long as is said.
        let found = unsafe { libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()) };
        if found.is_null() {
            return None;
        }
        let end = buffer.iter().position(|byte| *byte == 0)?;
        let script = script.strip_prefix(b"./").unwrap_or(script);
        let tail = buffer.get_mut(end..end + 1 + script.len())?;
        let (slash, rest) = tail.split_first_mut()?;
        *slash = b'/';
        rest.copy_from_slice(script);
        Some(end + 1 + script.len())
    })
}

/// The C strings of a list that a null pointer ends.
///
/// # Safety
/// The list and its strings stay as they are.
unsafe fn texts(list: *const *const c_char) -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: the caller's promise: there is an entry until one is null.
    let entry = move |place: usize| unsafe { *list.add(place) };
    (0..).map(entry).take_while(|text| !text.is_null()).map(|text| {
        // SAFETY: the caller's promise.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    })
}

/// A text of at most a path's length.
struct Text {
    bytes: [u8; libc::PATH_MAX as usize],
    length: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; libc::PATH_MAX as usize], length: 0 }
    }
}

impl Text {
    fn copy(text: &[u8]) -> Option<Self> {
        Self::fill(|buffer| {
            buffer.get_mut(..text.len())?.copy_from_slice(text);
            Some(text.len())
        })
    }

    fn fill(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Option<Self> {
        let mut text = Self::default();
        text.length = write(&mut text.bytes)?;
        Some(text)
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn some(&self) -> Option<&[u8]> {
        Some(self.bytes()).filter(|bytes| !bytes.is_empty())
    }
}
