//! What this process is: seen while it is loaded, and kept where it is rewritten.
//!
//! Invariant: what is kept is written once, before anything else of the process runs, and never
//! changed: programs write over their arguments and environment.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::c_char;
use vipool::policy::{Executable, PathStyle, script_argument};

/// The longest path.
const MAX_PATH: usize = libc::PATH_MAX as usize;
/// For a directory, the file, what it was started by, and a script.
const STORE_SIZE: usize = 4 * MAX_PATH;

/// Room on the stack for a path.
pub type PathBuffer = [u8; MAX_PATH];

/// What a process is called by.
#[derive(Clone, Copy)]
pub struct ProcessIdentity<'a> {
    /// The directory of the map.
    pub directory: &'a [u8],
    file: &'a [u8],
    invoked_as: &'a [u8],
    script: &'a [u8],
}

impl<'a> ProcessIdentity<'a> {
    /// This process; what has to be put together is in `scratch`.
    ///
    /// # Safety
    /// `arguments` are those of the process.
    pub unsafe fn of_this_process(
        arguments: *const *const c_char,
        directory: &'static [u8],
        scratch: &'a mut [PathBuffer; 2],
    ) -> Option<Self> {
        let [file, script] = scratch;
        // SAFETY: the buffer is as long as is said.
        let length = unsafe {
            libc::readlink(c"/proc/self/exe".as_ptr(), file.as_mut_ptr().cast(), file.len())
        };
        // SAFETY: the auxiliary vector holds a C string there, or nothing.
        let invoked_as = unsafe {
            let name = libc::getauxval(libc::AT_EXECFN) as *const c_char;
            if name.is_null() { &[] } else { CStr::from_ptr(name).to_bytes() }
        };
        // SAFETY: the caller's promise.
        let script_argument =
            script_argument(unsafe { c_strings(arguments) }.skip(1)).unwrap_or_default();
        Some(Self {
            directory,
            file: file.get(..usize::try_from(length).ok()?)?,
            invoked_as,
            script: absolute_path(script_argument, script).unwrap_or(script_argument),
        })
    }

    /// As the process list looks at it.
    pub fn executable(&self) -> Executable<'a> {
        let non_empty = |text: &'a [u8]| Some(text).filter(|text| !text.is_empty());
        Executable {
            path: self.file,
            invoked_as: non_empty(self.invoked_as),
            script: non_empty(self.script),
            style: PathStyle::Posix,
        }
    }
}

/// The path of a script that was given relative to the working directory.
fn absolute_path<'a>(script: &[u8], buffer: &'a mut PathBuffer) -> Option<&'a [u8]> {
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
pub unsafe fn c_strings(list: *const *const c_char) -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: the caller's promise: there is an entry until one is null.
    let entry = move |index: usize| unsafe { *list.add(index) };
    (0..).map(entry).take_while(|text| !text.is_null()).map(|text| {
        // SAFETY: the caller's promise.
        unsafe { CStr::from_ptr(text) }.to_bytes()
    })
}

/// Room for what a process is, one text after the other.
pub struct IdentityStore {
    bytes: UnsafeCell<[u8; STORE_SIZE]>,
    /// Where each text ends; all zero while there is none.
    ends: [AtomicUsize; 4],
}

// SAFETY: written once, before anybody is told of it; then only read.
unsafe impl Sync for IdentityStore {}

impl IdentityStore {
    pub const fn empty() -> Self {
        let ends = [const { AtomicUsize::new(0) }; 4];
        Self { bytes: UnsafeCell::new([0; STORE_SIZE]), ends }
    }

    /// Keeps it, if there is room.
    ///
    /// # Safety
    /// Called at most once, while nobody else can look.
    pub unsafe fn store(
        &'static self,
        process: &ProcessIdentity<'_>,
    ) -> Option<ProcessIdentity<'static>> {
        // SAFETY: nobody else writes or reads: the caller's promise.
        let bytes = unsafe { &mut *self.bytes.get() };
        let ProcessIdentity { directory, file, invoked_as, script } = *process;
        let mut end = 0;
        for (text, index) in [directory, file, invoked_as, script].into_iter().zip(&self.ends) {
            bytes.get_mut(end..end + text.len())?.copy_from_slice(text);
            end += text.len();
            index.store(end, Ordering::Release);
        }
        self.get()
    }

    /// What was kept.
    pub fn get(&'static self) -> Option<ProcessIdentity<'static>> {
        let [directory, file, invoked_as, script] =
            self.ends.each_ref().map(|end| end.load(Ordering::Acquire));
        if script == 0 {
            return None;
        }
        // SAFETY: it was written before the ends were, and is never written again.
        let bytes: &'static [u8; STORE_SIZE] = unsafe { &*self.bytes.get() };
        Some(ProcessIdentity {
            directory: bytes.get(..directory)?,
            file: bytes.get(directory..file)?,
            invoked_as: bytes.get(file..invoked_as)?,
            script: bytes.get(invoked_as..script)?,
        })
    }
}
