//! Where a process stands in the map: its rule, its session and the addresses of it.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, seteuid};
use serde::Serialize;
use vipool::map::{MapError, Reader};
use vipool::os::client;
use vipool::os::lease::{self, FoundBy};
use vipool::policy::{Features, MatchResult, PolicyView, ProgramView};
use vipool::session::{Addresses, Handle, SessionId};

use super::process::Subject;
use super::sockets::Socket;
use super::verdict::Found;
use crate::run;

/// A rule of the process list.
#[derive(Debug, Serialize)]
pub struct RuleTold {
    /// Its place in the list, from 1.
    pub place: usize,
    pub path: String,
    pub script: Option<String>,
    pub features: Vec<&'static str>,
    /// What became of it.
    pub verdict: String,
    /// The parent that handed it down.
    pub inherited_from: Option<u32>,
}

/// The session of the process.
#[derive(Debug, Serialize)]
pub struct SessionTold {
    pub session: String,
    /// `lease`, `audit-session`, `session-scope`, `user-manager`, `sockets` or `chosen`.
    pub found_by: &'static str,
    pub open: bool,
    pub virtual_ip: Vec<IpAddr>,
    /// Its loopback addresses: the one for 127.0.0.1 and the one for ::1.
    pub loopback: Vec<IpAddr>,
    /// The address of its client, where the caller may know it.
    pub client: Option<IpAddr>,
}

/// Maps the map as the process would: with its user's rights, in its file system.
pub fn attach(subject: &Subject, directory: &Path) -> Result<Reader, MapError> {
    let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let there = subject.pid.filter(|pid| mounts(&pid.to_string()) != mounts("self"));
    let path = match (there, directory.strip_prefix("/")) {
        (Some(pid), Ok(path)) => PathBuf::from(format!("/proc/{pid}/root")).join(path),
        _ => directory.to_owned(),
    };
    let own = Uid::effective();
    let becomes = own.is_root() && subject.uid != 0;
    if becomes && seteuid(Uid::from_raw(subject.uid)).is_ok() {
        let map = Reader::attach(&path);
        seteuid(own).expect("root may take its own rights back");
        return map;
    }
    Reader::attach(&path)
}

/// The rule that the process is under, by itself or by a parent.
pub fn rule_of<'a>(
    subject: &Subject,
    policy: &PolicyView<'a>,
) -> Option<(ProgramView<'a>, RuleTold)> {
    if let Some(found) = policy.find(&subject.executable()?) {
        let told = RuleTold::new(found.index, &found.program, found.result);
        return Some((found.program, told));
    }
    let (program, parent) = lease::inherited(policy, lease::Process::Other(subject.pid?))?;
    let place = policy.programs().position(|rule| rule.id() == program.id()).unwrap_or(0);
    let told = RuleTold {
        inherited_from: Some(parent),
        verdict: format!("handed down by process {parent}, which started it"),
        ..RuleTold::new(place, &program, MatchResult::OtherProgram)
    };
    Some((program, told))
}

/// Rules for programs of the same name.
pub fn near_misses(subject: &Subject, policy: &PolicyView<'_>) -> Vec<RuleTold> {
    let Some(executable) = subject.executable() else { return Vec::new() };
    policy
        .explain(executable)
        .enumerate()
        .filter(|(_, (_, it))| matches!(it, MatchResult::OtherDirectory | MatchResult::OtherScript))
        .map(|(place, (rule, verdict))| RuleTold::new(place, &rule, verdict))
        .collect()
}

impl RuleTold {
    fn new(place: usize, rule: &ProgramView<'_>, verdict: MatchResult) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Features { virtual_ip, loopback, client_ip } = rule.features();
        let features =
            [(virtual_ip, "virtual-ip"), (loopback, "loopback"), (client_ip, "client-ip")];
        Self {
            place: place + 1,
            path: text(rule.pattern()),
            script: rule.script().map(text),
            features: features.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect(),
            verdict: verdict.to_string(),
            inherited_from: None,
        }
    }
}

/// The session of a process, and how it was found.
pub struct Session {
    pub state: Found,
    pub id: Option<SessionId>,
    /// Its handle, while it is open.
    pub handle: Option<Handle>,
    by: &'static str,
}

impl Session {
    fn open(map: &Reader, id: SessionId, by: &'static str) -> Option<Self> {
        let (handle, _) = map.find(id)?;
        Some(Self { state: Found::Open, id: Some(id), handle: Some(handle), by })
    }

    pub fn told(&self, addresses: &Addresses, directory: &Path) -> Option<SessionTold> {
        let v4 = addresses.v4.map(IpAddr::from);
        let loopback = [addresses.loopback, addresses.loopback6];
        Some(SessionTold {
            session: self.id?.to_string(),
            found_by: self.by,
            open: self.handle.is_some(),
            virtual_ip: v4.into_iter().chain(addresses.v6.map(IpAddr::from)).collect(),
            loopback: loopback.into_iter().flatten().map(IpAddr::from).collect(),
            client: self.handle.as_ref().and_then(|handle| client::read(directory, handle)),
        })
    }
}

/// Finds the session as the hook does when the process is loaded.
pub fn session_of(pid: u32, subject: &Subject, map: &Reader, open: &[Socket]) -> Session {
    let none = |state| Session { state, id: None, handle: None, by: "lease" };
    if let Some(text) = subject.variable("VIPOOL_LEASE") {
        return match Handle::parse(text.as_encoded_bytes()) {
            Some(handle) if map.is_live(&handle) => Session {
                state: Found::Open,
                id: Some(handle.session),
                handle: map.find(handle.session).map(|(handle, _)| handle),
                by: "lease",
            },
            Some(handle) if handle.boot == map.boot() => {
                Session { id: Some(handle.session), ..none(Found::Closed) }
            }
            _ => none(Found::Stale),
        };
    }
    if subject.variables.is_none() {
        // It may have been told a lease: what its sockets are bound to says which.
        let mut sessions = map.sessions().into_iter();
        let found = sessions.find(|row| {
            row.leases.iter().any(|lease| {
                open.iter().any(|socket| socket.local.ip().to_canonical() == lease.address)
            })
        });
        let found = found.and_then(|row| Session::open(map, row.session, "sockets"));
        return found.unwrap_or(none(Found::Unseen));
    }
    match lease::of_process(map, lease::Process::Other(pid)) {
        Some((session, by)) => {
            let by = match by {
                FoundBy::AuditSession => "audit-session",
                FoundBy::SessionScope => "session-scope",
                FoundBy::UserManager => "user-manager",
            };
            Session::open(map, session, by).unwrap_or(none(Found::None))
        }
        None => none(Found::None),
    }
}

/// The session that a program would be run in.
pub fn chosen_session(map: &Reader, chosen: Option<SessionId>) -> Session {
    let id = chosen.or_else(|| run::own_session().ok());
    id.and_then(|id| Session::open(map, id, "chosen")).unwrap_or(Session {
        state: Found::ToBeOpened,
        id,
        handle: None,
        by: "chosen",
    })
}

pub fn has_address(features: Features, addresses: &Addresses) -> bool {
    features.virtual_ip && (addresses.v4.is_some() || addresses.v6.is_some())
        || features.loopback && addresses.loopback.is_some()
        || features.client_ip
}

/// What the rule would use and the session does not have.
pub fn lacking(
    features: Features,
    addresses: &Addresses,
    session: &Session,
    notes: &mut Vec<String>,
) {
    if session.handle.is_none() || !has_address(features, addresses) {
        return;
    }
    if features.virtual_ip && addresses.v4.is_none() && addresses.v6.is_none() {
        notes.push("The session has no virtual IP: wildcard binds stay as they are.".into());
    }
    if features.loopback && addresses.loopback.is_none() {
        notes.push("The session has no loopback address: 127.0.0.1 is the host's.".into());
    }
}
