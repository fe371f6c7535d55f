//! `vipool explain`: shows why a program is rewritten or not, and how the hook treats each of its
//! sockets.
//!
//! `process` observes a process. `map_lookup` finds its rule and its session in the map.
//! `obstacles` determines what prevents rewriting. `socket_report` determines the requested address
//! of each socket. `conflicts` finds ports that other processes hold. These modules call the
//! functions that the hook itself uses. `explanation` combines the results. `text` formats the
//! explanation.

mod conflicts;
mod explanation;
mod map_lookup;
mod obstacles;
mod process;
mod socket_report;
mod sockets;
mod text;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use vipool::session::SessionId;
use vipool::system::map_directory;

use crate::maps::private;
use crate::maps::selection::{MapArgs, MapSelection};

/// Show why a program is rewritten or not, and how its sockets are treated
///
/// For a process, the command shows the rule of the process list that applies, the session, and
/// everything that prevents rewriting. It lists each TCP and UDP socket with the address that the
/// program requested and the address that is bound. For a program, the command shows what it can
/// determine before 'vipool run' starts the program. It does not start the program.
///
/// Root can examine all processes. Other users can examine only their own processes. The output
/// reports the number of sockets that the command could not examine.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool explain $(pidof redis-server)
  vipool explain --json 4711 | jq '.obstacles[].name'
  vipool explain -- /opt/app/bin/app --port 80")]
pub struct Explain {
    /// The process ID
    #[arg(required_unless_present = "program", conflicts_with = "program")]
    pid: Option<u32>,
    /// The session for the program [default: the session of your logon]
    #[arg(long, short, value_name = "SESSION", conflicts_with = "pid")]
    session: Option<SessionId>,
    /// Print JSON (docs/json.md describes the fields)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    map: MapArgs,
    /// The program and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

impl Explain {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (subject, directory) = match self.pid {
            Some(pid) => {
                let subject = process::observe_process(pid)?;
                let directory = match subject.variable("VIPOOL_MAP").filter(|path| !path.is_empty())
                {
                    Some(directory) => PathBuf::from(directory),
                    None if self.map.is_explicit() => self.map.directory()?,
                    None => subject.mapped_directory.clone().unwrap_or_else(map_directory),
                };
                (subject, directory)
            }
            None => (process::observe_command(&self.program)?, self.map.directory()?),
        };
        // Without a farm file, the private map that 'vipool run' creates lists every program.
        let private_map_lists_all = (self.pid.is_none()
            && self.map.selection() == MapSelection::Private)
            .then(|| private::default_farm_file().is_none());
        let explanation =
            explanation::explain(&subject, directory, self.session, private_map_lists_all)?;
        if self.json {
            outln!("{}", serde_json::to_string_pretty(&explanation)?)?;
        } else {
            out!("{}", text::render(&explanation))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
