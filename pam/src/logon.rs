//! What a logon and a logoff do, between libpam and the map.

use std::ffi::{CStr, c_int};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vipool::EXHAUSTED_MESSAGE;
use vipool::map::{Allocate, Leader, Map, OnExhausted, OpenError, OpenOptions, Opened};
use vipool::os::{client, clock, process, users};
use vipool::session::{Handle, SessionId, SessionKind};

use crate::settings::Settings;
use crate::transaction::{Item, PAM_SESSION_ERR, PAM_SUCCESS, Transaction};

/// Under this name the transaction keeps what it opened.
const OPENED_SESSION: &CStr = c"vipool-opened";
/// Between two attempts while waiting for an address.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How long the map itself waits for its lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// What this transaction opened, and so has to close.
struct OpenedRecord {
    handle: Handle,
    map: PathBuf,
}

/// Opens the session and hands its lease down. Succeeds unless the policy says `refuse`.
pub fn open(transaction: &Transaction, settings: &Settings) -> c_int {
    // SAFETY: only `OpenedRecord` is ever kept under this name.
    if unsafe { transaction.data::<OpenedRecord>(OPENED_SESSION) }.is_some() {
        return PAM_SUCCESS;
    }
    let Some(user) = transaction.item(Item::User) else { return PAM_SUCCESS };
    let service = transaction.item(Item::Service).map(CStr::to_string_lossy);
    let Some(uid) = users::id_of(user) else {
        transaction.log(
            libc::LOG_WARNING,
            &format!("user {user:?} is not known here: no session is opened"),
        );
        return PAM_SUCCESS;
    };
    if !settings.applies_to(uid, service.as_deref()) {
        return PAM_SUCCESS;
    }
    let user = user.to_string_lossy();
    let logon = Logon { transaction, settings, user: &user, uid };
    match logon.open() {
        Ok(opened) => {
            set_session_environment(transaction, settings, opened.map(|opened| opened.handle));
            PAM_SUCCESS
        }
        Err(status) => status,
    }
}

/// Closes what [`open`] opened in this transaction.
pub fn close(transaction: &Transaction) -> c_int {
    // SAFETY: only `OpenedRecord` is ever kept under this name.
    if let Some(record) = unsafe { transaction.data::<OpenedRecord>(OPENED_SESSION) } {
        let closed = Map::open(&record.map).map_err(|error| error.to_string()).and_then(|map| {
            map.close(&record.handle, clock::now()).map_err(|error| error.to_string())
        });
        if let Err(error) = closed {
            transaction.log(
                libc::LOG_WARNING,
                &format!("session {} is not closed: {error}", record.handle.session),
            );
        }
        let _ = client::remove(&record.map, &record.handle);
        transaction.clear_data(OPENED_SESSION);
    }
    PAM_SUCCESS
}

/// One logon on its way to a session.
struct Logon<'a> {
    transaction: &'a Transaction,
    settings: &'a Settings,
    user: &'a str,
    uid: u32,
}

impl Logon<'_> {
    /// Opens the session, or says with what status the logon goes on without. `None` where the farm
    /// gives a session its addresses only when a listed program is started: whoever starts it opens
    /// the session, and closes it.
    fn open(&self) -> Result<Option<Opened>, c_int> {
        let start = Instant::now();
        let map = Map::open(&self.settings.map)
            .map_err(|error| self.report_failure(&error.into(), false))?;
        if map.settings().allocate == Allocate::FirstUse {
            return Ok(None);
        }
        let policy = map.settings().on_exhausted;
        let refuse_logon = policy == OnExhausted::Refuse;
        let leader = process::identify(std::process::id()).ok();
        let session = choose_session(self.transaction, &map, self.user, leader.as_ref());
        let pool = self.settings.pool.clone().or_else(|| map.choose_pool(self.user, None));
        let options = OpenOptions {
            user: Some(self.user),
            pool: pool.as_deref(),
            address: None,
            client: self.client(),
            leader,
        };
        // A session that lacks an address is open and can be completed.
        let mut incomplete = None;
        let error = loop {
            let (error, timeout) = match map.open_session(session, &options, clock::now()) {
                Ok(mut opened) => {
                    // What an earlier attempt opened is this logon's.
                    opened.already_open =
                        incomplete.map_or(opened.already_open, |first: Opened| first.already_open);
                    let Some(shortage) = opened.shortage else {
                        return Ok(Some(self.record_session(opened)));
                    };
                    incomplete = Some(opened);
                    (OpenError::Shortage(shortage), exhaustion_timeout(policy))
                }
                Err(error @ OpenError::Shortage(_)) => (error, exhaustion_timeout(policy)),
                Err(error @ OpenError::NotReady) => (error, self.settings.deadline),
                Err(error) => (error, Duration::ZERO),
            };
            // The last attempt may have to wait for the lock.
            let deadline = self.settings.deadline.saturating_sub(LOCK_TIMEOUT);
            if start.elapsed() + RETRY_INTERVAL > timeout.min(deadline) {
                break error;
            }
            std::thread::sleep(RETRY_INTERVAL);
        };
        let status = self.report_failure(&error, refuse_logon);
        match incomplete {
            Some(opened) if status == PAM_SUCCESS => Ok(Some(self.record_session(opened))),
            Some(opened) if !opened.already_open => {
                // What it got would be nobody's.
                let _ = map.close(&opened.handle, clock::now());
                Err(status)
            }
            _ => Err(status),
        }
    }

    /// Where the user's client is.
    fn client(&self) -> Option<IpAddr> {
        self.transaction.item(Item::RemoteHost).and_then(parse_client)
    }

    /// Remembers, for the logoff, what this logon opened, and lets the user's programs know where
    /// the client is.
    fn record_session(&self, opened: Opened) -> Opened {
        if let (false, Some(address)) = (opened.already_open, self.client())
            && let Err(error) =
                client::write(&self.settings.map, &opened.handle, address, Some(self.uid))
        {
            let message =
                format!("programs of {} are not told of their client: {error}", self.user);
            self.transaction.log(libc::LOG_WARNING, &message);
        }
        let record = OpenedRecord { handle: opened.handle, map: self.settings.map.clone() };
        if !opened.already_open && !self.transaction.set_data(OPENED_SESSION, record) {
            let message = "out of memory: the session is closed when its leader is gone";
            self.transaction.log(libc::LOG_WARNING, message);
        }
        opened
    }

    /// Tells the user and the log that an address is lacking; whether the logon passes.
    fn report_failure(&self, error: &OpenError, refuse: bool) -> c_int {
        use OpenError as E;
        let no_address = matches!(error, E::Shortage(_) | E::Quota { .. } | E::TooManySessions(_));
        let refuse_logon = refuse && no_address;
        let outcome = if refuse { "the logon is refused" } else { "the logon goes on without" };
        let level = if no_address { libc::LOG_WARNING } else { libc::LOG_NOTICE };
        self.transaction.log(level, &format!("no address for {}: {error} ({outcome})", self.user));
        if no_address {
            self.transaction.show_error(EXHAUSTED_MESSAGE);
        }
        if refuse_logon { PAM_SESSION_ERR } else { PAM_SUCCESS }
    }
}

/// How long the farm's policy lets a logon wait for an address.
fn exhaustion_timeout(policy: OnExhausted) -> Duration {
    match policy {
        OnExhausted::Wait(seconds) => Duration::from_secs(seconds.into()),
        OnExhausted::Pass | OnExhausted::Refuse => Duration::ZERO,
    }
}

/// Sets what the session's programs are to find. Without a lease, the hook looks for that of the
/// session itself.
fn set_session_environment(transaction: &Transaction, settings: &Settings, lease: Option<Handle>) {
    let mut succeeded = lease
        .is_none_or(|handle| transaction.set_env("VIPOOL_LEASE", handle.to_string().as_bytes()));
    if !settings.is_system_map() {
        succeeded &= transaction.set_env("VIPOOL_MAP", settings.map.as_os_str().as_encoded_bytes());
    }
    // Where it is absent, ld.so would complain at every start of a program.
    if let Some(preload) = settings.preload.as_deref().filter(|file| Path::new(file).exists()) {
        let previous = transaction.env(c"LD_PRELOAD").map(CStr::to_bytes).unwrap_or_default();
        let is_listed =
            previous.split(|byte| b": ".contains(byte)).any(|entry| entry == preload.as_bytes());
        if !is_listed {
            let separator: &[u8] = if previous.is_empty() { b"" } else { b":" };
            succeeded &= transaction
                .set_env("LD_PRELOAD", &[previous, separator, preload.as_bytes()].concat());
        }
    }
    if !succeeded {
        transaction.log(
            libc::LOG_WARNING,
            "out of memory: the session's programs are not told of its lease",
        );
    }
}

/// The session of this logon: the audit session that pam_loginuid began, else logind's, else one
/// minted from the leading process.
///
/// An audit session can also be inherited: a server that was started from somebody's logon, without
/// pam_loginuid in its own stack, has that logon's. So one that is open for another user is not
/// this logon's.
fn choose_session(
    transaction: &Transaction,
    map: &Map,
    user: &str,
    leader: Option<&Leader>,
) -> SessionId {
    let audit = fs::read_to_string("/proc/self/sessionid").ok();
    let logind = transaction.env(c"XDG_SESSION_ID").and_then(|name| name.to_str().ok());
    let belongs_to_other_user = |session: &SessionId| {
        map.find(*session).is_ok_and(|found| found.is_some())
            && map.sessions().is_ok_and(|rows| {
                rows.iter().any(|row| {
                    row.session == *session
                        && row.user.as_deref().is_some_and(|owner| owner != user)
                })
            })
    };
    existing_session(audit.as_deref(), logind)
        .filter(|session| !belongs_to_other_user(session))
        .unwrap_or_else(|| mint_session(leader))
}

fn existing_session(audit: Option<&str>, logind: Option<&str>) -> Option<SessionId> {
    let audit = audit
        .and_then(|text| text.trim().parse().ok())
        .and_then(|id: u32| SessionId::new(SessionKind::Audit, id.into()).ok());
    audit.or_else(|| logind.and_then(|name| SessionId::logind(name).ok()))
}

/// A session of the kind `embedder`: the start time of the leading process (34 bits of clock
/// ticks, five years of them) and its pid (22 bits, as many as Linux has).
fn mint_session(leader: Option<&Leader>) -> SessionId {
    let (pid, start) =
        leader.map_or((std::process::id(), 0), |leader| (leader.pid, leader.start_time));
    let value = (start & 0x3_ffff_ffff) << 22 | u64::from(pid & 0x3f_ffff);
    SessionId::new(SessionKind::Embedder, value).expect("56 bits")
}

/// PAM_RHOST as an address. Names are not looked up: that could take longer than a logon may.
fn parse_client(host: &CStr) -> Option<IpAddr> {
    let text = host.to_str().ok()?;
    // A link-local address comes with its interface.
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_prefers_audit_then_logind_then_minted() {
        let text =
            |audit, logind| existing_session(audit, logind).map(|session| session.to_string());
        assert_eq!(text(Some("7\n"), Some("c1")).as_deref(), Some("audit:7"));
        assert_eq!(text(Some("4294967295"), Some("12")).as_deref(), Some("logind:12"));
        assert_eq!(text(None, None), None);
        assert_eq!(text(Some("x"), Some("")), None);
        let leader = |pid, start_time| Leader { pid, start_time, pid_namespace: 1 };
        let session = mint_session(Some(&leader(77, 1234)));
        assert_eq!(session.kind(), SessionKind::Embedder);
        assert_ne!(session, mint_session(Some(&leader(77, 1235))));
        assert_ne!(session, mint_session(Some(&leader(78, 1234))));
    }

    #[test]
    fn only_numeric_addresses_are_clients() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(parse_client(c"192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(parse_client(c"::ffff:192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(parse_client(c"fe80::1%eth0"), ip("fe80::1"));
        for invalid in
            [c"client.example", c"", c"%", c"\xff\xfe", c"192.0.2.7; rm -rf /", c"1.2.3.4\n"]
        {
            assert_eq!(parse_client(invalid), None, "{invalid:?}");
        }
    }
}
