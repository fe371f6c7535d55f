//! The identity of this process: the directory of the map, the executable file, the path by which
//! the program was started, and the script.
//!
//! Invariant: an identity is stored once, when the dynamic linker loads this library, and never
//! changes. The store contains copies, because programs may overwrite their arguments and
//! environment.

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::c_char;
use vipool::policy::{Executable, PathStyle, script_argument};

/// Maximum length of a path.
const MAX_PATH: usize = libc::PATH_MAX as usize;
/// The size of the buffer for the four paths of an identity.
const STORE_SIZE: usize = 4 * MAX_PATH;

/// A buffer for one path.
pub type PathBuffer = [u8; MAX_PATH];

/// The paths that identify a process for the process list.
#[derive(Clone, Copy)]
pub struct ProcessIdentity<'a> {
    /// The directory of the map.
    pub directory: &'a [u8],
    file: &'a [u8],
    invoked_as: &'a [u8],
    script: &'a [u8],
}

impl<'a> ProcessIdentity<'a> {
    /// Returns the identity of this process, or `None` if the executable file is unknown. `buffers`
    /// receives the paths of the executable file and of the script.
    ///
    /// # Safety
    /// `arguments` is the argument vector of the process.
    pub unsafe fn current(
        arguments: *const *const c_char,
        directory: &'static [u8],
        buffers: &'a mut [PathBuffer; 2],
    ) -> Option<Self> {
        let [file_buffer, script_buffer] = buffers;
        // SAFETY: the length is the length of the buffer.
        let file_length = unsafe {
            libc::readlink(
                c"/proc/self/exe".as_ptr(),
                file_buffer.as_mut_ptr().cast(),
                file_buffer.len(),
            )
        };
        // SAFETY: this entry of the auxiliary vector is a C string or absent.
        let invoked_as = unsafe {
            let exec_path = libc::getauxval(libc::AT_EXECFN) as *const c_char;
            if exec_path.is_null() { &[] } else { CStr::from_ptr(exec_path).to_bytes() }
        };
        // SAFETY: guaranteed by the caller.
        let arguments = unsafe { c_strings(arguments) };
        let script_name = script_argument(arguments.skip(1)).unwrap_or_default();
        Some(Self {
            directory,
            file: file_buffer.get(..usize::try_from(file_length).ok()?)?,
            invoked_as,
            script: absolute_path(script_name, script_buffer).unwrap_or(script_name),
        })
    }

    /// Returns the identity in the form that the process list requires.
    pub fn executable(&self) -> Executable<'a> {
        let non_empty = |path: &'a [u8]| Some(path).filter(|path| !path.is_empty());
        Executable::new(self.file, PathStyle::Posix)
            .with_invoked_as(non_empty(self.invoked_as))
            .with_script(non_empty(self.script))
    }
}

/// Prepends the working directory to a relative script path. Returns `None` if the path is absolute
/// or empty, if getcwd(3) fails, or if the result does not fit in the buffer.
fn absolute_path<'a>(script: &[u8], buffer: &'a mut PathBuffer) -> Option<&'a [u8]> {
    if script.is_empty() || script.first() == Some(&b'/') {
        return None;
    }
    // SAFETY: the length is the length of the buffer.
    let working_directory = unsafe { libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()) };
    if working_directory.is_null() {
        return None;
    }
    let end = buffer.iter().position(|byte| *byte == 0)?;
    let script = script.strip_prefix(b"./").unwrap_or(script);
    let suffix = buffer.get_mut(end..end + 1 + script.len())?;
    let (slash, rest) = suffix.split_first_mut()?;
    *slash = b'/';
    rest.copy_from_slice(script);
    buffer.get(..end + 1 + script.len())
}

/// Iterates over a null-terminated list of C strings.
///
/// # Safety
/// The list and its strings are valid. They do not change while the iterator or a string that it
/// returned is in use.
pub unsafe fn c_strings(list: *const *const c_char) -> impl Iterator<Item = &'static [u8]> {
    // SAFETY: the caller guarantees entries up to the null pointer, and the iterator stops there.
    let entry = move |index: usize| unsafe { *list.add(index) };
    (0..).map(entry).take_while(|string| !string.is_null()).map(|string| {
        // SAFETY: guaranteed by the caller.
        unsafe { CStr::from_ptr(string) }.to_bytes()
    })
}

/// Static storage for one [`ProcessIdentity`]. `bytes` contains the paths one after the other,
/// without separators.
pub struct IdentityStore {
    bytes: UnsafeCell<[u8; STORE_SIZE]>,
    /// The end offset of each path in `bytes`. In an empty store, all offsets are zero.
    ends: [AtomicUsize; 4],
}

// SAFETY: the bytes are written once, before another thread can access them. Afterwards they are
// only read.
unsafe impl Sync for IdentityStore {}

impl IdentityStore {
    pub const fn empty() -> Self {
        let ends = [const { AtomicUsize::new(0) }; 4];
        Self { bytes: UnsafeCell::new([0; STORE_SIZE]), ends }
    }

    /// Stores a copy of the identity. Returns `None` if the paths do not fit in the store.
    ///
    /// # Safety
    /// This function is called at most once, and no other thread uses this store during the call.
    pub unsafe fn store(
        &'static self,
        identity: &ProcessIdentity<'_>,
    ) -> Option<ProcessIdentity<'static>> {
        // SAFETY: the caller guarantees exclusive access.
        let bytes = unsafe { &mut *self.bytes.get() };
        let ProcessIdentity { directory, file, invoked_as, script } = *identity;
        let mut end = 0;
        for (path, path_end) in [directory, file, invoked_as, script].into_iter().zip(&self.ends) {
            bytes.get_mut(end..end + path.len())?.copy_from_slice(path);
            end += path.len();
            path_end.store(end, Ordering::Release);
        }
        self.get()
    }

    /// Returns the stored identity, or `None` for an empty store.
    pub fn get(&'static self) -> Option<ProcessIdentity<'static>> {
        let [directory_end, file_end, invoked_as_end, script_end] =
            self.ends.each_ref().map(|end| end.load(Ordering::Acquire));
        if script_end == 0 {
            return None;
        }
        // SAFETY: the bytes were written before the last end offset was stored, and never change.
        let bytes: &'static [u8; STORE_SIZE] = unsafe { &*self.bytes.get() };
        Some(ProcessIdentity {
            directory: bytes.get(..directory_end)?,
            file: bytes.get(directory_end..file_end)?,
            invoked_as: bytes.get(file_end..invoked_as_end)?,
            script: bytes.get(invoked_as_end..script_end)?,
        })
    }
}
