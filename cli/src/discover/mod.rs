//! `vipool discover`: which programs need an address of their own, and why.
//!
//! What administrators did by hand with a list of open ports: `sockets` and the tracer of
//! `vipool::os::trace` gather what programs do, `verdict` says what follows.

mod sockets;
mod verdict;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use vipool::os::{interfaces, trace};

use crate::explain::binary::look_into;
use verdict::{Seen, Verdict, judge};

/// What the watching of a program does not see.
const NOT_TRACED: &[&str] = &[
    "what the program was not used for meanwhile",
    "what others start for it (systemd, D-Bus)",
    "system calls by io_uring, and those of 32-bit programs",
];
/// What a look at the open sockets does not see.
const NOT_OPEN: &[&str] = &[
    "what is closed by now, or not yet open",
    "ports that the system gives to outgoing connections, also where a program asked for one",
    "sockets of other users' programs, but for root",
    "programs that ask for the host's name or addresses",
];

/// Find out which programs need an address of their own
///
/// With a program: runs it, watches its socket calls and those of all that it starts until they
/// have ended (Ctrl-C ends them; --for ends the watching), and says for each what it binds, where it
/// would collide with a second one, whom it talks to on the loopback, and the lines for farm.toml.
/// Use the program meanwhile as a user would: only what it does is seen.
///
/// Without a program: the same of the sockets that are open now. As root, those of all users.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sudo vipool discover
  vipool discover -- redis-server --port 6379
  vipool discover --for 60 --json -- /opt/app/bin/app | jq -r .farm_toml")]
pub struct Discover {
    /// End the watching after so many seconds; the program goes on
    #[arg(long = "for", value_name = "SECONDS")]
    limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

impl Discover {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let open_now = sockets::open_now();
        let (seen, others) = match self.program.split_first() {
            None => (open_now, Seen::new()),
            Some((program, arguments)) => {
                let limit = self.limit.map(Duration::from_secs);
                (watch(Command::new(program).args(arguments), limit)?, open_now)
            }
        };
        let host = interfaces::list().context("cannot list the interfaces")?;
        let host = host.iter().flat_map(|interface| &interface.addresses).map(|net| net.addr());
        let host: BTreeSet<_> = host.filter(|address| !address.is_loopback()).collect();
        let mut verdicts = judge(&seen, &others, &host);
        for verdict in &mut verdicts {
            verdict.out_of_reach = out_of_reach(&verdict.program.path);
        }
        let not_seen = if self.program.is_empty() { NOT_OPEN } else { NOT_TRACED };
        let lines: Vec<String> = verdicts.iter().filter_map(Verdict::farm_toml).collect();
        let lines = lines.join("\n");
        if self.json {
            let report = serde_json::json!({
                "programs": verdicts,
                "farm_toml": lines,
                "not_seen": not_seen,
            });
            println!("{report:#}");
            return Ok(ExitCode::SUCCESS);
        }
        let (told, idle): (Vec<_>, Vec<_>) =
            verdicts.iter().partition(|it| !it.evidence.is_empty());
        for verdict in told {
            println!("{}", verdict.summary());
            for evidence in &verdict.evidence {
                println!("  {evidence}");
            }
        }
        for verdict in idle {
            println!("{}", verdict.summary());
        }
        match lines.is_empty() {
            true => println!("\nNothing for farm.toml."),
            false => print!("\nFor farm.toml:\n\n{lines}"),
        }
        println!("\nNot seen: {}.", not_seen.join("; "));
        Ok(ExitCode::SUCCESS)
    }
}

/// Why no hook layer can change what the program in this file does.
fn out_of_reach(file: &Path) -> BTreeSet<&'static str> {
    let binary = look_into(file).ok().flatten().unwrap_or_default();
    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    let reasons = [
        (binary.is_static, "is linked statically"),
        (binary.is_go && !binary.is_static, "is made by Go, which does without the C library"),
        (binary.is_foreign, "is for another kind of processor, or another word size"),
        (mode & 0o6000 != 0, "is setuid or setgid, for which a preload is ignored"),
    ];
    reasons.into_iter().filter(|(is_so, _)| *is_so).map(|(_, why)| why).collect()
}

/// Runs the command and notes what it and its descendants do.
fn watch(command: &mut Command, limit: Option<Duration>) -> anyhow::Result<Seen> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut seen = Seen::new();
    trace::trace(command, limit, |pid, call| {
        // A process can become another program, so it is looked at anew each time.
        if let Some(program) = sockets::program_of(pid) {
            seen.entry(program).or_default().insert(call);
        }
    })
    .with_context(|| format!("cannot watch {name}"))?;
    Ok(seen)
}
