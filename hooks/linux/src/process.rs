//! What this process is: seen while it is loaded, and kept where it is rewritten.
//!
//! Invariant: what is kept is written once, before anything else of the process runs, and never
//! changed: programs write over their arguments and environment.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::c_char;
use vipool::policy::{Executable, PathStyle, script_of};

/// The longest path.
const PATH: usize = libc::PATH_MAX as usize;
/// For a directory, the file, what it was started by, and a script.
const ROOM: usize = 4 * PATH;

/// Room on the stack for a path.
pub type Scratch = [u8; PATH];

/// What a process is called by.
#[derive(Clone, Copy)]
pub struct Process<'a> {
    /// The directory of the map.
    pub directory: &'a [u8],
    file: &'a [u8],
    started_as: &'a [u8],
    script: &'a [u8],
}

impl<'a> Process<'a> {
    /// This process; what has to be put together is in `scratch`.
    ///
    /// # Safety
    /// `arguments` are those of the process.
    pub unsafe fn this(
        arguments: *const *const c_char,
        directory: &'static [u8],
        scratch: &'a mut [Scratch; 2],
    ) -> Option<Self> {
        let [file, script] = scratch;
        // SAFETY: the buffer is as long as is said.
        let length = unsafe {
            libc::readlink(c"/proc/self/exe".as_ptr(), file.as_mut_ptr().cast(), file.len())
        };
        // SAFETY: the auxiliary vector holds a C string there, or nothing.
        let started_as = unsafe {
            let name = libc::getauxval(libc::AT_EXECFN) as *const c_char;
            if name.is_null() { &[] } else { CStr::from_ptr(name).to_bytes() }
        };
        // SAFETY: the caller's promise.
        let named = script_of(unsafe { texts(arguments) }.skip(1)).unwrap_or_default();
        Some(Self {
            directory,
            file: file.get(..usize::try_from(length).ok()?)?,
            started_as,
            script: full_path(named, script).unwrap_or(named),
        })
    }

    /// As the process list looks at it.
    pub fn executable(&self) -> Executable<'a> {
        let some = |text: &'a [u8]| Some(text).filter(|text| !text.is_empty());
        Executable {
            path: self.file,
            invoked_as: some(self.started_as),
            script: some(self.script),
            style: PathStyle::Posix,
        }
    }
}

/// The path of a script that was given relative to the working directory.
fn full_path<'a>(script: &[u8], buffer: &'a mut Scratch) -> Option<&'a [u8]> {
    if script.is_empty() || script.first() == Some(&b'/') {
        return None;
    }
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
    buffer.get(..end + 1 + script.len())
}

/// The C strings of a list that a null pointer ends.
///
/// # Safety
/// The list and its strings stay as they are.
pub unsafe fn texts(list: *const *const c_char) -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: the caller's promise: there is an entry until one is null.
    let entry = move |place: usize| unsafe { *list.add(place) };
    (0..).map(entry).take_while(|text| !text.is_null()).map(|text| {
        // SAFETY: the caller's promise.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    })
}

/// Room for what a process is, one text after the other.
pub struct Kept {
    bytes: UnsafeCell<[u8; ROOM]>,
    /// Where each text ends; all zero while there is none.
    ends: [AtomicUsize; 4],
}

// SAFETY: written once, before anybody is told of it; then only read.
unsafe impl Sync for Kept {}

impl Kept {
    pub const fn nothing() -> Self {
        let ends = [const { AtomicUsize::new(0) }; 4];
        Self { bytes: UnsafeCell::new([0; ROOM]), ends }
    }

    /// Keeps it, if there is room.
    ///
    /// # Safety
    /// Called at most once, while nobody else can look.
    pub unsafe fn keep(&'static self, process: &Process<'_>) -> Option<Process<'static>> {
        // SAFETY: nobody else writes or reads: the caller's promise.
        let bytes = unsafe { &mut *self.bytes.get() };
        let Process { directory, file, started_as, script } = *process;
        let mut end = 0;
        for (text, place) in [directory, file, started_as, script].into_iter().zip(&self.ends) {
            bytes.get_mut(end..end + text.len())?.copy_from_slice(text);
            end += text.len();
            place.store(end, Ordering::Release);
        }
        self.get()
    }

    /// What was kept.
    pub fn get(&'static self) -> Option<Process<'static>> {
        let [directory, file, started_as, script] =
            self.ends.each_ref().map(|end| end.load(Ordering::Acquire));
        if script == 0 {
            return None;
        }
        // SAFETY: it was written before the ends were, and is never written again.
        let bytes: &'static [u8; ROOM] = unsafe { &*self.bytes.get() };
        Some(Process {
            directory: bytes.get(..directory)?,
            file: bytes.get(directory..file)?,
            started_as: bytes.get(file..started_as)?,
            script: bytes.get(started_as..script)?,
        })
    }
}
