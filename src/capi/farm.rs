//! A farm: the configuration of all servers, from farm.toml or built by calls, with its findings.

use std::ffi::c_char;
use std::path::Path;

use super::error::{CallError, catch_panic, silent};
use super::handle::{
    Exclusive, Opaque, borrow_exclusive, check_not_null, free_handle, read_exclusive, write_handle,
};
use super::layout::layout;
use super::page::{Page, write_page};
use super::status::vipool_status::{self, *};
use super::text::{copy_text, read_utf8};
use crate::farm::{Farm, Finding, Level, Report};

/// The configuration of a farm of servers, with the findings of its validation. One thread at a
/// time may use it.
pub struct vipool_farm {
    pub(crate) farm: Farm,
    /// The findings of the call that made the farm.
    load_report: Report,
    /// The findings of the load and of the last validation.
    pub(crate) report: Report,
}

impl vipool_farm {
    /// Validates the farm and replaces the findings of the last validation. A farm whose load has
    /// errors is not validated, because values that could not be read would cause wrong findings.
    pub(crate) fn validate(&mut self) {
        self.report = self.load_report.clone();
        if !self.load_report.has_errors() {
            self.report.extend(self.farm.validate());
        }
    }
}

impl Opaque for vipool_farm {
    type Access = Exclusive;
}

/// Severity of a finding.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_level {
    /// The farm works, but perhaps not as intended.
    VIPOOL_LEVEL_WARNING = 1,
    /// The farm cannot be used as it is.
    VIPOOL_LEVEL_ERROR = 2,
}

/// A finding: one mistake in a farm. The texts are UTF-8 without a NUL. They are valid until the
/// farm is validated or freed, or a plan is made from the farm.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_finding {
    /// sizeof(vipool_finding), set by the caller in the first row of a page.
    pub size: usize,
    /// Fixed word for this kind of finding, such as "overlap".
    pub code: *const c_char,
    /// Length of `code` in bytes.
    pub code_length: usize,
    /// Key of farm.toml, such as "sessions.cool-down"; empty for the whole file.
    pub key: *const c_char,
    /// Length of `key` in bytes.
    pub key_length: usize,
    /// Value of the key. May be empty.
    pub value: *const c_char,
    /// Length of `value` in bytes.
    pub value_length: usize,
    /// Description of the mistake.
    pub message: *const c_char,
    /// Length of `message` in bytes.
    pub message_length: usize,
    /// Recommended correction.
    pub remedy: *const c_char,
    /// Length of `remedy` in bytes.
    pub remedy_length: usize,
    /// vipool_level.
    pub level: u32,
    /// Line in the file, from 1; 0 if unknown.
    pub line: u32,
    /// Column in characters, from 1; 0 if unknown.
    pub column: u32,
    /// Reserved: zero.
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

impl From<&&Finding> for vipool_finding {
    fn from(finding: &&Finding) -> Self {
        let to_u32 = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
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
            line: finding.position.map_or(0, |position| to_u32(position.line)),
            column: finding.position.map_or(0, |position| to_u32(position.column)),
            reserved: 0,
        }
    }
}

/// Makes a farm and writes its handle.
///
/// # Safety
/// `out` is NULL or valid for a write.
unsafe fn make_farm(
    load_farm: impl FnOnce() -> Result<(Farm, Report), CallError>,
    out: *mut *mut vipool_farm,
) -> vipool_status {
    catch_panic(|| {
        check_not_null(out)?;
        let (farm, load_report) = load_farm()?;
        let report = load_report.clone();
        // SAFETY: not NULL.
        unsafe { write_handle(vipool_farm { farm, load_report, report }, out) };
        Ok(())
    })
}

/// Makes an empty farm: no ranges, no programs, default settings.
///
/// Until a server is added, the farm has one server, and the name of this server does not matter.
///
/// Configure the farm with the vipool_farm_add_ and vipool_farm_set_ functions, then call
/// vipool_farm_validate(). A farm that was read from farm.toml can be changed in the same way.
///
/// Parameters:
/// - `out`: receives the farm. Free it with vipool_farm_free().
///
/// Errors: VIPOOL_ERR_NULL.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_new(out: *mut *mut vipool_farm) -> vipool_status {
    // SAFETY: the caller guarantees `out`.
    unsafe { make_farm(|| Ok((Farm::default(), Report::default())), out) }
}

/// Reads and validates a farm.toml.
///
/// Mistakes in the file are findings, not errors of this call: see vipool_farm_list_findings(). An
/// unreadable file is a finding too.
///
/// Parameters:
/// - `path`, `path_length`: the path of the file, UTF-8.
/// - `out`: receives the farm. Free it with vipool_farm_free().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_load(
    path: *const c_char,
    path_length: usize,
    out: *mut *mut vipool_farm,
) -> vipool_status {
    // SAFETY: the caller guarantees text and `out`.
    unsafe { make_farm(|| Ok(Farm::load(Path::new(read_utf8(path, path_length)?))), out) }
}

/// Parses and validates the text of a farm.toml.
///
/// Parameters:
/// - `text`, `length`: the text, UTF-8.
/// - `out`: receives the farm. Free it with vipool_farm_free().
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8. For mistakes in the text see
/// vipool_farm_list_findings().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_parse(
    text: *const c_char,
    length: usize,
    out: *mut *mut vipool_farm,
) -> vipool_status {
    // SAFETY: the caller guarantees text and `out`.
    unsafe { make_farm(|| Ok(Farm::parse(read_utf8(text, length)?)), out) }
}

/// Frees a farm, with the texts of its findings.
///
/// Parameters:
/// - `farm`: the farm. NULL is ignored.
///
/// Threads: the last call with the farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_free(farm: *mut vipool_farm) {
    // SAFETY: the caller gives up the handle.
    silent(|| unsafe { free_handle(farm) });
}

/// Validates a farm that was built or changed by calls.
///
/// Replaces the findings of an earlier validation. The findings of the call that made the farm
/// stay. If the call that made the farm found an error, this call does not validate the farm.
///
/// Parameters:
/// - `farm`: the farm.
///
/// Errors: VIPOOL_ERR_NULL. For mistakes in the farm see vipool_farm_list_findings().
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_validate(farm: *mut vipool_farm) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        unsafe { borrow_exclusive(farm) }?.validate();
        Ok(())
    })
}

/// Lists the findings of a farm in the order of the file.
///
/// Findings without a position in the file come first.
///
/// With `min_level` VIPOOL_LEVEL_ERROR and capacity 0, `out_total` receives the number of errors.
/// The farm can be used if the number is zero.
///
/// Parameters:
/// - `farm`: the farm.
/// - `min_level`: vipool_level. Findings of a lower level are omitted.
/// - `first`: index of the first finding, from 0.
/// - `rows`, `capacity`: receives the findings. Set the size of the first row.
/// - `out_count`: receives the number of rows that were written.
/// - `out_total`: receives the total number of findings with at least this level. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_KIND.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_list_findings(
    farm: *const vipool_farm,
    min_level: u32,
    first: usize,
    rows: *mut vipool_finding,
    capacity: usize,
    out_count: *mut usize,
    out_total: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees the handle.
        let report = unsafe { &read_exclusive(farm)?.report };
        let findings: Vec<&Finding> = match min_level {
            1 => report.findings().iter().collect(),
            2 => report.findings().iter().filter(|finding| finding.level == Level::Error).collect(),
            unknown => {
                return Err(VIPOOL_ERR_KIND.with_message(format_args!("unknown level: {unknown}")));
            }
        };
        let page = Page { first, rows, capacity, out_count, out_total };
        // SAFETY: the caller guarantees array and counts.
        unsafe { write_page(&findings, page).map(drop) }
    })
}

/// Formats all findings as text for people, each with its line of the file.
///
/// Parameters:
/// - `farm`: the farm.
/// - `buffer`, `capacity`: receives the text and a NUL.
/// - `out_length`: receives the length without the NUL. May be NULL. Call with capacity 0 first to
///   get the length.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_BUFFER.
///
/// Threads: one at a time per farm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_farm_format_report(
    farm: *const vipool_farm,
    buffer: *mut c_char,
    capacity: usize,
    out_length: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        // SAFETY: the caller guarantees handle, buffer and length.
        unsafe {
            let text = read_exclusive(farm)?.report.to_string();
            copy_text(&text, buffer, capacity, out_length)
        }
    })
}
