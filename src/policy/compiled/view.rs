//! Reads a compiled policy in place.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::policy::matching::{self, Executable, ExecutablePaths, MatchResult, RulePattern};
use crate::policy::{Features, ProgramFlags, RewriteFlags};

/// A compiled [`Policy`]. A view reads the compiled bytes in place. Lookups never allocate, block
/// or panic, so they are safe in signal handlers and after fork. Threads may share a view.
#[derive(Clone, Copy, Debug)]
pub struct PolicyView<'a> {
    /// The bytes of the whole policy. Empty if `new` found no policy of this version.
    bytes: &'a [u8],
}

/// One rule of a compiled process list.
#[derive(Clone, Copy, Debug)]
pub struct ProgramView<'a> {
    /// The bytes of the whole policy.
    bytes: &'a [u8],
    record_offset: usize,
}

/// The rule that matches a program.
#[derive(Clone, Copy, Debug)]
pub struct MatchedRule<'a> {
    /// The index of the rule in the list.
    pub index: usize,
    /// The rule.
    pub program: ProgramView<'a>,
    /// How the rule matched.
    pub result: MatchResult,
}

impl<'a> PolicyView<'a> {
    /// Creates a view of the result of [`Policy::encode`]. Bytes after the policy are ignored. If
    /// `bytes` does not begin with a complete policy of this version, the view has no rules,
    /// addresses or ports.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let valid_bytes = || {
            let is_known = read_u32(bytes, 0)? == MAGIC && read_u32(bytes, 4)? == VERSION;
            bytes.get(..read_u32(bytes, 8)? as usize).filter(|_| is_known)
        };
        Self { bytes: valid_bytes().unwrap_or_default() }
    }

    /// Returns whether the bytes begin with a complete policy of this version. Only the header is
    /// checked.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Returns the most specific rule that matches a program. Among equally specific rules, returns
    /// the first.
    #[must_use]
    pub fn find(&self, program: &Executable<'_>) -> Option<MatchedRule<'a>> {
        let paths = ExecutablePaths::of(program);
        let (index, result) = matching::most_specific(
            self.programs().map(|rule| paths.match_rule(rule.rule_pattern())),
        )?;
        Some(MatchedRule { index, program: self.programs().nth(index)?, result })
    }

    /// Returns every rule, and the result of matching the program with that rule.
    pub fn explain(
        &self,
        program: Executable<'a>,
    ) -> impl Iterator<Item = (ProgramView<'a>, MatchResult)> + use<'a> {
        let paths = ExecutablePaths::of(&program);
        self.programs().map(move |rule| (rule, paths.match_rule(rule.rule_pattern())))
    }

    /// Returns the rule with this [`ProgramView::id`] if the rule applies to children. Use this
    /// method for a program that no rule matches and whose parent runs under the rule with this id.
    #[must_use]
    pub fn find_inherited(&self, id: u64) -> Option<ProgramView<'a>> {
        self.programs().find(|rule| rule.flags().inherit && rule.id() == id)
    }

    /// Returns the rules in the order of the list.
    pub fn programs(&self) -> impl Iterator<Item = ProgramView<'a>> + use<'a> {
        let bytes = self.bytes;
        record_offsets(bytes, 16, PROGRAM_LENGTH)
            .map(move |record_offset| ProgramView { bytes, record_offset })
    }

    /// Returns the host's own addresses on the interfaces that the server's ranges belong to (row 5
    /// of docs/socket-matrix.md).
    pub fn host_addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let bytes = self.bytes;
        record_offsets(bytes, 24, HOST_ADDRESS_LENGTH).filter_map(move |record_offset| {
            let octets: [u8; 16] = read_array(bytes, record_offset + 4)?;
            match read_u32(bytes, record_offset)? {
                4 => Some(IpAddr::V4(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]))),
                6 => Some(IpAddr::V6(Ipv6Addr::from(octets))),
                _ => None,
            }
        })
    }

    /// Returns whether this address is one of the [`PolicyView::host_addresses`].
    #[inline]
    #[must_use]
    pub fn is_host_address(&self, address: IpAddr) -> bool {
        let encoded = encode_host_address(address);
        record_offsets(self.bytes, 24, HOST_ADDRESS_LENGTH)
            .any(|record_offset| read_array(self.bytes, record_offset) == Some(encoded))
    }

    /// Returns whether [`Policy::wildcard_udp_ports`] contains this port. A UDP bind to the
    /// wildcard address and such a port is not rewritten (row 26).
    #[must_use]
    pub fn is_wildcard_udp_port(&self, port: u16) -> bool {
        contains_port(self.bytes, 32, port)
    }

    /// Returns the flags for all listed programs.
    #[inline]
    #[must_use]
    pub fn rewrite_flags(&self) -> RewriteFlags {
        RewriteFlags::from_bits(read_u32(self.bytes, 12).unwrap_or(0))
    }
}

impl<'a> ProgramView<'a> {
    /// Returns the id of the rule: a hash of pattern and script. Reloads do not change the id, so a
    /// hook layer can pass it to child processes. See [`PolicyView::find_inherited`].
    pub fn id(&self) -> u64 {
        read_array(self.bytes, self.record_offset).map_or(0, u64::from_le_bytes)
    }

    /// Returns the pattern of the rule: a full path or a bare file name.
    #[must_use]
    pub fn pattern(&self) -> &'a [u8] {
        self.read_text(8).unwrap_or_default()
    }

    /// Returns the script to which the rule is restricted.
    #[must_use]
    pub fn script(&self) -> Option<&'a [u8]> {
        self.read_text(24)
    }

    /// Returns the parts of vipool that the programs of this rule use.
    #[inline]
    #[must_use]
    pub fn features(&self) -> Features {
        Features::from_bits(read_u32(self.bytes, self.record_offset + 48).unwrap_or(0))
    }

    /// Returns the flags of the rule.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> ProgramFlags {
        ProgramFlags::from_bits(read_u32(self.bytes, self.record_offset + 52).unwrap_or(0))
    }

    /// Returns whether connects to this loopback port always use L.
    #[must_use]
    pub fn is_own_port(&self, port: u16) -> bool {
        contains_port(self.bytes, self.record_offset + 32, port)
    }

    /// Returns whether this loopback port belongs to the host. Binds and connects to 127.0.0.1 or
    /// ::1 with such a port are not rewritten.
    #[must_use]
    pub fn is_shared_port(&self, port: u16) -> bool {
        contains_port(self.bytes, self.record_offset + 40, port)
    }

    fn rule_pattern(&self) -> RulePattern<'a> {
        RulePattern {
            pattern: self.pattern(),
            target: self.read_text(16),
            script: self.read_text(24),
        }
    }

    /// Returns the text whose offset and length are at this offset of the record.
    fn read_text(&self, offset: usize) -> Option<&'a [u8]> {
        read_text(self.bytes, self.record_offset + offset)
    }
}

/// Returns the text whose offset and length are at `offset`. Returns `None` if the offset of the
/// text is 0 or the text is not inside `bytes`.
fn read_text(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let start = read_u32(bytes, offset)? as usize;
    let length = read_u32(bytes, offset + 4)? as usize;
    if start == 0 {
        return None;
    }
    bytes.get(start..)?.get(..length)
}

/// Returns the offsets of consecutive records of the same length. The offset of the first record
/// and the number of records are at `offset`. Skips records that lie outside the bytes.
fn record_offsets(
    bytes: &[u8],
    offset: usize,
    record_length: usize,
) -> impl Iterator<Item = usize> + use<> {
    let first_offset = read_u32(bytes, offset).unwrap_or(0) as usize;
    let count = read_u32(bytes, offset + 4).unwrap_or(0) as usize;
    let max_count = bytes.len().saturating_sub(first_offset) / record_length;
    (0..count.min(max_count)).map(move |index| first_offset + index * record_length)
}

/// Returns whether a port is in the port ranges whose offset and count are at `offset`.
fn contains_port(bytes: &[u8], offset: usize, port: u16) -> bool {
    record_offsets(bytes, offset, PORT_RANGE_LENGTH).any(|record_offset| {
        match (read_array(bytes, record_offset), read_array(bytes, record_offset + 2)) {
            (Some(first), Some(last)) => {
                (u16::from_le_bytes(first)..=u16::from_le_bytes(last)).contains(&port)
            }
            _ => false,
        }
    })
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    read_array(bytes, offset).map(u32::from_le_bytes)
}

fn read_array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.first_chunk().copied()
}
