//! What a map is made from, built by calls: pools, settings, the process list.

use std::ffi::c_char;

use super::address::{vipool_ip, vipool_range};
use super::handle::{Exclusive, Owned, exclusive, free, give, not_null};
use super::layout::{layout, read};
use super::outcome::{Failure, call, quiet};
use super::status::vipool_status::{self, *};
use super::text::{array, optional_utf8, utf8};
use crate::map::{Allocate, OnExhausted, Plan, Settings};
use crate::policy::{Features, LoopbackConnect, PoolRule, PortRange, Program, Wildcard};
use crate::pool::{MAX_SLOTS, Pool, PoolKind, Reservation};

/// What a map is made from: the pools of this server, how addresses are given out, and the process
/// list. Built by calls (vipool_plan_new()) or from farm.toml (vipool_farm_plan()).
///
/// One thread at a time may use it. A map keeps nothing of it.
pub struct vipool_plan {
    pub(crate) plan: Plan,
}

impl Owned for vipool_plan {
    type Access = Exclusive;
}

/// What the addresses of a pool are for; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_pool_kind {
    /// V: addresses of the network.
    VIPOOL_POOL_VIRTUAL_IP = 1,
    /// L: addresses inside 127.0.0.2-127.255.255.254; every second one stands for ::1.
    VIPOOL_POOL_LOOPBACK = 2,
}

/// What becomes of a session when no address is left; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_on_exhausted {
    /// It starts all the same, with the host's address, and the user is told
    /// (vipool_exhausted_message()).
    VIPOOL_ON_EXHAUSTED_PASS = 0,
    /// It does not start.
    VIPOOL_ON_EXHAUSTED_REFUSE = 1,
    /// The agent tries again for up to wait_seconds, then passes. The loop is the agent's.
    VIPOOL_ON_EXHAUSTED_WAIT = 2,
}

/// When a session gets its addresses; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_allocate {
    /// When the user logs on.
    VIPOOL_ALLOCATE_LOGON = 0,
    /// When somebody starts a listed program in the session. A hook never allocates.
    VIPOOL_ALLOCATE_FIRST_USE = 1,
}

/// Of vipool_settings.flags: a cooled address becomes free only when vipool_map_reap() found no
/// socket on it.
pub const VIPOOL_SETTING_CHECK_IN_USE: u32 = 1;
/// Of vipool_settings.flags: vipool_map_open_session() answers VIPOOL_ERR_NOT_READY until
/// vipool_map_restored() was called.
pub const VIPOOL_SETTING_AWAIT_RESTORE: u32 = 2;

/// How addresses are given out; the same for every writer of a map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vipool_settings {
    /// sizeof(vipool_settings), set by the caller.
    pub size: usize,
    /// Seconds until a released address goes to another user.
    pub cool_down: u32,
    /// Warn once when fewer than this many addresses of a pool are left; 0 never warns.
    pub low_water: u32,
    /// The most sessions of one user; 0 sets no limit.
    pub sessions_per_user: u32,
    /// The most sessions of the server at once; 0 sets no limit.
    pub max_sessions: u32,
    /// vipool_on_exhausted.
    pub on_exhausted: u32,
    /// For VIPOOL_ON_EXHAUSTED_WAIT; zero with the others.
    pub wait_seconds: u32,
    /// vipool_allocate.
    pub allocate: u32,
    /// VIPOOL_SETTING_...
    pub flags: u32,
}
layout!(vipool_settings {
    size,
    cool_down,
    low_water,
    sessions_per_user,
    max_sessions,
    on_exhausted,
    wait_seconds,
    allocate,
    flags,
});

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
});

/// Of vipool_rules.flags: binds pass when the virtual IP is on no interface; otherwise they fail
/// with EADDRNOTAVAIL.
pub const VIPOOL_RULE_PASS_WHEN_MISSING: u32 = 1;
/// Of vipool_rules.flags: other sessions' addresses are hidden from getifaddrs and
/// GetAdaptersAddresses.
pub const VIPOOL_RULE_HIDE_ADDRESSES: u32 = 2;
/// Of vipool_rules.flags: a process may name its session itself. For tests; Windows only.
pub const VIPOOL_RULE_SESSION_OVERRIDE: u32 = 4;

/// What hook layers go by beside the process list. The arrays are copied.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vipool_rules {
    /// sizeof(vipool_rules), set by the caller.
    pub size: usize,
    /// The addresses of the host itself on the interfaces that the pools belong to: a bind to one
    /// of them becomes one to the session's virtual IP. May be NULL for none.
    pub host_addresses: *const vipool_ip,
    /// How many they are.
    pub host_address_count: usize,
    /// UDP ports whose wildcard binds stay wildcard (multicast and broadcast receivers). May be
    /// NULL for none.
    pub wildcard_udp_ports: *const vipool_ports,
    /// How many they are.
    pub wildcard_udp_port_count: usize,
    /// VIPOOL_RULE_...
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}
layout!(vipool_rules {
    size,
    host_addresses,
    host_address_count,
    wildcard_udp_ports,
    wildcard_udp_port_count,
    flags,
    reserved,
});

/// Flags of which every one must be known.
pub(crate) fn flags(given: u32, known: u32) -> Result<u32, Failure> {
    if given & !known != 0 {
        return Err(VIPOOL_ERR_KIND.because(format_args!("unknown flags {:#x}", given & !known)));
    }
    Ok(given)
}

impl From<Settings> for vipool_settings {
    fn from(settings: Settings) -> Self {
        let (on_exhausted, wait_seconds) = match settings.on_exhausted {
            OnExhausted::Pass => (vipool_on_exhausted::VIPOOL_ON_EXHAUSTED_PASS, 0),
            OnExhausted::Refuse => (vipool_on_exhausted::VIPOOL_ON_EXHAUSTED_REFUSE, 0),
            OnExhausted::Wait(seconds) => (vipool_on_exhausted::VIPOOL_ON_EXHAUSTED_WAIT, seconds),
        };
        let allocate = match settings.allocate {
            Allocate::Logon => vipool_allocate::VIPOOL_ALLOCATE_LOGON,
            Allocate::FirstUse => vipool_allocate::VIPOOL_ALLOCATE_FIRST_USE,
        };
        let mut flags = 0;
        if settings.check_in_use {
            flags |= VIPOOL_SETTING_CHECK_IN_USE;
        }
        if settings.await_restore {
            flags |= VIPOOL_SETTING_AWAIT_RESTORE;
        }
        Self {
            size: size_of::<Self>(),
            cool_down: settings.cool_down,
            low_water: settings.low_water,
            sessions_per_user: settings.sessions_per_user,
            max_sessions: settings.max_sessions,
            on_exhausted: on_exhausted as u32,
            wait_seconds,
            allocate: allocate as u32,
            flags,
        }
    }
}

impl vipool_settings {
    fn get(&self) -> Result<Settings, Failure> {
        let flags = flags(self.flags, VIPOOL_SETTING_CHECK_IN_USE | VIPOOL_SETTING_AWAIT_RESTORE)?;
        Ok(Settings {
            cool_down: self.cool_down,
            check_in_use: flags & VIPOOL_SETTING_CHECK_IN_USE != 0,
            low_water: self.low_water,
            sessions_per_user: self.sessions_per_user,
            max_sessions: self.max_sessions,
            on_exhausted: match self.on_exhausted {
                0 => OnExhausted::Pass,
                1 => OnExhausted::Refuse,
                2 => OnExhausted::Wait(self.wait_seconds),
                other => {
                    return Err(VIPOOL_ERR_KIND.because(format_args!("on_exhausted is {other}")));
                }
            },
            allocate: match self.allocate {
                0 => Allocate::Logon,
                1 => Allocate::FirstUse,
                other => return Err(VIPOOL_ERR_KIND.because(format_args!("allocate is {other}"))),
            },
            await_restore: flags & VIPOOL_SETTING_AWAIT_RESTORE != 0,
        })
    }
}

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
/// As for [`array`].
unsafe fn port_ranges(
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

/// Makes a plan without pools, with the default settings and an empty process list.
///
/// Give it back with vipool_plan_free(). Errors: VIPOOL_ERR_NULL. May be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_new(out: *mut *mut vipool_plan) -> vipool_status {
    call(|| {
        not_null(out)?;
        // SAFETY: not NULL.
        unsafe { give(vipool_plan { plan: Plan::default() }, out) };
        Ok(())
    })
}

/// Frees a plan. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_free(plan: *mut vipool_plan) {
    // SAFETY: the caller gives the handle back.
    quiet(|| unsafe { free(plan) });
}

/// Adds a pool: ranges of one family, with everything that must not be given out cut away already
/// (network, broadcast, host and excluded addresses; see vipool_range_without()).
///
/// `name`: what sessions choose it by, "default" being the one taken if none is named; a pool of
/// IPv4 and one of IPv6 may share a name. `kind`: vipool_pool_kind. `max_slots`: at most so many
/// addresses, 0 for all; a sparse IPv6 prefix is cut there. The number of a pool is how many were
/// added before it.
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND, VIPOOL_ERR_ADDRESS,
/// VIPOOL_ERR_RANGE_ORDER, VIPOOL_ERR_POOL_MIXED, VIPOOL_ERR_POOL_OVERLAP,
/// VIPOOL_ERR_POOL_NOT_LOOPBACK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_pool(
    plan: *mut vipool_plan,
    name: *const c_char,
    name_length: usize,
    kind: u32,
    ranges: *const vipool_range,
    range_count: usize,
    max_slots: u32,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle, text and array.
        let (plan, name, ranges) =
            unsafe { (exclusive(plan)?, utf8(name, name_length)?, array(ranges, range_count)?) };
        let kind = match kind {
            1 => PoolKind::VirtualIp,
            2 => PoolKind::Loopback,
            other => return Err(VIPOOL_ERR_KIND.because(format_args!("no kind of pool: {other}"))),
        };
        let ranges = ranges.iter().map(vipool_range::get).collect::<Result<Vec<_>, _>>()?;
        let max_slots = if max_slots == 0 { MAX_SLOTS } else { max_slots };
        plan.plan.pools.push(Pool::new(name, kind, &ranges, max_slots)?);
        Ok(())
    })
}

/// Sets how addresses are given out.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_KIND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_set_settings(
    plan: *mut vipool_plan,
    settings: *const vipool_settings,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let (plan, settings) = unsafe { (exclusive(plan)?, read(settings)?) };
        plan.plan.settings = settings.get()?;
        Ok(())
    })
}

/// Adds a rule to the process list. The most specific rule that holds for a program wins, the
/// first of equals.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_UTF8,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_program(
    plan: *mut vipool_plan,
    program: *const vipool_program,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let (plan, given) = unsafe { (exclusive(plan)?, read(program)?) };
        let known = VIPOOL_PROGRAM_INHERIT
            | VIPOOL_PROGRAM_MAP_EPHEMERAL
            | VIPOOL_PROGRAM_WILDCARD_LOOPBACK
            | VIPOOL_PROGRAM_CONNECT_OWN;
        let flags = flags(given.flags, known)?;
        // SAFETY: the caller vouches for the texts and arrays in the struct.
        let program = unsafe {
            Program {
                pattern: utf8(given.pattern, given.pattern_length)?.to_owned(),
                script: optional_utf8(given.script, given.script_length)?.map(str::to_owned),
                own_ports: port_ranges(given.own_ports, given.own_port_count)?,
                shared_ports: port_ranges(given.shared_ports, given.shared_port_count)?,
                ..Program::default()
            }
        };
        plan.plan.policy.programs.push(Program {
            features: features_from_bits(given.features)?,
            inherit: flags & VIPOOL_PROGRAM_INHERIT != 0,
            wildcard: if flags & VIPOOL_PROGRAM_WILDCARD_LOOPBACK != 0 {
                Wildcard::Loopback
            } else {
                Wildcard::Keep
            },
            loopback_connect: if flags & VIPOOL_PROGRAM_CONNECT_OWN != 0 {
                LoopbackConnect::Own
            } else {
                LoopbackConnect::OwnFirst
            },
            map_ephemeral: flags & VIPOOL_PROGRAM_MAP_EPHEMERAL != 0,
            ..program
        });
        Ok(())
    })
}

/// Sets what hook layers go by beside the process list.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_STRUCT_SIZE, VIPOOL_ERR_UNKNOWN_FIELD, VIPOOL_ERR_ADDRESS,
/// VIPOOL_ERR_KIND, VIPOOL_ERR_RANGE_ORDER (ports).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_set_rules(
    plan: *mut vipool_plan,
    rules: *const vipool_rules,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and struct.
        let (plan, given) = unsafe { (exclusive(plan)?, read(rules)?) };
        let known = VIPOOL_RULE_PASS_WHEN_MISSING
            | VIPOOL_RULE_HIDE_ADDRESSES
            | VIPOOL_RULE_SESSION_OVERRIDE;
        let flags = flags(given.flags, known)?;
        // SAFETY: the caller vouches for the arrays in the struct.
        let (hosts, ports) = unsafe {
            (
                array(given.host_addresses, given.host_address_count)?,
                port_ranges(given.wildcard_udp_ports, given.wildcard_udp_port_count)?,
            )
        };
        let hosts = hosts.iter().map(vipool_ip::required).collect::<Result<Vec<_>, _>>()?;
        let policy = &mut plan.plan.policy;
        policy.host_addresses = hosts;
        policy.wildcard_udp_ports = ports;
        policy.pass_when_missing = flags & VIPOOL_RULE_PASS_WHEN_MISSING != 0;
        policy.hide_addresses = flags & VIPOOL_RULE_HIDE_ADDRESSES != 0;
        policy.session_override = flags & VIPOOL_RULE_SESSION_OVERRIDE != 0;
        Ok(())
    })
}

/// Keeps an address of one of the pools for a user, whose name is `user_length` bytes of UTF-8.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_ADDRESS. Whether a pool has the address
/// shows when a map is made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_reservation(
    plan: *mut vipool_plan,
    user: *const c_char,
    user_length: usize,
    address: *const vipool_ip,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle, text and address.
        let (plan, user, address) = unsafe {
            (
                exclusive(plan)?,
                utf8(user, user_length)?,
                address.as_ref().ok_or(VIPOOL_ERR_NULL)?.required()?,
            )
        };
        plan.plan.reservations.push(Reservation { user: user.to_owned(), address });
        Ok(())
    })
}

/// Whose sessions a rule sends to a pool; it enters as uint32_t.
#[repr(u32)]
#[derive(Clone, Copy, Debug)]
pub enum vipool_pool_rule {
    /// Those of the user of this name.
    VIPOOL_POOL_RULE_USER = 1,
    /// Those of members of the group of this name.
    VIPOOL_POOL_RULE_GROUP = 2,
    /// Those in which this program is started: a full path or a bare file name.
    VIPOOL_POOL_RULE_PROGRAM = 3,
}

/// Adds a rule by which sessions take their virtual IPs from a pool: `kind` (vipool_pool_rule) and
/// `name` say whose. A rule for the user wins over one for a group, that over one for a program;
/// of equals the first.
///
/// Errors: VIPOOL_ERR_NULL, VIPOOL_ERR_UTF8, VIPOOL_ERR_KIND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vipool_plan_add_pool_rule(
    plan: *mut vipool_plan,
    pool: *const c_char,
    pool_length: usize,
    kind: u32,
    name: *const c_char,
    name_length: usize,
) -> vipool_status {
    call(|| {
        // SAFETY: the caller vouches for handle and texts.
        let (plan, pool, name) =
            unsafe { (exclusive(plan)?, utf8(pool, pool_length)?, utf8(name, name_length)?) };
        let mut rule = PoolRule { pool: pool.to_owned(), ..PoolRule::default() };
        match kind {
            1 => rule.users.push(name.to_owned()),
            2 => rule.groups.push(name.to_owned()),
            3 => rule.programs.push(name.to_owned()),
            other => return Err(VIPOOL_ERR_KIND.because(format_args!("no kind of rule: {other}"))),
        }
        plan.plan.policy.pool_rules.push(rule);
        Ok(())
    })
}
