//! The explanation for people.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::Explanation;
use super::sockets::Told;
use super::standing::{RuleTold, SessionTold};
use crate::table::{render as render_table, table};

/// The explanation as text.
pub fn render(it: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    line("Program", program(it));
    let verdict = match it.rewritten {
        Some(true) => "yes",
        Some(false) => "no",
        None => "can't be told",
    };
    line(
        if it.pid.is_some() { "Rewritten" } else { "Would be" },
        match it.pid {
            Some(_) => verdict.to_owned(),
            None => format!("rewritten when 'vipool run' starts it: {verdict}"),
        },
    );
    for obstacle in &it.obstacles {
        line("", format!("{}: {}", obstacle.name.name(), obstacle.text));
    }
    line("Rule", it.rule.as_ref().map_or_else(|| no_rule(it), rule));
    for near in &it.near_misses {
        line("", rule(near));
    }
    line("Session", it.session.as_ref().map_or_else(|| "none".to_owned(), session));
    line("Map", it.map.display().to_string());
    if !it.sockets.is_empty() {
        let _ = write!(text, "\n{}", sockets(&it.sockets));
    }
    if it.unseen_sockets > 0 {
        let _ = writeln!(
            text,
            "\n{} more sockets can't be looked at: of another kind, or bound to nothing (root \
             sees them).",
            it.unseen_sockets
        );
    }
    if !it.conflicts.is_empty() {
        text.push_str("\nPorts that others have (rows of docs/socket-matrix.md):\n");
        text.push_str(&conflicts(it));
    }
    for note in &it.notes {
        let _ = writeln!(text, "\n{note}");
    }
    text
}

/// What another program may have chosen is shown so that a terminal does not act on it.
fn quoted(text: &str) -> String {
    text.escape_debug().to_string()
}

fn program(it: &Explanation) -> String {
    let mut text = it.pid.map_or(String::new(), |pid| format!("{} (pid {pid})", quoted(&it.name)));
    let shown = |path: &std::path::Path| quoted(&path.to_string_lossy());
    if let Some(file) = &it.file {
        let _ = write!(text, "{}{}", if text.is_empty() { "" } else { ": " }, shown(file));
        if let Some(path) = it.started_as.as_ref().filter(|path| *path != file) {
            let _ = write!(text, ", started as {}", shown(path));
        }
    }
    if let Some(script) = &it.script {
        let _ = write!(text, ", running {}", shown(script));
    }
    text
}

fn no_rule(it: &Explanation) -> String {
    format!("none of {}", it.rules)
}

fn rule(rule: &RuleTold) -> String {
    let script = rule.script.as_ref().map(|script| format!(" with {}", quoted(script)));
    format!(
        "number {}, {}{} ({}): {}",
        rule.place,
        quoted(&rule.path),
        script.unwrap_or_default(),
        rule.features.join(", "),
        rule.verdict
    )
}

fn session(session: &SessionTold) -> String {
    let by = match session.found_by {
        "lease" => "by the lease in its environment",
        "audit-session" => "by the kernel's audit session",
        "session-scope" => "by the control group of the logon",
        "user-manager" => "the only one of its user",
        "sockets" => "by what its sockets are bound to",
        _ => "the one it would be run in",
    };
    let mut text = format!("{} ({by})", session.session);
    let all: Vec<_> =
        session.virtual_ip.iter().chain(&session.loopback).map(IpAddr::to_string).collect();
    if !session.open {
        text.push_str(": not open");
    } else if all.is_empty() {
        text.push_str(": no address");
    } else {
        let _ = write!(text, ": {}", all.join(", "));
    }
    if let Some(client) = session.client {
        let _ = write!(text, "; client {client}");
    }
    text
}

fn sockets(sockets: &[Told]) -> String {
    let mut rows = table(&["FD#", "PROTOCOL", "STATE", "ASKED", "BOUND", "PEER", "WHY"]);
    let text = |address: Option<SocketAddr>| address.map_or("-".to_owned(), |it| it.to_string());
    for socket in sockets {
        let peer = match (socket.peer, socket.peer_shown) {
            (Some(peer), Some(shown)) if peer != shown => format!("{shown} ({peer})"),
            (peer, _) => text(peer),
        };
        let descriptors: Vec<_> = socket.descriptors.iter().map(i32::to_string).collect();
        rows.add_row([
            descriptors.join(","),
            socket.protocol.to_owned(),
            socket.state.to_owned(),
            text(socket.asked),
            socket.bound.to_string(),
            peer,
            socket.why.clone(),
        ]);
    }
    render_table(&rows)
}

fn conflicts(it: &Explanation) -> String {
    let mut rows = table(&["ROW#", "PROTOCOL", "ADDRESS", "HELD BY", "WHAT FOLLOWS"]);
    for conflict in &it.conflicts {
        let holder = match (&conflict.program, conflict.pid) {
            (Some(program), Some(pid)) => format!("{} ({pid})", quoted(program)),
            _ => "-".to_owned(),
        };
        let own = if conflict.own_port { " (the rule lists this port)" } else { "" };
        rows.add_row([
            conflict.row.to_string(),
            conflict.protocol.to_owned(),
            conflict.address.to_string(),
            holder,
            format!("{}{own}", conflict.text),
        ]);
    }
    render_table(&rows)
}
