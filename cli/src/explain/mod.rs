//! `vipool explain`: why a program is rewritten or not, and what became of each of its sockets.
//!
//! `process` and `binary` see, `verdict` and `sockets` say what follows, by the same functions that
//! the hook asks.

pub mod binary;
pub mod process;
mod sockets;
mod standing;
mod text;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use vipool::map::{MapError, Reader};
use vipool::os::identity;
use vipool::os::place::map_directory;
use vipool::policy::ProgramView;
use vipool::rewrite::{KernelListeners, LiveSystem, RewriteRules, Rewriter};
use vipool::session::{Addresses, SessionId};

use crate::place::{Place, Which};
use crate::private;
use crate::sockets::{Row, open_by, processes, tables};
use process::Subject;
use sockets::{Conflict, Told};
use standing::{RuleTold, SessionTold};
use verdict::{Found, Obstacle, Standing};

/// Raised when a field changes its meaning or goes; new fields do not raise it.
const SCHEMA: u32 = 1;

/// Say why a program is rewritten or not, and what became of its sockets
///
/// For a process: which rule of the process list it is under and by what, which session it is in,
/// everything that keeps it from being rewritten, and each of its TCP and UDP sockets with what
/// was asked and what was bound. For a program: the same as far as it can be known before 'vipool
/// run' starts it; it is not started.
///
/// Root sees all processes; others their own. What can't be seen is said.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  vipool explain $(pidof redis-server)
  vipool explain --json 4711 | jq '.obstacles[].name'
  vipool explain -- /opt/app/bin/app --port 80")]
pub struct Explain {
    /// The process
    #[arg(required_unless_present = "program", conflicts_with = "program")]
    pid: Option<u32>,
    /// The session that the program would be run in [default: that of your logon]
    #[arg(long, short, value_name = "SESSION", conflicts_with = "pid")]
    session: Option<SessionId>,
    /// Print JSON (docs/json.md says what it holds)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
    /// The program and its arguments
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// All that is said.
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub schema: u32,
    /// None for a program that is not started.
    pub pid: Option<u32>,
    pub name: String,
    pub file: Option<PathBuf>,
    pub started_as: Option<PathBuf>,
    pub script: Option<PathBuf>,
    /// None where that can't be told.
    pub rewritten: Option<bool>,
    pub obstacles: Vec<Obstacle>,
    pub map: PathBuf,
    pub rule: Option<RuleTold>,
    /// Rules for programs of the same name, which are not for this one.
    pub near_misses: Vec<RuleTold>,
    /// How many rules there are.
    pub rules: usize,
    pub session: Option<SessionTold>,
    pub sockets: Vec<Told>,
    /// Sockets that could not be looked at.
    pub unseen_sockets: usize,
    pub conflicts: Vec<Conflict>,
    pub notes: Vec<String>,
}

impl Explain {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (subject, directory) = match self.pid {
            Some(pid) => {
                let subject = process::look_at(pid)?;
                let directory = match subject.variable("VIPOOL_MAP").filter(|it| !it.is_empty()) {
                    Some(named) => PathBuf::from(named),
                    None if self.place.is_named() => self.place.directory()?,
                    None => subject.mapped.clone().unwrap_or_else(map_directory),
                };
                (subject, directory)
            }
            None => (process::to_be_started(&self.program)?, self.place.directory()?),
        };
        // 'vipool run' makes a map of one's own, and without a farm file it lists what it runs.
        let private = (self.pid.is_none() && self.place.which() == Which::Private)
            .then(|| private::farm_of_user().is_none());
        let explanation = explain(&subject, directory, self.session, private)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&explanation)?);
        } else {
            print!("{}", text::render(&explanation));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `lists_all` is given for a program that would be run in a map of the caller's own: whether that
/// lists every program.
fn explain(
    subject: &Subject,
    directory: PathBuf,
    chosen: Option<SessionId>,
    lists_all: Option<bool>,
) -> anyhow::Result<Explanation> {
    let rows: Vec<Row> = match subject.pid {
        Some(pid) => tables(&pid.to_string()).flatten().collect(),
        None => tables("self").flatten().collect(),
    };
    let (open, unseen_sockets) = match subject.pid {
        Some(pid) if subject.file.is_some() => sockets::of_process(pid, &rows)
            .with_context(|| format!("cannot look at the sockets of process {pid}"))?,
        _ => (Vec::new(), 0),
    };
    let map = standing::attach(subject, &directory);
    let mut standing = Standing {
        is_here: subject.place.map(|place| match &map {
            Ok(map) => map.boot() == place,
            // Then it may be another boot's as well, which the error says.
            Err(_) => identity::current_boot_id().is_ok_and(|here| here == place),
        }),
        ..Standing::default()
    };
    let mut explanation = Explanation {
        schema: SCHEMA,
        pid: subject.pid,
        name: subject.name.clone(),
        file: subject.file.clone(),
        started_as: subject.started_as.clone(),
        script: subject.script.clone(),
        rewritten: None,
        obstacles: Vec::new(),
        rule: None,
        near_misses: Vec::new(),
        rules: 0,
        session: None,
        sockets: Vec::new(),
        unseen_sockets,
        conflicts: Vec::new(),
        notes: notes(subject),
        map: directory,
    };
    let map = match map {
        Ok(map) => map,
        Err(MapError::Missing(_)) if lists_all.is_some() => {
            standing.is_listed = true;
            standing.session = Found::ToBeOpened;
            explanation.obstacles = verdict::obstacles(subject, &standing);
            explanation.rewritten = match explanation.obstacles.is_empty() {
                true => lists_all.filter(|lists_all| *lists_all),
                false => Some(false),
            };
            explanation.notes.push(
                "There is no map of your own yet: 'vipool run' makes it, and without a farm file \
                 lists the program."
                    .into(),
            );
            return Ok(explanation);
        }
        Err(error) => {
            standing.map_error = Some(error.to_string());
            explanation.obstacles = verdict::obstacles(subject, &standing);
            explanation.rewritten = Some(false);
            explanation.sockets = sockets::tell::<LiveSystem<'_>>(&open, None, |_| false);
            return Ok(explanation);
        }
    };

    let policy = map.policy();
    let rule = match standing::rule_of(subject, &policy) {
        Some((rule, told)) => {
            explanation.rule = Some(told);
            Some(rule)
        }
        None => None,
    };
    explanation.rules = policy.programs().count();
    if rule.is_none() || explanation.rule.as_ref().is_some_and(|it| it.inherited_from.is_some()) {
        explanation.near_misses = standing::near_misses(subject, &policy);
    }
    standing.is_listed = rule.is_some() || lists_all == Some(true);
    if rule.is_none() && standing.is_listed {
        explanation.notes.push(
            "'vipool run' puts the program on the list of your own map: there is no farm file."
                .into(),
        );
    }
    let session = match subject.pid {
        Some(pid) => standing::session_of(pid, subject, &map, &open),
        None => standing::chosen_session(&map, chosen),
    };
    standing.session = session.state;
    let addresses = session
        .handle
        .map_or(Addresses::default(), |handle| map.addresses(&map.lookup(handle.session)));
    if let Some(rule) = &rule {
        standing.has_address = standing::has_address(rule.features(), &addresses);
        standing::lacking(rule.features(), &addresses, &session, &mut explanation.notes);
    } else {
        standing.has_address = addresses.loopback.is_some();
    }
    explanation.session = session.told(&addresses, &explanation.map);
    explanation.obstacles = verdict::obstacles(subject, &standing);
    explanation.rewritten = match (explanation.obstacles.is_empty(), session.state) {
        (true, Found::Unseen) => None,
        (clear, _) => Some(clear),
    };

    let is_rewritten = explanation.rewritten == Some(true);
    let live = rule.map(|program| LiveSystem {
        reader: &map,
        policy,
        program,
        listeners: KernelListeners,
    });
    let rewriter = live.as_ref().filter(|_| is_rewritten).map(|live| Rewriter {
        addresses,
        rules: RewriteRules::new(&live.program, &live.policy),
        lease_held: true,
        system: live,
    });
    explanation.sockets = sockets::tell(&open, rewriter.as_ref(), is_pooled(&map));
    let own: BTreeSet<i32> = open.iter().flat_map(|it| it.descriptors.clone()).collect();
    explanation.conflicts = conflicts(subject, &rows, &own, is_rewritten, &map, rule.as_ref());
    Ok(explanation)
}

/// What is worth knowing beside.
fn notes(subject: &Subject) -> Vec<String> {
    let mut notes = Vec::new();
    if subject.has_ring {
        notes.push(
            "It uses io_uring: socket operations that go through it are not rewritten.".into(),
        );
    }
    if subject.variables.is_none() && subject.file.is_some() {
        notes.push(
            "It wrote over its environment, so what it was started with can't be seen: the \
             session is that of its sockets, and VIPOOL_DISABLE would go unnoticed."
                .into(),
        );
    }
    notes
}

fn is_pooled(map: &Reader) -> impl Fn(&SocketAddr) -> bool {
    |address| map.pool_kind(address.ip().to_canonical()).is_some()
}

/// Ports that somebody else has, with the processes that have them as far as they can be seen.
fn conflicts(
    subject: &Subject,
    rows: &[Row],
    own: &BTreeSet<i32>,
    is_rewritten: bool,
    map: &Reader,
    rule: Option<&ProgramView<'_>>,
) -> Vec<Conflict> {
    let own: BTreeSet<u64> = match subject.pid.map(open_by) {
        Some(Ok(open)) => {
            let is_own = |numbers: &[i32]| numbers.iter().any(|number| own.contains(number));
            open.into_iter().filter(|(_, it)| is_own(it)).map(|(inode, _)| inode).collect()
        }
        _ => BTreeSet::new(),
    };
    let foreign: Vec<Row> = rows.iter().filter(|row| !own.contains(&row.inode)).copied().collect();
    let mut found = sockets::conflicts(&foreign, is_rewritten, is_pooled(map), |port| {
        rule.is_some_and(|rule| rule.is_own_port(port))
    });
    if found.is_empty() {
        return found;
    }
    let mut holders: BTreeMap<u64, (u32, i32)> = BTreeMap::new();
    for pid in processes() {
        for (inode, descriptors) in open_by(pid).unwrap_or_default() {
            holders.extend(descriptors.first().map(|first| (inode, (pid, *first))));
        }
    }
    found.retain_mut(|conflict| {
        let Some((pid, descriptor)) = holders.get(&conflict.inode) else { return true };
        conflict.pid = Some(*pid);
        conflict.program =
            fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned());
        // One for IPv6 alone leaves the port of IPv4 to others.
        conflict.row != 29 || sockets::is_v6only(*pid, *descriptor) != Some(true)
    });
    found
}
