//! Runs the steps of `cargo xtask test` and prints a summary.
//!
//! Each step writes the output of its commands to `target/xtask/STEP.log`. If the step fails, the
//! last lines of this log are printed. For a step that runs tests, the summary counts the tests.
//! Any other step counts as one test.

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

/// The longest time that a command may run. After this time, the command counts as hung and is
/// killed.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// The longest time that a command may run with `--long`.
const LONG_COMMAND_TIMEOUT: Duration = Duration::from_secs(12 * 3600);

/// The set of steps to run if the command line names no step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The fast checks, for use after each edit.
    Quick,
    /// The checks that take at most a few minutes each.
    Full,
    /// All checks, including the checks that take hours.
    Long,
}

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    vipool_testing::workspace_root()
}

/// Returns the directory that cargo builds into.
pub fn target_dir() -> PathBuf {
    vipool_testing::target_dir()
}

/// Returns a cargo command. Spaces separate the arguments. The command runs in the root of the
/// repository and builds into the usual target directory.
pub fn cargo(arguments: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments.split(' ')).current_dir(root()).env("CARGO_TARGET_DIR", target_dir());
    command
}

/// Runs the commands of a step and appends their output to the log file of the step.
pub struct Log {
    file: File,
    /// The file in which test processes record each skipped test.
    skip_record: PathBuf,
    /// Whether this is a `--long` run.
    pub long: bool,
}

impl Log {
    /// Runs a command, appends its output to the log, and waits until the command ends. Returns an
    /// error if the command fails or hangs.
    pub fn run(&mut self, mut command: Command) -> Result<(), Error> {
        writeln!(self.file, "\n$ {}", format_command(&command))?;
        command
            .stdin(Stdio::null())
            .stdout(self.file.try_clone()?)
            .stderr(self.file.try_clone()?)
            .env(vipool_testing::SKIP_RECORD_VARIABLE, &self.skip_record);
        if self.long {
            command.env(vipool_testing::LONG_VARIABLE, "1");
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let timeout = if self.long { LONG_COMMAND_TIMEOUT } else { COMMAND_TIMEOUT };
        let started = Instant::now();
        let mut child =
            command.spawn().map_err(|error| format!("{}: {error}", format_command(&command)))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > timeout {
                // Kill the whole process group, because the hung process can be a grandchild of
                // cargo.
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                child.wait()?;
                return Err(format!(
                    "hung for {} s: {}",
                    timeout.as_secs(),
                    format_command(&command)
                )
                .into());
            }
            thread::sleep(Duration::from_millis(50));
        };
        if status.success() {
            Ok(())
        } else {
            Err(format!("{}: {status}", format_command(&command)).into())
        }
    }

    /// Runs cargo with these arguments, as [`cargo`] describes.
    pub fn cargo(&mut self, arguments: &str) -> Result<(), Error> {
        self.run(cargo(arguments))
    }

    /// Starts a command whose output is appended to the log. The caller must wait for it.
    pub fn spawn(&mut self, command: &mut Command) -> Result<Child, Error> {
        writeln!(self.file, "\n$ {}", format_command(command))?;
        command.stdout(self.file.try_clone()?).stderr(self.file.try_clone()?);
        command.spawn().map_err(|error| format!("{}: {error}", format_command(command)).into())
    }

    /// Writes a line to the log.
    pub fn write_line(&mut self, line: &str) -> Result<(), Error> {
        Ok(writeln!(self.file, "{line}")?)
    }
}

/// Returns the command line in the form that a user types. It contains the environment variables of
/// the command, except the target directory and the variables that [`Log::run`] sets.
fn format_command(command: &Command) -> String {
    let hidden_variables =
        ["CARGO_TARGET_DIR", vipool_testing::SKIP_RECORD_VARIABLE, vipool_testing::LONG_VARIABLE];
    let variables =
        command.get_envs().filter(|(name, _)| hidden_variables.iter().all(|hidden| hidden != name));
    let mut words: Vec<String> = variables
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), value?.display())))
        .collect();
    let program = Path::new(command.get_program());
    words.push(program.file_name().unwrap_or_default().to_string_lossy().into_owned());
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// The result of a step.
struct Outcome {
    name: &'static str,
    passed_count: usize,
    failed_count: usize,
    /// One line per skipped test, or one line if the whole step was skipped.
    skipped_tests: Vec<String>,
    duration: Duration,
}

/// Runs the named steps, or the steps of the selection, and prints the summary. Returns `true` if
/// nothing failed and, with `install`, nothing was skipped.
pub fn test(names: &[String], selection: Selection, install: bool) -> Result<bool, Error> {
    let steps = steps::select(names, selection)?;
    if install {
        install::install_missing(&steps::needs_of(&steps))?;
    }
    let log_directory = target_dir().join("xtask");
    fs::create_dir_all(&log_directory)?;
    let mut outcomes = Vec::new();
    for step in steps {
        print!("{:<16} {} … ", step.name, step.summary);
        std::io::stdout().flush()?;
        let outcome = run_step(step, &log_directory, selection == Selection::Long)?;
        println!("{} in {:.0?}", format_counts(&outcome), outcome.duration);
        if outcome.failed_count > 0 {
            print_log(&log_directory.join(format!("{}.log", step.name)));
        }
        outcomes.push(outcome);
    }
    Ok(print_summary(&outcomes, install))
}

/// Runs one step, or skips it if one of its needs is missing.
fn run_step(step: &Step, log_directory: &Path, long: bool) -> Result<Outcome, Error> {
    let mut outcome = Outcome {
        name: step.name,
        passed_count: 0,
        failed_count: 0,
        skipped_tests: Vec::new(),
        duration: Duration::ZERO,
    };
    let mut needs = step.needs.iter().map(|name| needs::by_name(name));
    if let Some(need) = needs.find(|need| !need.is_present()) {
        let line =
            format!("{}: needs {}; install with: {}", step.name, need.name, need.install_command());
        outcome.skipped_tests.push(line);
        return Ok(outcome);
    }
    let skip_record = log_directory.join("skipped");
    fs::write(&skip_record, "")?;
    let log_path = log_directory.join(format!("{}.log", step.name));
    let mut log = Log { file: File::create(&log_path)?, skip_record: skip_record.clone(), long };
    let started = Instant::now();
    let result = (step.run)(&mut log);
    outcome.duration = started.elapsed();
    if let Err(error) = &result {
        log.file.seek(SeekFrom::End(0))?;
        writeln!(log.file, "\n{}: {error}", step.name)?;
    }
    let (passed, failed) = count_tests(&String::from_utf8_lossy(&fs::read(&log_path)?));
    let skip_lines: BTreeSet<String> = fs::read_to_string(&skip_record)?
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (test, needs, remedy) = (fields.next()?, fields.next()?, fields.next()?);
            Some(format!("{test}: needs {needs}; install with: {remedy}"))
        })
        .collect();
    outcome.skipped_tests = skip_lines.into_iter().collect();
    outcome.failed_count = if result.is_err() { failed.max(1) } else { failed };
    outcome.passed_count = match result {
        Ok(()) if passed + failed == 0 => 1,
        // Subtract the skipped tests, because the test harness counts them as passed.
        _ => passed.saturating_sub(outcome.skipped_tests.len()),
    };
    Ok(outcome)
}

/// Sums the passed and the failed tests in the result lines of the test harness.
fn count_tests(log: &str) -> (usize, usize) {
    let number_before = |line: &str, label: &str| -> usize {
        let prefix = line.split_once(label).map_or("", |(prefix, _)| prefix);
        prefix.rsplit([' ', '.']).next().and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    log.lines()
        .filter(|line| line.starts_with("test result: "))
        .map(|line| (number_before(line, " passed"), number_before(line, " failed")))
        .fold((0, 0), |(passed, failed), counts| (passed + counts.0, failed + counts.1))
}

fn format_counts(outcome: &Outcome) -> String {
    format!(
        "{} passed, {} failed, {} skipped",
        outcome.passed_count,
        outcome.failed_count,
        outcome.skipped_tests.len()
    )
}

/// Prints the last lines of the log of a failed step.
fn print_log(log: &Path) {
    const MAX_LINES: usize = 400;
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    println!("--- {}", log.display());
    for line in &lines[lines.len().saturating_sub(MAX_LINES)..] {
        println!("{line}");
    }
    println!("---");
}

/// Prints the table, the skipped tests and the totals. Returns whether the run succeeded. With
/// `skips_fail`, a run with skipped tests has failed.
fn print_summary(outcomes: &[Outcome], skips_fail: bool) -> bool {
    println!("\n{:<16} {:>7} {:>7} {:>7} {:>8}", "step", "passed", "failed", "skipped", "seconds");
    for outcome in outcomes {
        let seconds = outcome.duration.as_secs_f64();
        println!(
            "{:<16} {:>7} {:>7} {:>7} {seconds:>8.1}",
            outcome.name,
            outcome.passed_count,
            outcome.failed_count,
            outcome.skipped_tests.len()
        );
    }
    let total_seconds: f64 = outcomes.iter().map(|outcome| outcome.duration.as_secs_f64()).sum();
    println!("{:<16} {:>7} {:>7} {:>7} {total_seconds:>8.1}\n", "all", "", "", "");
    for line in outcomes.iter().flat_map(|outcome| &outcome.skipped_tests) {
        println!("skipped: {line}");
    }
    let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    let (passed, failed, skipped) = (
        sum(|outcome| outcome.passed_count),
        sum(|outcome| outcome.failed_count),
        sum(|outcome| outcome.skipped_tests.len()),
    );
    if skips_fail && skipped > 0 {
        println!("The run failed: with --all, no test may be skipped.");
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    failed == 0 && !(skips_fail && skipped > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_the_harness_are_summed() {
        let log = "running 3 tests\n\
                   test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                   x\ntest result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(count_tests(log), (15, 2));
        assert_eq!(count_tests("nothing"), (0, 0));
    }
}
