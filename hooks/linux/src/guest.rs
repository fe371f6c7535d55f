//! Whether this process is rewritten, and by what: found while it is loaded, then only read.
//!
//! Invariants: nothing here is ever freed or unmapped, so that a hook in any thread, signal handler
//! or vfork child may hold it; when another map takes the place of ours, what was found there is
//! put beside and published by one store.

use std::cell::UnsafeCell;
use std::ffi::{CStr, OsStr};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use libc::c_char;
use vipool::map::Reader;
use vipool::os::{client, lease};
use vipool::policy::{Executable, PathStyle, ProgramView, script_of};
use vipool::rewrite::{Live, Rewriter, Rules};
use vipool::session::{Addresses, Handle, SessionId};

use crate::errno;

/// Decides for this process.
pub type Decider<'a> = Rewriter<'a, Live<'static>>;

/// Where the map is unless the environment says otherwise.
const MAP_DIRECTORY: &[u8] = b"/run/vipool";

/// How often a map may be replaced while a program runs and be followed; after that the program
/// stays with the last.
const MOST_MAPS: usize = 128;

/// How many may look for the map that took the place of another.
const MOST_FOLLOWERS: usize = 4;

/// A program that is rewritten, under one map.
pub struct Guest {
    live: Live<'static>,
    rules: Rules,
    session: SessionId,
    /// Its lease, as far as there was one when this was made.
    handle: Option<Handle>,
    addresses: Addresses,
    /// Whether the session had all that the program's features need.
    complete: bool,
    /// Whether the program is still on the process list.
    listed: bool,
    client: Option<IpAddr>,
    /// How many have begun to look for the map that took the place of this one.
    followers: AtomicUsize,
}

impl Guest {
    /// To decide with: whether the lease is held is looked up, and addresses that were missing.
    #[inline]
    pub fn rewriter(&self) -> Rewriter<'_, Live<'static>> {
        let (live, addresses) = match &self.handle {
            Some(handle) if self.complete => (self.live.reader.is_live(handle), self.addresses),
            _ => match self.live.reader.find(self.session) {
                Some((_, leases)) => (true, self.live.reader.addresses(&leases)),
                None => (false, self.addresses),
            },
        };
        self.with(live && self.listed, addresses)
    }

    /// To show names with.
    #[inline]
    pub fn names(&self) -> Rewriter<'_, Live<'static>> {
        if self.complete { self.with(true, self.addresses) } else { self.rewriter() }
    }

    /// The address of the session's client, as far as this user may know it.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    fn known(&self) -> Known {
        Known { addresses: self.addresses, client: self.client }
    }

    #[inline]
    fn with(&self, live: bool, addresses: Addresses) -> Rewriter<'_, Live<'static>> {
        Rewriter { addresses, rules: self.rules, live, world: &self.live }
    }
}

/// What is rewritten; null for a process that is not.
static ACTIVE: AtomicPtr<Guest> = AtomicPtr::new(ptr::null_mut());

/// The guest that this process is, if it is one.
#[inline]
pub fn active() -> Option<&'static Guest> {
    // SAFETY: null or one of the slots, which are never freed or changed once published.
    let guest = unsafe { ACTIVE.load(Ordering::Acquire).as_ref() }?;
    if guest.live.reader.is_superseded() { Some(follow(guest)) } else { Some(guest) }
}

/// What this process is, kept for when the map is replaced.
static PROCESS: Slot<Process> = Slot::new();

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
    let Some(map) = attach(directory.bytes()) else { return };
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
    // SAFETY: nothing else runs yet that could look.
    let process = unsafe { PROCESS.set(process) };
    let Some(program) = rule(map, process) else { return };
    let session = match variable(b"VIPOOL_LEASE") {
        Some(text) => {
            let handle = Handle::parse(text).filter(|handle| map.is_live(handle));
            handle.map(|handle| handle.session)
        }
        None => lease::of_process(map),
    };
    let Some(session) = session else { return };
    node_name();
    let live = Live { reader: map, policy: map.policy(), program };
    if let Some(guest) = publish(live, true, session, Known::default()) {
        ACTIVE.store(ptr::from_ref(guest).cast_mut(), Ordering::Release);
    }
}

/// The map that took the place of this guest's, or the guest as it was.
///
/// Threads may come here at once, and one may be left in the middle by siglongjmp or fork: a few
/// may try, each with room of its own, and whoever is first is seen by all.
#[cold]
fn follow(guest: &'static Guest) -> &'static Guest {
    if guest.followers.fetch_add(1, Ordering::Relaxed) >= MOST_FOLLOWERS {
        guest.followers.store(MOST_FOLLOWERS, Ordering::Relaxed);
        return guest;
    }
    let before = errno::get();
    let newer = PROCESS.get().and_then(|process| {
        let map = attach(process.directory.bytes())?;
        let policy = map.policy();
        Some(match rule(map, process) {
            Some(program) => {
                publish(Live { reader: map, policy, program }, true, guest.session, guest.known())
            }
            // By the rule it was under, so that its names stay as they were; but no longer on it.
            None => {
                publish(Live { reader: map, ..guest.live }, false, guest.session, guest.known())
            }
        })
    });
    errno::set(before);
    match newer {
        Some(Some(newer)) => {
            // If another thread was faster, that is as good.
            let _ = ACTIVE.compare_exchange(
                ptr::from_ref(guest).cast_mut(),
                ptr::from_ref(newer).cast_mut(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            newer
        }
        // No room for more.
        Some(None) => guest,
        // There is no map just now: it is looked for again.
        None => {
            guest.followers.fetch_sub(1, Ordering::Relaxed);
            guest
        }
    }
}

/// What a session had under an older map: it stays shown.
#[derive(Clone, Copy, Default)]
struct Known {
    addresses: Addresses,
    client: Option<IpAddr>,
}

/// Puts what is known of a program under a map where hooks can look.
fn publish(
    live: Live<'static>,
    listed: bool,
    session: SessionId,
    known: Known,
) -> Option<&'static Guest> {
    static GUESTS: Slots<Guest> = Slots::new();
    let map = live.reader;
    let rules = Rules::of(&live.program, &live.policy);
    let found = map.find(session);
    let held = found.map_or(Addresses::default(), |(_, leases)| map.addresses(&leases));
    let addresses = Addresses {
        v4: held.v4.or(known.addresses.v4),
        v6: held.v6.or(known.addresses.v6),
        loopback: held.loopback.or(known.addresses.loopback),
        loopback6: held.loopback6.or(known.addresses.loopback6),
    };
    let complete = (!rules.features.virtual_ip || held.v4.is_some() || held.v6.is_some())
        && (!rules.features.loopback || held.loopback.is_some());
    let client = found
        .filter(|_| rules.features.client_ip)
        .and_then(|(handle, _)| client::read(path(PROCESS.get()?.directory.bytes()), &handle))
        .or(known.client);
    GUESTS.add(Guest {
        live,
        rules,
        session,
        handle: found.map(|(handle, _)| handle),
        addresses,
        complete,
        listed,
        client,
        followers: AtomicUsize::new(0),
    })
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
    lease::inherited(&policy)
}

fn attach(directory: &[u8]) -> Option<&'static Reader> {
    static MAPS: Slots<Reader> = Slots::new();
    MAPS.add(Reader::attach(path(directory)).ok()?)
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// The name that the host gave itself when this process was loaded, as a C string that stays.
pub fn node_name() -> *mut c_char {
    static NAME: Slot<libc::utsname> = Slot::new();
    let name = NAME.get().or_else(|| {
        let mut name = MaybeUninit::<libc::utsname>::zeroed();
        // SAFETY: there is room for one, and all zeros would be fine too.
        unsafe { libc::uname(name.as_mut_ptr()) };
        // SAFETY: looked up while the process is loaded, before anybody else could.
        Some(unsafe { NAME.set(name.assume_init()) })
    });
    name.map_or(ptr::null_mut(), |name| name.nodename.as_ptr().cast_mut())
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

/// Room for a value that is made once and stays.
struct Slot<T>(UnsafeCell<MaybeUninit<T>>, AtomicUsize);

// SAFETY: written once, before anybody is told of it; then only read.
unsafe impl<T: Sync> Sync for Slot<T> {}

impl<T> Slot<T> {
    const fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()), AtomicUsize::new(0))
    }

    /// # Safety
    /// Called at most once.
    unsafe fn set(&'static self, value: T) -> &'static T {
        // SAFETY: nobody else writes (the caller's promise) or reads (not published yet).
        let value = unsafe { (*self.0.get()).write(value) };
        self.1.store(1, Ordering::Release);
        value
    }

    fn get(&'static self) -> Option<&'static T> {
        if self.1.load(Ordering::Acquire) == 0 {
            return None;
        }
        // SAFETY: it was written before that was published, and is never written again.
        Some(unsafe { (*self.0.get()).assume_init_ref() })
    }
}

/// Room for as many values as there can be maps.
struct Slots<T> {
    slots: [Slot<T>; MOST_MAPS],
    used: AtomicUsize,
}

impl<T> Slots<T> {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; MOST_MAPS], used: AtomicUsize::new(0) }
    }

    /// Keeps the value for good, if there is room.
    fn add(&'static self, value: T) -> Option<&'static T> {
        if self.used.load(Ordering::Relaxed) >= MOST_MAPS {
            return None;
        }
        let slot = self.slots.get(self.used.fetch_add(1, Ordering::Relaxed))?;
        // SAFETY: the place was counted up: nobody else gets this slot.
        Some(unsafe { slot.set(value) })
    }
}
