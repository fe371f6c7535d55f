//! Validation of the process list and of the key `fixed-ports` of `[rewrite]`.

use std::path::Path;

use super::{error, warning};
use crate::farm::Farm;
use crate::farm::finding::Finding;
use crate::policy::path::{PatternKind, names_program, pattern_kind, same_name, same_path};
use crate::policy::{Features, LoopbackConnect, PathStyle, PortRange, Program, WildcardBind};

/// The default range of ports for outgoing connections on Linux (`ip_local_port_range` in ip(7)).
/// This range contains most of the default range of Windows, 49152-65535.
const EPHEMERAL_PORTS: PortRange = PortRange { first: 32768, last: 60999 };

impl Farm {
    /// Reports paths that match no program, and paths that may match other programs than intended.
    pub(super) fn validate_patterns(&self, findings: &mut Vec<Finding>) {
        for (index, program) in self.programs.iter().enumerate() {
            validate_pattern(&format!("program[{index}].path"), &program.pattern, findings);
            if let Some(script) = &program.script {
                validate_pattern(&format!("program[{index}].script"), script, findings);
            }
        }
    }

    /// Reports rules that are never used, keys of a rule that do not fit its other keys, and
    /// unsuitable ports.
    pub(super) fn validate_programs(&self, findings: &mut Vec<Finding>) {
        for (index, program) in self.programs.iter().enumerate() {
            let key = format!("program[{index}]");
            if let Some(earlier_index) =
                self.programs[..index].iter().position(|earlier| is_same_rule(earlier, program))
            {
                let message = format!(
                    "{:?} is already listed (program[{earlier_index}]), so this rule is never used",
                    program.pattern
                );
                let remedy = "merge the rules";
                let key = format!("{key}.path");
                findings.push(Finding::new(
                    warning("duplicate"),
                    key,
                    &program.pattern,
                    message,
                    remedy,
                ));
            }
            validate_features(&key, program, findings);
            validate_ports(&format!("{key}.own-ports"), &program.own_ports, findings);
        }
        validate_ports("rewrite.fixed-ports", &self.rewrite.fixed_ports, findings);
    }

    /// Returns a warning for each program and script on the process list that does not exist on
    /// this server. Calls `is_missing` for each full path in the syntax of this operating system.
    /// Skips all other paths and bare names.
    #[must_use]
    pub fn missing_programs(&self, is_missing: impl Fn(&Path) -> bool) -> Vec<Finding> {
        let native_kind =
            if cfg!(windows) { PatternKind::FullWindows } else { PatternKind::FullPosix };
        let patterns = self.programs.iter().enumerate().flat_map(|(index, program)| {
            let path = (format!("program[{index}].path"), &program.pattern);
            let script =
                program.script.as_ref().map(|script| (format!("program[{index}].script"), script));
            [Some(path), script].into_iter().flatten()
        });
        patterns
            .filter(|(_, pattern)| {
                pattern_kind(pattern.as_bytes()) == native_kind && is_missing(Path::new(pattern))
            })
            .map(|(key, pattern)| {
                let message = format!("{pattern:?} does not exist on this server");
                let remedy = "install the program, correct the path or remove the rule";
                Finding::new(warning("missing-program"), key, pattern, message, remedy)
            })
            .collect()
    }
}

fn validate_pattern(key: &str, pattern: &str, findings: &mut Vec<Finding>) {
    let kind = pattern_kind(pattern.as_bytes());
    let (code, message, remedy) = if pattern.is_empty() {
        let remedy = "write the full path";
        (error("path"), "a program has no path".to_owned(), remedy)
    } else if pattern.contains('\0') {
        let remedy = "write the full path";
        (error("path"), "the path contains a NUL character".to_owned(), remedy)
    } else if !names_program(pattern) {
        let message =
            format!("{pattern:?} depends on the current directory, so it matches nothing");
        (error("path"), message, "write the full path, without \"..\"")
    } else if is_too_long(pattern, kind) {
        let start: String = pattern.chars().take(40).collect();
        let message = format!("the path {start:?}... is too long, so it matches nothing");
        (error("path"), message, "write the path of an existing file")
    } else if pattern.contains(['*', '?']) {
        let message = format!("{pattern:?} does not match other names: * and ? are not wildcards");
        (warning("path"), message, "list each program by its full path")
    } else if kind == PatternKind::BareName {
        let message = format!("{pattern:?} matches every program of that name, in any directory");
        (warning("bare-name"), message, "write the full path")
    } else if pattern.ends_with(char::is_whitespace) {
        let message = format!("{pattern:?} ends with a blank");
        (warning("path"), message, "remove the blank, unless the file's name ends with it")
    } else if kind == PatternKind::FullWindows && has_short_name(pattern) {
        let message = format!("{pattern:?} contains a short name (8.3), which is not resolved");
        (warning("path"), message, "write the long names ('dir /x' lists both)")
    } else {
        return;
    };
    findings.push(Finding::new(code, key, pattern, message, remedy));
}

/// Returns whether the path, or a file name in it, is longer than its operating system accepts.
fn is_too_long(pattern: &str, kind: PatternKind) -> bool {
    // Windows counts UTF-16 code units, and POSIX systems count bytes.
    let length_of = |text: &str| match kind {
        PatternKind::FullWindows => text.encode_utf16().count(),
        _ => text.len(),
    };
    let (separators, max_path): (&[char], usize) = match kind {
        PatternKind::FullWindows => (&['/', '\\'], 32_766),
        _ => (&['/'], 4095),
    };
    length_of(pattern) > max_path || pattern.split(separators).any(|name| length_of(name) > 255)
}

/// Returns whether a component has the form of a short name (8.3) of Windows, such as `PROGRA~1`.
fn has_short_name(path: &str) -> bool {
    path.split(['/', '\\']).any(|name| {
        let stem = name.split('.').next().unwrap_or(name);
        stem.len() <= 8
            && stem.rsplit_once('~').is_some_and(|(_, number)| {
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            })
    })
}

/// Returns whether two rules match the same programs. Bare names that differ only in case are
/// different, as on Linux.
fn is_same_rule(rule1: &Program, rule2: &Program) -> bool {
    let has_same_script = match (&rule1.script, &rule2.script) {
        (None, None) => true,
        (Some(script1), Some(script2)) => is_same_pattern(script1, script2),
        _ => false,
    };
    has_same_script && is_same_pattern(&rule1.pattern, &rule2.pattern)
}

fn is_same_pattern(pattern1: &str, pattern2: &str) -> bool {
    let (bytes1, bytes2) = (pattern1.as_bytes(), pattern2.as_bytes());
    match (pattern_kind(bytes1), pattern_kind(bytes2)) {
        (PatternKind::FullPosix, PatternKind::FullPosix) => {
            same_path(bytes1, bytes2, PathStyle::Posix)
        }
        (PatternKind::FullWindows, PatternKind::FullWindows) => {
            same_path(bytes1, bytes2, PathStyle::Windows)
        }
        (PatternKind::BareName, PatternKind::BareName) => {
            same_name(bytes1, bytes2, PathStyle::Posix)
        }
        _ => false,
    }
}

fn validate_features(key: &str, program: &Program, findings: &mut Vec<Finding>) {
    let name = &program.pattern;
    if program.features == Features::default() {
        let message = format!("{name:?} has no features, so it is never rewritten");
        let remedy = "write features = [\"virtual-ip\", \"loopback\"], or remove the rule";
        let key = format!("{key}.features");
        findings.push(Finding::new(warning("no-features"), key, "", message, remedy));
        return;
    }
    if program.flags.wildcard == WildcardBind::Loopback {
        let (message, remedy) = if program.features.virtual_ip {
            (format!("{name:?} has a virtual IP, so \"loopback\" has no effect"), "remove the key")
        } else {
            (
                format!("{name:?} cannot be reached from the network on ports bound to 0.0.0.0"),
                "remove the key, unless this is intended",
            )
        };
        let key = format!("{key}.wildcard");
        findings.push(Finding::new(warning("wildcard"), key, "loopback", message, remedy));
    }
    let loopback_options = [
        ("own-ports", !program.own_ports.is_empty()),
        ("shared-ports", !program.shared_ports.is_empty()),
        ("wildcard", program.flags.wildcard != WildcardBind::Keep),
        ("loopback-connect", program.flags.loopback_connect != LoopbackConnect::OwnFirst),
        ("keep-ephemeral", program.flags.keep_ephemeral),
    ];
    for (option, is_set) in loopback_options {
        if is_set && !program.features.loopback {
            let message = format!("{option} has no effect without the feature \"loopback\"");
            let remedy = "add the feature, or remove the key";
            let key = format!("{key}.{option}");
            findings.push(Finding::new(warning("no-effect"), key, "", message, remedy));
        }
    }
    for (item_index, own_range) in program.own_ports.iter().enumerate() {
        let overlap = program
            .shared_ports
            .iter()
            .find_map(|shared_range| shared_range.intersection(own_range));
        if let Some(overlap) = overlap {
            let message = format!("port {overlap} is in own-ports and in shared-ports");
            let remedy = "remove it from one of them";
            let key = format!("{key}.own-ports[{item_index}]");
            findings.push(Finding::new(error("ports"), key, own_range, message, remedy));
        }
    }
}

fn validate_ports(key: &str, ports: &[PortRange], findings: &mut Vec<Finding>) {
    for (item_index, port_range) in ports.iter().enumerate() {
        if let Some(overlap) = port_range.intersection(&EPHEMERAL_PORTS) {
            let message = format!(
                "port {overlap} is in the range of ports for outgoing connections ({EPHEMERAL_PORTS})"
            );
            let remedy = "choose a lower port, or keep it: 'vipool up' reserves it";
            let key = format!("{key}[{item_index}]");
            findings.push(Finding::new(warning("ephemeral"), key, port_range, message, remedy));
        }
        if port_range.first == 0 || port_range.first > port_range.last {
            let message = format!("{port_range} is not a range of ports");
            let remedy = "write ports from 1 to 65535, the lower one first";
            let key = format!("{key}[{item_index}]");
            findings.push(Finding::new(error("ports"), key, port_range, message, remedy));
        }
    }
}
