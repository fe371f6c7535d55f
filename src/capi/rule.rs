//! The rule of the process list that applies to a program, and the match results of all rules.

use std::ffi::c_char;

use super::error::{catch_panic, silent_status};
use super::executable::{vipool_executable, with_executable};
use super::handle::borrow_shared;
use super::layout::{layout, read, read_silent};
use super::output::check_out_silent;
use super::page::{Page, write_page};
use super::reader::vipool_reader;
use super::status::vipool_status::{self, *};
use crate::policy::{MatchKind, MatchResult, ProgramView};

/// How a rule matched a program or a script.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_matched_by {
    /// No rule matches the program; the program inherited this rule from an ancestor.
    VIPOOL_MATCHED_INHERITED = 0,
    /// The path of the program file, or the full path by which the program was started.
    VIPOOL_MATCHED_FULL_PATH = 1,
    /// A symbolic link to the program file. A rule never matches a script in this way.
    VIPOOL_MATCHED_LINK = 2,
    /// The name of the program file, in any directory.
    VIPOOL_MATCHED_BARE_NAME = 3,
}

/// The rule that applies to a program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_rule {
    /// sizeof(vipool_rule), set by the caller.
    pub size: usize,
    /// Id of the rule. It stays the same after a reload of the process list, and in child
    /// processes.
    pub id: u64,
    /// VIPOOL_FEATURE_...
    pub features: u32,
    /// VIPOOL_PROGRAM_... With VIPOOL_PROGRAM_INHERIT, child processes inherit the rule.
    pub flags: u32,
    /// vipool_matched_by.
    pub matched_by: u32,
    /// Reserved: zero.
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
    fn from(kind: MatchKind) -> Self {
        match kind {
            MatchKind::FullPath => vipool_matched_by::VIPOOL_MATCHED_FULL_PATH,
            MatchKind::Link => vipool_matched_by::VIPOOL_MATCHED_LINK,
            MatchKind::BareName => vipool_matched_by::VIPOOL_MATCHED_BARE_NAME,
        }
    }
}

/// Finds the rule that applies to a program: the most specific rule that matches. Among equally
/// specific rules, the first applies.
///
/// Parameters:
/// - `reader`: the reader.
/// - `executable`: the program.
/// - `out`: receives the rule.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_BUFFER (a path is too long), VIPOOL_ERR_NOT_FOUND (no rule matches: do not rewrite).
///
/// Threads: any; signal-safe, with 24 KiB of stack.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find_rule(
    reader: *const vipool_reader,
    executable: *const vipool_executable,
    out: *mut vipool_rule,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees handle and struct.
        let (reader, caller_executable) =
            unsafe { (borrow_shared(reader)?, read_silent(executable)?) };
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        // SAFETY: the caller guarantees the texts in the struct.
        let best_match = unsafe {
            with_executable(&caller_executable, |program| reader.reader.policy().find(program))
        }?;
        let best_match = best_match.ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let MatchResult::Matched { program: kind, .. } = best_match.result else {
            return Err(VIPOOL_ERR_NOT_FOUND);
        };
        out.write(&vipool_rule::new(&best_match.program, kind.into()));
        Ok(())
    })
}

/// Finds the rule with this id, if child processes inherit it.
///
/// Use this function for a program that no rule matches, if the rule with this id applies to the
/// parent of the program.
///
/// Parameters:
/// - `reader`: the reader.
/// - `id`: vipool_rule.id of the rule that applies to the parent.
/// - `out`: receives the rule.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND.
///
/// Threads: any; signal-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find_rule_by_id(
    reader: *const vipool_reader,
    id: u64,
    out: *mut vipool_rule,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = unsafe { borrow_shared(reader) }?;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let policy = reader.reader.policy();
        let program = policy.find_inherited(id).ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let matched_by = vipool_matched_by::VIPOOL_MATCHED_INHERITED;
        out.write(&vipool_rule::new(&program, matched_by));
        Ok(())
    })
}

/// Result of matching a program against one rule.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_match_result {
    /// The rule is for another program.
    VIPOOL_MATCH_OTHER_PROGRAM = 0,
    /// The rule matches. The most specific rule that matches applies. Among equally specific rules,
    /// the first applies.
    VIPOOL_MATCH_MATCHED = 1,
    /// The file names are equal, but the rule has another full path.
    VIPOOL_MATCH_OTHER_DIRECTORY = 2,
    /// The rule is for this interpreter with another script.
    VIPOOL_MATCH_OTHER_SCRIPT = 3,
}

/// A rule of the process list with its match result.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_match_row {
    /// sizeof(vipool_match_row), set by the caller in the first row of a page.
    pub size: usize,
    /// Id of the rule: vipool_rule.id.
    pub id: u64,
    /// Full path or bare file name of the rule, UTF-8 without a NUL, valid until the reader is
    /// closed.
    pub pattern: *const c_char,
    /// Length of `pattern` in bytes.
    pub pattern_length: usize,
    /// Script of the rule, UTF-8 without a NUL, valid until the reader is closed. NULL for none.
    pub script: *const c_char,
    /// Length of `script` in bytes.
    pub script_length: usize,
    /// Description of the result for people, UTF-8 without a NUL. The text is static.
    pub text: *const c_char,
    /// Length of `text` in bytes.
    pub text_length: usize,
    /// vipool_match_result.
    pub result: u32,
    /// With VIPOOL_MATCH_MATCHED: vipool_matched_by. Otherwise 0.
    pub matched_by: u32,
    /// With VIPOOL_MATCH_MATCHED, if the rule has a script: vipool_matched_by for the path of the
    /// script. Otherwise 0.
    pub script_matched_by: u32,
    /// Reserved: zero.
    pub reserved: u32,
}
layout!(vipool_match_row {
    size,
    id,
    pattern,
    pattern_length,
    script,
    script_length,
    text,
    text_length,
    result,
    matched_by,
    script_matched_by,
    reserved,
});

impl From<&(ProgramView<'_>, MatchResult)> for vipool_match_row {
    fn from((rule, result): &(ProgramView<'_>, MatchResult)) -> Self {
        let (result_number, matched_by, script_matched_by) = match *result {
            MatchResult::Matched { program: kind, script } => {
                let matched_by = vipool_matched_by::from(kind) as u32;
                let script_matched_by =
                    script.map_or(0, |kind| vipool_matched_by::from(kind) as u32);
                (vipool_match_result::VIPOOL_MATCH_MATCHED, matched_by, script_matched_by)
            }
            MatchResult::OtherDirectory => {
                (vipool_match_result::VIPOOL_MATCH_OTHER_DIRECTORY, 0, 0)
            }
            MatchResult::OtherScript => (vipool_match_result::VIPOOL_MATCH_OTHER_SCRIPT, 0, 0),
            MatchResult::OtherProgram => (vipool_match_result::VIPOOL_MATCH_OTHER_PROGRAM, 0, 0),
        };
        let (pattern, script, text) = (rule.pattern(), rule.script(), result.text());
        Self {
            size: size_of::<Self>(),
            id: rule.id(),
            pattern: pattern.as_ptr().cast(),
            pattern_length: pattern.len(),
            script: script.map_or(std::ptr::null(), |script| script.as_ptr().cast()),
            script_length: script.map_or(0, <[u8]>::len),
            text: text.as_ptr().cast(),
            text_length: text.len(),
            result: result_number as u32,
            matched_by,
            script_matched_by,
            reserved: 0,
        }
    }
}

/// Lists the match results of a program for all rules of the process list, in the order of the
/// list.
///
/// Use this function for diagnosis. vipool_reader_find_rule() decides which rule applies.
///
/// Parameters:
/// - `reader`: the reader.
/// - `executable`: the program.
/// - `first`: index of the first rule, from 0.
/// - `rows`, `capacity`: receives the rows. Set the size of the first row.
/// - `out_count`: receives the number of rows that were written.
/// - `out_total`: receives the total number of rules. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_BUFFER (a path is too long).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_list_matches(
    reader: *const vipool_reader,
    executable: *const vipool_executable,
    first: usize,
    rows: *mut vipool_match_row,
    capacity: usize,
    out_count: *mut usize,
    out_total: *mut usize,
) -> vipool_status {
    catch_panic(|| {
        let page = Page { first, rows, capacity, out_count, out_total };
        // SAFETY: the caller guarantees handle, struct, texts, array and counts.
        unsafe {
            let (reader, caller_executable) = (borrow_shared(reader)?, read(executable)?);
            with_executable(&caller_executable, |program| {
                let results: Vec<_> = reader.reader.policy().explain(*program).collect();
                write_page(&results, page).map(drop)
            })?
        }
    })
}
