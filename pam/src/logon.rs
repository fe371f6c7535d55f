//! Opens a vipool session at logon, and closes it at logoff.

use std::borrow::Cow;
use std::ffi::{CStr, c_int};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vipool::EXHAUSTED_MESSAGE;
use vipool::Tick;
use vipool::client_file;
use vipool::map::{
    AllocationTime, CloseError, ExhaustionPolicy, Leader, Map, OpenError, OpenOptions,
    OpenedSession, SessionPer,
};
use vipool::session::{Handle, SessionId, SessionKind};
use vipool::system;

use crate::settings::Settings;
use crate::transaction::{Item, PAM_SESSION_ERR, PAM_SUCCESS, Transaction};

/// The name of the [`OpenedRecord`] in the transaction. It contains the version, because the record
/// of another version can have another layout. Increase the version when the layout changes.
const OPENED_RECORD: &CStr = match CStr::from_bytes_with_nul(
    concat!("vipool-opened-", env!("CARGO_PKG_VERSION"), "\0").as_bytes(),
) {
    Ok(name) => name,
    Err(_) => unreachable!(),
};
/// The pause between two attempts to get an address.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The longest time that a map operation waits for the lock of the map.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The session that this transaction opened or joined, and has to close or leave.
struct OpenedRecord {
    handle: Handle,
    map_directory: PathBuf,
    /// The process of this logon, if the logons of the user share the session.
    shared_logon: Option<Leader>,
}

impl OpenedRecord {
    /// Closes the session and removes its client file. If another logon shares the session, only
    /// leaves the session.
    fn close(&self, map: &Map) -> Result<(), CloseError> {
        let now = Tick::now();
        let result = match &self.shared_logon {
            Some(process) => map.leave_session(&self.handle, process, system::has_exited, now),
            None => map.close_by_handle(&self.handle, now).map(Some),
        };
        if !matches!(result, Ok(None)) {
            let _ = client_file::remove(&self.map_directory, &self.handle);
        }
        result.map(drop)
    }
}

/// Opens the session and sets the environment of its programs. Fails only if the farm sets
/// `when-exhausted = "refuse"`, and one of these is true: no address is available, a limit of
/// sessions is reached, or the pool of the user is unknown.
pub fn open(transaction: &Transaction, settings: &Settings) -> c_int {
    // SAFETY: only values of type `OpenedRecord` are stored under this name. The name contains the
    // version, so another release of this module uses another name.
    if unsafe { transaction.data::<OpenedRecord>(OPENED_RECORD) }.is_some() {
        return PAM_SUCCESS;
    }
    let Some(user) = transaction.item(Item::User) else { return PAM_SUCCESS };
    let service = transaction.item(Item::Service);
    let service = service.as_deref().map(CStr::to_string_lossy);
    let Some(uid) = system::user_id(&user) else {
        transaction.log(
            libc::LOG_WARNING,
            &format!(
                "cannot open a session for user {user:?}: the user does not exist on this server"
            ),
        );
        return PAM_SUCCESS;
    };
    if !settings.applies_to(uid, service.as_deref()) {
        return PAM_SUCCESS;
    }
    let user = user_text(&user);
    let logon = Logon { transaction, settings, user: &user, uid };
    match logon.open() {
        Ok(opened) => {
            set_session_environment(transaction, settings, opened.map(|opened| opened.handle));
            PAM_SUCCESS
        }
        Err(status) => status,
    }
}

/// Closes the session that [`open`] opened or joined in this transaction, unless another logon
/// shares it.
pub fn close(transaction: &Transaction) -> c_int {
    // SAFETY: only values of type `OpenedRecord` are stored under this name. The name contains the
    // version, so another release of this module uses another name. `record` is not used after
    // `clear_data`.
    if let Some(record) = unsafe { transaction.data::<OpenedRecord>(OPENED_RECORD) } {
        let close_result = Map::open(&record.map_directory)
            .map_err(|error| error.to_string())
            .and_then(|map| record.close(&map).map_err(|error| error.to_string()));
        if let Err(error) = close_result {
            transaction.log(
                libc::LOG_WARNING,
                &format!("cannot close session {}: {error}", record.handle.session),
            );
        }
        transaction.clear_data(OPENED_RECORD);
    }
    PAM_SUCCESS
}

/// A logon for which the module opens a session.
struct Logon<'a> {
    transaction: &'a Transaction,
    settings: &'a Settings,
    user: &'a str,
    uid: u32,
}

impl Logon<'_> {
    /// Opens the session. Returns `None` if the farm allocates addresses at first use. In this case
    /// `vipool run` or another agent opens and closes the session.
    ///
    /// # Errors
    /// Returns the PAM status of the logon if the logon gets no session. With `PAM_SUCCESS`, the
    /// logon continues without a session.
    fn open(&self) -> Result<Option<OpenedSession>, c_int> {
        let start = Instant::now();
        let map = Map::open(&self.settings.map_directory)
            .map_err(|error| self.report_failure(&error.into(), false))?;
        let map_settings =
            map.settings().map_err(|error| self.report_failure(&error.into(), false))?;
        if map_settings.allocate == AllocationTime::FirstUse {
            return Ok(None);
        }
        let policy = map_settings.on_exhausted;
        let may_refuse = policy == ExhaustionPolicy::Refuse;
        let leader = system::identify_process(std::process::id()).ok();
        let shared_session = match map_settings.session_per {
            SessionPer::User => leader.and_then(|_| self.shared_session_id(&map)),
            SessionPer::Logon => None,
        };
        let shared_logon = leader.filter(|_| shared_session.is_some());
        let session = shared_session.unwrap_or_else(|| {
            choose_session_id(self.transaction, &map, self.user, leader.as_ref())
        });
        let open_session = |has_joined: bool| {
            let pool = match &self.settings.pool {
                Some(pool) => Some(pool.clone()),
                None => map.choose_pool(self.user, None)?,
            };
            let options = OpenOptions::new().with_user(self.user).with_pool(pool.as_deref());
            // A logon inside an open session does not change the client and the leader of the
            // session. Another process can close the session between two attempts, so each attempt
            // looks for the session.
            let options = match map.find(session) {
                Ok(Some(_)) => options,
                _ => options.with_client(self.client_address()).with_leader(leader),
            };
            match shared_logon {
                Some(process) if !has_joined => {
                    map.join_session(session, &options, process, Tick::now())
                }
                _ => map.open_session(session, &options, Tick::now()),
            }
        };
        // The opened session that still lacks an address. A later attempt can add the address.
        let mut incomplete_session = None;
        let error = loop {
            let (error, timeout) = match open_session(incomplete_session.is_some()) {
                Ok(mut opened) => {
                    // This logon opened the session if one of its attempts did.
                    opened.already_open &= incomplete_session
                        .is_none_or(|earlier_attempt: OpenedSession| earlier_attempt.already_open);
                    let Some(shortage) = opened.shortage else {
                        return Ok(Some(self.record_session(opened, shared_logon)));
                    };
                    incomplete_session = Some(opened);
                    (
                        OpenError::Shortage { shortage, pool: opened.shortage_pool },
                        exhaustion_timeout(policy),
                    )
                }
                Err(error @ (OpenError::Shortage { .. } | OpenError::UnknownGroups { .. })) => {
                    (error, exhaustion_timeout(policy))
                }
                Err(error @ OpenError::NotReady) => (error, self.settings.deadline),
                Err(error) => (error, Duration::ZERO),
            };
            // The last attempt may wait for the lock, so it must begin `LOCK_TIMEOUT` before the
            // deadline.
            let last_attempt_start = self.settings.deadline.saturating_sub(LOCK_TIMEOUT);
            if start.elapsed() + RETRY_INTERVAL > timeout.min(last_attempt_start) {
                break error;
            }
            std::thread::sleep(RETRY_INTERVAL);
        };
        let status = self.report_failure(&error, may_refuse);
        match incomplete_session {
            Some(opened) if status == PAM_SUCCESS => {
                Ok(Some(self.record_session(opened, shared_logon)))
            }
            Some(opened) if !opened.already_open || shared_logon.is_some() => {
                // Close or leave the session. Otherwise its addresses would stay leased although
                // the logon failed.
                let _ = self.opened_record(&opened, shared_logon).close(&map);
                Err(status)
            }
            _ => Err(status),
        }
    }

    /// Returns the address of the user's client, if PAM_RHOST contains an address.
    fn client_address(&self) -> Option<IpAddr> {
        self.transaction.item(Item::RemoteHost).and_then(|host| parse_client_address(&host))
    }

    /// Returns the id of the session that all logons of the user share. Returns `None` if this
    /// session is open for a user with another name and the same user id.
    fn shared_session_id(&self, map: &Map) -> Option<SessionId> {
        let session = SessionId::new(SessionKind::User, self.uid.into()).ok()?;
        let belongs_to_other_user = map.is_open_for_another(session, self.user).unwrap_or(false);
        (!belongs_to_other_user).then_some(session)
    }

    fn opened_record(&self, opened: &OpenedSession, shared_logon: Option<Leader>) -> OpenedRecord {
        OpenedRecord {
            handle: opened.handle,
            map_directory: self.settings.map_directory.clone(),
            shared_logon,
        }
    }

    /// Stores the session in the transaction if this logon opened or shares it. The logoff then
    /// closes or leaves the session. If this logon opened the session, also writes the address of
    /// the client to a file for the user's programs.
    fn record_session(&self, opened: OpenedSession, shared_logon: Option<Leader>) -> OpenedSession {
        if let (false, Some(address)) = (opened.already_open, self.client_address())
            && let Err(error) = client_file::write(
                &self.settings.map_directory,
                &opened.handle,
                address,
                Some(self.uid),
            )
        {
            let message = format!("cannot store the client address of {}: {error}", self.user);
            self.transaction.log(libc::LOG_WARNING, &message);
        }
        let is_closed_at_logoff = !opened.already_open || shared_logon.is_some();
        let record = self.opened_record(&opened, shared_logon);
        if is_closed_at_logoff && !self.transaction.set_data(OPENED_RECORD, record) {
            let message = "out of memory: the session is closed only after its leader has exited";
            self.transaction.log(libc::LOG_WARNING, message);
        }
        opened
    }

    /// Writes to the log that the logon has no session or no address. If the policy for exhausted
    /// pools decides about this error, also shows the user a message. Returns the PAM status of the
    /// logon.
    fn report_failure(&self, error: &OpenError, may_refuse: bool) -> c_int {
        let is_decided_by_policy = error.is_decided_by_exhaustion_policy();
        let is_refused = may_refuse && is_decided_by_policy;
        let outcome = if is_refused {
            "the logon is refused"
        } else {
            "the logon continues without an address"
        };
        let level = if is_decided_by_policy { libc::LOG_WARNING } else { libc::LOG_NOTICE };
        self.transaction.log(level, &format!("no address for {}: {error} ({outcome})", self.user));
        if is_decided_by_policy {
            self.transaction.show_error(EXHAUSTED_MESSAGE);
        }
        if is_refused { PAM_SESSION_ERR } else { PAM_SUCCESS }
    }
}

/// Returns how long a logon may wait for an address under the policy of the farm.
fn exhaustion_timeout(policy: ExhaustionPolicy) -> Duration {
    match policy {
        ExhaustionPolicy::Wait(seconds) => Duration::from_secs(seconds.into()),
        ExhaustionPolicy::Pass | ExhaustionPolicy::Refuse => Duration::ZERO,
    }
}

/// Sets the environment variables of the session. If `lease` is `None`, `VIPOOL_LEASE` is not set.
/// The hook layer then asks the kernel for the session of its process.
fn set_session_environment(transaction: &Transaction, settings: &Settings, lease: Option<Handle>) {
    let mut has_succeeded = lease
        .is_none_or(|handle| transaction.set_env("VIPOOL_LEASE", handle.to_string().as_bytes()));
    if !settings.is_system_map() {
        has_succeeded &= transaction
            .set_env("VIPOOL_MAP", settings.map_directory.as_os_str().as_encoded_bytes());
    }
    // If the preload object does not exist, ld.so would print an error whenever a program starts.
    if let Some(preload) = settings.preload.as_deref().filter(|file| Path::new(file).exists()) {
        let previous_preload = transaction.env(c"LD_PRELOAD").unwrap_or_default().into_bytes();
        let is_preloaded = previous_preload
            .split(|byte| b": ".contains(byte))
            .any(|entry| entry == preload.as_bytes());
        if !is_preloaded {
            let separator: &[u8] = if previous_preload.is_empty() { b"" } else { b":" };
            has_succeeded &= transaction.set_env(
                "LD_PRELOAD",
                &[&previous_preload, separator, preload.as_bytes()].concat(),
            );
        }
    }
    if !has_succeeded {
        transaction.log(
            libc::LOG_WARNING,
            "out of memory: cannot set the environment variables of the session",
        );
    }
}

/// Returns the name of a user as text. A name that is not UTF-8, or that begins with U+FFFD, is
/// escaped, and its text begins with U+FFFD. No other text begins with U+FFFD, so different names
/// give different texts.
fn user_text(user: &CStr) -> Cow<'_, str> {
    match user.to_str() {
        Ok(text) if !text.starts_with('\u{fffd}') => text.into(),
        _ => format!("\u{fffd}{}", user.to_bytes().escape_ascii()).into(),
    }
}

/// Returns the session id of this logon. The function prefers the id of the audit session that
/// pam_loginuid started. The second choice is the id of the logind session. The last choice is a
/// new id that contains the pid of the leader process.
///
/// A process can inherit its audit session. If a user starts a daemon such as sshd, and the PAM
/// stack of the daemon has no pam_loginuid, all logons through the daemon have the audit session of
/// that user. So the function does not use the id of a session that is open for another user.
fn choose_session_id(
    transaction: &Transaction,
    map: &Map,
    user: &str,
    leader: Option<&Leader>,
) -> SessionId {
    let audit_id = fs::read_to_string("/proc/self/sessionid").ok();
    let logind_id = transaction.env(c"XDG_SESSION_ID").and_then(|name| name.into_string().ok());
    let belongs_to_other_user =
        |session: &SessionId| map.is_open_for_another(*session, user).unwrap_or(false);
    existing_session_id(audit_id.as_deref(), logind_id.as_deref())
        .filter(|session| !belongs_to_other_user(session))
        .unwrap_or_else(|| generate_session_id(leader))
}

/// Returns the id of the audit session, or else the id of the logind session.
fn existing_session_id(audit_id: Option<&str>, logind_id: Option<&str>) -> Option<SessionId> {
    let audit_session = audit_id
        .and_then(|text| text.trim().parse().ok())
        .and_then(|id: u32| SessionId::new(SessionKind::Audit, id.into()).ok());
    audit_session.or_else(|| logind_id.and_then(|id| SessionId::logind(id).ok()))
}

/// Makes a session id of the kind `embedder`. The id contains the start time of the leader (34 bits
/// of clock ticks, enough for five years) and the pid of the leader (22 bits, the size of a pid on
/// Linux).
fn generate_session_id(leader: Option<&Leader>) -> SessionId {
    let (pid, start) =
        leader.map_or((std::process::id(), 0), |leader| (leader.pid, leader.start_time));
    let value = (start & 0x3_ffff_ffff) << 22 | u64::from(pid & 0x3f_ffff);
    SessionId::new(SessionKind::Embedder, value).expect("the value has 56 bits")
}

/// Parses PAM_RHOST as an address. Host names are not resolved, because that could delay the logon
/// beyond its deadline.
fn parse_client_address(host: &CStr) -> Option<IpAddr> {
    let text = host.to_str().ok()?;
    // In a link-local address, the name of the interface follows a percent sign.
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_prefers_audit_then_logind_then_generated() {
        let session_text =
            |audit, logind| existing_session_id(audit, logind).map(|session| session.to_string());
        assert_eq!(session_text(Some("7\n"), Some("c1")).as_deref(), Some("audit:7"));
        assert_eq!(session_text(Some("4294967295"), Some("12")).as_deref(), Some("logind:12"));
        assert_eq!(session_text(None, None), None);
        assert_eq!(session_text(Some("x"), Some("")), None);
        let leader = |pid, start_time| Leader { pid, start_time, pid_namespace: 1 };
        let session = generate_session_id(Some(&leader(77, 1234)));
        assert_eq!(session.kind(), SessionKind::Embedder);
        assert_ne!(session, generate_session_id(Some(&leader(77, 1235))));
        assert_ne!(session, generate_session_id(Some(&leader(78, 1234))));
    }

    #[test]
    fn different_names_have_different_texts() {
        assert_eq!(user_text(c"alice"), "alice");
        assert_eq!(user_text(c"\xc3\xa9ve"), "\u{e9}ve");
        let names =
            [c"al\xffce", c"al\xfece", c"al\\xffce", c"\xef\xbf\xbdal\\xffce", c"al\xef\xbf\xbdce"];
        let texts: std::collections::HashSet<_> = names.into_iter().map(user_text).collect();
        assert_eq!(texts.len(), names.len());
    }

    #[test]
    fn only_numeric_addresses_are_client_addresses() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(parse_client_address(c"192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(parse_client_address(c"::ffff:192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(parse_client_address(c"fe80::1%eth0"), ip("fe80::1"));
        for invalid_host in
            [c"client.example", c"", c"%", c"\xff\xfe", c"192.0.2.7; rm -rf /", c"1.2.3.4\n"]
        {
            assert_eq!(parse_client_address(invalid_host), None, "{invalid_host:?}");
        }
    }
}
