//! The way into a session, and out of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::sys::signal::Signal;
use vipool::map::{
    AllocationTime, CloseError, ExhaustionPolicy, Map, OpenError, OpenOptions, OpenedSession,
    Reader, Shortage,
};
use vipool::os::{client, clock, process};
use vipool::policy::{Executable, PathStyle, script_argument};
use vipool::session::{Handle, SessionId};

use super::signals::{Signals, Woken};
use super::{Run, hook, user};
use crate::place::{self, Which};
use crate::private::{self, Claim};
use crate::{gc, report};

/// How often an exhausted pool is asked again, in milliseconds.
const RETRY: u16 = 250;

/// A session that a program is about to run in.
pub struct Entered {
    handle: Handle,
    directory: PathBuf,
    object: PathBuf,
    /// The map to close the session in, if this process opened it.
    opened: Option<Map>,
    claim: Option<Claim>,
}

/// Why a program does not run in its session.
pub enum NotEntered {
    /// It is on no list, and the farm gives a session its addresses when a listed program starts.
    Unlisted,
    /// No address was left.
    NoAddress { why: Shortage, refuse: bool },
    /// This signal came while waiting for an address.
    Killed(Signal),
    /// Anything else.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for NotEntered {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Entered {
    /// What the program's environment has in addition.
    pub fn environment(&self) -> BTreeMap<&'static str, OsString> {
        hook::environment(&self.object, &self.handle, place::told(&self.directory))
    }

    /// The claim on the addresses of a private map.
    pub fn claim(&mut self) -> Option<&mut Claim> {
        self.claim.as_mut()
    }

    /// Closes the session, if it was this process that opened it.
    pub fn leave(self) -> anyhow::Result<()> {
        let Some(map) = self.opened else { return Ok(()) };
        // Without the lease it is worth nothing to anybody.
        let _ = client::remove(&self.directory, &self.handle);
        match map.close_by_handle(&self.handle, clock::now()) {
            // Somebody closed it before us: what we wanted.
            Ok(_) | Err(CloseError::NotOpen(_) | CloseError::Stale(_)) => Ok(()),
            Err(error) => Err(error).context(format!(
                "cannot close session {0}: 'vipool session close {0}' does",
                self.handle.session
            )),
        }
    }
}

/// Enters the session that `run` names.
pub fn enter(run: &Run, signals: &mut Signals) -> Result<Entered, NotEntered> {
    let object = hook::find()?;
    let (map, directory, claim) = match run.place.which() {
        Which::Private => {
            let farm = run.farm.clone().or_else(private::farm_of_user);
            let program = resolve(&run.program[0])?;
            let private = private::open(farm.as_deref(), Some(&program))?;
            (private.map, private.directory, Some(private.claim))
        }
        Which::At(_) if run.farm.is_some() => {
            return Err(anyhow!(
                "--farm is for a private map: the system's follows the farm file of 'vipool up' \
                 (add --private for one of your own)"
            )
            .into());
        }
        Which::At(directory) => match Map::open(&directory) {
            Ok(map) => (map, directory, None),
            Err(error) if report::is_denied(&error) => {
                return join(run.session, directory, object);
            }
            Err(error) => return Err(error.into()),
        },
    };
    let session = match run.session {
        Some(session) => session,
        None => own_session()?,
    };
    let program = Started::find(&run.program);
    let first_use = map.settings().allocate == AllocationTime::FirstUse;
    if first_use && map.find(session)?.is_none() && !program.is_listed(&map.reader()?) {
        return Err(NotEntered::Unlisted);
    }
    let user = run.user.clone().unwrap_or_else(user::own_name);
    let pool = run.pool.clone().or_else(|| map.choose_pool(&user, program.executable().as_ref()));
    let options = OpenOptions {
        user: Some(&user),
        pool: pool.as_deref(),
        address: run.address,
        client: run.client,
        leader: Some(process::identify(std::process::id())?),
    };
    let opened = open(&map, session, &options, signals)?;
    if let Some(shortage) = opened.shortage {
        eprintln!("vipool: session {session} holds less than it could: {shortage}");
    }
    if let (false, Some(address)) = (opened.already_open, run.client) {
        user::tell_client(&directory, &opened.handle, address, run.user.as_deref());
    }
    Ok(Entered {
        handle: opened.handle,
        directory,
        object,
        opened: (!opened.already_open).then_some(map),
        claim,
    })
}

/// The program as the process list looks at it.
struct Started<'a> {
    /// Its file, links followed.
    file: Option<PathBuf>,
    /// The path it is started by.
    path: Option<PathBuf>,
    arguments: &'a [OsString],
}

impl<'a> Started<'a> {
    fn find(program: &'a [OsString]) -> Self {
        match program.split_first() {
            Some((name, arguments)) => {
                Self { file: resolve(name).ok(), path: find(name), arguments }
            }
            None => Self { file: None, path: None, arguments: &[] },
        }
    }

    fn executable(&self) -> Option<Executable<'_>> {
        Some(Executable {
            path: self.file.as_ref()?.as_os_str().as_encoded_bytes(),
            invoked_as: self.path.as_ref().map(|path| path.as_os_str().as_encoded_bytes()),
            script: script_argument(
                self.arguments.iter().map(|argument| argument.as_encoded_bytes()),
            ),
            style: PathStyle::Posix,
        })
    }

    fn is_listed(&self, map: &Reader) -> bool {
        self.executable().is_some_and(|program| map.policy().find(&program).is_some())
    }
}

/// Opens the session; where the farm says so, waits for an address.
fn open(
    map: &Map,
    session: SessionId,
    options: &OpenOptions<'_>,
    signals: &mut Signals,
) -> Result<OpenedSession, NotEntered> {
    let policy = map.settings().on_exhausted;
    let patience = match policy {
        ExhaustionPolicy::Wait(seconds) => Duration::from_secs(seconds.into()),
        ExhaustionPolicy::Pass | ExhaustionPolicy::Refuse => Duration::ZERO,
    };
    let deadline = Instant::now() + patience;
    let mut looked = false;
    loop {
        let why = match map.open_session(session, options, clock::now()) {
            Ok(opened) => return Ok(opened),
            Err(OpenError::Shortage(Shortage::Lingering)) if !looked => {
                looked = true;
                gc::collect(map)?;
                continue;
            }
            Err(OpenError::Shortage(why)) => why,
            Err(error) => return Err(error.into()),
        };
        if Instant::now() >= deadline {
            return Err(NotEntered::NoAddress { why, refuse: policy == ExhaustionPolicy::Refuse });
        }
        // SIGWINCH and the like only shorten the wait.
        match signals.wait(None, Some(RETRY))? {
            Woken::Signal(signal) if signal != Signal::SIGWINCH => {
                return Err(NotEntered::Killed(signal));
            }
            _ => {}
        }
    }
}

/// Joins the session of this logon in a map that only the system may write.
fn join(
    wanted: Option<SessionId>,
    directory: PathBuf,
    object: PathBuf,
) -> Result<Entered, NotEntered> {
    let own = own_session()?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != own) {
        return Err(anyhow!(
            "session {wanted} is not that of your logon ({own}): leave --session out to join \
             yours, or add --private for a session of your own"
        )
        .into());
    }
    let (handle, _) = Reader::attach(&directory)?
        .find(own)
        .with_context(|| format!("your session {own} has no address (ask your administrator)"))?;
    Ok(Entered { handle, directory, object, opened: None, claim: None })
}

/// The session of this logon: the one we were started in, else logind's, else the audit session.
pub fn own_session() -> anyhow::Result<SessionId> {
    let lease = std::env::var("VIPOOL_LEASE").ok();
    if let Some(handle) = lease.and_then(|text| Handle::parse(text.as_bytes())) {
        return Ok(handle.session);
    }
    if let Ok(name) = std::env::var("XDG_SESSION_ID")
        && let Ok(session) = SessionId::logind(&name)
    {
        return Ok(session);
    }
    let audit = std::fs::read_to_string("/proc/self/sessionid").ok();
    audit
        .and_then(|text| format!("audit:{}", text.trim()).parse().ok())
        .context("this logon has no session of its own: name one, such as --session 1")
}

/// The file of the program as the kernel will show it: found on the PATH, symlinks resolved.
fn resolve(program: &OsStr) -> anyhow::Result<PathBuf> {
    find(program)
        .and_then(|path| path.canonicalize().ok())
        .with_context(|| format!("cannot find the program {}", program.display()))
}

/// The path by which the program will be started.
pub fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| {
        nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
    })
}
