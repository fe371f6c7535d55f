//! `vipool run` on Windows: runs a program in a session with `vipool-launch.exe`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use vipool::EXHAUSTED_MESSAGE;
use vipool::Tick;
use vipool::map::{CloseError, ExhaustionPolicy, Map, OpenOptions};
use vipool::policy::{Executable, PathStyle};
use vipool::session::SessionId;
use vipool::system;

use crate::maps::client::{remove_client_file, write_client_file};
use crate::maps::selection::{MapArgs, map_variable};
use crate::system::caller;
use crate::{exit_status, remedy};

/// Exit status if vipool itself fails. `vipool run` on Unix uses the same value.
const VIPOOL_FAILED: u8 = 125;

/// Run a program in a session
///
/// Opens the session if it is not open, and runs the program with the hook layer. If this command
/// opened the session, it closes the session after the program has exited. Even with --session, the
/// hook layer always uses the session that belongs to the program's Windows session. If that
/// session is not open, the calls of the program are not rewritten.
#[derive(clap::Args)]
#[command(after_help = "Exit status:
  that of the program, or
   75  no address is available, and the farm file or --require forbids the start of the program
  125  vipool failed

Example:
  vipool run -- C:\\app\\server.exe --port 8000")]
pub struct Run {
    /// The session: a number, or a kind and a value (windows:2). Default: the session of your logon
    #[arg(long, short, value_name = "SESSION")]
    session: Option<SessionId>,
    /// Name of the pool for the virtual IP
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// The address of the user's client, for programs with the feature client-ip
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Fail if the session cannot be opened or lacks an address
    #[arg(long)]
    require: bool,
    #[command(flatten)]
    map: MapArgs,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Run {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let exit_code = match self.try_run() {
            Ok(exit_code) => exit_code,
            Err(error) => {
                errln!("vipool: {}", remedy::describe(&error));
                VIPOOL_FAILED.into()
            }
        };
        // Exit codes of programs have 32 bits, but an `ExitCode` has only 8 bits.
        std::process::exit(exit_code)
    }

    fn try_run(&self) -> anyhow::Result<i32> {
        let directory = self.map.directory()?;
        let map = Map::open(&directory)?;
        let session = match self.session {
            Some(session) => session,
            None => caller::own_session(map.settings()?.session_per)?,
        };
        let user = caller::user_name();
        let program = Executable::new(self.program[0].as_encoded_bytes(), PathStyle::Windows);
        let choose_pool = || match &self.pool {
            Some(pool) => Ok(Some(pool.clone())),
            None => map.choose_pool(&user, Some(&program)),
        };
        let options = OpenOptions::new().with_client(self.client);
        let options = match map.find(session)? {
            // This process joins the session. The session keeps its leader, because the leader may
            // run longer than this process.
            Some(_) => options,
            None => options
                .with_user(user.as_str())
                .with_leader(system::identify_process(std::process::id())?),
        };
        let mut command = Command::new(find_launcher()?);
        command.args(&self.program).env_remove("VIPOOL_LEASE").env_remove("VIPOOL_MAP");
        let mut opened_handle = None;
        let requires_address =
            self.require || map.settings()?.on_exhausted == ExhaustionPolicy::Refuse;
        let result = choose_pool().and_then(|pool| {
            map.open_session(session, &options.with_pool(pool.as_deref()), Tick::now())
        });
        match result {
            Ok(opened) => {
                if let (true, Some(shortage)) = (requires_address, opened.shortage) {
                    let shortage = remedy::describe_shortage(&shortage);
                    errln!("{EXHAUSTED_MESSAGE}\nvipool: {shortage}");
                    if !opened.already_open {
                        map.close_by_handle(&opened.handle, Tick::now())?;
                    }
                    return Ok(exit_status::NO_ADDRESS.into());
                }
                command.env("VIPOOL_LEASE", opened.handle.to_string());
                if let Some(directory) = map_variable(&directory) {
                    command.env("VIPOOL_MAP", directory);
                }
                opened_handle = (!opened.already_open).then_some(opened.handle);
                if let Some(client) = self.client {
                    write_client_file(&directory, &opened.handle, client, None);
                }
            }
            Err(error) if error.is_decided_by_exhaustion_policy() => {
                errln!("{EXHAUSTED_MESSAGE}\nvipool: {}", remedy::describe_open_error(&error));
                if requires_address {
                    return Ok(exit_status::NO_ADDRESS.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        let status = command.status().context("cannot start vipool-launch.exe");
        if let Some(handle) = opened_handle {
            remove_client_file(&directory, &handle);
            match map.close_by_handle(&handle, Tick::now()) {
                Ok(_) | Err(CloseError::NotOpen(_) | CloseError::Stale(_)) => {}
                Err(error) => errln!("vipool: cannot close session {session}: {error}"),
            }
        }
        Ok(status?.code().unwrap_or(VIPOOL_FAILED.into()))
    }
}

/// Finds the launcher in the directory that the environment variable `VIPOOL_HOOK` specifies.
/// Without this variable, finds the launcher in the directory of this program.
fn find_launcher() -> anyhow::Result<PathBuf> {
    let own_executable = std::env::current_exe().context("cannot find this program's own file")?;
    let directory = match std::env::var_os("VIPOOL_HOOK") {
        Some(directory) => directory.into(),
        None => own_executable.parent().map(PathBuf::from).unwrap_or_default(),
    };
    let launcher = directory.join("vipool-launch.exe");
    if !launcher.exists() {
        bail!("cannot find {} (install it beside vipool.exe)", launcher.display());
    }
    Ok(launcher)
}
