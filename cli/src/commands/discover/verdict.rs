//! Decides which features each program needs. The decision depends only on the observed socket
//! calls, the host's addresses and the addresses of the pools.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Serialize;

use crate::system::trace::SocketCall;

/// The observed socket calls of each program.
pub type Observations = BTreeMap<Program, BTreeSet<SocketCall>>;

/// UDP ports of services that receive multicast or broadcast: the default of `wildcard-udp-ports`
/// in farm.toml. A socket on a session's address would not receive these packets, so wildcard binds
/// of these ports are not rewritten.
const WILDCARD_UDP_PORTS: &[u16] = &[67, 68, 1900, 3702, 5353, 5355];

/// A program: its file and, for an interpreter, the script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Program {
    /// The program's file.
    pub path: PathBuf,
    /// The script that an interpreter runs.
    pub script: Option<PathBuf>,
}

/// The features that a program needs, and the evidence.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The program.
    #[serde(flatten)]
    pub program: Program,
    /// The features that the program needs: `virtual-ip`, `loopback`, both or none. If there are
    /// none, the report contains no lines for farm.toml.
    pub features: BTreeSet<&'static str>,
    /// Whether the program may need `client-ip`, because it requests the host's own name or
    /// addresses.
    pub may_need_client_ip: bool,
    /// The fixed ports that the program binds on the loopback.
    pub own_ports: BTreeSet<u16>,
    /// The evidence, one line per observation.
    pub evidence: BTreeSet<String>,
    /// Whether the program accepts TCP connections on the loopback.
    #[serde(skip)]
    accepts_connections: bool,
    /// Whether another observed program connects to this program on the loopback.
    #[serde(skip)]
    has_clients: bool,
    /// Whether a second instance on this host would fail, because both bind the same fixed port.
    pub second_instance_fails: bool,
    /// The reasons why no hook layer can rewrite the program's calls. Empty if a hook layer can
    /// rewrite them.
    pub rewrite_obstacles: BTreeSet<&'static str>,
}

/// Returns a verdict for each program in `observed`.
///
/// The programs in `other_programs` get no verdict, but the programs in `observed` may connect to
/// them. `host_addresses` contains the host's own addresses, without loopback addresses and
/// addresses of pools. `is_session_address` returns whether an address is in a pool.
pub fn judge(
    observed: &Observations,
    other_programs: &Observations,
    host_addresses: &BTreeSet<IpAddr>,
    is_session_address: &dyn Fn(IpAddr) -> bool,
) -> Vec<Verdict> {
    let mut verdicts: BTreeMap<&Program, Verdict> =
        observed.keys().map(|program| (program, Verdict::new(program))).collect();
    for (program, calls) in observed {
        let verdict = verdicts.get_mut(program).expect("every program has a verdict");
        for call in calls {
            match *call {
                SocketCall::Bind { is_tcp, address, .. }
                    if is_session_address(address.ip().to_canonical()) =>
                {
                    let protocol = protocol_name(is_tcp);
                    verdict.add_evidence(format!(
                        "binds {address}, an address of a session ({protocol}): already rewritten"
                    ));
                }
                SocketCall::Bind { is_tcp, address, has_succeeded } => {
                    verdict.add_bind(is_tcp, address, has_succeeded, host_addresses);
                }
                _ => {}
            }
        }
        if calls.contains(&SocketCall::CreateIoUring) {
            verdict.add_evidence(
                "uses io_uring: calls through it are neither observed nor rewritten".into(),
            );
        }
        if calls.contains(&SocketCall::ListInterfaces) {
            verdict.may_need_client_ip = true;
            verdict.add_evidence("requests the addresses of the interfaces".into());
        }
        if calls.contains(&SocketCall::GetHostName) && calls.contains(&SocketCall::ResolveName) {
            verdict.may_need_client_ip = true;
            verdict.add_evidence("requests the host's name and resolves names".into());
        }
    }
    for (program, calls) in observed {
        for call in calls {
            let SocketCall::Connect { is_tcp, destination } = *call else { continue };
            let ip = destination.ip().to_canonical();
            if is_session_address(ip) {
                continue;
            }
            if ip.is_loopback() || ip.is_unspecified() {
                add_loopback_connect(
                    &mut verdicts,
                    program,
                    observed,
                    other_programs,
                    (is_tcp, destination),
                );
            } else if host_addresses.contains(&ip) {
                let verdict = verdicts.get_mut(program).expect("every program has a verdict");
                verdict.add_evidence(format!("connects to {destination}, the host's own address"));
                verdict.features.insert("virtual-ip");
            }
        }
    }
    for verdict in verdicts.values_mut().filter(|verdict| verdict.lacks_clients()) {
        verdict.add_evidence(
            "no client was observed: list the programs that connect to it on the loopback, such as \
             its command-line tools"
                .into(),
        );
    }
    verdicts.into_values().collect()
}

/// Adds the evidence of a loopback connect to the verdicts of the client and of the server.
fn add_loopback_connect(
    verdicts: &mut BTreeMap<&Program, Verdict>,
    client: &Program,
    observed: &Observations,
    other_programs: &Observations,
    (is_tcp, destination): (bool, SocketAddr),
) {
    let protocol = protocol_name(is_tcp);
    if let Some(server) = find_listener(observed, is_tcp, destination) {
        if server != client {
            let verdict = verdicts.get_mut(server).expect("every program has a verdict");
            verdict.add_evidence(format!(
                "{client} connects to it on {destination} ({protocol}): list both programs"
            ));
            verdict.features.insert("loopback");
            verdict.has_clients = true;
        }
        let verdict = verdicts.get_mut(client).expect("every program has a verdict");
        if server != client {
            verdict.add_evidence(format!(
                "connects to {server} on {destination} ({protocol}): list both programs"
            ));
        }
        verdict.features.insert("loopback");
    } else if let Some(server) = find_listener(other_programs, is_tcp, destination) {
        let verdict = verdicts.get_mut(client).expect("every program has a verdict");
        verdict.add_evidence(format!(
            "connects to {server} on {destination} ({protocol}), which all sessions share"
        ));
    } else if is_tcp {
        // Omit UDP, because getaddrinfo(3) connects UDP sockets only to determine the source
        // address.
        let verdict = verdicts.get_mut(client).expect("every program has a verdict");
        verdict.add_evidence(format!(
            "connects to {destination} ({protocol}), but no program listens there"
        ));
    }
}

/// Returns the program that is bound to the destination of a connect.
fn find_listener(
    programs: &Observations,
    is_tcp: bool,
    destination: SocketAddr,
) -> Option<&Program> {
    let is_bound_to_destination = |call: &SocketCall| match *call {
        SocketCall::Bind { is_tcp: is_bound_tcp, address: bound, has_succeeded: true } => {
            let (ip, bound_ip) = (destination.ip().to_canonical(), bound.ip().to_canonical());
            is_bound_tcp == is_tcp
                && bound.port() == destination.port()
                && (bound_ip == ip || bound_ip.is_unspecified())
        }
        _ => false,
    };
    programs
        .iter()
        .find(|(_, calls)| calls.iter().any(is_bound_to_destination))
        .map(|(program, _)| program)
}

fn protocol_name(is_tcp: bool) -> &'static str {
    if is_tcp { "TCP" } else { "UDP" }
}

impl Verdict {
    fn new(program: &Program) -> Self {
        Self {
            program: program.clone(),
            features: BTreeSet::new(),
            may_need_client_ip: false,
            own_ports: BTreeSet::new(),
            evidence: BTreeSet::new(),
            accepts_connections: false,
            has_clients: false,
            second_instance_fails: false,
            rewrite_obstacles: BTreeSet::new(),
        }
    }

    fn add_evidence(&mut self, line: String) {
        self.evidence.insert(line);
    }

    fn add_bind(
        &mut self,
        is_tcp: bool,
        address: SocketAddr,
        has_succeeded: bool,
        host_addresses: &BTreeSet<IpAddr>,
    ) {
        let ip = address.ip().to_canonical();
        let protocol = protocol_name(is_tcp);
        let suffix = if has_succeeded { "" } else { ", which was already in use" };
        if ip.is_multicast()
            || !is_tcp && ip.is_unspecified() && WILDCARD_UDP_PORTS.contains(&address.port())
        {
            self.add_evidence(format!(
                "receives multicast or broadcast on {address} ({protocol}): not rewritten"
            ));
        } else if address.port() == 0 {
            if host_addresses.contains(&ip) {
                self.add_evidence(format!("binds the host's address {ip} ({protocol}, any port)"));
                self.features.insert("virtual-ip");
            }
        } else if ip.is_loopback() {
            self.add_evidence(format!("binds {address} on the loopback ({protocol}){suffix}"));
            self.features.insert("loopback");
            self.own_ports.insert(address.port());
            self.accepts_connections |= is_tcp;
            self.second_instance_fails = true;
        } else if ip.is_unspecified() || host_addresses.contains(&ip) {
            let address_kind =
                if ip.is_unspecified() { "the wildcard address" } else { "the host's address" };
            self.add_evidence(format!("binds {address}, {address_kind} ({protocol}){suffix}"));
            self.features.insert("virtual-ip");
            if is_tcp && ip.is_unspecified() {
                // Clients, or the program itself, can connect to this socket at 127.0.0.1.
                self.features.insert("loopback");
                self.accepts_connections = true;
            }
            self.second_instance_fails = true;
        }
    }

    /// Returns whether the program accepts connections on the loopback and no client was observed.
    fn lacks_clients(&self) -> bool {
        self.accepts_connections && !self.has_clients
    }

    /// Returns the verdict in one line.
    pub fn summary(&self) -> String {
        let mut names: Vec<&str> = self.features.iter().copied().collect();
        if self.may_need_client_ip {
            names.push("perhaps client-ip");
        }
        let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        let second_instance =
            if self.second_instance_fails { " (a second instance would fail)" } else { "" };
        let reasons: Vec<&str> = self.rewrite_obstacles.iter().copied().collect();
        let obstacle = if self.features.is_empty() || reasons.is_empty() {
            String::new()
        } else {
            format!(", but no hook layer can rewrite it, because it {}", reasons.join(", and "))
        };
        format!("{}: {names}{second_instance}{obstacle}", self.program)
    }

    /// Returns the lines for farm.toml, or `None` if the program needs no feature or no hook layer
    /// can rewrite it.
    pub fn farm_toml(&self) -> Option<String> {
        if self.features.is_empty() || !self.rewrite_obstacles.is_empty() {
            return None;
        }
        // A TOML string accepts the escape sequences of a JSON string. JSON does not escape U+007F,
        // which TOML forbids.
        let quote = |path: &PathBuf| {
            serde_json::json!(path.to_string_lossy()).to_string().replace('\u{7f}', "\\u007f")
        };
        let mut lines = format!("[[program]]\npath = {}\n", quote(&self.program.path));
        if let Some(script) = &self.program.script {
            lines += &format!("script = {}\n", quote(script));
        }
        lines += &format!("features = {}\n", serde_json::json!(self.features));
        if self.may_need_client_ip {
            lines +=
                "# add \"client-ip\" if the program distinguishes users by the host's address\n";
        }
        if self.lacks_clients() {
            lines += "# also list the programs that connect to it on the loopback\n";
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

    fn bind(is_tcp: bool, address: &str) -> SocketCall {
        SocketCall::Bind { is_tcp, address: address.parse().unwrap(), has_succeeded: true }
    }

    fn connect(address: &str) -> SocketCall {
        SocketCall::Connect { is_tcp: true, destination: address.parse().unwrap() }
    }

    fn observations(table: &[(&str, &[SocketCall])]) -> Observations {
        let program = |path: &str| Program { path: path.into(), script: None };
        table.iter().map(|(path, calls)| (program(path), calls.iter().copied().collect())).collect()
    }

    #[test]
    fn verdicts_have_evidence_and_valid_farm_lines() {
        let host_addresses = BTreeSet::from(["10.0.5.1".parse().unwrap()]);
        let observed = observations(&[
            ("/bin/client", &[connect("127.0.0.1:6000"), connect("127.0.0.1:53")]),
            ("/bin/helper", &[bind(true, "127.0.0.1:6000")]),
            ("/bin/licence", &[SocketCall::GetHostName, SocketCall::ResolveName]),
            ("/bin/mdns", &[bind(false, "0.0.0.0:5353"), bind(false, "224.0.0.251:5353")]),
            ("/bin/odd\"name", &[bind(true, "10.0.5.1:0")]),
            ("/bin/own", &[bind(true, "127.0.0.1:7000"), connect("127.0.0.1:7000")]),
            (
                "/bin/quiet",
                &[SocketCall::GetHostName, connect("192.0.2.1:80"), bind(true, "0.0.0.0:0")],
            ),
            ("/bin/rewritten", &[bind(true, "10.0.5.77:8080"), connect("10.0.5.77:8080")]),
            ("/bin/server", &[bind(true, "[::]:8080")]),
            (
                "/bin/taken",
                &[SocketCall::Bind {
                    is_tcp: true,
                    address: "0.0.0.0:1".parse().unwrap(),
                    has_succeeded: false,
                }],
            ),
        ]);
        let other_programs = observations(&[("/bin/dns", &[bind(true, "127.0.0.1:53")])]);
        let session_address: IpAddr = "10.0.5.77".parse().unwrap();
        let verdicts =
            judge(&observed, &other_programs, &host_addresses, &|ip| ip == session_address);
        let summaries: Vec<String> = verdicts.iter().map(Verdict::summary).collect();
        assert_eq!(
            summaries,
            [
                "/bin/client: loopback",
                "/bin/helper: loopback (a second instance would fail)",
                "/bin/licence: perhaps client-ip",
                "/bin/mdns: nothing",
                "/bin/odd\"name: virtual-ip",
                "/bin/own: loopback (a second instance would fail)",
                "/bin/quiet: nothing",
                "/bin/rewritten: nothing",
                "/bin/server: loopback, virtual-ip (a second instance would fail)",
                "/bin/taken: loopback, virtual-ip (a second instance would fail)",
            ]
        );
        let evidence =
            |index: usize| verdicts[index].evidence.iter().cloned().collect::<Vec<_>>().join("\n");
        assert!(
            evidence(0).contains("/bin/dns on 127.0.0.1:53 (TCP), which all sessions share"),
            "{}",
            evidence(0)
        );
        assert!(evidence(0).contains("connects to /bin/helper"), "{}", evidence(0));
        assert!(evidence(1).contains("/bin/client connects to it"), "{}", evidence(1));
        assert!(!evidence(1).contains("no client was observed"), "{}", evidence(1));
        assert!(evidence(7).contains("an address of a session"), "{}", evidence(7));
        assert!(evidence(8).contains("no client was observed"), "{}", evidence(8));
        assert!(evidence(9).contains("already in use"), "{}", evidence(9));
        let farm_lines: String = verdicts.iter().filter_map(Verdict::farm_toml).collect();
        let (farm, report) = vipool::farm::Farm::parse(&farm_lines);
        assert!(!report.has_errors(), "{report}");
        assert_eq!(farm.programs.len(), 6);
    }
}
