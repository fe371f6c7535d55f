//! Running commands and showing them, as in a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A directory, the commands run in it, and what was claimed of them.
pub struct Transcript {
    pub directory: PathBuf,
    _temporary: tempfile::TempDir,
    path: std::ffi::OsString,
    background: Vec<Child>,
    claims: u32,
    failed: u32,
}

/// What a command printed.
pub struct Printed {
    pub stdout: String,
    pub stderr: String,
}

impl Transcript {
    pub fn new() -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("vipool-demo-")
            .tempdir()
            .context("cannot make a temporary directory")?;
        let own = std::env::current_exe()?.canonicalize()?;
        let own = own.parent().context("this program has no directory")?.to_owned();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&inherited)))?;
        Ok(Self {
            directory: temporary.path().canonicalize()?,
            _temporary: temporary,
            path,
            background: Vec::new(),
            claims: 0,
            failed: 0,
        })
    }

    /// A sentence between the commands.
    pub fn say(&self, text: &str) {
        println!("\n# {text}");
    }

    /// Runs a command to its end.
    pub fn run(&mut self, line: &str) -> Printed {
        println!("$ {line}");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let printed = match self.sh(line).output() {
            Ok(output) => Printed { stdout: text(output.stdout), stderr: text(output.stderr) },
            Err(error) => Printed { stdout: String::new(), stderr: format!("sh: {error}\n") },
        };
        print!("{}{}", printed.stderr, printed.stdout);
        printed
    }

    /// Starts a command in the background and waits until it prints `ready`.
    pub fn start(&mut self, line: &str, ready: &str) -> anyhow::Result<()> {
        println!("$ {line} &");
        let name = format!("log-{}", self.background.len());
        let log = self.directory.join(&name);
        let output = File::create(&log)?;
        let errors = output.try_clone()?;
        let mut child = self.sh(&format!("exec {line}")).stdout(output).stderr(errors).spawn()?;
        // Generous, since it is only reached when something is wrong.
        for _ in 0..600 {
            let lines: Vec<_> =
                BufReader::new(File::open(&log)?).lines().collect::<Result<_, _>>()?;
            if let Some(line) = lines.iter().find(|line| line.contains(ready)) {
                println!("{line}");
                self.background.push(child);
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("it ended ({status}) and printed:\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.background.push(child);
        bail!("it did not print {ready:?} within half a minute");
    }

    /// Ends what runs in the background, as the user would: with SIGTERM, last first.
    pub fn stop_all(&mut self) {
        let count = self.background.len();
        println!(
            "$ kill {}",
            (1..=count).rev().map(|n| format!("%{n}")).collect::<Vec<_>>().join(" ")
        );
        self.end_background();
    }

    fn end_background(&mut self) {
        for mut child in self.background.drain(..).rev() {
            // It is our child and not waited for yet: the pid is still its own.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }

    /// Notes whether a claim holds.
    pub fn check(&mut self, claim: &str, holds: bool) {
        self.claims += 1;
        self.failed += u32::from(!holds);
        println!("  {} {claim}", if holds { "ok:" } else { "FAILED:" });
    }

    /// Says how it went.
    pub fn passed(&self) -> bool {
        let held = self.claims - self.failed;
        println!("\n{held} of {} claims held.", self.claims);
        self.failed == 0
    }

    /// Addresses used and free in all, and those held, as `status` says them to programs.
    pub fn numbers(&self) -> anyhow::Result<(u64, u64, Vec<String>)> {
        let output = self.sh("vipool status --private --json").output()?;
        let status: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let sum = |key: &str| {
            let pools = status["pools"].as_array().into_iter().flatten();
            pools.filter_map(|pool| pool[key].as_u64()).sum()
        };
        let sessions = status["sessions"].as_array().into_iter().flatten();
        let held = sessions.filter_map(|session| session["loopback"].as_str()).map(str::to_owned);
        Ok((sum("used"), sum("free"), held.collect()))
    }

    fn sh(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(&self.directory).stdin(Stdio::null());
        command.env("PATH", &self.path).env("VIPOOL_PRIVATE", &self.directory);
        // A session that the demo itself is run in is none of its business.
        command.env_remove("VIPOOL_LEASE").env_remove("VIPOOL_MAP").env_remove("VIPOOL_DISABLE");
        let _ = std::io::stdout().flush();
        command
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        self.end_background();
    }
}
