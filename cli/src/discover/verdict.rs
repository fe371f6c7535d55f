//! What was seen of programs, and what follows for the process list: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;
use vipool::os::trace::Call;

/// What programs did.
pub type Seen = BTreeMap<Program, BTreeSet<Call>>;

/// UDP ports of services that hear multicast or broadcast, which a session's own address does not
/// get: they stay as they are (farm.toml, `wildcard-udp-ports`).
const SHARED_UDP: &[u16] = &[67, 68, 1900, 3702, 5353, 5355];

/// A program: its file and, for an interpreter, what it runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// The script that an interpreter runs.
    pub script: Option<PathBuf>,
}

/// What a program needs, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The program.
    #[serde(flatten)]
    pub program: Program,
    /// `virtual-ip`, `loopback`; none means: leave it off the list.
    pub features: BTreeSet<&'static str>,
    /// Whether `client-ip` may be wanted: it asks for the host's own address.
    pub perhaps_client_ip: bool,
    /// Loopback ports of its own.
    pub own_ports: BTreeSet<u16>,
    /// What was seen, a line each.
    pub evidence: BTreeSet<String>,
    /// Whether a second one on this host would fail.
    pub collides: bool,
    /// Why a hook layer cannot change what it does, whatever is listed; empty if it can.
    pub out_of_reach: BTreeSet<&'static str>,
}

/// Judges each program of `seen`; `others` are the programs that run beside them, and `host` are
/// the host's own addresses. Programs of whom nothing follows come with no features.
pub fn judge(seen: &Seen, others: &Seen, host: &BTreeSet<IpAddr>) -> Vec<Verdict> {
    let mut verdicts: BTreeMap<&Program, Verdict> =
        seen.keys().map(|program| (program, Verdict::of(program))).collect();
    for (program, calls) in seen {
        let verdict = verdicts.get_mut(program).expect("of every program");
        for call in calls {
            if let Call::Bind { tcp, to, free } = *call {
                verdict.bind(tcp, to, free, host);
            }
        }
        if calls.contains(&Call::Ring) {
            verdict.note("uses io_uring: what it does by that is neither seen nor changed".into());
        }
        if calls.contains(&Call::Interfaces) {
            verdict.perhaps_client_ip = true;
            verdict.note("asks for the addresses of the interfaces".into());
        }
        if calls.contains(&Call::HostName) && calls.contains(&Call::LookUp) {
            verdict.perhaps_client_ip = true;
            verdict.note("asks for the host's name, and looks names up".into());
        }
    }
    for (program, calls) in seen {
        for call in calls {
            let Call::Connect { tcp, to } = *call else { continue };
            let ip = to.ip().to_canonical();
            if ip.is_loopback() || ip.is_unspecified() {
                connect(&mut verdicts, program, seen, others, (tcp, to));
            } else if host.contains(&ip) {
                let verdict = verdicts.get_mut(program).expect("of every program");
                verdict.note(format!("connects to {to}, the host's own address"));
                verdict.features.insert("virtual-ip");
            }
        }
    }
    verdicts.into_values().collect()
}

/// A connect to the loopback: who is there, and what follows for both.
fn connect(
    verdicts: &mut BTreeMap<&Program, Verdict>,
    program: &Program,
    seen: &Seen,
    others: &Seen,
    (tcp, to): (bool, SocketAddr),
) {
    let kind = kind(tcp);
    if let Some(helper) = listener(seen, tcp, to) {
        if helper != program {
            let verdict = verdicts.get_mut(helper).expect("of every program");
            verdict.note(format!("{program} talks to it on {to} ({kind}): both must be listed"));
            verdict.features.insert("loopback");
        }
        let verdict = verdicts.get_mut(program).expect("of every program");
        if helper != program {
            verdict.note(format!("talks to {helper} on {to} ({kind}): both must be listed"));
        }
        verdict.features.insert("loopback");
    } else if let Some(shared) = listener(others, tcp, to) {
        let verdict = verdicts.get_mut(program).expect("of every program");
        verdict.note(format!("talks to {shared} on {to} ({kind}), which the host shares"));
    } else if tcp {
        // getaddrinfo(3) connects UDP sockets to learn which source it would use.
        let verdict = verdicts.get_mut(program).expect("of every program");
        verdict.note(format!("connects to {to} ({kind}), where nothing listens"));
    }
}

/// Who of these is bound where a connect goes.
fn listener(seen: &Seen, tcp: bool, to: SocketAddr) -> Option<&Program> {
    let hears = |call: &Call| match *call {
        Call::Bind { tcp: its, to: at, free: true } => {
            let (ip, at_ip) = (to.ip().to_canonical(), at.ip().to_canonical());
            its == tcp && at.port() == to.port() && (at_ip == ip || at_ip.is_unspecified())
        }
        _ => false,
    };
    seen.iter().find(|(_, calls)| calls.iter().any(hears)).map(|(program, _)| program)
}

fn kind(tcp: bool) -> &'static str {
    if tcp { "TCP" } else { "UDP" }
}

impl Verdict {
    fn of(program: &Program) -> Self {
        Self {
            program: program.clone(),
            features: BTreeSet::new(),
            perhaps_client_ip: false,
            own_ports: BTreeSet::new(),
            evidence: BTreeSet::new(),
            collides: false,
            out_of_reach: BTreeSet::new(),
        }
    }

    fn note(&mut self, what: String) {
        self.evidence.insert(what);
    }

    fn bind(&mut self, tcp: bool, to: SocketAddr, free: bool, host: &BTreeSet<IpAddr>) {
        let ip = to.ip().to_canonical();
        let kind = kind(tcp);
        let taken = if free { "" } else { ", which was taken already" };
        if ip.is_multicast() || !tcp && ip.is_unspecified() && SHARED_UDP.contains(&to.port()) {
            self.note(format!(
                "hears multicast or broadcast on {to} ({kind}): this stays as it is"
            ));
        } else if to.port() == 0 {
            if host.contains(&ip) {
                self.note(format!("binds the host's address {ip} ({kind}, any port)"));
                self.features.insert("virtual-ip");
            }
        } else if ip.is_loopback() {
            self.note(format!("binds {to} on the loopback ({kind}){taken}"));
            self.features.insert("loopback");
            self.own_ports.insert(to.port());
            self.collides = true;
        } else if ip.is_unspecified() || host.contains(&ip) {
            let where_ = if ip.is_unspecified() { "every address" } else { "the host's address" };
            self.note(format!("binds {to}, {where_} ({kind}){taken}"));
            self.features.insert("virtual-ip");
            self.collides = true;
        }
    }

    /// What it is called in one line.
    pub fn summary(&self) -> String {
        let mut names: Vec<&str> = self.features.iter().copied().collect();
        if self.perhaps_client_ip {
            names.push("perhaps client-ip");
        }
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let collides = if self.collides { " (a second one would collide)" } else { "" };
        let beyond: Vec<&str> = self.out_of_reach.iter().copied().collect();
        let beyond = if self.features.is_empty() || beyond.is_empty() {
            String::new()
        } else {
            format!(", but nothing can be done by a hook: it {}", beyond.join(", and "))
        };
        format!("{}: {names}{collides}{beyond}", self.program)
    }

    /// The lines for farm.toml; none for a program that needs nothing, or that no hook reaches.
    pub fn farm_toml(&self) -> Option<String> {
        if self.features.is_empty() || !self.out_of_reach.is_empty() {
            return None;
        }
        // The strings of JSON are strings of TOML too.
        let text = |path: &PathBuf| serde_json::json!(path.to_string_lossy()).to_string();
        let mut lines = format!("[[program]]\npath = {}\n", text(&self.program.path));
        if let Some(script) = &self.program.script {
            lines += &format!("script = {}\n", text(script));
        }
        lines += &format!("features = {}\n", serde_json::json!(self.features));
        if self.perhaps_client_ip {
            lines += "# add \"client-ip\" if it tells users apart by what it learns of the host's address\n";
        }
        if !self.own_ports.is_empty() {
            lines += &format!("own-ports = {}\n", serde_json::json!(self.own_ports));
        }
        Some(lines)
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.script.as_ref().map_or(Ok(()), |script| write!(f, " {}", script.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(tcp: bool, to: &str) -> Call {
        Call::Bind { tcp, to: to.parse().unwrap(), free: true }
    }

    fn connect(to: &str) -> Call {
        Call::Connect { tcp: true, to: to.parse().unwrap() }
    }

    fn seen(table: &[(&str, &[Call])]) -> Seen {
        let program = |path: &str| Program { path: path.into(), script: None };
        table.iter().map(|(path, calls)| (program(path), calls.iter().copied().collect())).collect()
    }

    #[test]
    fn each_is_told_with_evidence_and_lines_that_a_farm_takes() {
        let host = BTreeSet::from(["10.0.5.1".parse().unwrap()]);
        let table = seen(&[
            ("/bin/client", &[connect("127.0.0.1:6000"), connect("127.0.0.1:53")]),
            ("/bin/helper", &[bind(true, "127.0.0.1:6000")]),
            ("/bin/licence", &[Call::HostName, Call::LookUp]),
            ("/bin/mdns", &[bind(false, "0.0.0.0:5353"), bind(false, "224.0.0.251:5353")]),
            ("/bin/odd\"name", &[bind(true, "10.0.5.1:0")]),
            ("/bin/own", &[bind(true, "127.0.0.1:7000"), connect("127.0.0.1:7000")]),
            ("/bin/quiet", &[Call::HostName, connect("192.0.2.1:80"), bind(true, "0.0.0.0:0")]),
            ("/bin/server", &[bind(true, "[::]:8080")]),
            (
                "/bin/taken",
                &[Call::Bind { tcp: true, to: "0.0.0.0:1".parse().unwrap(), free: false }],
            ),
        ]);
        let others = seen(&[("/bin/dns", &[bind(true, "127.0.0.1:53")])]);
        let verdicts = judge(&table, &others, &host);
        let summaries: Vec<String> = verdicts.iter().map(Verdict::summary).collect();
        assert_eq!(
            summaries,
            [
                "/bin/client: loopback",
                "/bin/helper: loopback (a second one would collide)",
                "/bin/licence: perhaps client-ip",
                "/bin/mdns: nothing",
                "/bin/odd\"name: virtual-ip",
                "/bin/own: loopback (a second one would collide)",
                "/bin/quiet: nothing",
                "/bin/server: virtual-ip (a second one would collide)",
                "/bin/taken: virtual-ip (a second one would collide)",
            ]
        );
        let all =
            |place: usize| verdicts[place].evidence.iter().cloned().collect::<Vec<_>>().join("\n");
        assert!(
            all(0).contains("/bin/dns on 127.0.0.1:53 (TCP), which the host shares"),
            "{}",
            all(0)
        );
        assert!(all(0).contains("talks to /bin/helper"), "{}", all(0));
        assert!(all(1).contains("/bin/client talks to it"), "{}", all(1));
        assert!(all(8).contains("taken already"), "{}", all(8));
        let lines: String = verdicts.iter().filter_map(Verdict::farm_toml).collect();
        let (farm, report) = vipool::farm::Farm::parse(&lines);
        assert!(!report.has_errors(), "{report}");
        assert_eq!(farm.programs.len(), 6);
    }
}
