//! Finds the session of a process whose environment names no session. Also finds the rule of the
//! process list that a process inherits.
//!
//! Hook layers call these functions while the hooked program starts, and `vipool explain` calls
//! them for its report. The functions do not allocate, have no cancellation point (pthreads(7)), and
//! read only the map and files in `/proc` and `/run`.

use std::io::Read;

use crate::map::Reader;
use crate::os::uncancellable_file::UncancellableFile;
use crate::policy::{Executable, PathStyle, PolicyView, ProgramView, script_argument};
use crate::session::{SessionId, SessionKind};

/// The maximum number of ancestors that [`inherited_rule`] examines.
const MAX_ANCESTORS: usize = 32;

/// The process whose files in `/proc` are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The calling process.
    This,
    /// Another process. The system may deny access to its files.
    Other(u32),
}

/// How the session of a process was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The kernel's audit session of the process (pam_loginuid(8)).
    AuditSession,
    /// The login user of the process (`/proc/self/loginuid`), whose logons share one session.
    LoginUser,
    /// The control group of the process: it is in the scope unit of a logind session.
    SessionScope,
    /// The control group of the process: it is in the user manager (`user@UID.service`) of a user.
    /// The logons of this user share one session, or the user has exactly one session.
    UserManager,
}

/// Returns the open session of a process.
///
/// The function returns the first of these sessions that is open:
/// 1. The session for the audit session of the process (pam_loginuid(8)).
/// 2. The session that all logons of the login user share.
/// 3. The session for the logind session whose scope unit contains the process.
/// 4. For a process in a user manager (`user@1000.service`): the session that all logons of this
///    user share, or the session for the user's logind session. If the user has several logind
///    sessions, the process belongs to none of them.
#[must_use]
pub fn session_of_process(map: &Reader, process: Process) -> Option<(SessionId, FoundBy)> {
    let is_open = |session: &SessionId| map.find(*session).is_some();
    if let Some(session) = audit_session(process).filter(is_open) {
        return Some((session, FoundBy::AuditSession));
    }
    match login_user(process).and_then(|user_id| find_shared_session(map, user_id)) {
        Some(session) => Some((session, FoundBy::LoginUser)),
        None => session_of_control_group(map, process),
    }
}

/// Returns the id of the user who logged on (pam_loginuid(8)). su(1) and sudo(8) keep this id.
fn login_user(process: Process) -> Option<u64> {
    let mut path = [0; 64];
    let mut buffer = [0; 32];
    parse_number(read_file(proc_path(process, b"/loginuid", &mut path)?, &mut buffer)?)
}

/// Returns the session that the logons of a user share, if it is open.
fn find_shared_session(map: &Reader, user_id: u64) -> Option<SessionId> {
    let session = SessionId::new(SessionKind::User, user_id).ok()?;
    map.find(session).map(|_| session)
}

fn audit_session(process: Process) -> Option<SessionId> {
    let mut path = [0; 64];
    let mut buffer = [0; 32];
    let session_number =
        parse_number(read_file(proc_path(process, b"/sessionid", &mut path)?, &mut buffer)?)?;
    SessionId::new(SessionKind::Audit, session_number).ok()
}

fn session_of_control_group(map: &Reader, process: Process) -> Option<(SessionId, FoundBy)> {
    let mut path = [0; 64];
    let mut buffer = [0; 1024];
    let mut user_buffer = [0; 1024];
    let control_group = read_file(proc_path(process, b"/cgroup", &mut path)?, &mut buffer)?;
    let is_session_scope =
        |part: &&[u8]| part.starts_with(b"session-") && part.ends_with(b".scope");
    let is_user_manager = |part: &&[u8]| part.starts_with(b"user@") && part.ends_with(b".service");
    let mut components = control_group.split(|byte| matches!(byte, b'/' | b'\n'));
    if let Some(scope) = components.clone().find(is_session_scope) {
        let session_name = scope.strip_prefix(b"session-")?.strip_suffix(b".scope")?;
        return Some((find_logind_session(map, session_name)?, FoundBy::SessionScope));
    }
    let user_id = parse_number(
        components.find(is_user_manager)?.strip_prefix(b"user@")?.strip_suffix(b".service")?,
    )?;
    if let Some(session) = find_shared_session(map, user_id) {
        return Some((session, FoundBy::UserManager));
    }
    let user_state = read_numbered_file(b"/run/systemd/users/", user_id, &mut user_buffer)?;
    let mut session_names = find_value(user_state, b"SESSIONS=")?.split(|byte| *byte == b' ');
    let session_name = session_names.next()?;
    if session_names.next().is_some() {
        return None;
    }
    Some((find_logind_session(map, session_name)?, FoundBy::UserManager))
}

/// Returns the open session with this logind name. The program that opened the session derived the
/// session id from that name, or from the audit session or the user of the logind session.
fn find_logind_session(map: &Reader, name: &[u8]) -> Option<SessionId> {
    let is_open = |session: &SessionId| map.find(*session).is_some();
    let name = str::from_utf8(name).ok()?;
    if let Some(session) = SessionId::logind(name).ok().filter(is_open) {
        return Some(session);
    }
    let mut buffer = [0; 1024];
    let mut path = [0; 64];
    let path = join(b"/run/systemd/sessions/", name.as_bytes(), &mut path)?;
    let properties = read_file(path, &mut buffer)?;
    let read_property = |name: &[u8]| parse_number(find_value(properties, name)?);
    read_property(b"AUDIT=")
        .and_then(|audit_number| SessionId::new(SessionKind::Audit, audit_number).ok())
        .filter(is_open)
        .or_else(|| find_shared_session(map, read_property(b"UID=")?))
}

/// Returns the rule that the process inherits, and the process id of the ancestor that runs under
/// this rule. Only the nearest ancestor with a rule counts. Returns `None` if children do not
/// inherit this rule. The search ends at an ancestor whose files the caller cannot read, such as a
/// process of another user.
#[must_use]
pub fn inherited_rule<'a>(
    policy: &PolicyView<'a>,
    process: Process,
) -> Option<(ProgramView<'a>, u32)> {
    let mut ancestor_pid = match process {
        Process::This => std::os::unix::process::parent_id(),
        Process::Other(pid) => parent_id(pid)?,
    };
    for _ in 0..MAX_ANCESTORS {
        if ancestor_pid <= 1 {
            return None;
        }
        let ancestor = Process::Other(ancestor_pid);
        let mut path_buffer = [0; 64];
        let mut executable_buffer = [0; 4096];
        let mut arguments_buffer = [0; 4096];
        let exe_link = proc_path(ancestor, b"/exe", &mut path_buffer)?;
        let executable_path = read_link(exe_link, &mut executable_buffer)?;
        let cmdline_path = proc_path(ancestor, b"/cmdline", &mut path_buffer)?;
        let arguments = read_file(cmdline_path, &mut arguments_buffer)?;
        let executable = Executable {
            path: executable_path,
            invoked_as: None,
            script: script_argument(arguments.split(|byte| *byte == 0).skip(1)),
            style: PathStyle::Posix,
        };
        if let Some(found) = policy.find(&executable) {
            return Some((found.program, ancestor_pid)).filter(|(rule, _)| rule.flags().inherit);
        }
        ancestor_pid = parent_id(ancestor_pid)?;
    }
    None
}

fn parent_id(pid: u32) -> Option<u32> {
    let mut path = [0; 64];
    let mut buffer = [0; 1024];
    let stat = read_file(proc_path(Process::Other(pid), b"/stat", &mut path)?, &mut buffer)?;
    // The file contains "pid (name) state ppid ...". The name can contain any bytes.
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    parse_number(stat.get(name_end..)?.split(|byte| *byte == b' ').nth(2)?)?.try_into().ok()
}

/// Writes the path of a process's file in `/proc` to `buffer`, and returns the path. `file` begins
/// with a slash.
fn proc_path<'b>(process: Process, file: &[u8], buffer: &'b mut [u8; 64]) -> Option<&'b str> {
    let mut digits = [0; 20];
    let process_name = match process {
        Process::This => b"self",
        Process::Other(pid) => format_decimal(pid.into(), &mut digits),
    };
    let mut directory_buffer = [0; 48];
    let directory = join(b"/proc/", process_name, &mut directory_buffer)?;
    join(directory.as_bytes(), file, buffer)
}

fn read_numbered_file<'b>(directory: &[u8], number: u64, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut digits = [0; 20];
    let mut path = [0; 64];
    read_file(join(directory, format_decimal(number, &mut digits), &mut path)?, buffer)
}

/// Reads the beginning of a file, at most as many bytes as `buffer` holds.
fn read_file<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let length = UncancellableFile::open(&[path.as_bytes()], flags).ok()?.read(buffer).ok()?;
    buffer.get(..length)
}

#[allow(unsafe_code)]
fn read_link<'b>(path: &str, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut c_path = [0u8; 64];
    c_path.get_mut(..path.len())?.copy_from_slice(path.as_bytes());
    if c_path.last() != Some(&0) {
        return None;
    }
    // SAFETY: the path ends with NUL, and the length is that of the buffer.
    let length =
        unsafe { libc::readlink(c_path.as_ptr().cast(), buffer.as_mut_ptr().cast(), buffer.len()) };
    buffer.get(..usize::try_from(length).ok()?)
}

/// Returns the rest of the first line that begins with `name`.
fn find_value<'b>(lines: &'b [u8], name: &[u8]) -> Option<&'b [u8]> {
    lines.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))
}

/// Writes `prefix` and `suffix` to `buffer`, and returns the text. Returns `None` if the text does
/// not fit.
fn join<'b>(prefix: &[u8], suffix: &[u8], buffer: &'b mut [u8]) -> Option<&'b str> {
    let length = prefix.len() + suffix.len();
    buffer.get_mut(..prefix.len())?.copy_from_slice(prefix);
    buffer.get_mut(prefix.len()..length)?.copy_from_slice(suffix);
    str::from_utf8(buffer.get(..length)?).ok()
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits.trim_ascii()).ok()?.parse().ok()
}

/// Returns the decimal digits of `number`, written to the end of `buffer`.
fn format_decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    for digit in buffer.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        start -= 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    buffer.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_paths_are_formatted() {
        for number in [0, 7, 10, 65_535, u64::MAX] {
            assert_eq!(format_decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
        let mut path = [0; 64];
        assert_eq!(
            proc_path(Process::Other(u32::MAX), b"/cmdline", &mut path),
            Some("/proc/4294967295/cmdline")
        );
        assert_eq!(proc_path(Process::This, b"/cgroup", &mut path), Some("/proc/self/cgroup"));
    }
}
