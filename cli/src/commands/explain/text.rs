//! Formats an explanation as text.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::explanation::Explanation;
use super::map_lookup::{RuleReport, SessionReport};
use super::socket_report::SocketReport;
use crate::table::{render as render_table, table};
// `escape` is necessary, because paths and names of processes can contain control characters.
use crate::text::{escape, pluralize};

/// Returns the explanation as text.
pub fn render(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut write_line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    write_line("Program", render_program(explanation));
    let verdict = match explanation.rewritten {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    write_line(
        "Rewritten",
        match explanation.pid {
            Some(_) => verdict.to_owned(),
            None => format!("{verdict} (if 'vipool run' starts the program)"),
        },
    );
    for obstacle in &explanation.obstacles {
        write_line("", format!("{}: {}", obstacle.name.name(), obstacle.text));
    }
    write_line(
        "Rule",
        explanation.rule.as_ref().map_or_else(|| render_no_rule(explanation), render_rule),
    );
    for near_miss in &explanation.near_misses {
        write_line("", render_rule(near_miss));
    }
    write_line(
        "Session",
        explanation.session.as_ref().map_or_else(|| "none".to_owned(), render_session),
    );
    write_line("Map", explanation.map.display().to_string());
    if !explanation.sockets.is_empty() {
        let _ = write!(text, "\n{}", render_sockets(&explanation.sockets));
    }
    if explanation.unseen_sockets > 0 {
        let _ = writeln!(
            text,
            "\nNot shown: {}, not bound, or neither TCP nor UDP (root can examine more sockets).",
            pluralize(explanation.unseen_sockets, "socket", "sockets")
        );
    }
    if !explanation.conflicts.is_empty() {
        text.push_str("\nPorts in use by other programs (rows of docs/socket-matrix.md):\n");
        text.push_str(&render_conflicts(explanation));
    }
    for note in &explanation.notes {
        let _ = writeln!(text, "\n{note}");
    }
    text
}

fn render_program(explanation: &Explanation) -> String {
    let mut text = explanation
        .pid
        .map_or(String::new(), |pid| format!("{} (pid {pid})", escape(&explanation.name)));
    let path_text = |path: &std::path::Path| escape(&path.to_string_lossy());
    if let Some(file) = &explanation.file {
        let _ = write!(text, "{}{}", if text.is_empty() { "" } else { ": " }, path_text(file));
        if let Some(path) = explanation.started_as.as_ref().filter(|path| *path != file) {
            let _ = write!(text, ", started as {}", path_text(path));
        }
    }
    if let Some(script) = &explanation.script {
        // A value that is not absolute names no file: it is the name of a module, or another
        // argument.
        let label = if script.is_absolute() { "running" } else { "with argument" };
        let _ = write!(text, ", {label} {}", path_text(script));
    }
    text
}

fn render_no_rule(explanation: &Explanation) -> String {
    format!("none of {}", pluralize(explanation.rules, "rule", "rules"))
}

fn render_rule(rule: &RuleReport) -> String {
    let script = rule.script.as_ref().map(|script| format!(" with {}", escape(script)));
    format!(
        "{}, {}{} ({}): {}",
        rule.key,
        escape(&rule.path),
        script.unwrap_or_default(),
        rule.features.join(", "),
        rule.verdict
    )
}

fn render_session(session: &SessionReport) -> String {
    let source = match session.found_by {
        "lease" => "from the lease in the environment",
        "audit-session" => "from the kernel's audit session",
        "session-scope" => "from the control group of the logon",
        "login-user" => "the session that the logons of its login user share",
        "user-manager" => "the only session of the user",
        "sockets" => "from the addresses of its sockets",
        _ => "the session that the program would run in",
    };
    let mut text = format!("{} ({source})", session.session);
    let addresses: Vec<_> =
        session.virtual_ip.iter().chain(&session.loopback).map(IpAddr::to_string).collect();
    if !session.open {
        text.push_str(": not open");
    } else if addresses.is_empty() {
        text.push_str(": no address");
    } else {
        let _ = write!(text, ": {}", addresses.join(", "));
    }
    if let Some(client) = session.client {
        let _ = write!(text, "; client {client}");
    }
    text
}

fn render_sockets(sockets: &[SocketReport]) -> String {
    let mut socket_table =
        table(&["FD#", "PROTOCOL", "STATE", "REQUESTED", "BOUND", "PEER", "WHY"]);
    let format_address =
        |address: Option<SocketAddr>| address.map_or("-".to_owned(), |address| address.to_string());
    for socket in sockets {
        let peer = match (socket.peer, socket.visible_peer) {
            (Some(peer), Some(visible)) if peer != visible => format!("{visible} ({peer})"),
            (peer, _) => format_address(peer),
        };
        let descriptors: Vec<_> = socket.descriptors.iter().map(i32::to_string).collect();
        socket_table.add_row([
            descriptors.join(","),
            socket.protocol.to_owned(),
            socket.state.to_owned(),
            format_address(socket.requested),
            socket.bound.to_string(),
            peer,
            socket.why.clone(),
        ]);
    }
    render_table(&socket_table)
}

fn render_conflicts(explanation: &Explanation) -> String {
    let mut conflict_table = table(&["ROW#", "PROTOCOL", "ADDRESS", "HELD BY", "EFFECT"]);
    for conflict in &explanation.conflicts {
        let holder = match (&conflict.program, conflict.pid) {
            (Some(program), Some(pid)) => format!("{} ({pid})", escape(program)),
            _ => "-".to_owned(),
        };
        let suffix = if conflict.own_port { " (the rule lists this port)" } else { "" };
        conflict_table.add_row([
            conflict.row.to_string(),
            conflict.protocol.to_owned(),
            conflict.address.to_string(),
            holder,
            format!("{}{suffix}", conflict.text),
        ]);
    }
    render_table(&conflict_table)
}
