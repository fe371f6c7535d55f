//! Finds the rule, the session and the addresses of a process in the map.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, seteuid};
use serde::Serialize;
use vipool::client_file;
use vipool::discovery::{self, FoundBy};
use vipool::map::{MapError, Reader};
use vipool::policy::{Features, MatchResult, PolicyView, ProgramView};
use vipool::session::{Addresses, Handle, SessionId};

use super::obstacles::SessionState;
use super::process::Subject;
use super::sockets::Socket;
use crate::system::caller;

/// A rule of the process list.
#[derive(Debug, Serialize)]
pub struct RuleReport {
    /// The key of the rule, as in the findings of `vipool check`: the first rule has the
    /// key `program[0]`.
    pub key: String,
    pub path: String,
    pub script: Option<String>,
    pub features: Vec<&'static str>,
    /// How the rule matches the program, or why it does not.
    pub verdict: String,
    /// The process from which the rule was inherited.
    pub inherited_from: Option<u32>,
}

/// The session of the process.
#[derive(Debug, Serialize)]
pub struct SessionReport {
    pub session: String,
    /// The method that found the session: `lease`, `audit-session`, `login-user`, `session-scope`,
    /// `user-manager`, `sockets` or `chosen`.
    pub found_by: &'static str,
    pub open: bool,
    pub virtual_ip: Vec<IpAddr>,
    /// The loopback addresses that replace 127.0.0.1 and ::1.
    pub loopback: Vec<IpAddr>,
    /// The address of the user's client, if the caller may read it.
    pub client: Option<IpAddr>,
}

/// Attaches to the map as the process itself does: with the rights of its user, in its mount
/// namespace.
///
/// # Errors
/// The process itself could not attach the map, or the map belongs to another network namespace
/// than the caller.
pub fn attach(subject: &Subject, directory: &Path) -> Result<Reader, MapError> {
    let mount_namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let pid_in_other_namespace =
        subject.pid.filter(|pid| mount_namespace(&pid.to_string()) != mount_namespace("self"));
    let path = match (pid_in_other_namespace, directory.strip_prefix("/")) {
        (Some(pid), Ok(path)) => PathBuf::from(format!("/proc/{pid}/root")).join(path),
        _ => directory.to_owned(),
    };
    let caller_uid = Uid::effective();
    let must_change_user = caller_uid.is_root() && subject.uid != 0;
    if must_change_user && seteuid(Uid::from_raw(subject.uid)).is_ok() {
        let map = Reader::attach(&path);
        seteuid(caller_uid).expect("root can restore its effective user ID");
        return map;
    }
    Reader::attach(&path)
}

/// Returns the rule that applies to the process: the rule of its program, or an inherited rule.
pub fn find_rule<'a>(
    subject: &Subject,
    policy: &PolicyView<'a>,
) -> Option<(ProgramView<'a>, RuleReport)> {
    if let Some(matched_rule) = policy.find(&subject.executable()?) {
        let report =
            RuleReport::new(matched_rule.index, &matched_rule.program, matched_rule.result);
        return Some((matched_rule.program, report));
    }
    let (program, ancestor) =
        discovery::inherited_rule(policy, discovery::Process::Other(subject.pid?))?;
    let index = policy.programs().position(|rule| rule.id() == program.id()).unwrap_or(0);
    let report = RuleReport {
        inherited_from: Some(ancestor),
        verdict: format!("inherited from process {ancestor}, which started the program"),
        ..RuleReport::new(index, &program, MatchResult::OtherProgram)
    };
    Some((program, report))
}

/// Returns the rules that match only in part: the same file name in another directory, or the same
/// interpreter with another script.
pub fn near_misses(subject: &Subject, policy: &PolicyView<'_>) -> Vec<RuleReport> {
    let Some(executable) = subject.executable() else { return Vec::new() };
    policy
        .explain(executable)
        .enumerate()
        .filter(|(_, (_, result))| {
            matches!(result, MatchResult::OtherDirectory | MatchResult::OtherScript)
        })
        .map(|(index, (rule, verdict))| RuleReport::new(index, &rule, verdict))
        .collect()
}

impl RuleReport {
    fn new(index: usize, rule: &ProgramView<'_>, verdict: MatchResult) -> Self {
        let to_text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Features { virtual_ip, loopback, client_ip, .. } = rule.features();
        let features =
            [(virtual_ip, "virtual-ip"), (loopback, "loopback"), (client_ip, "client-ip")];
        Self {
            key: format!("program[{index}]"),
            path: to_text(rule.pattern()),
            script: rule.script().map(to_text),
            features: features
                .iter()
                .filter(|(is_set, _)| *is_set)
                .map(|(_, name)| *name)
                .collect(),
            verdict: verdict.to_string(),
            inherited_from: None,
        }
    }
}

/// The result of the search for the session of a process.
pub struct SessionLookup {
    pub state: SessionState,
    pub id: Option<SessionId>,
    /// The handle, if the session is open.
    pub handle: Option<Handle>,
    /// The method that found the session.
    found_by: &'static str,
}

impl SessionLookup {
    fn open(map: &Reader, id: SessionId, found_by: &'static str) -> Option<Self> {
        let (handle, _) = map.find(id)?;
        Some(Self { state: SessionState::Open, id: Some(id), handle: Some(handle), found_by })
    }

    /// Returns the report, or `None` if no session was found.
    pub fn report(&self, addresses: &Addresses, directory: &Path) -> Option<SessionReport> {
        let v4 = addresses.v4.map(IpAddr::from);
        let loopback = [addresses.loopback, addresses.loopback6];
        Some(SessionReport {
            session: self.id?.to_string(),
            found_by: self.found_by,
            open: self.handle.is_some(),
            virtual_ip: v4.into_iter().chain(addresses.v6.map(IpAddr::from)).collect(),
            loopback: loopback.into_iter().flatten().map(IpAddr::from).collect(),
            client: self.handle.as_ref().and_then(|handle| client_file::read(directory, handle)),
        })
    }
}

/// Finds the session of a process, as the hook does at program start. If the process overwrote its
/// environment, infers the session from the open sockets instead.
pub fn session_of_process(
    pid: u32,
    subject: &Subject,
    map: &Reader,
    open_sockets: &[Socket],
) -> SessionLookup {
    let without_handle = |state| SessionLookup { state, id: None, handle: None, found_by: "lease" };
    if let Some(lease_text) = subject.variable("VIPOOL_LEASE") {
        return match Handle::parse(lease_text.as_encoded_bytes()) {
            Some(handle) if map.is_live(&handle) => SessionLookup {
                state: SessionState::Open,
                id: Some(handle.session),
                handle: map.find(handle.session).map(|(handle, _)| handle),
                found_by: "lease",
            },
            Some(handle) if handle.boot == map.boot() => {
                SessionLookup { id: Some(handle.session), ..without_handle(SessionState::Closed) }
            }
            _ => without_handle(SessionState::Stale),
        };
    }
    if subject.variables.is_none() {
        // VIPOOL_LEASE, if it was set, is lost. A socket on an address of a session shows that the
        // process is in this session.
        let mut sessions = map.sessions().into_iter();
        let row = sessions.find(|row| {
            row.leases.iter().any(|lease| {
                open_sockets.iter().any(|socket| socket.local.ip().to_canonical() == lease.address)
            })
        });
        let lookup = row.and_then(|row| SessionLookup::open(map, row.session, "sockets"));
        return lookup.unwrap_or(without_handle(SessionState::Unknown));
    }
    match discovery::session_of_process(map, discovery::Process::Other(pid)) {
        Some((session, source)) => {
            let found_by = match source {
                FoundBy::AuditSession => "audit-session",
                FoundBy::LoginUser => "login-user",
                FoundBy::SessionScope => "session-scope",
                FoundBy::UserManager => "user-manager",
            };
            SessionLookup::open(map, session, found_by)
                .unwrap_or(without_handle(SessionState::Absent))
        }
        None => without_handle(SessionState::Absent),
    }
}

/// Returns the session in which 'vipool run' would start a program: `requested`, or the session of
/// the caller.
pub fn requested_session(map: &Reader, requested: Option<SessionId>) -> SessionLookup {
    let id = requested.or_else(|| caller::own_session(map.settings().session_per).ok());
    id.and_then(|id| SessionLookup::open(map, id, "chosen")).unwrap_or(SessionLookup {
        state: SessionState::WillOpen,
        id,
        handle: None,
        found_by: "chosen",
    })
}

/// Returns whether a rule with `features` has an effect in a session with `addresses`. The feature
/// `client-ip` needs no address.
pub fn has_effect(features: Features, addresses: &Addresses) -> bool {
    features.virtual_ip && (addresses.v4.is_some() || addresses.v6.is_some())
        || features.loopback && addresses.loopback.is_some()
        || features.client_ip
}

/// Returns a note for each kind of address that the rule uses and the session does not have.
/// Returns no notes without an open session. Also returns no notes if the rule has no effect at
/// all, because an obstacle reports that.
pub fn missing_address_notes(
    features: Features,
    addresses: &Addresses,
    session: &SessionLookup,
) -> Vec<String> {
    let mut notes = Vec::new();
    if session.handle.is_none() || !has_effect(features, addresses) {
        return notes;
    }
    if features.virtual_ip && addresses.v4.is_none() && addresses.v6.is_none() {
        notes.push("The session has no virtual IP: wildcard binds are not rewritten.".into());
    }
    if features.loopback && addresses.loopback.is_none() {
        notes.push("The session has no loopback address: 127.0.0.1 is not rewritten.".into());
    }
    notes
}
