//! The policy as the map file holds it: little-endian records of fixed size with offsets from its
//! own start.
//!
//! Invariants of reading: every access is checked against the bytes that are there; what lies
//! outside reads as nothing; no loop is longer than the bytes have room for; nothing allocates.
//!
//! | at | header | at | program record |
//! |---|---|---|---|
//! | 0 | magic | 0 | id (8 bytes) |
//! | 4 | version | 8 | pattern (offset, length) |
//! | 8 | total length | 16 | target (offset, length), offset 0 for none |
//! | 12 | flags | 24 | script (offset, length), offset 0 for none |
//! | 16 | programs (offset, count) | 32 | own ports (offset, count) |
//! | 24 | host addresses (offset, count) | 40 | shared ports (offset, count) |
//! | 32 | wildcard UDP ports (offset, count) | 48 | flags |
//!
//! A host address is 4 bytes of family (4 or 6) and 16 of address, a port range two times 2 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::list::{self, Executable, Subject, Verdict};
use super::{Features, LoopbackConnect, Policy, PortRange, Program, Wildcard};

const MAGIC: u32 = u32::from_le_bytes(*b"vpol");
const VERSION: u32 = 1;
const HEADER: usize = 40;
const PROGRAM: usize = 56;
const HOST: usize = 20;
const PORTS: usize = 4;

const PASS_WHEN_MISSING: u32 = 1;
const HIDE_ADDRESSES: u32 = 1 << 1;
const SESSION_OVERRIDE: u32 = 1 << 2;

const VIRTUAL_IP: u32 = 1;
const LOOPBACK: u32 = 1 << 1;
const CLIENT_IP: u32 = 1 << 2;
const INHERIT: u32 = 1 << 3;
const MAP_EPHEMERAL: u32 = 1 << 4;
const WILDCARD_LOOPBACK: u32 = 1 << 5;
const CONNECT_OWN: u32 = 1 << 6;

impl Policy {
    /// Compiles the policy for the map file. Deterministic: equal policies give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER + self.programs.len() * PROGRAM];
        for (place, program) in self.programs.iter().enumerate() {
            let record = encode_program(program, &mut out);
            let at = HEADER + place * PROGRAM;
            out[at..at + PROGRAM].copy_from_slice(&record);
        }
        let hosts = out.len();
        for address in &self.host_addresses {
            let (family, octets) = match address {
                IpAddr::V4(v4) => {
                    let mut octets = [0; 16];
                    octets[..4].copy_from_slice(&v4.octets());
                    (4u32, octets)
                }
                IpAddr::V6(v6) => (6, v6.octets()),
            };
            out.extend(family.to_le_bytes());
            out.extend(octets);
        }
        let udp = append_ports(&self.wildcard_udp_ports, &mut out);
        let flags = flag(self.pass_when_missing, PASS_WHEN_MISSING)
            | flag(self.hide_addresses, HIDE_ADDRESSES)
            | flag(self.session_override, SESSION_OVERRIDE);
        let header = [
            MAGIC,
            VERSION,
            out.len() as u32,
            flags,
            HEADER as u32,
            self.programs.len() as u32,
            hosts as u32,
            self.host_addresses.len() as u32,
            udp.0,
            udp.1,
        ];
        for (place, word) in header.into_iter().enumerate() {
            out[place * 4..place * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

fn encode_program(program: &Program, out: &mut Vec<u8>) -> [u8; PROGRAM] {
    let text = |text: Option<&str>, out: &mut Vec<u8>| match text {
        None => (0, 0),
        Some(text) => {
            let at = out.len() as u32;
            out.extend(text.as_bytes());
            (at, text.len() as u32)
        }
    };
    let (pattern, pattern_length) = text(Some(&program.pattern), out);
    let (target, target_length) = text(program.target.as_deref(), out);
    let (script, script_length) = text(program.script.as_deref(), out);
    let own = append_ports(&program.own_ports, out);
    let shared = append_ports(&program.shared_ports, out);
    let flags = flag(program.features.virtual_ip, VIRTUAL_IP)
        | flag(program.features.loopback, LOOPBACK)
        | flag(program.features.client_ip, CLIENT_IP)
        | flag(program.inherit, INHERIT)
        | flag(program.map_ephemeral, MAP_EPHEMERAL)
        | flag(program.wildcard == Wildcard::Loopback, WILDCARD_LOOPBACK)
        | flag(program.loopback_connect == LoopbackConnect::Own, CONNECT_OWN);
    let words = [
        pattern,
        pattern_length,
        target,
        target_length,
        script,
        script_length,
        own.0,
        own.1,
        shared.0,
        shared.1,
        flags,
        0,
    ];
    let mut record = [0; PROGRAM];
    record[..8].copy_from_slice(&program.id().to_le_bytes());
    for (place, word) in words.into_iter().enumerate() {
        record[8 + place * 4..12 + place * 4].copy_from_slice(&word.to_le_bytes());
    }
    record
}

fn append_ports(ports: &[PortRange], out: &mut Vec<u8>) -> (u32, u32) {
    let at = out.len() as u32;
    for range in ports {
        out.extend(range.first.to_le_bytes());
        out.extend(range.last.to_le_bytes());
    }
    (at, ports.len() as u32)
}

fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

/// A compiled [`Policy`], read in place. Look-ups never allocate, block or panic: they are safe in
/// signal handlers and after fork. Threads may share it.
#[derive(Clone, Copy, Debug)]
pub struct PolicyView<'a> {
    /// Empty if they are not a policy of this version.
    bytes: &'a [u8],
}

/// One rule of a compiled process list.
#[derive(Clone, Copy, Debug)]
pub struct ProgramView<'a> {
    bytes: &'a [u8],
    record: usize,
}

/// The rule that a program falls under.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// The place of the rule in the list.
    pub place: usize,
    /// The rule.
    pub program: ProgramView<'a>,
    /// By what it matched.
    pub verdict: Verdict,
}

impl<'a> PolicyView<'a> {
    /// A view of what [`Policy::encode`] wrote; longer bytes are fine. A view of anything else
    /// holds no rules, addresses or ports.
    pub fn new(bytes: &'a [u8]) -> Self {
        let usable = || {
            let known = word(bytes, 0)? == MAGIC && word(bytes, 4)? == VERSION;
            bytes.get(..word(bytes, 8)? as usize).filter(|_| known)
        };
        Self { bytes: usable().unwrap_or_default() }
    }

    /// Whether the bytes are a policy of this version.
    pub fn is_valid(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The rule that holds for a program: the most specific, the first of equals.
    pub fn find(&self, program: &Executable<'_>) -> Option<Match<'a>> {
        let (place, verdict) =
            list::best(self.programs().map(|rule| list::judge(rule.subject(), program)))?;
        Some(Match { place, program: self.programs().nth(place)?, verdict })
    }

    /// Every rule with what it says of a program: why it matched or why it did not.
    pub fn explain(
        &self,
        program: Executable<'a>,
    ) -> impl Iterator<Item = (ProgramView<'a>, Verdict)> + use<'a> {
        self.programs().map(move |rule| (rule, list::judge(rule.subject(), &program)))
    }

    /// The rule with this [`ProgramView::id`], if it is on the list and is handed down to
    /// children. For a program that is on no list itself and was started by one under that rule.
    pub fn inherited(&self, id: u64) -> Option<ProgramView<'a>> {
        self.programs().find(|rule| rule.inherit() && rule.id() == id)
    }

    /// The rules, in the order of the list.
    pub fn programs(&self) -> impl Iterator<Item = ProgramView<'a>> + use<'a> {
        let bytes = self.bytes;
        records(bytes, 16, PROGRAM).map(move |record| ProgramView { bytes, record })
    }

    /// The addresses of the host itself on the matched interfaces (row 5).
    pub fn host_addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let bytes = self.bytes;
        records(bytes, 24, HOST).filter_map(move |at| {
            let octets: [u8; 16] = array(bytes, at + 4)?;
            match word(bytes, at)? {
                4 => Some(IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))),
                6 => Some(IpAddr::V6(Ipv6Addr::from(octets))),
                _ => None,
            }
        })
    }

    /// Whether this is an address of the host itself on a matched interface.
    pub fn is_host_address(&self, address: IpAddr) -> bool {
        self.host_addresses().any(|host| host == address)
    }

    /// Whether a wildcard bind of UDP to this port stays wildcard (row 26).
    pub fn is_wildcard_udp_port(&self, port: u16) -> bool {
        has_port(self.bytes, 32, port)
    }

    /// Let binds pass when V is on no interface (row 6); otherwise they fail.
    pub fn pass_when_missing(&self) -> bool {
        self.flags() & PASS_WHEN_MISSING != 0
    }

    /// Hide other sessions' addresses from getifaddrs and GetAdaptersAddresses (row 43).
    pub fn hide_addresses(&self) -> bool {
        self.flags() & HIDE_ADDRESSES != 0
    }

    /// Whether a process may name its session itself (tests; Windows only).
    pub fn session_override(&self) -> bool {
        self.flags() & SESSION_OVERRIDE != 0
    }

    fn flags(&self) -> u32 {
        word(self.bytes, 12).unwrap_or(0)
    }
}

impl<'a> ProgramView<'a> {
    /// What names this rule across reloads of the list, and from a program to its children.
    pub fn id(&self) -> u64 {
        array(self.bytes, self.record).map_or(0, u64::from_le_bytes)
    }

    /// The full path or bare file name.
    pub fn pattern(&self) -> &'a [u8] {
        self.text(8).unwrap_or_default()
    }

    /// The script that the rule is for, if it is for one alone.
    pub fn script(&self) -> Option<&'a [u8]> {
        self.text(24)
    }

    /// What the program uses.
    pub fn features(&self) -> Features {
        let flags = self.flags();
        Features {
            virtual_ip: flags & VIRTUAL_IP != 0,
            loopback: flags & LOOPBACK != 0,
            client_ip: flags & CLIENT_IP != 0,
        }
    }

    /// Whether children that are on no list of their own are under this rule too.
    pub fn inherit(&self) -> bool {
        self.flags() & INHERIT != 0
    }

    /// What a bind to the wildcard address becomes where there is no virtual IP.
    pub fn wildcard(&self) -> Wildcard {
        if self.flags() & WILDCARD_LOOPBACK != 0 { Wildcard::Loopback } else { Wildcard::Keep }
    }

    /// Where a connect to 127.0.0.1 goes.
    pub fn loopback_connect(&self) -> LoopbackConnect {
        if self.flags() & CONNECT_OWN != 0 {
            LoopbackConnect::Own
        } else {
            LoopbackConnect::OwnFirst
        }
    }

    /// Whether a bind to 127.0.0.1 with port 0 is rewritten too (row 23).
    pub fn map_ephemeral(&self) -> bool {
        self.flags() & MAP_EPHEMERAL != 0
    }

    /// Whether this loopback port always goes to the session's own address.
    pub fn is_own_port(&self, port: u16) -> bool {
        has_port(self.bytes, self.record + 32, port)
    }

    /// Whether this loopback port is left alone: it is the host's.
    pub fn is_shared_port(&self, port: u16) -> bool {
        has_port(self.bytes, self.record + 40, port)
    }

    fn flags(&self) -> u32 {
        word(self.bytes, self.record + 48).unwrap_or(0)
    }

    fn subject(&self) -> Subject<'a> {
        Subject { pattern: self.pattern(), target: self.text(16), script: self.text(24) }
    }

    /// The text whose offset and length are at this place of the record.
    fn text(&self, at: usize) -> Option<&'a [u8]> {
        let offset = word(self.bytes, self.record + at)? as usize;
        let length = word(self.bytes, self.record + at + 4)? as usize;
        if offset == 0 {
            return None;
        }
        self.bytes.get(offset..)?.get(..length)
    }
}

/// Where the records begin whose offset and count are at `at`; those that lie within the bytes.
fn records(bytes: &[u8], at: usize, size: usize) -> impl Iterator<Item = usize> + use<> {
    let offset = word(bytes, at).unwrap_or(0) as usize;
    let count = word(bytes, at + 4).unwrap_or(0) as usize;
    let room = bytes.len().saturating_sub(offset) / size;
    (0..count.min(room)).map(move |place| offset + place * size)
}

fn has_port(bytes: &[u8], at: usize, port: u16) -> bool {
    records(bytes, at, PORTS).any(|at| match (array(bytes, at), array(bytes, at + 2)) {
        (Some(first), Some(last)) => {
            (u16::from_le_bytes(first)..=u16::from_le_bytes(last)).contains(&port)
        }
        _ => false,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PathStyle;
    use proptest::prelude::*;

    fn ports() -> impl Strategy<Value = Vec<PortRange>> {
        let range =
            any::<(u16, u16)>().prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) });
        prop::collection::vec(range, 0..3)
    }

    fn paths() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "/usr/bin/app",
            "/opt/app",
            "app",
            "APP",
            "bin/app",
            "",
            "/usr/bin/other",
            r"C:\Apps\app",
            r"c:/apps/APP",
            r"\\?\C:\Apps\app. ",
            "/opt/run.py",
            "run.py",
        ])
        .prop_map(str::to_owned)
    }

    fn programs() -> impl Strategy<Value = Program> {
        (
            paths(),
            prop::option::of(paths()),
            prop::option::of(paths()),
            any::<[bool; 7]>(),
            ports(),
            ports(),
        )
            .prop_map(|(pattern, target, script, flags, own_ports, shared_ports)| {
                Program {
                    pattern,
                    target,
                    script,
                    features: Features {
                        virtual_ip: flags[0],
                        loopback: flags[1],
                        client_ip: flags[2],
                    },
                    inherit: flags[3],
                    wildcard: if flags[4] { Wildcard::Loopback } else { Wildcard::Keep },
                    loopback_connect: if flags[5] {
                        LoopbackConnect::Own
                    } else {
                        LoopbackConnect::OwnFirst
                    },
                    own_ports,
                    shared_ports,
                    map_ephemeral: flags[6],
                }
            })
    }

    fn policies() -> impl Strategy<Value = Policy> {
        (
            prop::collection::vec(programs(), 0..6),
            prop::collection::vec(any::<IpAddr>(), 0..4),
            ports(),
            any::<[bool; 3]>(),
        )
            .prop_map(|(programs, host_addresses, wildcard_udp_ports, flags)| Policy {
                programs,
                host_addresses,
                wildcard_udp_ports,
                pass_when_missing: flags[0],
                hide_addresses: flags[1],
                session_override: flags[2],
            })
    }

    fn has(ports: &[PortRange], port: u16) -> bool {
        ports.iter().any(|range| (range.first..=range.last).contains(&port))
    }

    /// Everything a view can be asked.
    fn ask_all(view: PolicyView<'_>, program: &Executable<'_>, port: u16) -> usize {
        let found = view.find(program).map_or(0, |found| found.place);
        let told = view.explain(*program).count();
        let rules: usize = view
            .programs()
            .map(|rule| {
                let _ = (rule.features(), rule.wildcard(), rule.loopback_connect(), rule.script());
                let _ = (rule.inherit(), rule.map_ephemeral(), view.inherited(rule.id()).is_some());
                let _ = (rule.is_own_port(port), rule.is_shared_port(port));
                rule.pattern().len()
            })
            .sum();
        let _ = (view.hide_addresses(), view.pass_when_missing(), view.session_override());
        found
            + told
            + rules
            + view.host_addresses().count()
            + usize::from(view.is_wildcard_udp_port(port))
    }

    proptest! {
        #[test]
        fn the_compiled_form_answers_as_the_plain_one(
            policy in policies(), path in paths(), invoked in prop::option::of(paths()),
            script in prop::option::of(paths()), windows: bool, port: u16, address: IpAddr,
        ) {
            let bytes = policy.encode();
            let view = PolicyView::new(&bytes);
            prop_assert!(view.is_valid());
            let program = Executable {
                path: path.as_bytes(),
                invoked_as: invoked.as_deref().map(str::as_bytes),
                script: script.as_deref().map(str::as_bytes),
                style: if windows { PathStyle::Windows } else { PathStyle::Posix },
            };
            let found = view.find(&program);
            prop_assert_eq!(found.map(|m| (m.place, m.verdict)), policy.find(&program));
            prop_assert_eq!(view.programs().count(), policy.programs.len());
            for (rule, plain) in view.programs().zip(&policy.programs) {
                prop_assert_eq!(rule.id(), plain.id());
                prop_assert_eq!(rule.pattern(), plain.pattern.as_bytes());
                prop_assert_eq!(rule.script(), plain.script.as_deref().map(str::as_bytes));
                prop_assert_eq!(rule.features(), plain.features);
                prop_assert_eq!(rule.inherit(), plain.inherit);
                prop_assert_eq!(rule.wildcard(), plain.wildcard);
                prop_assert_eq!(rule.loopback_connect(), plain.loopback_connect);
                prop_assert_eq!(rule.map_ephemeral(), plain.map_ephemeral);
                prop_assert_eq!(rule.is_own_port(port), has(&plain.own_ports, port));
                prop_assert_eq!(rule.is_shared_port(port), has(&plain.shared_ports, port));
            }
            prop_assert!(view.host_addresses().eq(policy.host_addresses.iter().copied()));
            prop_assert_eq!(view.is_host_address(address), policy.host_addresses.contains(&address));
            prop_assert_eq!(view.is_wildcard_udp_port(port), has(&policy.wildcard_udp_ports, port));
            prop_assert_eq!(view.pass_when_missing(), policy.pass_when_missing);
            prop_assert_eq!(view.hide_addresses(), policy.hide_addresses);
            prop_assert_eq!(view.session_override(), policy.session_override);
        }

        #[test]
        fn damaged_bytes_never_panic(
            policy in policies(), path in paths(), script in prop::option::of(paths()),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            cut: prop::sample::Index, port: u16,
        ) {
            let mut bytes = policy.encode();
            for (place, value) in damage {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            let program = Executable {
                path: path.as_bytes(),
                invoked_as: None,
                script: script.as_deref().map(str::as_bytes),
                style: PathStyle::Posix,
            };
            ask_all(PolicyView::new(&bytes), &program, port);
            bytes.truncate(cut.index(bytes.len()));
            ask_all(PolicyView::new(&bytes), &program, port);
        }
    }

    #[test]
    fn what_is_no_policy_holds_nothing() {
        let program =
            Executable { path: b"/a", invoked_as: None, script: None, style: PathStyle::Posix };
        for bytes in [&b""[..], b"vpol", &[0xff; 4096], &[0; 4096]] {
            assert!(!PolicyView::new(bytes).is_valid());
            assert_eq!(ask_all(PolicyView::new(bytes), &program, 80), 0);
        }
    }

    #[test]
    fn most_specific_rule_wins() {
        let rule = |pattern: &str, script: Option<&str>| Program {
            pattern: pattern.into(),
            script: script.map(str::to_owned),
            ..Program::default()
        };
        let policy = Policy {
            programs: vec![
                rule("python3", None),
                rule("/usr/bin/python3", None),
                rule("/usr/bin/python3", Some("app.py")),
                rule("/usr/bin/python3", Some("/opt/app.py")),
                rule("/usr/bin/python3", None),
            ],
            ..Policy::default()
        };
        let bytes = policy.encode();
        let find = |path: &str, script: Option<&str>| {
            let program = Executable {
                path: path.as_bytes(),
                invoked_as: None,
                script: script.map(str::as_bytes),
                style: PathStyle::Posix,
            };
            PolicyView::new(&bytes).find(&program).map(|found| found.place)
        };
        assert_eq!(find("/usr/bin/python3", Some("/opt/app.py")), Some(3));
        assert_eq!(find("/usr/bin/python3", Some("/tmp/app.py")), Some(2));
        assert_eq!(find("/usr/bin/python3", Some("/tmp/b.py")), Some(1));
        assert_eq!(find("/usr/bin/python3", None), Some(1));
        assert_eq!(find("/opt/python3", None), Some(0));
        assert_eq!(find("/opt/perl", None), None);
    }
}
