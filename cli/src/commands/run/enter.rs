//! Enters a session for a program, and leaves the session after the program has exited.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::sys::signal::Signal;
use vipool::Tick;
use vipool::map::{
    AllocationTime, CloseError, ClosedSession, ExhaustionPolicy, Leader, Map, OpenError,
    OpenOptions, OpenedSession, Reader, Shortage,
};
use vipool::policy::{Executable, PathStyle, script_argument};
use vipool::session::{Handle, SessionKind};
use vipool::system;

use super::args::Run;
use super::signals::{Signals, WakeReason};
use crate::maps::client::{remove_client_file, write_client_file};
use crate::maps::private::{self, Claim};
use crate::maps::report::missing_address;
use crate::maps::selection::{MapSelection, map_variable};
use crate::maps::{reap, report};
use crate::remedy;
use crate::system::exec_path::{find_program, resolve_program};
use crate::system::{caller, hook};

/// Milliseconds between two attempts to get an address from an exhausted pool.
const RETRY_MILLISECONDS: u16 = 250;

/// The session that this process has entered for the program.
pub struct EnteredSession {
    handle: Handle,
    directory: PathBuf,
    hook_file: PathBuf,
    /// The map in which this process must close or leave the session. `None` if this process
    /// neither opened nor shares the session.
    map_for_leaving: Option<Map>,
    /// This process, if it counts as a logon of a shared session.
    shared_logon: Option<Leader>,
    claim: Option<Claim>,
}

/// The reason why a program does not run in its session.
pub enum EnterError {
    /// The session is not open, and the program does not open it: with `allocate = "first-use"`,
    /// only programs on the process list open a session.
    NotListed,
    /// The session lacks an address, a limit of sessions is reached, or the pool cannot be chosen
    /// because the user's groups are unknown. If `is_refused` is true, the farm file forbids
    /// running the program with the host's addresses.
    NoAddress { error: OpenError, is_refused: bool },
    /// This signal arrived while the process waited for an address.
    Interrupted(Signal),
    /// Any other failure.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for EnterError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl EnteredSession {
    /// Returns the environment variables to set for the program.
    pub fn environment(&self) -> BTreeMap<&'static str, OsString> {
        hook::hook_environment(&self.hook_file, &self.handle, map_variable(&self.directory))
    }

    /// Returns the claim on the loopback addresses if the session is in a private map.
    pub fn claim(&mut self) -> Option<&mut Claim> {
        self.claim.as_mut()
    }

    /// Closes the session if this process opened it. If the session is shared, this function only
    /// ends this process's logon. A shared session closes with its last logon.
    ///
    /// # Errors
    /// The session cannot be closed.
    pub fn leave(self) -> anyhow::Result<()> {
        let Some(map) = self.map_for_leaving else { return Ok(()) };
        let result = close_or_leave(&map, &self.handle, self.shared_logon.as_ref());
        if !matches!(result, Ok(None)) {
            remove_client_file(&self.directory, &self.handle);
        }
        match result {
            // Another process may have closed the session first.
            Ok(_) | Err(CloseError::NotOpen(_) | CloseError::Stale(_)) => Ok(()),
            Err(error) => Err(error).context(format!(
                "cannot close session {0} (try 'vipool session close {0}')",
                self.handle.session
            )),
        }
    }
}

/// Closes a session, or ends one logon of a shared session. Returns the closed session, or `None`
/// if other logons keep the session open.
fn close_or_leave(
    map: &Map,
    handle: &Handle,
    shared_logon: Option<&Leader>,
) -> Result<Option<ClosedSession>, CloseError> {
    match shared_logon {
        Some(process) => map.leave_session(handle, process, system::has_exited, Tick::now()),
        None => map.close_by_handle(handle, Tick::now()).map(Some),
    }
}

/// Enters the session that the arguments select. Opens the session if it is not open.
///
/// # Errors
/// See [`EnterError`].
pub fn enter(args: &Run, signals: &mut Signals) -> Result<EnteredSession, EnterError> {
    let hook_file = hook::find_hook()?;
    let (map, directory, claim) = match args.map.selection() {
        MapSelection::Private => {
            let farm = args.farm.clone().or_else(private::default_farm_file);
            let program = resolve_program(&args.program[0])?;
            let private_map = private::open(farm.as_deref(), Some(&program))?;
            (private_map.map, private_map.directory, Some(private_map.claim))
        }
        MapSelection::Directory(_) if args.farm.is_some() => {
            return Err(anyhow!(
                "--farm applies only to a private map; the system's map uses the farm file of \
                 'vipool up' (add --private, or omit --farm)"
            )
            .into());
        }
        MapSelection::Directory(directory) => match Map::open(&directory) {
            Ok(map) => (map, directory, None),
            Err(error) if report::is_permission_denied(&error) => {
                return join(args, directory, hook_file);
            }
            Err(error) => return Err(error.into()),
        },
    };
    let session = match args.session {
        Some(session) => session,
        None => caller::own_session(map.settings()?.session_per)?,
    };
    let program = ProgramProperties::find(&args.program);
    let allocates_at_first_use = map.settings()?.allocate == AllocationTime::FirstUse;
    if allocates_at_first_use && map.find(session)?.is_none() && !program.is_listed(&map.reader()?)
    {
        return Err(EnterError::NotListed);
    }
    let user = args.user.clone().unwrap_or_else(caller::user_name);
    let choose_pool = || match &args.pool {
        Some(pool) => Ok(Some(pool.clone())),
        None => map.choose_pool(&user, program.executable().as_ref()),
    };
    let process = system::identify_process(std::process::id())
        .context("cannot identify this process in /proc")?;
    // All logons of a user share a session of this kind. This process counts as one of the logons,
    // so the session stays open while the program runs.
    let shared_logon = (session.kind() == SessionKind::User).then_some(process);
    let open = |has_joined: bool| {
        let pool = choose_pool()?;
        let options = OpenOptions::new()
            .with_address(args.address)
            .with_client(args.client)
            .with_pool(pool.as_deref());
        // Look up the session at each attempt, because another process can close the session.
        let options = match map.find(session)? {
            // This process joins the session. The session keeps its leader, because the leader may
            // run longer than this process.
            Some(_) => options.with_user(args.user.as_deref()),
            None => options.with_user(user.as_str()).with_leader(process),
        };
        match shared_logon {
            Some(process) if !has_joined => {
                map.join_session(session, &options, process, Tick::now())
            }
            _ => map.open_session(session, &options, Tick::now()),
        }
    };
    let opened = open_or_join_session(&map, shared_logon, open, args.require, signals)?;
    if let Some(shortage) = opened.shortage {
        let missing = missing_address(&map.reader()?, &opened.leases).unwrap_or("further address");
        let shortage = remedy::describe_shortage(&shortage);
        errln!("vipool: session {session} got no {missing}: {shortage}");
    }
    if let Some(address) = args.client {
        write_client_file(&directory, &opened.handle, address, args.user.as_deref());
    }
    Ok(EnteredSession {
        handle: opened.handle,
        directory,
        hook_file,
        map_for_leaving: (!opened.already_open || shared_logon.is_some()).then_some(map),
        shared_logon,
        claim,
    })
}

/// The properties of a program that decide which rule of the process list matches.
struct ProgramProperties<'a> {
    /// The program's file, with symlinks resolved.
    file: Option<PathBuf>,
    /// The path by which the program is started.
    invoked_as: Option<PathBuf>,
    arguments: &'a [OsString],
}

impl<'a> ProgramProperties<'a> {
    fn find(command: &'a [OsString]) -> Self {
        match command.split_first() {
            Some((name, arguments)) => {
                Self { file: resolve_program(name).ok(), invoked_as: find_program(name), arguments }
            }
            None => Self { file: None, invoked_as: None, arguments: &[] },
        }
    }

    fn executable(&self) -> Option<Executable<'_>> {
        Some(
            Executable::new(self.file.as_ref()?.as_os_str().as_encoded_bytes(), PathStyle::Posix)
                .with_invoked_as(
                    self.invoked_as.as_ref().map(|path| path.as_os_str().as_encoded_bytes()),
                )
                .with_script(script_argument(
                    self.arguments.iter().map(|argument| argument.as_encoded_bytes()),
                )),
        )
    }

    fn is_listed(&self, map: &Reader) -> bool {
        self.executable().is_some_and(|program| map.policy().find(&program).is_some())
    }
}

/// Opens or joins the session. Waits for an address if the farm file requires it
/// (`when-exhausted`). `open` makes one attempt. Its parameter is true if an earlier attempt opened
/// or joined the session.
///
/// Fails if the session lacks an address and the farm file or `--require` forbids that. Before it
/// fails, this function leaves a shared session, and closes any other session that it opened.
fn open_or_join_session(
    map: &Map,
    shared_logon: Option<Leader>,
    open: impl Fn(bool) -> Result<OpenedSession, OpenError>,
    is_required: bool,
    signals: &mut Signals,
) -> Result<OpenedSession, EnterError> {
    let mut incomplete_session = None;
    let error = match open_completely(map, open, signals, &mut incomplete_session) {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    match (error, incomplete_session) {
        (EnterError::NoAddress { is_refused: false, .. }, Some(opened)) if !is_required => {
            Ok(opened)
        }
        (error, incomplete_session) => {
            let must_close =
                |opened: &OpenedSession| !opened.already_open || shared_logon.is_some();
            if let Some(opened) = incomplete_session.filter(must_close) {
                // If the session cannot be closed now, `vipool gc` closes it after this process has
                // exited.
                let _ = close_or_leave(map, &opened.handle, shared_logon.as_ref());
            }
            Err(error)
        }
    }
}

/// Opens the session with all its addresses. If the session lacks an address, stores it in
/// `incomplete_session`, and tries again until the session has the address or the maximum wait of
/// the farm file is over.
fn open_completely(
    map: &Map,
    open: impl Fn(bool) -> Result<OpenedSession, OpenError>,
    signals: &mut Signals,
    incomplete_session: &mut Option<OpenedSession>,
) -> Result<OpenedSession, EnterError> {
    let policy = map.settings()?.on_exhausted;
    let is_refused = policy == ExhaustionPolicy::Refuse;
    let max_wait = match policy {
        ExhaustionPolicy::Wait(seconds) => Duration::from_secs(seconds.into()),
        ExhaustionPolicy::Pass | ExhaustionPolicy::Refuse => Duration::ZERO,
    };
    let deadline = Instant::now() + max_wait;
    let mut has_reaped = false;
    loop {
        let error = match open(incomplete_session.is_some()) {
            Ok(mut opened) => {
                // This process opened the session if one of its attempts did.
                opened.already_open &=
                    incomplete_session.is_none_or(|earlier_attempt| earlier_attempt.already_open);
                let Some(shortage) = opened.shortage else { return Ok(opened) };
                *incomplete_session = Some(opened);
                OpenError::Shortage { shortage, pool: opened.shortage_pool }
            }
            Err(error @ (OpenError::Shortage { .. } | OpenError::UnknownGroups { .. })) => error,
            Err(error) if error.is_decided_by_exhaustion_policy() => {
                // A limit is reached. Waiting for an address does not help.
                return Err(EnterError::NoAddress { error, is_refused });
            }
            Err(error) => return Err(error.into()),
        };
        if matches!(error, OpenError::Shortage { shortage: Shortage::Lingering, .. }) && !has_reaped
        {
            // Reaping may free an address that has no sockets left.
            has_reaped = true;
            reap::reap_all(map)?;
            continue;
        }
        if Instant::now() >= deadline {
            return Err(EnterError::NoAddress { error, is_refused });
        }
        match signals.wait(None, Some(RETRY_MILLISECONDS))? {
            // SIGWINCH does not interrupt the wait for an address. The next attempt only starts
            // earlier.
            WakeReason::Signal(signal) if signal != Signal::SIGWINCH => {
                return Err(EnterError::Interrupted(signal));
            }
            _ => {}
        }
    }
}

/// Joins the session of the caller's logon in a map that the caller may only read.
fn join(args: &Run, directory: PathBuf, hook_file: PathBuf) -> Result<EnteredSession, EnterError> {
    let reader = Reader::attach(&directory)?;
    let own_session = caller::own_session(reader.settings().session_per);
    let logon_session = match (own_session, args.session) {
        (Ok(logon_session), None) => logon_session,
        (Ok(logon_session), Some(requested)) if requested == logon_session => logon_session,
        (Ok(logon_session), Some(requested)) => {
            return Err(anyhow!(
                "cannot join session {requested}: the session of your logon is {logon_session} \
                 (omit --session to join it, or add --private for a session in your private map)"
            )
            .into());
        }
        // Another session cannot be selected either, so do not suggest --session.
        (Err(_), requested) => {
            let session = requested.map_or("a session".to_owned(), |id| format!("session {id}"));
            return Err(anyhow!(
                "cannot join {session}: this logon has no session (run as root, or add --private \
                 for a session in your private map)"
            )
            .into());
        }
    };
    let handle_and_leases = reader.find(logon_session);
    let is_refused = reader.settings().on_exhausted == ExhaustionPolicy::Refuse;
    let is_complete =
        handle_and_leases.is_some_and(|(_, leases)| missing_address(&reader, &leases).is_none());
    if !is_complete && (is_refused || handle_and_leases.is_some() && args.require) {
        return Err(EnterError::NoAddress {
            error: OpenError::Shortage { shortage: Shortage::Exhausted, pool: 0 },
            is_refused,
        });
    }
    let (handle, _) = handle_and_leases.with_context(|| {
        format!("your session {logon_session} has no address (ask your administrator)")
    })?;
    let map_for_leaving = None;
    Ok(EnteredSession {
        handle,
        directory,
        hook_file,
        map_for_leaving,
        shared_logon: None,
        claim: None,
    })
}
