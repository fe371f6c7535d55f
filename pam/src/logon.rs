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

use crate::pam::{Item, PAM_SESSION_ERR, PAM_SUCCESS, Pam};
use crate::settings::Settings;

/// Under this name the transaction keeps what it opened.
const KEPT: &CStr = c"vipool-opened";
/// Between two attempts while waiting for an address.
const RETRY: Duration = Duration::from_millis(100);
/// How long the map itself waits for its lock.
const LOCK: Duration = Duration::from_secs(2);

/// What this transaction opened, and so has to close.
struct Kept {
    handle: Handle,
    map: PathBuf,
}

/// Opens the session and hands its lease down. Succeeds unless the policy says `refuse`.
pub fn open(pam: &Pam, settings: &Settings) -> c_int {
    // SAFETY: only `Kept` is ever kept under this name.
    if unsafe { pam.kept::<Kept>(KEPT) }.is_some() {
        return PAM_SUCCESS;
    }
    let Some(user) = pam.item(Item::User) else { return PAM_SUCCESS };
    let service = pam.item(Item::Service).map(CStr::to_string_lossy);
    let Some(uid) = users::id_of(user) else {
        pam.log(
            libc::LOG_WARNING,
            &format!("user {user:?} is not known here: no session is opened"),
        );
        return PAM_SUCCESS;
    };
    if !settings.serves(uid, service.as_deref()) {
        return PAM_SUCCESS;
    }
    let user = user.to_string_lossy();
    let logon = Logon { pam, settings, user: &user, uid };
    match logon.open() {
        Ok(opened) => {
            hand_down(pam, settings, opened.map(|opened| opened.handle));
            PAM_SUCCESS
        }
        Err(status) => status,
    }
}

/// Closes what [`open`] opened in this transaction.
pub fn close(pam: &Pam) -> c_int {
    // SAFETY: only `Kept` is ever kept under this name.
    if let Some(kept) = unsafe { pam.kept::<Kept>(KEPT) } {
        let closed = Map::open(&kept.map).map_err(|error| error.to_string()).and_then(|map| {
            map.close(&kept.handle, clock::now()).map_err(|error| error.to_string())
        });
        if let Err(error) = closed {
            pam.log(
                libc::LOG_WARNING,
                &format!("session {} is not closed: {error}", kept.handle.session),
            );
        }
        let _ = client::remove(&kept.map, &kept.handle);
        pam.forget(KEPT);
    }
    PAM_SUCCESS
}

/// One logon on its way to a session.
struct Logon<'a> {
    pam: &'a Pam,
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
        let map =
            Map::open(&self.settings.map).map_err(|error| self.without(&error.into(), false))?;
        if map.settings().allocate == Allocate::FirstUse {
            return Ok(None);
        }
        let policy = map.settings().on_exhausted;
        let refuse = policy == OnExhausted::Refuse;
        let leader = process::identify(std::process::id()).ok();
        let session = session_of(self.pam, &map, self.user, leader.as_ref());
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
            let (error, wait) = match map.open_session(session, &options, clock::now()) {
                Ok(mut opened) => {
                    // What an earlier attempt opened is this logon's.
                    opened.already_open =
                        incomplete.map_or(opened.already_open, |first: Opened| first.already_open);
                    let Some(shortage) = opened.shortage else {
                        return Ok(Some(self.keep(opened)));
                    };
                    incomplete = Some(opened);
                    (OpenError::Shortage(shortage), patience(policy))
                }
                Err(error @ OpenError::Shortage(_)) => (error, patience(policy)),
                Err(error @ OpenError::NotReady) => (error, self.settings.deadline),
                Err(error) => (error, Duration::ZERO),
            };
            // The last attempt may have to wait for the lock.
            let deadline = self.settings.deadline.saturating_sub(LOCK);
            if start.elapsed() + RETRY > wait.min(deadline) {
                break error;
            }
            std::thread::sleep(RETRY);
        };
        let status = self.without(&error, refuse);
        match incomplete {
            Some(opened) if status == PAM_SUCCESS => Ok(Some(self.keep(opened))),
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
        self.pam.item(Item::RemoteHost).and_then(client_of)
    }

    /// Remembers, for the logoff, what this logon opened, and lets the user's programs know where
    /// the client is.
    fn keep(&self, opened: Opened) -> Opened {
        if let (false, Some(address)) = (opened.already_open, self.client())
            && let Err(error) =
                client::write(&self.settings.map, &opened.handle, address, Some(self.uid))
        {
            let what = format!("programs of {} are not told of their client: {error}", self.user);
            self.pam.log(libc::LOG_WARNING, &what);
        }
        let kept = Kept { handle: opened.handle, map: self.settings.map.clone() };
        if !opened.already_open && !self.pam.keep(KEPT, kept) {
            let what = "out of memory: the session is closed when its leader is gone";
            self.pam.log(libc::LOG_WARNING, what);
        }
        opened
    }

    /// Tells the user and the log that an address is lacking; whether the logon passes.
    fn without(&self, error: &OpenError, refuse: bool) -> c_int {
        use OpenError as E;
        let no_address = matches!(error, E::Shortage(_) | E::Quota { .. } | E::TooManySessions(_));
        let refuse = refuse && no_address;
        let outcome = if refuse { "the logon is refused" } else { "the logon goes on without" };
        let level = if no_address { libc::LOG_WARNING } else { libc::LOG_NOTICE };
        self.pam.log(level, &format!("no address for {}: {error} ({outcome})", self.user));
        if no_address {
            self.pam.tell(EXHAUSTED_MESSAGE);
        }
        if refuse { PAM_SESSION_ERR } else { PAM_SUCCESS }
    }
}

/// How long the farm's policy lets a logon wait for an address.
fn patience(policy: OnExhausted) -> Duration {
    match policy {
        OnExhausted::Wait(seconds) => Duration::from_secs(seconds.into()),
        OnExhausted::Pass | OnExhausted::Refuse => Duration::ZERO,
    }
}

/// Sets what the session's programs are to find. Without a lease, the hook looks for that of the
/// session itself.
fn hand_down(pam: &Pam, settings: &Settings, lease: Option<Handle>) {
    let mut ok =
        lease.is_none_or(|handle| pam.put_env("VIPOOL_LEASE", handle.to_string().as_bytes()));
    if !settings.system_map() {
        ok &= pam.put_env("VIPOOL_MAP", settings.map.as_os_str().as_encoded_bytes());
    }
    // Where it is absent, ld.so would complain at every start of a program.
    if let Some(preload) = settings.preload.as_deref().filter(|file| Path::new(file).exists()) {
        let before = pam.env(c"LD_PRELOAD").map(CStr::to_bytes).unwrap_or_default();
        let there = before.split(|byte| b": ".contains(byte)).any(|it| it == preload.as_bytes());
        if !there {
            let colon: &[u8] = if before.is_empty() { b"" } else { b":" };
            ok &= pam.put_env("LD_PRELOAD", &[before, colon, preload.as_bytes()].concat());
        }
    }
    if !ok {
        pam.log(
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
fn session_of(pam: &Pam, map: &Map, user: &str, leader: Option<&Leader>) -> SessionId {
    let audit = fs::read_to_string("/proc/self/sessionid").ok();
    let logind = pam.env(c"XDG_SESSION_ID").and_then(|name| name.to_str().ok());
    let others = |session: &SessionId| {
        map.find(*session).is_ok_and(|found| found.is_some())
            && map.sessions().is_ok_and(|rows| {
                rows.iter().any(|row| {
                    row.session == *session && row.user.as_deref().is_some_and(|of| of != user)
                })
            })
    };
    known(audit.as_deref(), logind)
        .filter(|session| !others(session))
        .unwrap_or_else(|| minted(leader))
}

fn known(audit: Option<&str>, logind: Option<&str>) -> Option<SessionId> {
    let audit = audit
        .and_then(|text| text.trim().parse().ok())
        .and_then(|id: u32| SessionId::new(SessionKind::Audit, id.into()).ok());
    audit.or_else(|| logind.and_then(|name| SessionId::logind(name).ok()))
}

/// A session of the kind `embedder`: the start time of the leading process (34 bits of clock
/// ticks, five years of them) and its pid (22 bits, as many as Linux has).
fn minted(leader: Option<&Leader>) -> SessionId {
    let (pid, start) = leader.map_or((std::process::id(), 0), |it| (it.pid, it.start_time));
    let value = (start & 0x3_ffff_ffff) << 22 | u64::from(pid & 0x3f_ffff);
    SessionId::new(SessionKind::Embedder, value).expect("56 bits")
}

/// PAM_RHOST as an address. Names are not looked up: that could take longer than a logon may.
fn client_of(host: &CStr) -> Option<IpAddr> {
    let text = host.to_str().ok()?;
    // A link-local address comes with its interface.
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_audits_then_loginds_then_minted() {
        let text = |audit, logind| known(audit, logind).map(|session| session.to_string());
        assert_eq!(text(Some("7\n"), Some("c1")).as_deref(), Some("audit:7"));
        assert_eq!(text(Some("4294967295"), Some("12")).as_deref(), Some("logind:12"));
        assert_eq!(text(None, None), None);
        assert_eq!(text(Some("x"), Some("")), None);
        let leader = |pid, start_time| Leader { pid, start_time, pid_namespace: 1 };
        let session = minted(Some(&leader(77, 1234)));
        assert_eq!(session.kind(), SessionKind::Embedder);
        assert_ne!(session, minted(Some(&leader(77, 1235))));
        assert_ne!(session, minted(Some(&leader(78, 1234))));
    }

    #[test]
    fn a_client_is_an_address_or_nothing() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(client_of(c"192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(client_of(c"::ffff:192.0.2.7"), ip("192.0.2.7"));
        assert_eq!(client_of(c"fe80::1%eth0"), ip("fe80::1"));
        for odd in [c"client.example", c"", c"%", c"\xff\xfe", c"192.0.2.7; rm -rf /", c"1.2.3.4\n"]
        {
            assert_eq!(client_of(odd), None, "{odd:?}");
        }
    }
}
