//! The rules of the process list, as they are handed in.

use std::ffi::c_char;

use super::layout::{layout, read};
use super::outcome::Failure;
use super::status::vipool_status::{self, *};
use super::text::{array, flags, optional_utf8, utf8};
use crate::policy::{Features, PortRange, Program, ProgramFlags};

/// Ports from the first to the last, both included, in host order. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_ports {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// A feature: the session's virtual IP in place of the host's address.
pub const VIPOOL_FEATURE_VIRTUAL_IP: u32 = 1;
/// A feature: a loopback address of the session's own in place of 127.0.0.1.
pub const VIPOOL_FEATURE_LOOPBACK: u32 = 2;
/// A feature: the client's address is what the host's own name resolves to.
pub const VIPOOL_FEATURE_CLIENT_IP: u32 = 4;

/// Of vipool_program.flags: children that are on no list of their own are under this rule too.
pub const VIPOOL_PROGRAM_INHERIT: u32 = 1;
/// Of vipool_program.flags: a bind to 127.0.0.1 with port 0 is rewritten too.
pub const VIPOOL_PROGRAM_MAP_EPHEMERAL: u32 = 2;
/// Of vipool_program.flags: a bind to 0.0.0.0 with a fixed port becomes the session's loopback
/// address where there is no virtual IP; otherwise it stays as it is.
pub const VIPOOL_PROGRAM_WILDCARD_LOOPBACK: u32 = 4;
/// Of vipool_program.flags: a connect to 127.0.0.1 always goes to the session's own address;
/// otherwise to the session's own listener if there is one, else to the host's.
pub const VIPOOL_PROGRAM_CONNECT_OWN: u32 = 8;

/// One rule of the process list. The texts and arrays are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_program {
    /// sizeof(vipool_program), set by the caller.
    pub size: usize,
    /// A full path (recommended) or a bare file name, UTF-8.
    pub pattern: *const c_char,
    /// Its length in bytes.
    pub pattern_length: usize,
    /// For an interpreter: the rule holds only when it runs this script. May be NULL.
    pub script: *const c_char,
    /// Its length in bytes.
    pub script_length: usize,
    /// VIPOOL_FEATURE_...
    pub features: u32,
    /// VIPOOL_PROGRAM_...
    pub flags: u32,
    /// Loopback ports that always go to the session's own address, without asking the kernel.
    /// May be NULL for none.
    pub own_ports: *const vipool_ports,
    /// How many they are.
    pub own_port_count: usize,
    /// Loopback ports to leave alone: they are the host's. May be NULL for none.
    pub shared_ports: *const vipool_ports,
    /// How many they are.
    pub shared_port_count: usize,
    /// Where `pattern` is a symbolic link, the file that it leads to, UTF-8: what the system shows
    /// as the path of the running program. May be NULL; vipool_plan_follow_links() finds all.
    pub target: *const c_char,
    /// Its length in bytes.
    pub target_length: usize,
}
layout!(vipool_program {
    size,
    pattern,
    pattern_length,
    script,
    script_length,
    features,
    flags,
    own_ports,
    own_port_count,
    shared_ports,
    shared_port_count,
    target,
    target_length,
});

fn features_from_bits(bits: u32) -> Result<Features, Failure> {
    const ALL: u32 = VIPOOL_FEATURE_VIRTUAL_IP | VIPOOL_FEATURE_LOOPBACK | VIPOOL_FEATURE_CLIENT_IP;
    let bits = flags(bits, ALL)?;
    Ok(Features {
        virtual_ip: bits & VIPOOL_FEATURE_VIRTUAL_IP != 0,
        loopback: bits & VIPOOL_FEATURE_LOOPBACK != 0,
        client_ip: bits & VIPOOL_FEATURE_CLIENT_IP != 0,
    })
}

/// # Safety
/// As for [`array()`].
pub(crate) unsafe fn port_ranges(
    ports: *const vipool_ports,
    count: usize,
) -> Result<Vec<PortRange>, vipool_status> {
    // SAFETY: the caller's promise.
    let ports = unsafe { array(ports, count) }?;
    ports
        .iter()
        .map(|range| {
            let range = PortRange { first: range.first, last: range.last };
            if range.first <= range.last { Ok(range) } else { Err(VIPOOL_ERR_RANGE_ORDER) }
        })
        .collect()
}

const _: () = assert!(
    VIPOOL_PROGRAM_INHERIT
        | VIPOOL_PROGRAM_MAP_EPHEMERAL
        | VIPOOL_PROGRAM_WILDCARD_LOOPBACK
        | VIPOOL_PROGRAM_CONNECT_OWN
        == ProgramFlags::ALL_BITS,
    "a flag of the table has no C constant"
);

/// A rule of the caller's.
///
/// # Safety
/// `given` is NULL or valid as the header wants it, with the texts and arrays in it.
pub(crate) unsafe fn listed(given: *const vipool_program) -> Result<Program, Failure> {
    // SAFETY: the caller's promise.
    unsafe {
        let given = read(given)?;
        let flags = flags(given.flags, ProgramFlags::ALL_BITS)?;
        Ok(Program {
            pattern: utf8(given.pattern, given.pattern_length)?.to_owned(),
            target: optional_utf8(given.target, given.target_length)?.map(str::to_owned),
            script: optional_utf8(given.script, given.script_length)?.map(str::to_owned),
            features: features_from_bits(given.features)?,
            flags: ProgramFlags::from_bits(flags),
            own_ports: port_ranges(given.own_ports, given.own_port_count)?,
            shared_ports: port_ranges(given.shared_ports, given.shared_port_count)?,
        })
    }
}
