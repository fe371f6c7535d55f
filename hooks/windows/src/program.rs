//! Finds the rule of the process list that applies to a program.

use vipool::policy::path::utf16_to_wtf8;
use vipool::policy::{Executable, MatchResult, PathStyle, PolicyView, ProgramView};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::LibraryLoader::GetModuleFileNameW;
use windows_sys::Win32::System::Threading::QueryFullProcessImageNameW;

/// The size of the buffer for the path of a program, in UTF-16 units with the final NUL.
const MAX_PATH_UNITS: usize = 1024;

/// Returns the rule of the process list that applies to this program. No rule applies to a program
/// with a longer path than [`MAX_PATH_UNITS`].
pub fn own_rule<'p>(policy: &PolicyView<'p>) -> Option<ProgramView<'p>> {
    let mut wide_path = [0; MAX_PATH_UNITS];
    // SAFETY: the system writes at most as many units as the buffer holds. The NULL handle
    // selects the program of this process.
    let length = unsafe {
        GetModuleFileNameW(std::ptr::null_mut(), wide_path.as_mut_ptr(), MAX_PATH_UNITS as u32)
    };
    // The system truncates a longer path and then returns the size of the buffer.
    let path = wide_path.get(..length as usize).filter(|path| path.len() < MAX_PATH_UNITS)?;
    let mut path_bytes = [0; MAX_PATH_UNITS * 3];
    let path = utf16_to_wtf8(path, &mut path_bytes)?;
    let script = std::env::args_os().skip(1).find(|argument| !is_option(argument));
    let script = script.as_ref().map(|script| script.as_encoded_bytes());
    let executable = Executable::new(path, PathStyle::Windows).with_script(script);
    policy.find(&executable).map(|matched| matched.program)
}

/// Returns whether a rule may apply to another process.
///
/// If a rule is for a script, returns true for every process of the interpreter, because this
/// function cannot read the arguments of the process. The hook layer in that process reads the
/// arguments and finds the exact rule.
///
/// # Safety
/// `process` is an open handle with the right to query the process.
pub unsafe fn may_be_listed(policy: &PolicyView<'_>, process: HANDLE) -> bool {
    let mut wide_path = [0; MAX_PATH_UNITS];
    let mut length = MAX_PATH_UNITS as u32;
    // SAFETY: the caller passes a valid handle. The system writes at most as many units as the
    // buffer holds.
    let has_succeeded =
        unsafe { QueryFullProcessImageNameW(process, 0, wide_path.as_mut_ptr(), &mut length) } != 0;
    let mut path_bytes = [0; MAX_PATH_UNITS * 3];
    let path = wide_path.get(..length as usize).filter(|_| has_succeeded);
    let Some(path) = path.and_then(|path| utf16_to_wtf8(path, &mut path_bytes)) else {
        return false;
    };
    let executable = Executable::new(path, PathStyle::Windows);
    policy.find(&executable).is_some()
        || policy.explain(executable).any(|(_, result)| result == MatchResult::OtherScript)
}

/// Returns whether an argument looks like an option of an interpreter. Options precede the script.
fn is_option(argument: &std::ffi::OsStr) -> bool {
    matches!(argument.as_encoded_bytes().first(), Some(b'-' | b'/'))
}
