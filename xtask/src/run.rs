//! Runs steps and sums them up.
//!
//! What a step's commands print goes to a file of its own, which is shown when the step fails.
//! The numbers count tests where a step runs tests, and the step itself where it does not.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use vipool_testing::needs;

use crate::steps::{self, Step};
use crate::{Error, install};

/// A command of a step that runs longer than this hangs, and is ended.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// The same for steps of `--long`.
const LONG_LIMIT: Duration = Duration::from_secs(12 * 3600);

/// The root of the repository.
pub fn root() -> &'static Path {
    vipool_testing::workspace_root()
}

/// Where cargo builds to.
pub fn target_dir() -> PathBuf {
    vipool_testing::target_dir()
}

/// Cargo with these arguments (words between spaces), in the root of the repository, into the usual target directory.
pub fn cargo(words: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words.split(' ')).current_dir(root()).env("CARGO_TARGET_DIR", target_dir());
    command
}

/// What a step writes to and knows.
pub struct Log {
    file: File,
    skipped: PathBuf,
    /// Whether this is a run of hours.
    pub long: bool,
}

impl Log {
    /// Runs the command to its end with its output in the log; an error if it fails or hangs.
    pub fn run(&mut self, mut command: Command) -> Result<(), Error> {
        writeln!(self.file, "\n$ {}", text_of(&command))?;
        command
            .stdin(Stdio::null())
            .stdout(self.file.try_clone()?)
            .stderr(self.file.try_clone()?)
            .env(vipool_testing::SKIPPED, &self.skipped);
        if self.long {
            command.env(vipool_testing::LONG, "1");
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let limit = if self.long { LONG_LIMIT } else { LIMIT };
        let started = Instant::now();
        let mut child = command.spawn().map_err(|e| format!("{}: {e}", text_of(&command)))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > limit {
                // The whole group: what hangs is a grandchild of cargo.
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                child.wait()?;
                return Err(format!("hung for {} s: {}", limit.as_secs(), text_of(&command)).into());
            }
            thread::sleep(Duration::from_millis(50));
        };
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: {status}", text_of(&command)).into())
        }
    }

    /// Runs cargo as [`cargo`] gives it.
    pub fn cargo(&mut self, words: &str) -> Result<(), Error> {
        self.run(cargo(words))
    }

    /// Starts a command with its output in the log; the caller waits for it.
    pub fn spawn(&mut self, command: &mut Command) -> Result<Child, Error> {
        writeln!(self.file, "\n$ {}", text_of(command))?;
        command.stdout(self.file.try_clone()?).stderr(self.file.try_clone()?);
        command.spawn().map_err(|error| format!("{}: {error}", text_of(command)).into())
    }

    /// Notes a line.
    pub fn say(&mut self, line: &str) -> Result<(), Error> {
        Ok(writeln!(self.file, "{line}")?)
    }
}

/// A command as one would type it, with the variables that were set for it.
fn text_of(command: &Command) -> String {
    let ours = ["CARGO_TARGET_DIR", vipool_testing::SKIPPED, vipool_testing::LONG];
    let variables = command.get_envs().filter(|(name, _)| ours.iter().all(|our| our != name));
    let mut words: Vec<String> = variables
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), value?.display())))
        .collect();
    let program = Path::new(command.get_program());
    words.push(program.file_name().unwrap_or_default().to_string_lossy().into_owned());
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// How a step ended.
struct Outcome {
    name: &'static str,
    passed: usize,
    failed: usize,
    /// Lines for the list at the end.
    skipped: Vec<String>,
    took: Duration,
}

/// Runs the named steps, or all, and prints the summary. `true` if nothing failed (and, with
/// `all`, nothing was skipped).
pub fn test(names: &[String], all: bool, long: bool) -> Result<bool, Error> {
    let steps = steps::chosen(names, long)?;
    if all {
        install::missing(&steps::wanted(&steps))?;
    }
    let logs = target_dir().join("xtask");
    fs::create_dir_all(&logs)?;
    let mut outcomes = Vec::new();
    for step in steps {
        print!("{:<16} {} … ", step.name, step.does);
        std::io::stdout().flush()?;
        let outcome = one(step, &logs, long)?;
        println!("{} in {:.0?}", summary(&outcome), outcome.took);
        if outcome.failed > 0 {
            show(&logs.join(format!("{}.log", step.name)));
        }
        outcomes.push(outcome);
    }
    Ok(sum_up(&outcomes, all))
}

fn one(step: &Step, logs: &Path, long: bool) -> Result<Outcome, Error> {
    let mut outcome = Outcome {
        name: step.name,
        passed: 0,
        failed: 0,
        skipped: Vec::new(),
        took: Duration::ZERO,
    };
    for need in step.needs.iter().map(|name| needs::by_name(name)).filter(|need| !need.is_present())
    {
        let line =
            format!("{}: needs {}; install with: {}", step.name, need.name, need.install_command());
        outcome.skipped.push(line);
    }
    if !outcome.skipped.is_empty() {
        // One step, however many needs are absent.
        outcome.skipped.truncate(1);
        return Ok(outcome);
    }
    let skipped = logs.join("skipped");
    fs::write(&skipped, "")?;
    let path = logs.join(format!("{}.log", step.name));
    let mut log = Log { file: File::create(&path)?, skipped: skipped.clone(), long };
    let started = Instant::now();
    let result = (step.run)(&mut log);
    outcome.took = started.elapsed();
    if let Err(error) = &result {
        log.file.seek(SeekFrom::End(0))?;
        writeln!(log.file, "\n{}: {error}", step.name)?;
    }
    let (passed, failed) = count(&String::from_utf8_lossy(&fs::read(&path)?));
    let skips: BTreeSet<String> = fs::read_to_string(&skipped)?
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (test, needs, remedy) = (fields.next()?, fields.next()?, fields.next()?);
            Some(format!("{test}: needs {needs}; install with: {remedy}"))
        })
        .collect();
    outcome.skipped = skips.into_iter().collect();
    outcome.failed = if result.is_err() { failed.max(1) } else { failed };
    outcome.passed = match result {
        Ok(()) if passed + failed == 0 => 1,
        // A test that skips itself returns, and so was counted as passed.
        _ => passed.saturating_sub(outcome.skipped.len()),
    };
    Ok(outcome)
}

/// The tests that passed and failed, by the lines with which the test harness ends.
fn count(log: &str) -> (usize, usize) {
    let number = |line: &str, what: &str| -> usize {
        let before = line.split_once(what).map_or("", |(before, _)| before);
        before.rsplit([' ', '.']).next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    log.lines()
        .filter(|line| line.starts_with("test result: "))
        .map(|line| (number(line, " passed"), number(line, " failed")))
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn summary(outcome: &Outcome) -> String {
    format!(
        "{} passed, {} failed, {} skipped",
        outcome.passed,
        outcome.failed,
        outcome.skipped.len()
    )
}

/// Prints the log of a failed step, its end if it is long.
fn show(log: &Path) {
    const LINES: usize = 400;
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    println!("--- {}", log.display());
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        println!("{line}");
    }
    println!("---");
}

/// Prints the table, what was skipped, and the closing line.
fn sum_up(outcomes: &[Outcome], all: bool) -> bool {
    println!("\n{:<16} {:>7} {:>7} {:>7} {:>8}", "step", "passed", "failed", "skipped", "seconds");
    for o in outcomes {
        let seconds = o.took.as_secs_f64();
        println!(
            "{:<16} {:>7} {:>7} {:>7} {seconds:>8.1}",
            o.name,
            o.passed,
            o.failed,
            o.skipped.len()
        );
    }
    let total: f64 = outcomes.iter().map(|o| o.took.as_secs_f64()).sum();
    println!("{:<16} {:>7} {:>7} {:>7} {total:>8.1}\n", "all", "", "", "");
    for line in outcomes.iter().flat_map(|o| &o.skipped) {
        println!("skipped: {line}");
    }
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    let (passed, failed, skipped) =
        (sum(|o| o.passed), sum(|o| o.failed), sum(|o| o.skipped.len()));
    if all && skipped > 0 {
        println!("With --all nothing may be skipped: this run has failed.");
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    failed == 0 && !(all && skipped > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_the_harness_says() {
        let log = "running 3 tests\n\
                   test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                   x\ntest result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(count(log), (15, 2));
        assert_eq!(count("nothing"), (0, 0));
    }
}
