//! `vipool discover`: finds programs that need an address of their own.
//!
//! `system::trace` records the socket calls of a program. `sockets` infers the socket calls of all
//! running programs from their open sockets. `verdict` decides which features each program needs.

mod sockets;
mod verdict;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use vipool::map::Reader;
use vipool::system;

use crate::system::elf::read_elf;
use crate::system::trace;
use verdict::{Observations, Program, Verdict, judge};

/// The limits of a trace, as texts for the output.
const TRACE_LIMITS: &[&str] = &[
    "functions of the program that it did not use during the trace",
    "programs that other services (systemd, D-Bus) start for the program",
    "operations through io_uring, and system calls of 32-bit programs",
];
/// The limits of the list of open sockets, as texts for the output.
const SOCKET_LIST_LIMITS: &[&str] = &[
    "sockets that are already closed, or not open yet",
    "ports of the ephemeral range, even if a program requested one",
    "sockets of other users' programs (run as root to observe them)",
    "programs that request the host's name or addresses",
];

/// Find programs that need an address of their own
///
/// With a program, the command runs the program and traces the socket calls of the program and its
/// descendants. The trace ends when all of them have exited. Ctrl-C ends the programs. --for ends
/// the trace, and the programs continue. During the trace, use the program as a user would. For
/// each program, the output lists the addresses that the program binds, whether a second instance
/// would fail, the programs to which it connects on the loopback, and the lines for farm.toml.
///
/// Without a program, the command examines the sockets that are open now. Root can examine the
/// sockets of all users.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  sudo vipool discover
  vipool discover -- redis-server --port 6379
  vipool discover --for 60 --json -- /opt/app/bin/app | jq -r .farm_toml")]
pub struct Discover {
    /// End the trace after this number of seconds; the program continues
    #[arg(long = "for", value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The program and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

impl Discover {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let open_sockets = sockets::observe_open_sockets();
        let service_names: Vec<String> =
            open_sockets.services.keys().map(Program::to_string).collect();
        let (observed, other_programs) = match self.program.split_first() {
            None => (open_sockets.programs, open_sockets.services),
            Some((program, arguments)) => {
                let time_limit = self.time_limit.map(Duration::from_secs);
                let mut other_programs = open_sockets.programs;
                for (program, calls) in open_sockets.services {
                    other_programs.entry(program).or_default().extend(calls);
                }
                (trace_program(Command::new(program).args(arguments), time_limit)?, other_programs)
            }
        };
        let map = Reader::attach(&system::map_directory()).ok();
        let is_session_address =
            |address: IpAddr| map.as_ref().is_some_and(|map| map.pool_kind(address).is_some());
        let interfaces = system::interfaces().context("cannot list the interfaces")?;
        let host_addresses: BTreeSet<_> = interfaces
            .iter()
            .flat_map(|interface| &interface.addresses)
            .map(|net| net.addr())
            .filter(|address| !address.is_loopback() && !is_session_address(*address))
            .collect();
        let mut verdicts = judge(&observed, &other_programs, &host_addresses, &is_session_address);
        for verdict in &mut verdicts {
            verdict.rewrite_obstacles = rewrite_obstacles(&verdict.program.path);
        }
        let unobserved = if self.program.is_empty() { SOCKET_LIST_LIMITS } else { TRACE_LIMITS };
        let farm_entries: Vec<String> = verdicts.iter().filter_map(Verdict::farm_toml).collect();
        let farm_lines = farm_entries.join("\n");
        if self.json {
            let report = serde_json::json!({
                "programs": verdicts,
                "farm_toml": farm_lines,
                "services": service_names,
                "unobserved": unobserved,
            });
            outln!("{report:#}")?;
            return Ok(ExitCode::SUCCESS);
        }
        // Programs without evidence come last.
        verdicts.sort_by_key(|verdict| verdict.evidence.is_empty());
        for verdict in &verdicts {
            outln!("{}", verdict.summary())?;
            for evidence in &verdict.evidence {
                outln!("  {evidence}")?;
            }
        }
        if self.program.is_empty() && !service_names.is_empty() {
            outln!(
                "\nServices of the system, which all sessions share: {}",
                service_names.join(", ")
            )?;
        }
        match farm_lines.is_empty() {
            true => outln!("\nNo program needs a line in farm.toml.")?,
            false => out!("\nLines for farm.toml:\n\n{farm_lines}")?,
        }
        outln!("\nNot observed: {}.", unobserved.join("; "))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns the reasons why no hook layer can change the calls of the program in `file`.
fn rewrite_obstacles(file: &Path) -> BTreeSet<&'static str> {
    let elf = read_elf(file).ok().flatten().unwrap_or_default();
    let mode = file.metadata().map_or(0, |metadata| metadata.permissions().mode());
    let reasons = [
        (elf.is_static, "is linked statically"),
        (elf.is_go && !elf.is_static, "is built with Go, which does not use the C library"),
        (elf.is_foreign, "is for another processor or word size"),
        (mode & 0o6000 != 0, "is setuid or setgid, so the dynamic linker ignores LD_PRELOAD"),
    ];
    reasons.into_iter().filter(|(applies, _)| *applies).map(|(_, reason)| reason).collect()
}

/// Runs the command, and records the socket calls of its process and of all descendants.
fn trace_program(
    command: &mut Command,
    time_limit: Option<Duration>,
) -> anyhow::Result<Observations> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut observed = Observations::new();
    trace::trace(command, time_limit, |pid, call| {
        // Identify the program again for each call, because the process may have replaced its
        // program with execve(2).
        if let Some(program) = sockets::identify_program(pid) {
            observed.entry(program).or_default().insert(call);
        }
    })
    .with_context(|| format!("cannot trace {name}"))?;
    Ok(observed)
}
