//! Why a rule of the process list holds for a program, or does not; what a hook asks beside.

use std::ffi::{CStr, c_char};

use super::handle::{not_null, shared};
use super::layout::{layout, read};
use super::outcome::{call, quiet};
use super::program::{vipool_executable, vipool_matched_by, with_executable};
use super::reader::vipool_reader;
use super::snapshot::page;
use super::status::vipool_status::{self, *};
use super::text::array;
use crate::policy::{MatchResult, ProgramView, script_argument};

/// What became of one rule.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_verdict {
    /// The rule is for another program.
    VIPOOL_VERDICT_OTHER_PROGRAM = 0,
    /// The rule holds; of several the most specific counts, the first of equals.
    VIPOOL_VERDICT_MATCHES = 1,
    /// The name is the same but the rule gives a full path, and that is another.
    VIPOOL_VERDICT_OTHER_DIRECTORY = 2,
    /// The interpreter is listed, but only with another script.
    VIPOOL_VERDICT_OTHER_SCRIPT = 3,
}

/// A rule of the process list, and what it says of a program.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_verdict_row {
    /// sizeof(vipool_verdict_row), set by the caller in the first row of a page.
    pub size: usize,
    /// Names the rule: vipool_rule.id.
    pub id: u64,
    /// The full path or bare file name of the rule, UTF-8 without a NUL, valid until the reader is
    /// freed.
    pub pattern: *const c_char,
    /// Its length in bytes.
    pub pattern_length: usize,
    /// The script that the rule is for, UTF-8 without a NUL, valid until the reader is freed; NULL
    /// for none.
    pub script: *const c_char,
    /// Its length in bytes.
    pub script_length: usize,
    /// A sentence for people, UTF-8 without a NUL. Static.
    pub text: *const c_char,
    /// Its length in bytes.
    pub text_length: usize,
    /// vipool_verdict.
    pub verdict: u32,
    /// With VIPOOL_VERDICT_MATCHES vipool_matched_by; otherwise 0.
    pub matched_by: u32,
    /// With VIPOOL_VERDICT_MATCHES of a rule for a script, by what that matched: vipool_matched_by;
    /// otherwise 0.
    pub script_matched_by: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_verdict_row {
    size,
    id,
    pattern,
    pattern_length,
    script,
    script_length,
    text,
    text_length,
    verdict,
    matched_by,
    script_matched_by,
    reserved,
});

impl From<&(ProgramView<'_>, MatchResult)> for vipool_verdict_row {
    fn from((rule, verdict): &(ProgramView<'_>, MatchResult)) -> Self {
        let (number, matched_by, script_matched_by) = match *verdict {
            MatchResult::Matched { by, script } => {
                let script = script.map_or(0, |by| vipool_matched_by::from(by) as u32);
                let matches = vipool_verdict::VIPOOL_VERDICT_MATCHES;
                (matches, vipool_matched_by::from(by) as u32, script)
            }
            MatchResult::OtherDirectory => (vipool_verdict::VIPOOL_VERDICT_OTHER_DIRECTORY, 0, 0),
            MatchResult::OtherScript => (vipool_verdict::VIPOOL_VERDICT_OTHER_SCRIPT, 0, 0),
            MatchResult::OtherProgram => (vipool_verdict::VIPOOL_VERDICT_OTHER_PROGRAM, 0, 0),
        };
        let (pattern, script, text) = (rule.pattern(), rule.script(), verdict.text());
        Self {
            size: size_of::<Self>(),
            id: rule.id(),
            pattern: pattern.as_ptr().cast(),
            pattern_length: pattern.len(),
            script: script.map_or(std::ptr::null(), |script| script.as_ptr().cast()),
            script_length: script.map_or(0, <[u8]>::len),
            text: text.as_ptr().cast(),
            text_length: text.len(),
            verdict: number as u32,
            matched_by,
            script_matched_by,
            reserved: 0,
        }
    }
}

/// What every rule of the process list says of a program, from number `first` on (from 0), in the
/// order of the list: why it holds or does not. For people who wonder;
/// vipool_reader_find_rule() decides.
///
/// `rows`: an array of `capacity` rows; set the size of the first one. `out_count` is told how many
/// were written, 0 behind the last.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND,
/// VIPOOL_ERR_BUFFER (a path that is too long). May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_explain(
    reader: *const vipool_reader,
    executable: *const vipool_executable,
    first: usize,
    rows: *mut vipool_verdict_row,
    capacity: usize,
    out_count: *mut usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle, structs, texts, array and count.
        unsafe {
            let (reader, given) = (shared(reader)?, read(executable)?);
            with_executable(&given, |program| {
                let verdicts: Vec<_> = reader.reader.policy().explain(*program).collect();
                page(&verdicts, first, rows, capacity, out_count).map(drop)
            })?
        }
    })
}

/// What hook layers go by beside the process list: `out_flags` is told VIPOOL_RULE_... flags.
///
/// Errors: VIPOOL_ERR_NULL. May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_rule_flags(
    reader: *const vipool_reader,
    out_flags: *mut u32,
) -> vipool_status {
    let look = || {
        not_null(out_flags)?;
        // SAFETY: the caller vouches for the handle.
        let policy = unsafe { shared(reader) }?.reader.policy();
        let flags = policy.rewrite_flags().bits();
        // SAFETY: not NULL.
        unsafe { out_flags.write(flags) };
        Ok(())
    };
    quiet(|| look().err().unwrap_or(VIPOOL_OK))
}

/// The script that an interpreter runs, for vipool_executable.script: the script, module (-m) or
/// archive (-jar) among the `count` arguments that follow the program's own name, each with a NUL
/// behind it. `out` is told which of the pointers it is.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_NOT_FOUND (code on the command line, or no script at all).
/// May be called from any thread and in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_script_of(
    arguments: *const *const c_char,
    count: usize,
    out: *mut *const c_char,
) -> vipool_status {
    let find = || {
        not_null(out)?;
        not_null(arguments)?;
        // SAFETY: the caller vouches for the array.
        let arguments = unsafe { array(arguments, count) }?;
        if arguments.iter().any(|argument| argument.is_null()) {
            return Err(VIPOOL_ERR_NULL);
        }
        // SAFETY: not NULL; the caller vouches for the NUL behind each.
        let texts = arguments.iter().map(|text| unsafe { CStr::from_ptr(*text) }.to_bytes());
        let script = script_argument(texts).ok_or(VIPOOL_ERR_NOT_FOUND)?;
        // SAFETY: not NULL.
        unsafe { out.write(script.as_ptr().cast()) };
        Ok(())
    };
    quiet(|| find().err().unwrap_or(VIPOOL_OK))
}
