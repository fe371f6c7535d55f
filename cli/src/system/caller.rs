//! The caller: the user and the session of this process.

use anyhow::Context;
use nix::unistd::{Uid, User};
use vipool::map::SessionPer;
use vipool::session::{Handle, SessionId, SessionKind};

/// Returns the caller's session.
///
/// The function tries these sources in order: the lease in the environment, the user (if all logons
/// of a user share one session), the kernel's audit session, the session id of systemd-logind. The
/// PAM module tries the last three in the same order when it opens a session at logon.
///
/// # Errors
/// None of these sources contains a valid session id.
pub fn own_session(session_per: SessionPer) -> anyhow::Result<SessionId> {
    let lease = std::env::var("VIPOOL_LEASE").ok();
    if let Some(handle) = lease.and_then(|text| Handle::parse(text.as_bytes())) {
        return Ok(handle.session);
    }
    if session_per == SessionPer::User {
        let uid = login_uid().unwrap_or(Uid::current().as_raw());
        return Ok(SessionId::new(SessionKind::User, uid.into())?);
    }
    let audit_id = std::fs::read_to_string("/proc/self/sessionid").ok();
    let audit_session = audit_id.and_then(|text| format!("audit:{}", text.trim()).parse().ok());
    let logind_session = || SessionId::logind(&std::env::var("XDG_SESSION_ID").ok()?).ok();
    audit_session
        .or_else(logind_session)
        .context("this logon has no session id (select a session, for example with --session 1)")
}

/// Returns the uid of the user who logged on (pam_loginuid(8)). su(1) and sudo(8) do not change this
/// uid. Returns `None` for a process without a logon, such as a service.
fn login_uid() -> Option<u32> {
    const NO_LOGON: u32 = u32::MAX;
    let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NO_LOGON)
}

/// Returns whether the caller is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Returns the caller's user name. Returns the uid if the user has no name.
pub fn user_name() -> String {
    let uid = Uid::effective();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Returns the name of the user who logged on. Returns the caller's user name if the process has no
/// logon, or if the user who logged on has no name.
pub fn logged_on_user() -> String {
    let user = login_uid().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    user.map_or_else(user_name, |user| user.name)
}

/// Returns the user with this name or numeric uid.
///
/// # Errors
/// There is no such user, or the user database cannot be read.
pub fn find_user(name: &str) -> anyhow::Result<User> {
    let user = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    user.with_context(|| format!("cannot look up user {name:?}"))?
        .with_context(|| format!("there is no user {name:?} ('getent passwd' lists the users)"))
}
