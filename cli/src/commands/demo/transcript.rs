//! Runs commands. Prints each command and its output, as in a terminal.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Runs and prints the commands of the demo, and counts the claims about their output.
pub struct Transcript {
    /// The working directory of the commands.
    pub directory: PathBuf,
    _temporary_directory: tempfile::TempDir,
    /// The variable `PATH` of the commands.
    path_variable: std::ffi::OsString,
    background_commands: Vec<Child>,
    claim_count: u32,
    failed_claim_count: u32,
}

/// The output of a command.
pub struct CommandOutput {
    pub stdout: String,
    pub stderr: String,
}

impl Transcript {
    pub fn new() -> anyhow::Result<Self> {
        let temporary_directory = tempfile::Builder::new()
            .prefix("vipool-demo-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let own_executable = std::env::current_exe()?.canonicalize()?;
        let own_directory =
            own_executable.parent().context("this program's file has no directory")?.to_owned();
        let inherited_path = std::env::var_os("PATH").unwrap_or_default();
        let directories =
            std::iter::once(own_directory).chain(std::env::split_paths(&inherited_path));
        let path_variable = std::env::join_paths(directories)?;
        Ok(Self {
            directory: temporary_directory.path().canonicalize()?,
            _temporary_directory: temporary_directory,
            path_variable,
            background_commands: Vec::new(),
            claim_count: 0,
            failed_claim_count: 0,
        })
    }

    /// Prints a sentence before a group of commands.
    pub fn print_heading(&self, text: &str) -> anyhow::Result<()> {
        outln!("\n# {text}")
    }

    /// Runs a command and waits until it exits.
    pub fn run(&mut self, line: &str) -> anyhow::Result<CommandOutput> {
        outln!("$ {line}")?;
        let to_text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let output = match self.sh(line).output() {
            Ok(output) => {
                CommandOutput { stdout: to_text(output.stdout), stderr: to_text(output.stderr) }
            }
            Err(error) => CommandOutput { stdout: String::new(), stderr: format!("sh: {error}\n") },
        };
        out!("{}{}", output.stderr, output.stdout)?;
        Ok(output)
    }

    /// Starts a command in the background and waits until it prints a line that contains
    /// `ready_text`.
    pub fn start(&mut self, line: &str, ready_text: &str) -> anyhow::Result<()> {
        outln!("$ {line} &")?;
        let log_name = format!("log-{}", self.background_commands.len());
        let log = self.directory.join(&log_name);
        let output = File::create(&log)?;
        let error_output = output.try_clone()?;
        let mut child =
            self.sh(&format!("exec {line}")).stdout(output).stderr(error_output).spawn()?;
        // The limit is 30 seconds. A command that works is ready much earlier.
        for _ in 0..600 {
            let lines: Vec<_> =
                BufReader::new(File::open(&log)?).lines().collect::<Result<_, _>>()?;
            if let Some(line) = lines.iter().find(|line| line.contains(ready_text)) {
                outln!("{line}")?;
                self.background_commands.push(child);
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("'{line}' exited early ({status}); its output was:\n{}", lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.background_commands.push(child);
        bail!("'{line}' did not print {ready_text:?} within 30 seconds");
    }

    /// Terminates the background commands with SIGTERM, in reverse order of their start. Prints the
    /// kill(1) command with the same effect.
    pub fn stop_all(&mut self) -> anyhow::Result<()> {
        let count = self.background_commands.len();
        outln!(
            "$ kill {}",
            (1..=count).rev().map(|job| format!("%{job}")).collect::<Vec<_>>().join(" ")
        )?;
        self.terminate_background();
        Ok(())
    }

    fn terminate_background(&mut self) {
        for mut child in self.background_commands.drain(..).rev() {
            // This process has not reaped the child yet, so the kernel cannot have reused the
            // child's pid.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
            let _ = child.wait();
        }
    }

    /// Prints and counts a claim about the output of the commands. `holds` states whether the claim
    /// is true.
    pub fn check(&mut self, claim: &str, holds: bool) -> anyhow::Result<()> {
        self.claim_count += 1;
        self.failed_claim_count += u32::from(!holds);
        outln!("  {} {claim}", if holds { "ok:" } else { "FAILED:" })
    }

    /// Prints the number of claims that hold. Returns whether all claims hold.
    pub fn finish(&self) -> anyhow::Result<bool> {
        let held_count = self.claim_count - self.failed_claim_count;
        outln!("\n{held_count} of {} claims hold.", self.claim_count)?;
        Ok(self.failed_claim_count == 0)
    }

    /// Returns the numbers of used and free addresses, and the loopback addresses of the sessions.
    pub fn address_counts(&self) -> anyhow::Result<(u64, u64, Vec<String>)> {
        let output = self.sh("vipool status --private --json").output()?;
        let status: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let sum = |key: &str| {
            let pools = status["pools"].as_array().into_iter().flatten();
            pools.filter_map(|pool| pool[key].as_u64()).sum()
        };
        let sessions = status["sessions"].as_array().into_iter().flatten();
        let addresses =
            sessions.filter_map(|session| session["loopback"].as_str()).map(str::to_owned);
        Ok((sum("used"), sum("free"), addresses.collect()))
    }

    fn sh(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(&self.directory).stdin(Stdio::null());
        command.env("PATH", &self.path_variable).env("VIPOOL_PRIVATE", &self.directory);
        // The commands must not use the session in which the demo itself was started.
        command.env_remove("VIPOOL_LEASE").env_remove("VIPOOL_MAP").env_remove("VIPOOL_DISABLE");
        let _ = std::io::stdout().flush();
        command
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        self.terminate_background();
    }
}
