//! The compiled form of a policy in the map file: little-endian records of fixed size, with offsets
//! from the start of the policy.
//!
//! A reader checks the bounds of every access. A value outside the bytes of the policy counts as
//! absent. The size of the policy bounds every loop, so a corrupted count cannot make a loop long.
//! A reader never allocates.
//!
//! | offset | header | offset | program record |
//! |---|---|---|---|
//! | 0 | magic | 0 | id (8 bytes) |
//! | 4 | version | 8 | pattern (offset, length) |
//! | 8 | total length | 16 | target (offset, length), offset 0 for none |
//! | 12 | flags | 24 | script (offset, length), offset 0 for none |
//! | 16 | programs (offset, count) | 32 | own ports (offset, count) |
//! | 24 | host addresses (offset, count) | 40 | shared ports (offset, count) |
//! | 32 | wildcard UDP ports (offset, count) | 48 | features (4 bytes) |
//! | | | 52 | flags (4 bytes) |
//!
//! A host address is a family (4 bytes: 4 or 6) and an address (16 bytes in network byte order). An
//! IPv4 address is in the first 4 of the 16 bytes. A port range is two ports (2 bytes each).
//!
//! Every user can read the map file, so the compiled form does not contain [`Policy::pool_rules`],
//! which name users. These rules are in the sessions file of the map.

mod view;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use super::{Policy, PortRange, Program};

pub use view::{MatchedRule, PolicyView, ProgramView};

const MAGIC: u32 = u32::from_le_bytes(*b"vpol");
const VERSION: u32 = 3;
const HEADER_LENGTH: usize = 40;
const PROGRAM_LENGTH: usize = 56;
const HOST_ADDRESS_LENGTH: usize = 20;
const PORT_RANGE_LENGTH: usize = 4;

impl Policy {
    /// Compiles the policy for the map file, without the rules for pools. Equal policies have equal
    /// bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; HEADER_LENGTH + self.programs.len() * PROGRAM_LENGTH];
        for (index, program) in self.programs.iter().enumerate() {
            let record = encode_program(program, &mut out);
            let offset = HEADER_LENGTH + index * PROGRAM_LENGTH;
            out[offset..offset + PROGRAM_LENGTH].copy_from_slice(&record);
        }
        let host_addresses_offset = out.len();
        for address in &self.host_addresses {
            out.extend(encode_host_address(*address));
        }
        let (wildcard_ports_offset, wildcard_ports_count) =
            append_ports(&self.wildcard_udp_ports, &mut out);
        let header = [
            MAGIC,
            VERSION,
            out.len() as u32,
            self.rewrite.bits(),
            HEADER_LENGTH as u32,
            self.programs.len() as u32,
            host_addresses_offset as u32,
            self.host_addresses.len() as u32,
            wildcard_ports_offset,
            wildcard_ports_count,
        ];
        for (index, word) in header.into_iter().enumerate() {
            out[index * 4..index * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

#[inline]
fn encode_host_address(address: IpAddr) -> [u8; HOST_ADDRESS_LENGTH] {
    let (family, bits) = match address {
        IpAddr::V4(ipv4) => (4u32, u128::from(ipv4.to_bits()) << 96),
        IpAddr::V6(ipv6) => (6, ipv6.to_bits()),
    };
    let mut record = [0; HOST_ADDRESS_LENGTH];
    if let Some(family_bytes) = record.first_chunk_mut() {
        *family_bytes = family.to_le_bytes();
    }
    if let Some(address_bytes) = record.last_chunk_mut() {
        *address_bytes = bits.to_be_bytes();
    }
    record
}

/// Appends a text. Returns its offset and length, or two zeros for `None`.
fn append_text(text: Option<&str>, out: &mut Vec<u8>) -> (u32, u32) {
    let Some(text) = text else { return (0, 0) };
    let offset = out.len() as u32;
    out.extend(text.as_bytes());
    (offset, text.len() as u32)
}

/// Appends the texts and ports of a program. Returns the record of the program.
fn encode_program(program: &Program, out: &mut Vec<u8>) -> [u8; PROGRAM_LENGTH] {
    let (pattern_offset, pattern_length) = append_text(Some(&program.pattern), out);
    let (target_offset, target_length) = append_text(program.target.as_deref(), out);
    let (script_offset, script_length) = append_text(program.script.as_deref(), out);
    let (own_ports_offset, own_ports_count) = append_ports(&program.own_ports, out);
    let (shared_ports_offset, shared_ports_count) = append_ports(&program.shared_ports, out);
    let words = [
        pattern_offset,
        pattern_length,
        target_offset,
        target_length,
        script_offset,
        script_length,
        own_ports_offset,
        own_ports_count,
        shared_ports_offset,
        shared_ports_count,
        program.features.bits(),
        program.flags.bits(),
    ];
    let mut record = [0; PROGRAM_LENGTH];
    record[..8].copy_from_slice(&program.id().to_le_bytes());
    for (index, word) in words.into_iter().enumerate() {
        record[8 + index * 4..12 + index * 4].copy_from_slice(&word.to_le_bytes());
    }
    record
}

/// Appends port ranges. Returns the offset of the first range and the number of ranges.
fn append_ports(ports: &[PortRange], out: &mut Vec<u8>) -> (u32, u32) {
    let offset = out.len() as u32;
    for range in ports {
        out.extend(range.first.to_le_bytes());
        out.extend(range.last.to_le_bytes());
    }
    (offset, ports.len() as u32)
}
