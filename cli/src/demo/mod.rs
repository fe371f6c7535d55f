//! `vipool demo`: the main job shown on real programs, without root.
//!
//! Every line that begins with `$` is run as it stands, by sh(1); what it prints is what is shown.
//! Every claim is checked, and the command fails if one does not hold.

mod programs;
mod transcript;

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use anyhow::Context;
use vipool::EXHAUSTED_MESSAGE;

use programs::Programs;
use transcript::Transcript;

/// Show two sessions that run the same server on the same port, without root.
///
/// Two sessions and the host each run an unmodified web server on 127.0.0.1 and one port; a
/// client gets the page of its own session, or outside of both the host's. A third session finds
/// no address left and its program runs untouched. All of it is in a temporary directory, on the
/// loopback interface only.
#[derive(clap::Args)]
#[command(after_help = "Exit status: 0 if every claim held, 1 otherwise

Example:
  vipool demo --port 8080")]
pub struct Demo {
    /// The port of all three servers [default: 8000, or a free one if that is in use]
    #[arg(long)]
    port: Option<u16>,
}

impl Demo {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let port = match self.port {
            Some(port) => port,
            None => free_port().context("cannot find a free port on 127.0.0.1")?,
        };
        let mut t = Transcript::new()?;
        let programs = Programs::find(&t.directory)?;
        for who in ["host", "session-1", "session-2", "session-3"] {
            let text = page(&who.replace('-', " "));
            let directory = t.directory.join(who);
            std::fs::create_dir(&directory)
                .and_then(|()| std::fs::write(directory.join("index.html"), text))
                .with_context(|| format!("cannot write to {}", directory.display()))?;
        }
        let farm = t.directory.join("farm.toml");
        std::fs::write(&farm, programs.farm())
            .with_context(|| format!("cannot write {}", farm.display()))?;
        let passed = show(&mut t, &programs, port)?;
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn show(t: &mut Transcript, programs: &Programs, port: u16) -> anyhow::Result<bool> {
    let serve = |who: &str| programs.serve(port, who);
    let fetch = programs.fetch(port);
    let run = |n: u32| format!("vipool run --private --farm farm.toml --session {n} --");
    let ready = format!("Serving HTTP on 127.0.0.1 port {port}");

    t.say("The programs that are to have a loopback address of their session's own, and two addresses:");
    t.run("cat farm.toml");

    t.say(&format!("The host runs a web server on 127.0.0.1, port {port}:"));
    t.start(&serve("host"), &ready)?;
    t.say("Two sessions run the same program on the same address and port:");
    t.start(&format!("{} {}", run(1), serve("session-1")), &ready)?;
    t.start(&format!("{} {}", run(2), serve("session-2")), &ready)?;

    t.say("A client in each session gets the page of its own session; outside, the host's:");
    let got = t.run(&format!("{} {fetch}", run(1)));
    t.check("the client in session 1 got session 1's page", got.stdout == page("session 1"));
    let got = t.run(&format!("{} {fetch}", run(2)));
    t.check("the client in session 2 got session 2's page", got.stdout == page("session 2"));
    let got = t.run(&fetch);
    t.check("the client outside got the host's page", got.stdout == page("host"));

    t.say("Who has what:");
    t.run("vipool status --private");
    let (used, free, addresses) = t.numbers()?;
    t.check("two sessions hold an address each, and none is left", (used, free) == (2, 0));
    let distinct = addresses.len() == 2 && addresses[0] != addresses[1];
    t.check("the two addresses are different", distinct);

    t.say("A third session: no address is left, and its program runs untouched:");
    let got = t.run(&format!("{} {fetch}", run(3)));
    let message = got.stderr.lines().any(|line| line == EXHAUSTED_MESSAGE);
    t.check("the message is there, word for word", message);
    t.check("its program ran, and reached the host's server", got.stdout == page("host"));

    t.say("The sessions end with their programs, and their addresses go back:");
    t.stop_all();
    t.run("vipool status --private");
    let (used, free, _) = t.numbers()?;
    t.check("both addresses are free again", (used, free) == (0, 2));
    Ok(t.passed())
}

/// What is on the page of `host`, `session 1` and so on.
fn page(who: &str) -> String {
    format!("The page of {}.\n", if who == "host" { "the host" } else { who })
}

/// A port of 127.0.0.1 that nobody listens on: 8000, as people expect, if it can be had.
fn free_port() -> std::io::Result<u16> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    Ok(free(8000).or_else(|_| free(0))?.local_addr()?.port())
}
