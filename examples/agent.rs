//! A server agent: it creates the map of this server from farm.toml and holds the map exclusively.
//! It opens a session at each logon and closes the session at each logoff. In this example, lines
//! on standard input replace the events of the operating system and the requests of an
//! administrator. The command line, and the possible input lines, are:
//!
//! ```text
//! agent FARM.TOML HOST MAP-DIRECTORY
//! logon 7 ada | logoff 7 | reserve 10.0.5.20 ada | drain 10.0.5.0/24 | tick | status
//! ```
//!
//! `examples/cpp/agent.cpp` is the same agent in C++, with the same output.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use vipool::Tick;
use vipool::farm::Farm;
use vipool::map::{Leader, Map, OpenError, OpenOptions, Probe, Shortage};
use vipool::range::Range;
use vipool::session::{SessionId, SessionKind};

/// Reports no sockets and no exited leaders, so `tick` frees addresses but closes no session.
struct NoSocketsProbe;

impl Probe for NoSocketsProbe {
    fn has_sockets(&mut self, _: IpAddr) -> bool {
        false
    }
    fn has_exited(&mut self, _: &Leader) -> bool {
        false
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(exit_code) => exit_code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [farm_path, host, directory] = &*arguments else {
        eprintln!("usage: agent FARM.TOML HOST MAP-DIRECTORY");
        return Ok(ExitCode::from(2));
    };
    let (farm, mut report) = Farm::load(Path::new(farm_path));
    let server_plan = farm.plan(host, None);
    report.extend(server_plan.findings);
    if report.has_errors() {
        eprint!("{report}");
        return Ok(ExitCode::FAILURE);
    }
    let mut map = Map::create(Path::new(directory), &server_plan.plan)?;
    map.lock_exclusive()?;
    for line in std::io::stdin().lines() {
        if let Err(error) = run_command(&map, &line?) {
            println!("error: {error}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_session(number: &str) -> Result<SessionId, Box<dyn Error>> {
    Ok(SessionId::new(SessionKind::Windows, number.parse()?)?)
}

fn run_command(map: &Map, line: &str) -> Result<(), Box<dyn Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match *words {
        ["logon", number, user] => logon(map, parse_session(number)?, user)?,
        ["logoff", number] => {
            for lease in map.close_session(parse_session(number)?, Tick::now())?.leases.iter() {
                println!("event: {} released {}", lease.session, lease.address);
            }
        }
        ["reserve", address, user] => {
            map.reserve(address.parse()?, user, Tick::now())?;
        }
        ["drain", range] => {
            let change = map.drain(&range.parse::<Range>()?, Tick::now())?;
            println!("drained {}, {} held", change.addresses, change.held);
        }
        ["tick"] => {
            let report = map.reap(Tick::now(), 1000, &mut NoSocketsProbe)?;
            println!("freed {}, closed {}", report.freed, report.closed.len());
        }
        ["status"] => print_status(map)?,
        _ => println!("unknown command: {line}"),
    }
    Ok(())
}

fn logon(map: &Map, session: SessionId, user: &str) -> Result<(), OpenError> {
    let previous_leases = map.find(session)?.map(|(_, leases)| leases).unwrap_or_default();
    let options = OpenOptions::new().with_user(user);
    let opened = map.open_session(session, &options, Tick::now());
    if let Err(OpenError::Shortage { .. }) = opened {
        println!("event: no address for {session}");
    }
    let opened = opened?;
    for lease in opened
        .leases
        .iter()
        .filter(|lease| !previous_leases.iter().any(|previous_lease| previous_lease == *lease))
    {
        println!("event: {session} leased {}", lease.address);
    }
    if opened.is_low_water() {
        println!("event: few addresses are left");
    }
    if let Some(shortage) = opened.shortage {
        println!("event: no address for {session}");
        println!("{}", shortage_text(shortage));
    }
    Ok(())
}

fn shortage_text(shortage: Shortage) -> String {
    match shortage {
        Shortage::Cooling { .. } => "every free address is cooling down".to_owned(),
        shortage => shortage.to_string(),
    }
}

fn print_status(map: &Map) -> Result<(), Box<dyn Error>> {
    for pool in map.reader()?.pools() {
        println!(
            "pool {}: {} leased, {} free, {} reserved, {} drained of {}",
            pool.name, pool.leased, pool.free, pool.reserved, pool.drained, pool.slots
        );
    }
    for row in map.sessions()? {
        print!("session {} of {}:", row.session, row.user.as_deref().unwrap_or_default());
        for lease in row.leases.iter() {
            print!(" {}", lease.address);
        }
        println!();
    }
    Ok(())
}
