//! `vipool explain`: shows why a program is rewritten or not, and how the hook treats each of its
//! sockets.
//!
//! `process` observes a process, and `sockets` lists its sockets. `map_lookup` finds the rule and
//! the session of the process in the map. `obstacles` determines what prevents rewriting.
//! `socket_report` determines the requested address of each socket. `conflicts` finds ports that
//! other processes hold. `explanation` combines the results. `text` formats the explanation.
//!
//! `map_lookup` and `socket_report` call the functions that the hook itself uses.

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

use explanation::Explanation;

use crate::maps::private;
use crate::maps::selection::{MapArgs, MapSelection};
use crate::output::print_json;
use crate::remedy;

/// Show why a program is rewritten or not, and how its sockets are treated
///
/// For each process, the command shows the rule of the process list that applies, the session, and
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
    /// The process IDs
    #[arg(value_name = "PID", required_unless_present = "program", conflicts_with = "program")]
    pids: Vec<u32>,
    /// The session for the program [default: the session of your logon]
    #[arg(long, short, value_name = "SESSION", conflicts_with = "pids")]
    session: Option<SessionId>,
    /// Print JSON: an object, or an array for several processes (docs/json.md describes the fields)
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
        let mut explanations = Vec::new();
        let mut errors = Vec::new();
        for pid in &self.pids {
            match self.explain_process(*pid) {
                Ok(explanation) => explanations.push(explanation),
                Err(error) => errors.push(error),
            }
        }
        if self.pids.is_empty() {
            explanations.push(self.explain_program()?);
        }
        if self.json {
            match &*explanations {
                [] if self.pids.len() == 1 => {}
                [explanation] if self.pids.len() <= 1 => print_json(explanation)?,
                explanations => print_json(&explanations)?,
            }
        } else {
            let texts: Vec<_> = explanations.iter().map(text::render).collect();
            out!("{}", texts.join("\n"))?;
        }
        for error in &errors {
            errln!("vipool: {}", remedy::describe(error));
        }
        Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn explain_process(&self, pid: u32) -> anyhow::Result<Explanation> {
        let subject = process::observe_process(pid)?;
        let directory = match subject.variable("VIPOOL_MAP").filter(|path| !path.is_empty()) {
            Some(directory) => PathBuf::from(directory),
            None if self.map.is_explicit() => self.map.directory()?,
            None => subject.mapped_directory.clone().unwrap_or_else(map_directory),
        };
        explanation::explain(&subject, directory, self.session, None)
    }

    fn explain_program(&self) -> anyhow::Result<Explanation> {
        let subject = process::observe_command(&self.program)?;
        // Without a farm file, the private map that 'vipool run' creates lists every program.
        let private_map_lists_all = (self.map.selection() == MapSelection::Private)
            .then(|| private::default_farm_file().is_none());
        explanation::explain(&subject, self.map.directory()?, self.session, private_map_lists_all)
    }
}
