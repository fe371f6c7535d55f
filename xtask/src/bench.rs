//! Runs the criterion benches and the comparison benches. The comparison benches print tables with
//! ratios. Both sides of a ratio are measured in the same run.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Command;

use crate::run::{cargo, root};
use crate::{Error, run_checked};

/// The comparison benches. Each entry has the bench target, and the path of its manifest with
/// further arguments for cargo.
const COMPARISON_BENCHES: &[(&str, &str)] = &[
    ("alloc", "bench-peers/Cargo.toml"),
    ("capi", "Cargo.toml --package vipool --features capi"),
    ("hook", "hooks/linux/Cargo.toml"),
    ("history", "cli/Cargo.toml"),
];

/// Runs the comparison bench that the first argument names, with the other arguments. Without
/// arguments, or with `--record` alone, runs all criterion benches. `--record` writes the output to
/// a file in `benches/record`.
pub fn run(arguments: &[String]) -> Result<(), Error> {
    let (bench_name, arguments) = match arguments.split_first() {
        None => return run_checked(cargo("bench --package vipool")),
        Some((flag, [])) if flag == "--record" => {
            let mut command = cargo("bench --quiet --package vipool -- --quiet --noplot");
            command.stdout(create_record("criterion", "txt", "cargo xtask bench")?);
            return run_checked(command);
        }
        Some(name_and_arguments) => name_and_arguments,
    };
    let (_, manifest_arguments) =
        COMPARISON_BENCHES.iter().find(|(name, _)| *name == *bench_name).ok_or_else(|| {
            let names: Vec<&str> = COMPARISON_BENCHES.iter().map(|(name, _)| *name).collect();
            format!("unknown bench {bench_name:?} (known: {})", names.join(", "))
        })?;
    let mut command =
        cargo(&format!("bench --quiet --manifest-path {manifest_arguments} --bench {bench_name}"));
    let (record_flags, arguments): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| *argument == "--record");
    command.arg("--").args(arguments);
    if !record_flags.is_empty() {
        let recorded_command = format!("cargo xtask bench {bench_name} --json");
        command.arg("--json").stdout(create_record(bench_name, "jsonl", &recorded_command)?);
    }
    run_checked(command)
}

/// Creates the record file of a bench and writes the header of the record.
fn create_record(name: &str, extension: &str, recorded_command: &str) -> Result<File, Error> {
    let date = output_of("date", "-u +%F");
    let path = root().join(format!("benches/record/{date}-{name}.{extension}"));
    let mut file = File::create(&path)?;
    file.write_all(record_header(recorded_command).as_bytes())?;
    println!("writing {}", path.display());
    Ok(file)
}

/// Returns the header of a record: the command, the commit, the date, the machine, the compiler and
/// the load.
fn record_header(recorded_command: &str) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name);
    let processor_count = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "# {recorded_command} at {}, {}\n# {processor_count} x {processor}, {}, {}; \
         load before the run {}\n",
        output_of("git", "rev-parse --short HEAD"),
        output_of("date", "-u +%F"),
        output_of("uname", "-srm"),
        output_of("rustc", "--version"),
        load.split(' ').next().unwrap_or("unknown"),
    )
}

/// Returns the output of a command, or "no PROGRAM" if the command cannot start or prints nothing.
fn output_of(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).current_dir(root()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| format!("no {program}"))
}
