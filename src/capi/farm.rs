//! farm.toml, from a file or from memory: its findings, and the plan of one server.

use std::ffi::c_char;
use std::path::Path;

use super::handle::{Exclusive, Owned, exclusive, free, give, not_null, read_exclusive};
use super::interface::{interfaces, vipool_interface, vipool_match};
use super::layout::{check_out, layout, write};
use super::outcome::{Failure, call, quiet};
use super::plan::vipool_plan;
use super::status::vipool_status::{self, *};
use super::text::{copy_out, utf8, with_utf16};
use crate::farm::{Farm, Finding, Level, Report};

/// What an administrator says of a farm of servers, with what is wrong with it: a farm.toml that was
/// read, or a farm built by calls (vipool_farm_new()).
///
/// One thread at a time may use it.
pub struct vipool_farm {
    pub(crate) farm: Farm,
    pub(crate) report: Report,
}

impl Owned for vipool_farm {
    type Access = Exclusive;
}

/// How bad a finding is.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_level {
    /// It works, but perhaps not as meant.
    VIPOOL_LEVEL_WARNING = 1,
    /// The farm cannot be used as it is.
    VIPOOL_LEVEL_ERROR = 2,
}

/// One thing that is wrong. The texts are UTF-8 without a NUL and valid until the farm is changed
/// (vipool_farm_plan(), vipool_farm_validate()) or freed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_finding {
    /// sizeof(vipool_finding), set by the caller.
    pub size: usize,
    /// A fixed word for this kind of finding, such as "overlap".
    pub code: *const c_char,
    /// Its length in bytes.
    pub code_length: usize,
    /// The key it is about, such as "sessions.cool-down"; empty for the whole file.
    pub key: *const c_char,
    /// Its length in bytes.
    pub key_length: usize,
    /// The value it is about; may be empty.
    pub value: *const c_char,
    /// Its length in bytes.
    pub value_length: usize,
    /// What is wrong.
    pub message: *const c_char,
    /// Its length in bytes.
    pub message_length: usize,
    /// What to do.
    pub remedy: *const c_char,
    /// Its length in bytes.
    pub remedy_length: usize,
    /// vipool_level.
    pub level: u32,
    /// Line in the file, from 1; 0 if it stands nowhere.
    pub line: u32,
    /// Column in characters, from 1; 0 if it stands nowhere.
    pub column: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_finding {
    size,
    code,
    code_length,
    key,
    key_length,
    value,
    value_length,
    message,
    message_length,
    remedy,
    remedy_length,
    level,
    line,
    column,
    reserved,
});

impl From<&Finding> for vipool_finding {
    fn from(finding: &Finding) -> Self {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            size: size_of::<Self>(),
            code: finding.code.as_ptr().cast(),
            code_length: finding.code.len(),
            key: finding.key.as_ptr().cast(),
            key_length: finding.key.len(),
            value: finding.value.as_ptr().cast(),
            value_length: finding.value.len(),
            message: finding.message.as_ptr().cast(),
            message_length: finding.message.len(),
            remedy: finding.remedy.as_ptr().cast(),
            remedy_length: finding.remedy.len(),
            level: match finding.level {
                Level::Warning => vipool_level::VIPOOL_LEVEL_WARNING as u32,
                Level::Error => vipool_level::VIPOOL_LEVEL_ERROR as u32,
            },
            line: finding.position.map_or(0, |place| number(place.line)),
            column: finding.position.map_or(0, |place| number(place.column)),
            reserved: 0,
        }
    }
}

/// # Safety
/// `out` is NULL or valid for a write.
unsafe fn hand_out(
    read: impl FnOnce() -> Result<(Farm, Report), Failure>,
    out: *mut *mut vipool_farm,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        let (farm, report) = read()?;
        // SAFETY: not NULL.
        unsafe { give(vipool_farm { farm, report }, out) };
        Ok(())
    })
}

/// Reads and validates a farm.toml. A file that cannot be read or is wrong gives a farm too: its
/// findings say what is wrong, and what could not be read is as if it were not there. Use a farm
/// only if vipool_farm_error_count() is 0.
///
/// Give it back with vipool_farm_free(). Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8 (the path).
/// May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_load(
    path: *const c_char,
    path_length: usize,
    out: *mut *mut vipool_farm,
) -> vipool_status {
    // SAFETY: the caller vouches for both.
    unsafe { hand_out(|| Ok(Farm::load(Path::new(utf8(path, path_length)?))), out) }
}

/// vipool_farm_load() with a UTF-16 path of `path_length` units.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF16. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_load_utf16(
    path: *const u16,
    path_length: usize,
    out: *mut *mut vipool_farm,
) -> vipool_status {
    // SAFETY: the caller vouches for all of them.
    unsafe { with_utf16(path, path_length, |text, length| vipool_farm_load(text, length, out)) }
}

/// vipool_farm_load() of the text of a farm.toml in memory, `length` bytes of UTF-8.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_parse(
    text: *const c_char,
    length: usize,
    out: *mut *mut vipool_farm,
) -> vipool_status {
    // SAFETY: the caller vouches for both.
    unsafe { hand_out(|| Ok(Farm::parse(utf8(text, length)?)), out) }
}

/// Frees a farm; the texts of its findings are gone with it. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_free(farm: *mut vipool_farm) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(farm) });
}

/// How many findings the farm has, warnings included; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_finding_count(farm: *const vipool_farm) -> usize {
    // SAFETY: the caller vouches for the handle.
    quiet(|| unsafe { read_exclusive(farm) }.map_or(0, |farm| farm.report.findings().len()))
}

/// How many of its findings are errors; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_error_count(farm: *const vipool_farm) -> usize {
    // SAFETY: the caller vouches for the handle.
    quiet(|| unsafe { read_exclusive(farm) }.map_or(0, |farm| farm.report.count(Level::Error)))
}

/// A finding by its number, from 0, in the order of the file.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_finding(
    farm: *const vipool_farm,
    number: usize,
    out: *mut vipool_finding,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let farm = unsafe { read_exclusive(farm) }?;
        // SAFETY: as above.
        unsafe { check_out(out) }?;
        let finding = farm.report.findings().get(number).ok_or(VIPOOL_ERR_NOT_FOUND)?;
        // SAFETY: checked above.
        unsafe { write(out, &finding.into()) };
        Ok(())
    })
}

/// All findings as a text for people, with the lines of the file that they are about, and a NUL
/// behind it.
///
/// `out_length` may be NULL; it is told the length without the NUL, also with VIPOOL_ERR_BUFFER:
/// call once with capacity 0 to learn it.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_report(
    farm: *const vipool_farm,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle, buffer and length.
        unsafe {
            let text = read_exclusive(farm)?.report.to_string();
            copy_out(&text, buffer, capacity, out_length)
        }
    })
}

/// The plan of one server, given by its host name.
///
/// `interface_array` (may be NULL: not known) are the server's interfaces: each range is put on
/// the one whose subnet it belongs to, less what cannot be given out there. Without, ranges are
/// taken as they stand. What is wrong is added to the findings of the farm; the plan holds what is
/// left. `out_match` (may be NULL) is told which interface carries which addresses; give it back
/// with vipool_match_free(). Give the plan back with vipool_plan_free().
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_ADDRESS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_plan(
    farm: *mut vipool_farm,
    host: *const c_char,
    host_length: usize,
    interface_array: *const vipool_interface,
    interface_count: usize,
    out_match: *mut *mut vipool_match,
    out: *mut *mut vipool_plan,
) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: the caller vouches for handle, text and array.
        let (farm, host, interfaces) = unsafe {
            (
                exclusive(farm)?,
                utf8(host, host_length)?,
                match interface_array.is_null() && interface_count == 0 {
                    true => None,
                    false => Some(interfaces(interface_array, interface_count)?),
                },
            )
        };
        let planned = farm.farm.plan(host, interfaces.as_deref());
        farm.report.extend(planned.findings);
        // SAFETY: not NULL, the match where it is wanted.
        unsafe {
            if !out_match.is_null() {
                give(vipool_match::new(planned.assignments, Vec::new()), out_match);
            }
            give(vipool_plan { plan: planned.plan }, out);
        }
        Ok(())
    })
}
