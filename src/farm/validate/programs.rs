//! What is wrong with the process list and with what concerns every listed program.

use super::{error, warning};
use crate::farm::Farm;
use crate::farm::finding::Finding;
use crate::policy::path::{PatternKind, pattern_kind, same_name, same_path};
use crate::policy::{Features, LoopbackConnect, PathStyle, PortRange, Program, WildcardBind};

/// The ports that Linux gives to outgoing connections unless it is told otherwise
/// (`ip_local_port_range` in ip(7)); Windows takes 49152-65535, most of which is among them.
const EPHEMERAL: PortRange = PortRange { first: 32768, last: 60999 };

impl Farm {
    pub(super) fn validate_programs(&self, found: &mut Vec<Finding>) {
        for (place, program) in self.programs.iter().enumerate() {
            let key = format!("program[{place}]");
            validate_pattern(&format!("{key}.path"), &program.pattern, found);
            if let Some(script) = &program.script {
                validate_pattern(&format!("{key}.script"), script, found);
            }
            if let Some(first) = self.programs[..place].iter().position(|o| same_rule(o, program)) {
                let message = format!(
                    "{:?} is listed before (program[{first}]): this rule never holds",
                    program.pattern
                );
                let remedy = "make it one rule";
                let key = format!("{key}.path");
                found.push(Finding::new(
                    warning("duplicate"),
                    key,
                    &program.pattern,
                    message,
                    remedy,
                ));
            }
            validate_features(&key, program, found);
            validate_ports(&format!("{key}.own-ports"), &program.own_ports, found);
        }
        validate_ports("rewrite.fixed-ports", &self.rewrite.fixed_ports, found);
    }
}

fn validate_pattern(key: &str, pattern: &str, found: &mut Vec<Finding>) {
    let kind = pattern_kind(pattern.as_bytes());
    let dotted = pattern.split(['/', '\\']).any(|part| part == "..");
    let (code, message, remedy) = if pattern.is_empty() {
        let remedy = "write its full path";
        (error("path"), "a program without a path".to_owned(), remedy)
    } else if pattern.contains('\0') {
        let remedy = "write its full path";
        (error("path"), "no path has a NUL character".to_owned(), remedy)
    } else if kind == PatternKind::Relative || dotted {
        let message = format!("{pattern:?} depends on where one stands: it matches nothing");
        (error("path"), message, "write the full path, without \"..\"")
    } else if kind == PatternKind::BareName {
        let message = format!("{pattern:?} matches every program of that name, wherever it is");
        (warning("bare-name"), message, "write the full path: it is safer")
    } else {
        return;
    };
    found.push(Finding::new(code, key, pattern, message, remedy));
}

/// Whether what one rule is for is also what the other is for, on one of the systems.
fn same_rule(a: &Program, b: &Program) -> bool {
    let same = |a: &str, b: &str| {
        let (a, b) = (a.as_bytes(), b.as_bytes());
        match (pattern_kind(a), pattern_kind(b)) {
            (PatternKind::FullPosix, PatternKind::FullPosix) => same_path(a, b, PathStyle::Posix),
            (PatternKind::FullWindows, PatternKind::FullWindows) => {
                same_path(a, b, PathStyle::Windows)
            }
            (PatternKind::BareName, PatternKind::BareName) => same_name(a, b, PathStyle::Posix),
            _ => false,
        }
    };
    let scripts = match (&a.script, &b.script) {
        (None, None) => true,
        (Some(a), Some(b)) => same(a, b),
        _ => false,
    };
    scripts && same(&a.pattern, &b.pattern)
}

fn validate_features(key: &str, program: &Program, found: &mut Vec<Finding>) {
    let name = &program.pattern;
    if program.features == Features::default() {
        let message = format!("{name:?} has no features: it is left untouched");
        let remedy = "write features = [\"virtual-ip\", \"loopback\"], or take the rule out";
        let key = format!("{key}.features");
        found.push(Finding::new(warning("no-features"), key, "", message, remedy));
        return;
    }
    if program.flags.wildcard == WildcardBind::Loopback {
        let (message, remedy) = if program.features.virtual_ip {
            (
                format!("{name:?} has a virtual IP: \"loopback\" counts only without one"),
                "take it out",
            )
        } else {
            (
                format!("what {name:?} binds to 0.0.0.0 can't be reached from the network"),
                "nothing, if that is meant",
            )
        };
        let key = format!("{key}.wildcard");
        found.push(Finding::new(warning("wildcard"), key, "loopback", message, remedy));
    }
    let needs_loopback = [
        ("own-ports", !program.own_ports.is_empty()),
        ("shared-ports", !program.shared_ports.is_empty()),
        ("wildcard", program.flags.wildcard != WildcardBind::Keep),
        ("loopback-connect", program.flags.loopback_connect != LoopbackConnect::OwnFirst),
        ("map-ephemeral", program.flags.map_ephemeral),
    ];
    for (option, is_set) in needs_loopback {
        if is_set && !program.features.loopback {
            let message = format!("{option} has no effect without the feature \"loopback\"");
            let remedy = "add the feature, or take the key out";
            let key = format!("{key}.{option}");
            found.push(Finding::new(warning("no-effect"), key, "", message, remedy));
        }
    }
    for (item, own) in program.own_ports.iter().enumerate() {
        let shared = program.shared_ports.iter().find_map(|shared| shared.intersection(own));
        if let Some(both) = shared {
            let message = format!("port {both} is both the session's own and the host's");
            let remedy = "take it out of own-ports or of shared-ports";
            let key = format!("{key}.own-ports[{item}]");
            found.push(Finding::new(error("ports"), key, own, message, remedy));
        }
    }
}

fn validate_ports(key: &str, ports: &[PortRange], found: &mut Vec<Finding>) {
    for (item, ports) in ports.iter().enumerate() {
        if let Some(both) = ports.intersection(&EPHEMERAL) {
            let message = format!(
                "port {both} is among those that the system gives to outgoing connections ({EPHEMERAL})"
            );
            let remedy = "nothing: 'vipool up' keeps it from them; or take a lower port";
            let key = format!("{key}[{item}]");
            found.push(Finding::new(warning("ephemeral"), key, ports, message, remedy));
        }
        if ports.first == 0 || ports.first > ports.last {
            let message = format!("{ports} is no range of ports");
            let remedy = "ports are 1 to 65535, the first not above the last";
            let key = format!("{key}[{item}]");
            found.push(Finding::new(error("ports"), key, ports, message, remedy));
        }
    }
}
