//! Which rule of the process list a program is under.

use std::ffi::c_void;

use super::handle::shared;
use super::layout::{check_out_quietly, layout, read_quietly, write};
use super::outcome::quiet;
use super::reader::vipool_reader;
use super::status::vipool_status::{self, *};
use super::text::{bytes, units};
use crate::policy::path::utf16_to_wtf8;
use crate::policy::{Executable, MatchKind, MatchResult, PathStyle, ProgramView};

/// By which rules paths are compared; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_path_style {
    /// "/" separates, case matters.
    VIPOOL_PATHS_POSIX = 0,
    /// "\" and "/" separate, case does not matter, "\\?\" and trailing dots and spaces are dropped.
    VIPOOL_PATHS_WINDOWS = 1,
}

/// How the texts of a vipool_executable are written; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_encoding {
    /// Bytes, as POSIX has paths; the process list is UTF-8. Lengths are in bytes.
    VIPOOL_ENCODING_BYTES = 0,
    /// UTF-16, as Windows has paths. Lengths are in units of two bytes; a path of more than 4096
    /// bytes of UTF-8 is VIPOOL_ERR_BUFFER.
    VIPOOL_ENCODING_UTF16 = 1,
}

/// A running program, as its hook sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_executable {
    /// sizeof(vipool_executable), set by the caller.
    pub size: usize,
    /// Its file: what /proc/self/exe leads to, GetModuleFileNameW.
    pub path: *const c_void,
    /// Its length.
    pub path_length: usize,
    /// The path it was started by, where that may differ (a symbolic link): on Linux AT_EXECFN of
    /// getauxval. May be NULL.
    pub invoked_as: *const c_void,
    /// Its length.
    pub invoked_as_length: usize,
    /// For an interpreter, the script that it runs. May be NULL.
    pub script: *const c_void,
    /// Its length.
    pub script_length: usize,
    /// vipool_path_style.
    pub style: u32,
    /// vipool_encoding.
    pub encoding: u32,
}
layout!(vipool_executable {
    size,
    path,
    path_length,
    invoked_as,
    invoked_as_length,
    script,
    script_length,
    style,
    encoding,
});

/// By what a rule matched a program.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_matched_by {
    /// The program is on no rule; its parent handed this one down.
    VIPOOL_MATCHED_INHERITED = 0,
    /// The path of its file, or the full path it was started by.
    VIPOOL_MATCHED_FULL_PATH = 1,
    /// The listed path is a symbolic link that leads to its file.
    VIPOOL_MATCHED_LINK = 2,
    /// The name of its file, in whatever directory.
    VIPOOL_MATCHED_BARE_NAME = 3,
}

/// The rule that a program is under: which features it has.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_rule {
    /// sizeof(vipool_rule), set by the caller.
    pub size: usize,
    /// Names the rule across reloads of the list, and from a program to its children.
    pub id: u64,
    /// VIPOOL_FEATURE_...
    pub features: u32,
    /// VIPOOL_PROGRAM_...; with VIPOOL_PROGRAM_INHERIT the id is handed down to children.
    pub flags: u32,
    /// vipool_matched_by.
    pub matched_by: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_rule { size, id, features, flags, matched_by, reserved });

impl vipool_rule {
    pub(crate) fn new(program: &ProgramView<'_>, matched_by: vipool_matched_by) -> Self {
        Self {
            size: size_of::<Self>(),
            id: program.id(),
            features: program.features().bits(),
            flags: program.flags().bits(),
            matched_by: matched_by as u32,
            reserved: 0,
        }
    }
}

impl From<MatchKind> for vipool_matched_by {
    fn from(by: MatchKind) -> Self {
        match by {
            MatchKind::FullPath => vipool_matched_by::VIPOOL_MATCHED_FULL_PATH,
            MatchKind::Link => vipool_matched_by::VIPOOL_MATCHED_LINK,
            MatchKind::BareName => vipool_matched_by::VIPOOL_MATCHED_BARE_NAME,
        }
    }
}

/// The most bytes of a path that came as UTF-16.
const PATH_ROOM: usize = 4096;

/// A path in either encoding, as bytes.
///
/// # Safety
/// `text` is NULL or valid for reads of `length` bytes or units while the result is used.
unsafe fn path(
    text: *const c_void,
    length: usize,
    encoding: u32,
    buffer: &mut [u8; PATH_ROOM],
) -> Result<&[u8], vipool_status> {
    match encoding {
        // SAFETY: the caller's promise.
        0 => unsafe { bytes(text.cast(), length) },
        1 => {
            // SAFETY: the caller's promise.
            let wide = unsafe { units(text.cast(), length) }?;
            utf16_to_wtf8(wide, buffer).ok_or(VIPOOL_ERR_BUFFER)
        }
        _ => Err(VIPOOL_ERR_KIND),
    }
}

/// Hands a program of the caller's on, with its texts as bytes.
///
/// # Safety
/// The texts in `given` are NULL or valid for reads of their lengths.
pub(crate) unsafe fn with_executable<R>(
    given: &vipool_executable,
    then: impl FnOnce(&Executable<'_>) -> R,
) -> Result<R, vipool_status> {
    let style = match given.style {
        0 => PathStyle::Posix,
        1 => PathStyle::Windows,
        _ => return Err(VIPOOL_ERR_KIND),
    };
    let mut rooms = [[0; PATH_ROOM]; 3];
    let [path_room, invoked_room, script_room] = &mut rooms;
    // SAFETY: the caller vouches for the texts in the struct.
    let program = unsafe {
        Executable {
            path: path(given.path, given.path_length, given.encoding, path_room)?,
            invoked_as: match given.invoked_as.is_null() {
                true => None,
                false => Some(path(
                    given.invoked_as,
                    given.invoked_as_length,
                    given.encoding,
                    invoked_room,
                )?),
            },
            script: match given.script.is_null() {
                true => None,
                false => {
                    Some(path(given.script, given.script_length, given.encoding, script_room)?)
                }
            },
            style,
        }
    };
    Ok(then(&program))
}

/// The rule of the process list that holds for a program: the most specific, the first of equals.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_BUFFER, VIPOOL_ERR_NOT_FOUND (it is on no rule: leave it alone).
/// May be called from any thread and in a signal handler, on a stack with 24 KiB left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find_rule(
    reader: *const vipool_reader,
    executable: *const vipool_executable,
    out: *mut vipool_rule,
) -> vipool_status {
    let find = || {
        // SAFETY: the caller vouches for handle and structs.
        let (reader, given) = unsafe { (shared(reader)?, read_quietly(executable)?) };
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        // SAFETY: the caller vouches for the texts in the struct.
        let found =
            unsafe { with_executable(&given, |program| reader.reader.policy().find(program)) }?;
        let found = found.ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let MatchResult::Matched { by, .. } = found.result else {
            return Err(VIPOOL_ERR_NOT_FOUND);
        };
        // SAFETY: checked above.
        unsafe { write(out, &vipool_rule::new(&found.program, by.into())) };
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}

/// The rule with this id, if it is on the list and is handed down to children: for a program that
/// is on no rule itself and was started by one that is under this rule.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_inherited_rule(
    reader: *const vipool_reader,
    id: u64,
    out: *mut vipool_rule,
) -> vipool_status {
    let find = || {
        // SAFETY: the caller vouches for handle and struct.
        let reader = unsafe { shared(reader) }?;
        // SAFETY: as above.
        unsafe { check_out_quietly(out) }?;
        let policy = reader.reader.policy();
        let program = policy.find_inherited(id).ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let inherited = vipool_matched_by::VIPOOL_MATCHED_INHERITED;
        // SAFETY: checked above.
        unsafe { write(out, &vipool_rule::new(&program, inherited)) };
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}
