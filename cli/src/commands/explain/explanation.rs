//! Creates an explanation from the observed process and the map.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;
use vipool::map::{MapError, Reader};
use vipool::rewrite::{KernelListeners, LiveSystem, RewriteRules, Rewriter};
use vipool::session::{Addresses, SessionId};
use vipool::system;

use super::conflicts::{Conflict, add_holders, find_conflicts};
use super::map_lookup::{self, RuleReport, SessionReport};
use super::obstacles::{self, MapFacts, Obstacle, SessionState};
use super::process::Subject;
use super::socket_report::{SocketReport, report_sockets};
use super::sockets;
use crate::system::proc_net::{SocketRow, socket_tables};

/// Version of the JSON format. The version changes when a field is removed or the meaning of a
/// field changes. A new field does not change the version.
const SCHEMA: u32 = 3;

/// The explanation, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub schema: u32,
    /// The pid; `None` for a program that is not started.
    pub pid: Option<u32>,
    pub name: String,
    pub file: Option<PathBuf>,
    pub started_as: Option<PathBuf>,
    pub script: Option<PathBuf>,
    /// Whether the program's socket calls are rewritten; `None` if that cannot be determined.
    pub rewritten: Option<bool>,
    pub obstacles: Vec<Obstacle>,
    pub map: PathBuf,
    pub rule: Option<RuleReport>,
    /// Rules that match only in part: the same file name in another directory, or the same
    /// interpreter with another script.
    pub near_misses: Vec<RuleReport>,
    /// Number of rules on the process list.
    pub rules: usize,
    pub session: Option<SessionReport>,
    pub sockets: Vec<SocketReport>,
    /// Number of sockets that the caller may not examine.
    pub unseen_sockets: usize,
    pub conflicts: Vec<Conflict>,
    pub notes: Vec<String>,
}

/// Explains a process, or a program that is not started.
///
/// If the program would use a private map, `private_map_lists_all` states whether that map lists
/// every program. Otherwise `private_map_lists_all` is `None`.
///
/// # Errors
/// The sockets of the process cannot be listed.
pub fn explain(
    subject: &Subject,
    directory: PathBuf,
    requested_session: Option<SessionId>,
    private_map_lists_all: Option<bool>,
) -> anyhow::Result<Explanation> {
    let rows: Vec<SocketRow> = match subject.pid {
        Some(pid) => socket_tables(&pid.to_string()).flatten().collect(),
        None => socket_tables("self").flatten().collect(),
    };
    let (open_sockets, unseen_sockets) = match subject.pid {
        Some(pid) if subject.file.is_some() => sockets::sockets_of_process(pid, &rows)
            .with_context(|| format!("cannot list the sockets of process {pid}"))?,
        _ => (Vec::new(), 0),
    };
    let map = map_lookup::attach(subject, &directory);
    let mut facts = MapFacts {
        is_same_namespace: subject.boot.map(|boot| match &map {
            Ok(map) => map.boot() == boot,
            // The map cannot be attached, so compare the process with the caller instead. If
            // attaching failed because the map belongs to another boot, `map_error` reports this.
            Err(_) => system::current_boot_id().is_ok_and(|caller_boot| caller_boot == boot),
        }),
        ..MapFacts::default()
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
        Err(MapError::Missing(_)) if private_map_lists_all.is_some() => {
            facts.is_listed = true;
            facts.session = SessionState::WillOpen;
            explanation.obstacles = obstacles::find_obstacles(subject, &facts);
            explanation.rewritten = match explanation.obstacles.is_empty() {
                true => private_map_lists_all.filter(|lists_all| *lists_all),
                false => Some(false),
            };
            explanation.notes.push(
                "You have no private map yet: 'vipool run' creates it, and lists the program if \
                 you have no farm file."
                    .into(),
            );
            return Ok(explanation);
        }
        Err(error) => {
            facts.map_error = Some(error.to_string());
            explanation.obstacles = obstacles::find_obstacles(subject, &facts);
            explanation.rewritten = Some(false);
            explanation.sockets = report_sockets::<LiveSystem<'_>>(&open_sockets, None, |_| false);
            return Ok(explanation);
        }
    };

    let policy = map.policy();
    let rule = match map_lookup::find_rule(subject, &policy) {
        Some((rule, report)) => {
            explanation.rule = Some(report);
            Some(rule)
        }
        None => None,
    };
    explanation.rules = policy.programs().count();
    if rule.is_none() || explanation.rule.as_ref().is_some_and(|rule| rule.inherited_from.is_some())
    {
        explanation.near_misses = map_lookup::near_misses(subject, &policy);
    }
    facts.is_listed = rule.is_some() || private_map_lists_all == Some(true);
    if rule.is_none() && facts.is_listed {
        explanation.notes.push(
            "You have no farm file, so 'vipool run' lists the program in your private map.".into(),
        );
    }
    let session = match subject.pid {
        Some(pid) => map_lookup::session_of_process(pid, subject, &map, &open_sockets),
        None => map_lookup::requested_session(&map, requested_session),
    };
    facts.session = session.state;
    let addresses = session
        .handle
        .map_or(Addresses::default(), |handle| map.addresses(&map.lookup(handle.session)));
    if let Some(rule) = &rule {
        facts.is_rule_effective = map_lookup::has_effect(rule.features(), &addresses);
        let notes = map_lookup::missing_address_notes(rule.features(), &addresses, &session);
        explanation.notes.extend(notes);
    } else {
        facts.is_rule_effective = addresses.loopback.is_some();
    }
    explanation.session = session.report(&addresses, &explanation.map);
    explanation.obstacles = obstacles::find_obstacles(subject, &facts);
    explanation.rewritten = match (explanation.obstacles.is_empty(), session.state) {
        (true, SessionState::Unknown) => None,
        (has_no_obstacles, _) => Some(has_no_obstacles),
    };

    let is_rewritten = explanation.rewritten == Some(true);
    let live_system = rule.map(|program| LiveSystem {
        reader: &map,
        policy,
        program,
        listeners: KernelListeners,
    });
    let rewriter = live_system.as_ref().filter(|_| is_rewritten).map(|system| Rewriter {
        addresses,
        rules: RewriteRules::new(&system.program, &system.policy),
        lease_held: true,
        system,
    });
    explanation.sockets = report_sockets(&open_sockets, rewriter.as_ref(), is_pool_address(&map));
    let examined_descriptors: BTreeSet<i32> =
        open_sockets.iter().flat_map(|socket| socket.descriptors.clone()).collect();
    let other_rows =
        super::conflicts::rows_of_other_processes(subject.pid, &rows, &examined_descriptors);
    let conflicts = find_conflicts(&other_rows, is_rewritten, is_pool_address(&map), |port| {
        rule.as_ref().is_some_and(|rule| rule.is_own_port(port))
    });
    explanation.conflicts = add_holders(conflicts);
    Ok(explanation)
}

/// Returns notes about the limits of the rewriting and of this explanation.
fn notes(subject: &Subject) -> Vec<String> {
    let mut notes = Vec::new();
    if subject.uses_io_uring {
        notes.push(
            "The process uses io_uring. Socket operations through io_uring are not rewritten."
                .into(),
        );
    }
    if subject.variables.is_none() && subject.file.is_some() {
        notes.push(
            "The process overwrote its environment. The session is inferred from its sockets, and \
             VIPOOL_DISABLE cannot be detected."
                .into(),
        );
    }
    notes
}

fn is_pool_address(map: &Reader) -> impl Fn(&SocketAddr) -> bool {
    |address| map.pool_kind(address.ip().to_canonical()).is_some()
}
