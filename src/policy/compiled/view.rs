//! Reading a compiled policy in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::policy::matching::{self, Executable, ExecutablePaths, MatchResult, RulePattern};
use crate::policy::{Features, ProgramFlags, RewriteFlags};

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
pub struct MatchedRule<'a> {
    /// The place of the rule in the list.
    pub index: usize,
    /// The rule.
    pub program: ProgramView<'a>,
    /// By what it matched.
    pub result: MatchResult,
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
    pub fn find(&self, program: &Executable<'_>) -> Option<MatchedRule<'a>> {
        let paths = ExecutablePaths::of(program);
        let (index, result) = matching::most_specific(
            self.programs().map(|rule| paths.match_rule(rule.rule_pattern())),
        )?;
        Some(MatchedRule { index, program: self.programs().nth(index)?, result })
    }

    /// Every rule with what it says of a program: why it matched or why it did not.
    pub fn explain(
        &self,
        program: Executable<'a>,
    ) -> impl Iterator<Item = (ProgramView<'a>, MatchResult)> + use<'a> {
        let paths = ExecutablePaths::of(&program);
        self.programs().map(move |rule| (rule, paths.match_rule(rule.rule_pattern())))
    }

    /// The rule with this [`ProgramView::id`], if it is on the list and is handed down to
    /// children. For a program that is on no list itself and was started by one under that rule.
    pub fn find_inherited(&self, id: u64) -> Option<ProgramView<'a>> {
        self.programs().find(|rule| rule.flags().inherit && rule.id() == id)
    }

    /// The rules, in the order of the list.
    pub fn programs(&self) -> impl Iterator<Item = ProgramView<'a>> + use<'a> {
        let bytes = self.bytes;
        records(bytes, 16, PROGRAM_RECORD).map(move |record| ProgramView { bytes, record })
    }

    /// The addresses of the host itself on the matched interfaces (row 5).
    pub fn host_addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let bytes = self.bytes;
        records(bytes, 24, HOST_RECORD).filter_map(move |at| {
            let octets: [u8; 16] = array(bytes, at + 4)?;
            match word(bytes, at)? {
                4 => Some(IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))),
                6 => Some(IpAddr::V6(Ipv6Addr::from(octets))),
                _ => None,
            }
        })
    }

    /// Whether this is an address of the host itself on a matched interface.
    #[inline]
    pub fn is_host_address(&self, address: IpAddr) -> bool {
        let wanted = host_record(address);
        records(self.bytes, 24, HOST_RECORD).any(|at| array(self.bytes, at) == Some(wanted))
    }

    /// Whether a wildcard bind of UDP to this port stays wildcard (row 26).
    pub fn is_wildcard_udp_port(&self, port: u16) -> bool {
        has_port(self.bytes, 32, port)
    }

    /// The pool for a session of this user, in which this program is started (where that is known):
    /// what [`crate::policy::choose_pool`] says. `groups` is paths only if a rule names a group.
    pub fn choose_pool(
        &self,
        user: &str,
        groups: impl FnOnce() -> Vec<String>,
        program: Option<&Executable<'_>>,
    ) -> Option<&'a str> {
        let mut ask = Some(groups);
        let mut groups = Vec::new();
        let user = hash_name(user, BY_USER);
        let found = records(self.bytes, 40, POOL_RULE).find(|at| {
            let hash = array(self.bytes, at + 8).map(u64::from_le_bytes);
            match word(self.bytes, *at) {
                Some(BY_USER) => hash == Some(user),
                Some(BY_GROUP) => {
                    if let Some(ask) = ask.take() {
                        groups = ask();
                    }
                    groups.iter().any(|name| hash == Some(hash_name(name, BY_GROUP)))
                }
                Some(BY_PROGRAM) => match (program, text(self.bytes, at + 16)) {
                    (Some(program), Some(pattern)) => program.is(pattern),
                    _ => false,
                },
                _ => false,
            }
        })?;
        str::from_utf8(text(self.bytes, found + 24)?).ok()
    }

    /// Returns the flags for all programs.
    #[inline]
    pub fn rewrite_flags(&self) -> RewriteFlags {
        RewriteFlags::from_bits(word(self.bytes, 12).unwrap_or(0))
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
    #[inline]
    pub fn features(&self) -> Features {
        Features::from_bits(word(self.bytes, self.record + 48).unwrap_or(0))
    }

    /// Returns the flags of the rule.
    #[inline]
    pub fn flags(&self) -> ProgramFlags {
        ProgramFlags::from_bits(word(self.bytes, self.record + 52).unwrap_or(0))
    }

    /// Whether this loopback port always goes to the session's own address.
    pub fn is_own_port(&self, port: u16) -> bool {
        has_port(self.bytes, self.record + 32, port)
    }

    /// Whether this loopback port is left alone: it is the host's.
    pub fn is_shared_port(&self, port: u16) -> bool {
        has_port(self.bytes, self.record + 40, port)
    }

    fn rule_pattern(&self) -> RulePattern<'a> {
        RulePattern { pattern: self.pattern(), target: self.text(16), script: self.text(24) }
    }

    /// The text whose offset and length are at this place of the record.
    fn text(&self, at: usize) -> Option<&'a [u8]> {
        text(self.bytes, self.record + at)
    }
}

/// The text whose offset and length are at this place; offset 0 is none.
fn text(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let offset = word(bytes, at)? as usize;
    let length = word(bytes, at + 4)? as usize;
    if offset == 0 {
        return None;
    }
    bytes.get(offset..)?.get(..length)
}

/// Where the records begin whose offset and count are at `at`; those that lie within the bytes.
fn records(bytes: &[u8], at: usize, size: usize) -> impl Iterator<Item = usize> + use<> {
    let offset = word(bytes, at).unwrap_or(0) as usize;
    let count = word(bytes, at + 4).unwrap_or(0) as usize;
    let room = bytes.len().saturating_sub(offset) / size;
    (0..count.min(room)).map(move |place| offset + place * size)
}

fn has_port(bytes: &[u8], at: usize, port: u16) -> bool {
    records(bytes, at, PORT_RECORD).any(|at| match (array(bytes, at), array(bytes, at + 2)) {
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
