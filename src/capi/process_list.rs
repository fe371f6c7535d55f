//! The rules of the process list.

use std::ffi::c_char;

use super::error::CallError;
use super::layout::{layout, read};
use super::status::vipool_status::{self, *};
use super::text::{check_flags, read_optional_utf8, read_slice, read_utf8};
use crate::policy::{Features, PortRange, Program, ProgramFlags};

/// An inclusive range of ports in host byte order. Plain data.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_ports {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// Feature: the virtual IP of the session replaces the address of the host.
pub const VIPOOL_FEATURE_VIRTUAL_IP: u32 = 1;
/// Feature: the virtual loopback address of the session replaces 127.0.0.1.
pub const VIPOOL_FEATURE_LOOPBACK: u32 = 2;
/// Feature: the name of the host resolves to the address of the session's client.
pub const VIPOOL_FEATURE_CLIENT_IP: u32 = 4;

/// vipool_program.flags: the rule also applies to child processes that no rule matches.
pub const VIPOOL_PROGRAM_INHERIT: u32 = 1;
/// vipool_program.flags: a bind to 127.0.0.1 with port 0 stays on the host, where unlisted programs
/// reach it.
pub const VIPOOL_PROGRAM_KEEP_EPHEMERAL: u32 = 2;
/// vipool_program.flags: a bind to 0.0.0.0 with a fixed port goes to the virtual loopback address
/// if the session has no virtual IP. Without the flag such a bind passes.
pub const VIPOOL_PROGRAM_WILDCARD_LOOPBACK: u32 = 4;
/// vipool_program.flags: a connect to 127.0.0.1 always goes to the virtual loopback address.
/// Without the flag, the connect goes to an address of the session on which the session listens. If
/// there is none, the connect goes to the host.
pub const VIPOOL_PROGRAM_CONNECT_OWN: u32 = 8;

/// A rule of the process list. The library copies texts and arrays.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_program {
    /// sizeof(vipool_program), set by the caller.
    pub size: usize,
    /// A full path (recommended) or a bare file name, UTF-8.
    pub pattern: *const c_char,
    /// Length of `pattern` in bytes.
    pub pattern_length: usize,
    /// For an interpreter: the rule matches only if the interpreter runs this script. May be NULL.
    pub script: *const c_char,
    /// Length of `script` in bytes.
    pub script_length: usize,
    /// VIPOOL_FEATURE_...
    pub features: u32,
    /// VIPOOL_PROGRAM_...
    pub flags: u32,
    /// Loopback ports of the session. A connect to such a port always goes to the virtual loopback
    /// address, without a lookup of listeners. May be NULL for none.
    pub own_ports: *const vipool_ports,
    /// Number of `own_ports`.
    pub own_port_count: usize,
    /// Loopback ports of the host. A bind or connect to such a port on 127.0.0.1 or ::1 always
    /// passes. May be NULL for none.
    pub shared_ports: *const vipool_ports,
    /// Number of `shared_ports`.
    pub shared_port_count: usize,
    /// If `pattern` contains a symbolic link: the path without links, UTF-8. The system reports
    /// this path as the path of the running program. May be NULL. With the flag
    /// VIPOOL_PLAN_FOLLOW_LINKS of vipool_plan_options, the library finds the path itself.
    pub target: *const c_char,
    /// Length of `target` in bytes.
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

const _: () = assert!(
    VIPOOL_FEATURE_VIRTUAL_IP | VIPOOL_FEATURE_LOOPBACK | VIPOOL_FEATURE_CLIENT_IP
        == Features::ALL_BITS,
    "a feature of the table has no C constant"
);
const _: () = assert!(
    VIPOOL_PROGRAM_INHERIT
        | VIPOOL_PROGRAM_KEEP_EPHEMERAL
        | VIPOOL_PROGRAM_WILDCARD_LOOPBACK
        | VIPOOL_PROGRAM_CONNECT_OWN
        == ProgramFlags::ALL_BITS,
    "a flag of the table has no C constant"
);

/// Reads an array of port ranges.
///
/// # Safety
/// As for [`read_slice`].
pub(crate) unsafe fn read_ports(
    ports: *const vipool_ports,
    count: usize,
) -> Result<Vec<PortRange>, vipool_status> {
    // SAFETY: the caller guarantees the array.
    let ports = unsafe { read_slice(ports, count) }?;
    ports
        .iter()
        .map(|&vipool_ports { first, last }| {
            if first <= last { Ok(PortRange { first, last }) } else { Err(VIPOOL_ERR_RANGE_ORDER) }
        })
        .collect()
}

/// Reads a rule of the process list.
///
/// # Safety
/// `program` is NULL or valid for reads, with its texts and arrays.
pub(crate) unsafe fn read_program(program: *const vipool_program) -> Result<Program, CallError> {
    // SAFETY: the caller guarantees struct, texts and arrays.
    unsafe {
        let program = read(program)?;
        let flags = check_flags(program.flags, ProgramFlags::ALL_BITS)?;
        let features = check_flags(program.features, Features::ALL_BITS)?;
        Ok(Program {
            pattern: read_utf8(program.pattern, program.pattern_length)?.to_owned(),
            target: read_optional_utf8(program.target, program.target_length)?.map(str::to_owned),
            script: read_optional_utf8(program.script, program.script_length)?.map(str::to_owned),
            features: Features::from_bits(features),
            flags: ProgramFlags::from_bits(flags),
            own_ports: read_ports(program.own_ports, program.own_port_count)?,
            shared_ports: read_ports(program.shared_ports, program.shared_port_count)?,
        })
    }
}
