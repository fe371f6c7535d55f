//! Which rule of the process list a program is under.

use vipool::policy::path::from_utf16;
use vipool::policy::{Executable, PolicyView, ProgramView, Verdict};
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::LibraryLoader::GetModuleFileNameW;
use windows_sys::Win32::System::Threading::QueryFullProcessImageNameW;

use crate::context::STYLE;

/// The longest path that is compared, in UTF-16 units.
const UNITS: usize = 1024;

/// The rule of this program.
pub fn own_rule<'p>(policy: &PolicyView<'p>) -> Option<ProgramView<'p>> {
    let mut wide = [0; UNITS];
    // SAFETY: the system writes no more than the buffer holds; NULL is the program itself.
    let length =
        unsafe { GetModuleFileNameW(std::ptr::null_mut(), wide.as_mut_ptr(), UNITS as u32) };
    let mut bytes = [0; UNITS * 3];
    let path = from_utf16(wide.get(..length as usize)?, &mut bytes)?;
    let script = std::env::args_os().skip(1).find(|argument| !is_option(argument));
    let script = script.as_ref().map(|script| script.as_encoded_bytes());
    let program = Executable { path, invoked_as: None, script, style: STYLE };
    policy.find(&program).map(|found| found.program)
}

/// Whether another process may be under a rule: it is on the list, perhaps with a script that only
/// it can know.
///
/// # Safety
/// `process` is an open handle that may be asked for the path of its program.
pub unsafe fn may_be_listed(policy: &PolicyView<'_>, process: HANDLE) -> bool {
    let mut wide = [0; UNITS];
    let mut length = UNITS as u32;
    // SAFETY: the caller's handle; the system writes no more than the buffer holds.
    let known =
        unsafe { QueryFullProcessImageNameW(process, 0, wide.as_mut_ptr(), &mut length) } != 0;
    let mut bytes = [0; UNITS * 3];
    let path = wide.get(..length as usize).filter(|_| known);
    let Some(path) = path.and_then(|path| from_utf16(path, &mut bytes)) else { return false };
    let program = Executable { path, invoked_as: None, script: None, style: STYLE };
    policy.find(&program).is_some()
        || policy.explain(program).any(|(_, verdict)| verdict == Verdict::OtherScript)
}

/// Options of interpreters come before the script.
fn is_option(argument: &std::ffi::OsStr) -> bool {
    matches!(argument.as_encoded_bytes().first(), Some(b'-' | b'/'))
}
