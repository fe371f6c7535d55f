//! `vipool watch`: prints the status repeatedly.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use jiff::Zoned;

use super::status;
use crate::maps::report::Report;
use crate::maps::selection::MapArgs;

/// Control sequences of ECMA-48. Each update overwrites the previous text. It clears only the end
/// of each line and the lines below the text, because clearing the whole screen causes flicker.
const CURSOR_HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_SCREEN: &str = "\x1b[2J";

/// Show the status repeatedly until the command is interrupted
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool watch --interval 5")]
pub struct Watch {
    /// Seconds between two updates
    #[arg(long, short = 'n', default_value = "2", value_parser = clap::value_parser!(u32).range(1..))]
    interval: u32,
    /// Exit after this number of updates
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    #[command(flatten)]
    map: MapArgs,
}

impl Watch {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let is_terminal = std::io::stdout().is_terminal();
        if is_terminal {
            out!("{CLEAR_SCREEN}")?;
        }
        let mut update_count = 0;
        loop {
            let directory = self.map.directory()?;
            let now = Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
            // The map can be missing for some time, for example between `vipool down` and
            // `vipool up`. So print the error and continue.
            let body = match Report::read(&directory) {
                Ok(report) => status::render(&report),
                Err(error) => format!("vipool: {error:#}\n"),
            };
            let text = format!("{}  {now}\n\n{body}", directory.display());
            let text = if is_terminal {
                let lines = text.replace('\n', &format!("{CLEAR_LINE}\n"));
                format!("{CURSOR_HOME}{lines}{CLEAR_BELOW}")
            } else {
                format!("{text}\n")
            };
            let mut stdout = std::io::stdout();
            match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
                // The reader of the output has closed the pipe, so it cannot receive more updates.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Ok(ExitCode::SUCCESS);
                }
                result => result.context("cannot write to standard output")?,
            }
            update_count += 1;
            if self.count.is_some_and(|count| update_count >= count) {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(Duration::from_secs(self.interval.into()));
        }
    }
}
