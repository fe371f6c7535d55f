//! `vipool watch`: the status, live.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use jiff::Zoned;

use crate::place::Place;
use crate::report::Report;
use crate::status;

/// Home, and clear what is behind the cursor (ECMA-48): no flicker, unlike clearing first.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// Show the status, live, until it is interrupted
#[derive(clap::Args)]
#[command(after_help = "Example:
  vipool watch --interval 5")]
pub struct Watch {
    /// Seconds between two looks
    #[arg(long, short = 'n', default_value = "2", value_parser = clap::value_parser!(u32).range(1..))]
    interval: u32,
    /// End after so many looks
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    #[command(flatten)]
    place: Place,
}

impl Watch {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let terminal = std::io::stdout().is_terminal();
        if terminal {
            print!("\x1b[2J");
        }
        let mut looks = 0;
        loop {
            let directory = self.place.directory()?;
            let now = Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
            // A map that is away for a moment, or another one, is no reason to end.
            let body = match Report::read(&directory, crate::run::own_session().ok()) {
                Ok(report) => status::render(&report),
                Err(error) => format!("vipool: {error:#}\n"),
            };
            let text = format!("{}  {now}\n\n{body}", directory.display());
            if terminal {
                let lines = text.replace('\n', &format!("{CLEAR_LINE}\n"));
                print!("{HOME}{lines}{CLEAR_REST}");
            } else {
                println!("{text}");
            }
            std::io::stdout().flush()?;
            looks += 1;
            if self.count.is_some_and(|count| looks >= count) {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(Duration::from_secs(self.interval.into()));
        }
    }
}
