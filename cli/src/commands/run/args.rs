//! The arguments of `vipool run`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use vipool::session::SessionId;

use crate::maps::selection::MapArgs;

/// Run a program in a session
///
/// This command opens the session if it is not open, and runs the program with the hook layer. If
/// this command opened the session, it closes the session after the program has exited. This
/// command forwards signals to the program. It exits with the program's exit status. If a signal
/// killed the program, the same signal kills this command.
///
/// Without root, this command only reads the system's map (created by 'vipool up'), and the program
/// joins the session of your logon. If the system has no map, or with --private, the session is in
/// your private map, which has only loopback addresses. The private map uses the farm file given by
/// --farm, or ~/.config/vipool/farm.toml. Without a farm file, every program that you run is on the
/// process list.
///
/// If no address is available, the farm file decides whether the program runs with the host's
/// addresses or does not run. If the program cannot join the session for another reason, vipool
/// prints the reason and runs the program with the host's addresses. With --require, vipool does
/// not run the program outside the session.
///
/// With 'allocate = "first-use"' in the farm file, only programs on the process list open a
/// session. If the session is not open, another program runs with the host's addresses, even with
/// --require.
#[derive(clap::Args)]
#[command(after_help = "Exit status:
  that of the program, or
   75  no address is available, and the farm file or --require forbids the start of the program
  125  vipool failed before it could start the program, or --require is set and the program
       cannot join the session
  126  the program cannot be executed
  127  there is no such program

Examples:
  vipool run --session 1 -- python3 -m http.server --bind 127.0.0.1 8000
  vipool run --session 2 -- python3 -m http.server --bind 127.0.0.1 8000
  vipool run --session 1 -- curl http://127.0.0.1:8000/
  vipool run --session 7 --user alice -- /opt/app/server")]
pub struct Run {
    /// The session: a number, or a kind and a value (audit:7, logind:c1). Default: the session of
    /// your logon
    #[arg(long, short, value_name = "SESSION")]
    pub session: Option<SessionId>,
    /// Run the program as this user, who becomes the user of the session (needs root)
    #[arg(long, short, value_name = "USER")]
    pub user: Option<String>,
    /// The farm file for your private map
    #[arg(long, value_name = "FILE")]
    pub farm: Option<PathBuf>,
    /// Name of the pool for the virtual IP
    #[arg(long, value_name = "POOL")]
    pub pool: Option<String>,
    /// Require this address; fail if it is not available
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// The address of the user's client, for the history and for programs with the feature
    /// client-ip. Other users can see --client in the output of ps, but not VIPOOL_CLIENT
    #[arg(long, value_name = "ADDRESS", env = "VIPOOL_CLIENT", hide_env_values = true)]
    pub client: Option<IpAddr>,
    /// Fail if the program cannot join the session, or if the session lacks an address
    #[arg(long)]
    pub require: bool,
    #[command(flatten)]
    pub map: MapArgs,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    pub program: Vec<OsString>,
}
