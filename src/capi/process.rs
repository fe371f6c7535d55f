//! Finds the session and the inherited rule of a process in the data of the operating system.

use super::error::silent_status;
use super::handle::borrow_shared;
use super::output::check_out_silent;
use super::reader::{vipool_found_session, vipool_reader};
use super::rule::{vipool_matched_by, vipool_rule};
use super::status::vipool_status::{self, *};
#[cfg(target_os = "linux")]
use crate::discovery::{self, FoundBy, Process};
use crate::map::Reader;
use crate::policy::{PolicyView, ProgramView};
use crate::session::SessionId;

/// How the session of a process was found.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_found_by {
    /// Linux: the audit session of the kernel.
    VIPOOL_FOUND_BY_AUDIT_SESSION = 1,
    /// Linux: the control group of a logind session scope.
    VIPOOL_FOUND_BY_SESSION_SCOPE = 2,
    /// Linux: the user manager (systemd --user). The user has exactly one session, or the user's
    /// logons share one session.
    VIPOOL_FOUND_BY_USER_MANAGER = 3,
    /// Windows: the terminal services session.
    VIPOOL_FOUND_BY_WINDOWS_SESSION = 4,
    /// Linux: the login user (/proc/self/loginuid), whose logons share one session.
    VIPOOL_FOUND_BY_LOGIN_USER = 5,
}

/// Finds the open session of a process in the data of the operating system.
///
/// Use this call if the environment of the process does not contain VIPOOL_LEASE. Otherwise, use
/// the handle in this variable: vipool_handle_parse(), then vipool_reader_find_by_handle().
///
/// The call takes no lock and allocates nothing. On Linux, it reads files of /proc and /run. A hook
/// makes the call while its process starts. The call does not change vipool_last_error().
///
/// Parameters:
/// - `reader`: the reader.
/// - `pid`: the process; 0 for this one.
/// - `out`: receives handle and leases.
/// - `out_found_by`: receives vipool_found_by. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_OPEN (the process has no
/// session, the session is not open, or the system denies access), VIPOOL_ERR_UNSUPPORTED (a system
/// other than Linux and Windows).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find_by_process(
    reader: *const vipool_reader,
    pid: u32,
    out: *mut vipool_found_session,
    out_found_by: *mut u32,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = &unsafe { borrow_shared(reader) }?.reader;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let (session, found_by) = find_process_session(reader, pid)?.ok_or(VIPOOL_ERR_NOT_OPEN)?;
        let (handle, leases) = reader.find(session).ok_or(VIPOOL_ERR_NOT_OPEN)?;
        out.fill(|out| vipool_found_session::set(out, &handle, &leases));
        if !out_found_by.is_null() {
            // SAFETY: not NULL.
            unsafe { out_found_by.write(found_by as u32) };
        }
        Ok(())
    })
}

/// The session of a process, and how it was found.
type FoundSession = Option<(SessionId, vipool_found_by)>;

#[cfg(target_os = "linux")]
fn find_process_session(map: &Reader, pid: u32) -> Result<FoundSession, vipool_status> {
    let session =
        discovery::session_of_process(map, process_from_pid(pid)).map(|(session, found_by)| {
            let found_by = match found_by {
                FoundBy::AuditSession => vipool_found_by::VIPOOL_FOUND_BY_AUDIT_SESSION,
                FoundBy::LoginUser => vipool_found_by::VIPOOL_FOUND_BY_LOGIN_USER,
                FoundBy::SessionScope => vipool_found_by::VIPOOL_FOUND_BY_SESSION_SCOPE,
                FoundBy::UserManager => vipool_found_by::VIPOOL_FOUND_BY_USER_MANAGER,
            };
            (session, found_by)
        });
    Ok(session)
}

#[cfg(target_os = "linux")]
fn process_from_pid(pid: u32) -> Process {
    if pid == 0 { Process::This } else { Process::Other(pid) }
}

#[cfg(windows)]
fn find_process_session(_: &Reader, pid: u32) -> Result<FoundSession, vipool_status> {
    let pid = if pid == 0 { std::process::id() } else { pid };
    let session = crate::system::process_session(pid).ok();
    Ok(session.map(|session| (session, vipool_found_by::VIPOOL_FOUND_BY_WINDOWS_SESSION)))
}

#[cfg(not(any(target_os = "linux", windows)))]
fn find_process_session(_: &Reader, _: u32) -> Result<FoundSession, vipool_status> {
    Err(VIPOOL_ERR_UNSUPPORTED)
}

/// Finds the rule that a process inherits from its nearest listed ancestor. Linux only.
///
/// Use the call for a program that no rule matches. On Windows, use vipool_reader_find_rule_by_id()
/// instead: a hook passes the id of its rule to each process that its program starts.
///
/// The call takes no lock and allocates nothing, but reads files of /proc. A hook makes the call
/// while its process starts. The call does not change vipool_last_error().
///
/// Parameters:
/// - `reader`: the reader.
/// - `pid`: the process; 0 for this one.
/// - `out`: receives the rule.
/// - `out_parent`: receives the pid of the nearest listed ancestor. May be NULL.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_NOT_FOUND (no rule is inherited),
/// VIPOOL_ERR_UNSUPPORTED (a system other than Linux).
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_reader_find_parent_rule(
    reader: *const vipool_reader,
    pid: u32,
    out: *mut vipool_rule,
    out_parent: *mut u32,
) -> vipool_status {
    silent_status(|| {
        // SAFETY: the caller guarantees the handle.
        let reader = unsafe { borrow_shared(reader) }?;
        // SAFETY: the caller guarantees the struct.
        let out = unsafe { check_out_silent(out) }?;
        let policy = reader.reader.policy();
        let (program, ancestor_pid) =
            find_inherited_rule(&policy, pid)?.ok_or(VIPOOL_ERR_NOT_FOUND)?;
        let matched_by = vipool_matched_by::VIPOOL_MATCHED_INHERITED;
        out.write(&vipool_rule::new(&program, matched_by));
        if !out_parent.is_null() {
            // SAFETY: not NULL.
            unsafe { out_parent.write(ancestor_pid) };
        }
        Ok(())
    })
}

/// A rule, and the pid of the ancestor from which the process inherits it.
type InheritedRule<'a> = Option<(ProgramView<'a>, u32)>;

#[cfg(target_os = "linux")]
fn find_inherited_rule<'a>(
    policy: &PolicyView<'a>,
    pid: u32,
) -> Result<InheritedRule<'a>, vipool_status> {
    Ok(discovery::inherited_rule(policy, process_from_pid(pid)))
}

#[cfg(not(target_os = "linux"))]
fn find_inherited_rule<'a>(_: &PolicyView<'a>, _: u32) -> Result<InheritedRule<'a>, vipool_status> {
    Err(VIPOOL_ERR_UNSUPPORTED)
}
