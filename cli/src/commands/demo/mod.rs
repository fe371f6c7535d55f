//! `vipool demo`: runs real programs of two sessions on one port, without root.
//!
//! The demo prints each command after `$`, runs this command with sh(1), and prints its output
//! unchanged. For a server, the demo prints only the line that shows that the server is ready. At
//! the end, the demo itself stops the servers; the printed kill(1) command has the same effect.
//! After some commands, the demo prints a claim, for example `the two addresses are different`. The
//! demo checks each claim, and fails if a claim does not hold.

mod programs;
mod transcript;

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use anyhow::Context;
use vipool::EXHAUSTED_MESSAGE;

use programs::Programs;
use transcript::Transcript;

/// Show two sessions that run the same server on the same port, without root
///
/// Two sessions and the host each run an unmodified web server on the same port of 127.0.0.1. A
/// client gets the page of its own session. A client outside the sessions gets the host's page. A
/// third session gets no address, so the calls of its program are not rewritten. The demo uses only
/// a temporary directory and the loopback interface.
///
/// The demo checks the results, and prints a line with 'ok' or 'FAILED' for each result.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 if all results are as expected, 1 otherwise

Example:
  vipool demo --port 8080")]
pub struct Demo {
    /// The port of all three servers [default: 8000, or a free port if 8000 is in use]
    #[arg(long)]
    port: Option<u16>,
}

impl Demo {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let port = match self.port {
            Some(port) => port,
            None => free_port().context("cannot find a free port on 127.0.0.1")?,
        };
        let mut transcript = Transcript::new()?;
        let programs = Programs::find(&transcript.directory)?;
        for owner in ["host", "session-1", "session-2", "session-3"] {
            let text = page(&owner.replace('-', " "));
            let directory = transcript.directory.join(owner);
            std::fs::create_dir(&directory)
                .and_then(|()| std::fs::write(directory.join("index.html"), text))
                .with_context(|| format!("cannot write to {}", directory.display()))?;
        }
        let farm_file = transcript.directory.join("farm.toml");
        std::fs::write(&farm_file, programs.farm_text())
            .with_context(|| format!("cannot write {}", farm_file.display()))?;
        let all_claims_hold = run_demo(&mut transcript, &programs, port)?;
        Ok(if all_claims_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn run_demo(transcript: &mut Transcript, programs: &Programs, port: u16) -> anyhow::Result<bool> {
    let serve = |owner: &str| programs.serve_command(port, owner);
    let fetch = programs.fetch_command(port);
    let in_session =
        |session: u32| format!("vipool run --private --farm farm.toml --session {session} --");
    let ready_line = format!("Serving HTTP on 127.0.0.1 port {port}");

    transcript.print_heading(
        "The farm file lists the programs and has loopback addresses for two sessions:",
    )?;
    transcript.run("cat farm.toml")?;

    transcript.print_heading(&format!("The host runs a web server on 127.0.0.1, port {port}:"))?;
    transcript.start(&serve("host"), &ready_line)?;
    transcript.print_heading("Two sessions run the same program on the same address and port:")?;
    transcript.start(&format!("{} {}", in_session(1), serve("session-1")), &ready_line)?;
    transcript.start(&format!("{} {}", in_session(2), serve("session-2")), &ready_line)?;

    transcript.print_heading(
        "A client in a session gets the page of that session. A client outside gets the host's \
         page:",
    )?;
    let output = transcript.run(&format!("{} {fetch}", in_session(1)))?;
    transcript.check(
        "the client in session 1 got session 1's page",
        output.stdout == page("session 1"),
    )?;
    let output = transcript.run(&format!("{} {fetch}", in_session(2)))?;
    transcript.check(
        "the client in session 2 got session 2's page",
        output.stdout == page("session 2"),
    )?;
    let output = transcript.run(&fetch)?;
    transcript.check("the client outside got the host's page", output.stdout == page("host"))?;

    transcript.print_heading("The pools and sessions:")?;
    transcript.run("vipool status --private")?;
    let (used_count, free_count, addresses) = transcript.address_counts()?;
    transcript.check(
        "each session holds one address, and no address is free",
        (used_count, free_count) == (2, 0),
    )?;
    let are_different = addresses.len() == 2 && addresses[0] != addresses[1];
    transcript.check("the two addresses are different", are_different)?;

    transcript.print_heading(
        "A third session gets no address, so the calls of its program are not rewritten:",
    )?;
    let output = transcript.run(&format!("{} {fetch}", in_session(3)))?;
    let has_message = output.stderr.lines().any(|line| line == EXHAUSTED_MESSAGE);
    transcript.check("the message about the missing address was printed", has_message)?;
    transcript
        .check("the program ran and reached the host's server", output.stdout == page("host"))?;

    transcript
        .print_heading("The sessions close with their programs and release their addresses:")?;
    transcript.stop_all()?;
    transcript.run("vipool status --private")?;
    let (used_count, free_count, _) = transcript.address_counts()?;
    transcript.check("both addresses are free again", (used_count, free_count) == (0, 2))?;
    transcript.finish()
}

/// Returns the page of `owner`, which is `host`, `session 1` and so on.
fn page(owner: &str) -> String {
    format!("The page of {}.\n", if owner == "host" { "the host" } else { owner })
}

/// Returns a free port of 127.0.0.1. Prefers 8000, the default port of python3's web server.
fn free_port() -> std::io::Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    Ok(bind(8000).or_else(|_| bind(0))?.local_addr()?.port())
}
