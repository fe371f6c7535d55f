//! The suite's API through the functions of `include/vipool.h`, as a C program calls them.

#![allow(unsafe_code, reason = "this is what a C program does")]

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ptr::{null, null_mut};

use vipool::capi::address::*;
use vipool::capi::layout::Versioned;
use vipool::capi::map::*;
use vipool::capi::plan::*;
use vipool::capi::program::*;
use vipool::capi::reader::*;
use vipool::capi::reason::*;
use vipool::capi::rewrite::*;
use vipool::capi::rewriter::*;
use vipool::capi::session::*;
use vipool::capi::snapshot::*;
use vipool::capi::status::vipool_status;
use vipool::capi::upkeep::*;
use vipool::map::{
    Allocate, OnExhausted, OpenOptions, Plan, PoolStatus, Settings, SlotRow, SlotState,
};
use vipool::policy::{LoopbackConnect, PortRange, Wildcard};
use vipool::pool::PoolKind;
use vipool::range::Range;
use vipool::rewrite::{Protocol, SocketFacts};
use vipool::session::{Addresses, Handle, Lease, SessionId};

use crate::api::{Api, Call, Opened, Row, Status};

pub struct C {
    map: *mut vipool_map,
    reader: *mut vipool_reader,
}

// SAFETY: the header says that threads may share both.
unsafe impl Sync for C {}
// SAFETY: as above.
unsafe impl Send for C {}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: both came from the library and go back once.
        unsafe {
            vipool_reader_free(self.reader);
            vipool_map_free(self.map);
        }
    }
}

/// The zeroed struct of a C caller, with its size.
fn sized<T: Versioned>() -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: zero is valid for every struct of the header, and the size is its first field.
    unsafe {
        value.as_mut_ptr().cast::<usize>().write(size_of::<T>());
        value.assume_init()
    }
}

fn check(status: vipool_status) -> Result<(), Status> {
    if status == vipool_status::VIPOOL_OK { Ok(()) } else { Err(status as Status) }
}

fn chars(text: &str) -> *const c_char {
    text.as_ptr().cast()
}

fn ip(given: vipool_ip) -> Option<IpAddr> {
    let [a, b, c, d, ..] = given.bytes;
    match given.family {
        4 => Some(Ipv4Addr::new(a, b, c, d).into()),
        6 => Some(given.bytes.into()),
        _ => None,
    }
}

fn c_ip(address: IpAddr) -> vipool_ip {
    let mut parsed = vipool_ip::default();
    let text = address.to_string();
    // SAFETY: valid text and struct.
    check(unsafe { vipool_ip_parse(chars(&text), text.len(), &mut parsed) }).unwrap();
    parsed
}

fn c_range(range: &Range) -> vipool_range {
    vipool_range { first: c_ip(range.first()), last: c_ip(range.last()) }
}

fn c_sockaddr(address: SocketAddr) -> vipool_sockaddr {
    let mut made = vipool_sockaddr::default();
    // SAFETY: valid structs.
    check(unsafe { vipool_ip_to_sockaddr(&c_ip(address.ip()), address.port(), &mut made) })
        .unwrap();
    made
}

fn socket_address(given: &vipool_sockaddr) -> SocketAddr {
    let (mut address, mut port) = (vipool_ip::default(), 0);
    let bytes = given.bytes.as_ptr().cast();
    // SAFETY: valid structs.
    check(unsafe { vipool_ip_from_sockaddr(bytes, given.length, &mut address, &mut port) })
        .unwrap();
    SocketAddr::new(ip(address).unwrap(), port)
}

fn session(raw: vipool_session) -> SessionId {
    SessionId::from_raw(raw).unwrap()
}

fn handle(given: &vipool_handle) -> Handle {
    Handle {
        session: session(given.session),
        pool: given.pool as u16,
        slot: given.slot,
        generation: given.generation,
        boot: given.boot,
    }
}

fn c_handle(given: &Handle) -> vipool_handle {
    vipool_handle {
        session: given.session.raw(),
        boot: given.boot,
        slot: given.slot,
        generation: given.generation,
        pool: given.pool.into(),
        reserved: 0,
    }
}

fn leases(array: &[vipool_lease], count: u32) -> Vec<Lease> {
    let lease = |lease: &vipool_lease| Lease {
        session: session(lease.session),
        pool: lease.pool as u16,
        slot: lease.slot,
        generation: lease.generation,
        address: ip(lease.address).unwrap(),
    };
    array[..count as usize].iter().map(lease).collect()
}

fn ports(ranges: &[PortRange]) -> Vec<vipool_ports> {
    ranges.iter().map(|range| vipool_ports { first: range.first, last: range.last }).collect()
}

fn text(pointer: *const c_char) -> String {
    // SAFETY: a static text of the library with a NUL.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}

/// Builds the plan by calls.
fn build(plan: &Plan) -> Result<*mut vipool_plan, Status> {
    let mut made = null_mut();
    // SAFETY: all structs and texts outlive the calls; the plan goes back when a call fails.
    unsafe {
        check(vipool_plan_new(&mut made))?;
        let filled = fill(made, plan);
        if filled.is_err() {
            vipool_plan_free(made);
        }
        filled.map(|()| made)
    }
}

/// # Safety
/// `made` is a plan.
unsafe fn fill(made: *mut vipool_plan, plan: &Plan) -> Result<(), Status> {
    for pool in &plan.pools {
        let ranges: Vec<_> = pool.blocks().iter().map(|(_, range)| c_range(range)).collect();
        let (name, kind) = (pool.name(), pool.kind() as u32);
        // SAFETY: everything given is valid during the call.
        check(unsafe {
            vipool_plan_add_pool(
                made,
                chars(name),
                name.len(),
                kind,
                ranges.as_ptr(),
                ranges.len(),
                pool.slots(),
            )
        })?;
    }
    for rule in &plan.policy.pool_rules {
        let kinds = [&rule.users, &rule.groups, &rule.programs];
        for (kind, names) in (1..).zip(kinds) {
            for name in names {
                let (pool, length) = (chars(&rule.pool), rule.pool.len());
                // SAFETY: as above.
                check(unsafe {
                    vipool_plan_add_pool_rule(made, pool, length, kind, chars(name), name.len())
                })?;
            }
        }
    }
    for reservation in &plan.reservations {
        let (user, address) = (&reservation.user, c_ip(reservation.address));
        // SAFETY: as above.
        check(unsafe { vipool_plan_add_reservation(made, chars(user), user.len(), &address) })?;
    }
    let mut settings = sized::<vipool_settings>();
    settings.cool_down = plan.settings.cool_down;
    settings.low_water = plan.settings.low_water;
    settings.sessions_per_user = plan.settings.sessions_per_user;
    settings.max_sessions = plan.settings.max_sessions;
    (settings.on_exhausted, settings.wait_seconds) = match plan.settings.on_exhausted {
        OnExhausted::Pass => (0, 0),
        OnExhausted::Refuse => (1, 0),
        OnExhausted::Wait(seconds) => (2, seconds),
    };
    settings.allocate = u32::from(plan.settings.allocate == Allocate::FirstUse);
    settings.flags = u32::from(plan.settings.check_in_use) * VIPOOL_SETTING_CHECK_IN_USE
        + u32::from(plan.settings.await_restore) * VIPOOL_SETTING_AWAIT_RESTORE;
    // SAFETY: as above.
    check(unsafe { vipool_plan_set_settings(made, &settings) })?;
    for rule in &plan.policy.programs {
        let (own, shared) = (ports(&rule.own_ports), ports(&rule.shared_ports));
        let mut program = sized::<vipool_program>();
        program.pattern = chars(&rule.pattern);
        program.pattern_length = rule.pattern.len();
        program.features = u32::from(rule.features.virtual_ip) * VIPOOL_FEATURE_VIRTUAL_IP
            + u32::from(rule.features.loopback) * VIPOOL_FEATURE_LOOPBACK
            + u32::from(rule.features.client_ip) * VIPOOL_FEATURE_CLIENT_IP;
        program.flags = u32::from(rule.inherit) * VIPOOL_PROGRAM_INHERIT
            + u32::from(rule.map_ephemeral) * VIPOOL_PROGRAM_MAP_EPHEMERAL
            + u32::from(rule.wildcard == Wildcard::Loopback) * VIPOOL_PROGRAM_WILDCARD_LOOPBACK
            + u32::from(rule.loopback_connect == LoopbackConnect::Own) * VIPOOL_PROGRAM_CONNECT_OWN;
        (program.own_ports, program.own_port_count) = (own.as_ptr(), own.len());
        (program.shared_ports, program.shared_port_count) = (shared.as_ptr(), shared.len());
        // SAFETY: as above.
        check(unsafe { vipool_plan_add_program(made, &program) })?;
    }
    let hosts: Vec<_> = plan.policy.host_addresses.iter().copied().map(c_ip).collect();
    let udp = ports(&plan.policy.wildcard_udp_ports);
    let mut rules = sized::<vipool_rules>();
    (rules.host_addresses, rules.host_address_count) = (hosts.as_ptr(), hosts.len());
    (rules.wildcard_udp_ports, rules.wildcard_udp_port_count) = (udp.as_ptr(), udp.len());
    rules.flags = u32::from(plan.policy.pass_when_missing) * VIPOOL_RULE_PASS_WHEN_MISSING
        + u32::from(plan.policy.hide_addresses) * VIPOOL_RULE_HIDE_ADDRESSES;
    // SAFETY: as above.
    check(unsafe { vipool_plan_set_rules(made, &rules) })
}

unsafe extern "C" fn has_sockets(context: *mut c_void, address: *const vipool_ip) -> u32 {
    // SAFETY: the context that was handed in, and an address of the library's.
    let (in_use, address) = unsafe { (&*context.cast::<Vec<IpAddr>>(), ip(*address).unwrap()) };
    in_use.contains(&address).into()
}

unsafe extern "C" fn is_alive(
    context: *mut c_void,
    id: vipool_session,
    _: *const vipool_leader,
) -> u32 {
    // SAFETY: the context that was handed in.
    unsafe { &*context.cast::<Vec<SessionId>>() }.contains(&session(id)).into()
}

unsafe extern "C" fn find_listener(
    context: *mut c_void,
    addresses: *const vipool_sockaddr,
    count: usize,
    _protocol: u32,
    _from: *const vipool_sockaddr,
) -> i32 {
    // SAFETY: the context that was handed in, and an array of the library's.
    let (listening, wanted) = unsafe {
        (&*context.cast::<Vec<SocketAddr>>(), std::slice::from_raw_parts(addresses, count))
    };
    let place = wanted.iter().position(|wanted| listening.contains(&socket_address(wanted)));
    place.map_or(VIPOOL_LISTENER_NONE, |place| place as i32)
}

unsafe extern "C" fn ask_other(context: *mut c_void, buffer: *mut c_void, capacity: u32) -> u32 {
    // SAFETY: the context that was handed in.
    let Some(other) = (unsafe { *context.cast::<Option<SocketAddr>>() }) else { return 0 };
    let made = c_sockaddr(other);
    assert!(capacity >= made.length);
    // SAFETY: there is room for it.
    unsafe { buffer.cast::<[u8; VIPOOL_SOCKADDR_MAX]>().write(made.bytes) };
    made.length
}

impl Api for C {
    fn new(plan: &Plan) -> Result<Self, Status> {
        let plan = build(plan)?;
        let (mut map, mut reader) = (null_mut(), null_mut());
        // SAFETY: a plan that goes back after the call, and places for the handles.
        unsafe {
            let made = vipool_map_in_memory(plan, null(), &mut map);
            vipool_plan_free(plan);
            check(made)?;
            check(vipool_map_reader(map, &mut reader))?;
        }
        Ok(Self { map, reader })
    }

    fn open(&self, id: SessionId, options: &OpenOptions, now: u32) -> Result<Opened, Status> {
        let mut given = sized::<vipool_open_options>();
        if let Some(user) = options.user {
            (given.user, given.user_length) = (chars(user), user.len());
        }
        if let Some(pool) = options.pool {
            (given.pool, given.pool_length) = (chars(pool), pool.len());
        }
        given.address = options.address.map(c_ip).unwrap_or_default();
        given.client = options.client.map(c_ip).unwrap_or_default();
        let mut opened = sized::<vipool_opened>();
        // SAFETY: valid structs.
        check(unsafe { vipool_map_open_session(self.map, id.raw(), &given, now, &mut opened) })?;
        Ok(Opened {
            handle: handle(&opened.handle),
            leases: leases(&opened.leases, opened.lease_count),
            already_open: opened.flags & VIPOOL_OPENED_ALREADY != 0,
            low_water: opened.flags & VIPOOL_OPENED_LOW_WATER != 0,
            shortage: opened.shortage,
        })
    }

    fn close(&self, handle: &Handle, now: u32) -> Result<Vec<Lease>, Status> {
        let mut closed = sized::<vipool_closed>();
        // SAFETY: valid structs.
        check(unsafe { vipool_map_close(self.map, &c_handle(handle), now, &mut closed) })?;
        Ok(leases(&closed.leases, closed.lease_count))
    }

    fn close_session(&self, id: SessionId, now: u32) -> Result<Vec<Lease>, Status> {
        let mut closed = sized::<vipool_closed>();
        // SAFETY: valid structs.
        check(unsafe { vipool_map_close_session(self.map, id.raw(), now, &mut closed) })?;
        Ok(leases(&closed.leases, closed.lease_count))
    }

    fn choose_pool(&self, user: &str, program: Option<&str>) -> Option<String> {
        let mut executable = sized::<vipool_executable>();
        let path = program.unwrap_or_default();
        (executable.path, executable.path_length) = (path.as_ptr().cast(), path.len());
        let program = if program.is_some() { &raw const executable } else { null() };
        let (mut buffer, mut length) = ([0; 64], 0);
        let (text, room) = (chars(user), buffer.as_mut_ptr());
        // SAFETY: valid texts, structs and buffers.
        let status = unsafe {
            vipool_map_choose_pool(self.map, text, user.len(), program, room, 64, &mut length)
        };
        match status {
            vipool_status::VIPOOL_ERR_NOT_FOUND => None,
            status => {
                check(status).unwrap();
                Some(owned(room, length))
            }
        }
    }

    fn drain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        let mut changed = sized::<vipool_changed>();
        // SAFETY: valid structs.
        check(unsafe { vipool_map_drain(self.map, &c_range(range), now, &mut changed) })?;
        Ok((changed.addresses, changed.held))
    }

    fn undrain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        let mut changed = sized::<vipool_changed>();
        // SAFETY: valid structs.
        check(unsafe { vipool_map_undrain(self.map, &c_range(range), now, &mut changed) })?;
        Ok((changed.addresses, changed.held))
    }

    fn drain_server(&self, draining: bool) -> Result<(), Status> {
        // SAFETY: a handle.
        check(unsafe { vipool_map_drain_server(self.map, draining.into()) })
    }

    fn reserve(&self, address: IpAddr, user: &str, now: u32) -> Result<(), Status> {
        let address = c_ip(address);
        // SAFETY: valid texts and structs.
        check(unsafe {
            vipool_map_reserve(self.map, &address, chars(user), user.len(), now, null_mut())
        })
    }

    fn unreserve(&self, address: IpAddr, now: u32) -> Result<(), Status> {
        // SAFETY: valid structs.
        check(unsafe { vipool_map_unreserve(self.map, &c_ip(address), now, null_mut()) })
    }

    fn restored(&self) -> Result<(), Status> {
        // SAFETY: a handle.
        check(unsafe { vipool_map_restored(self.map) })
    }

    fn recover(&self) -> Result<(), Status> {
        // SAFETY: a handle.
        check(unsafe { vipool_map_recover(self.map) })
    }

    fn reap(&self, now: u32, in_use: &[IpAddr]) -> Result<[usize; 3], Status> {
        let mut in_use = in_use.to_vec();
        let mut probe = sized::<vipool_probe>();
        probe.has_sockets = Some(has_sockets);
        probe.context = (&raw mut in_use).cast();
        let mut reaped = sized::<vipool_reaped>();
        // SAFETY: valid structs; the context outlives the call.
        check(unsafe { vipool_map_reap(self.map, now, 1000, &probe, &mut reaped) })?;
        Ok([reaped.freed as usize, reaped.lingering as usize, reaped.closed as usize])
    }

    fn reconcile(&self, now: u32, alive: &[SessionId]) -> Result<usize, Status> {
        let (mut alive, mut closed) = (alive.to_vec(), 0);
        let context = (&raw mut alive).cast();
        // SAFETY: the context outlives the call.
        check(unsafe {
            vipool_map_reconcile(self.map, now, Some(is_alive), context, &mut closed)
        })?;
        Ok(closed as usize)
    }

    fn find(&self, id: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let mut found = sized::<vipool_found>();
        // SAFETY: valid structs.
        check(unsafe { vipool_reader_find(self.reader, id.raw(), &mut found) })?;
        Ok((handle(&found.handle), leases(&found.leases, found.lease_count)))
    }

    fn addresses(&self, id: SessionId) -> Result<Addresses, Status> {
        let mut found = sized::<vipool_addresses>();
        // SAFETY: valid structs.
        check(unsafe { vipool_reader_addresses(self.reader, id.raw(), &mut found) })?;
        let v4 = |given| match ip(given) {
            Some(IpAddr::V4(v4)) => Some(v4),
            _ => None,
        };
        Ok(Addresses {
            v4: v4(found.v4),
            v6: match ip(found.v6) {
                Some(IpAddr::V6(v6)) => Some(v6),
                _ => None,
            },
            loopback: v4(found.loopback),
            loopback6: v4(found.loopback6),
        })
    }

    fn is_live(&self, handle: &Handle) -> bool {
        // SAFETY: valid structs.
        check(unsafe { vipool_reader_check(self.reader, &c_handle(handle)) }).is_ok()
    }

    fn kind_of(&self, address: IpAddr) -> Option<PoolKind> {
        let mut kind = 9;
        // SAFETY: valid structs.
        check(unsafe { vipool_reader_kind_of(self.reader, &c_ip(address), &mut kind) }).unwrap();
        match kind {
            0 => None,
            1 => Some(PoolKind::VirtualIp),
            2 => Some(PoolKind::Loopback),
            other => panic!("kind {other}"),
        }
    }

    fn settings(&self) -> Settings {
        let mut settings = sized::<vipool_settings>();
        // SAFETY: valid structs.
        check(unsafe { vipool_reader_settings(self.reader, &mut settings) }).unwrap();
        Settings {
            cool_down: settings.cool_down,
            check_in_use: settings.flags & VIPOOL_SETTING_CHECK_IN_USE != 0,
            low_water: settings.low_water,
            sessions_per_user: settings.sessions_per_user,
            max_sessions: settings.max_sessions,
            on_exhausted: match settings.on_exhausted {
                0 => OnExhausted::Pass,
                1 => OnExhausted::Refuse,
                _ => OnExhausted::Wait(settings.wait_seconds),
            },
            allocate: if settings.allocate == 0 { Allocate::Logon } else { Allocate::FirstUse },
            await_restore: settings.flags & VIPOOL_SETTING_AWAIT_RESTORE != 0,
        }
    }

    fn sessions(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut snapshot = null_mut();
        // SAFETY: valid structs; the texts are copied before the snapshot goes back.
        unsafe {
            check(vipool_map_snapshot(self.map, &mut snapshot)).unwrap();
            // Pages of two.
            let mut page = [sized::<vipool_session_row>(); 2];
            loop {
                let mut count = 0;
                let first = rows.len();
                let fetched =
                    vipool_snapshot_sessions(snapshot, first, page.as_mut_ptr(), 2, &mut count);
                check(fetched).unwrap();
                if count == 0 {
                    break;
                }
                rows.extend(page[..count].iter().map(|row| Row {
                    session: session(row.session),
                    handle: handle(&row.handle),
                    leases: leases(&row.leases, row.lease_count),
                    user: (!row.user.is_null()).then(|| owned(row.user, row.user_length)),
                    client: ip(row.client),
                }));
            }
            assert_eq!(vipool_snapshot_session_count(snapshot), rows.len());
            vipool_snapshot_free(snapshot);
        }
        rows
    }

    fn pools(&self) -> Vec<PoolStatus> {
        let mut snapshot = null_mut();
        let mut page = [sized::<vipool_pool_row>(); 16];
        let mut count = 0;
        // SAFETY: valid structs; the texts are copied before the snapshot goes back.
        unsafe {
            check(vipool_reader_snapshot(self.reader, &mut snapshot)).unwrap();
            check(vipool_snapshot_pools(snapshot, 0, page.as_mut_ptr(), 16, &mut count)).unwrap();
            assert_eq!(vipool_snapshot_pool_count(snapshot), count);
            let row = |row: &vipool_pool_row| PoolStatus {
                name: owned(row.name, row.name_length),
                loopback: row.kind == 2,
                ipv4: row.family == 4,
                slots: row.slots,
                free: row.free,
                used: row.used,
                cooling: row.cooling,
                lingering: row.lingering,
                reserved: row.reserved,
                drained: row.drained,
                peak: row.peak,
            };
            let pools = page[..count].iter().map(row).collect();
            vipool_snapshot_free(snapshot);
            pools
        }
    }

    fn slots(&self, pool: u16) -> Vec<SlotRow> {
        let mut page = [sized::<vipool_slot_row>(); 4];
        let mut count = 0;
        // SAFETY: valid structs.
        check(unsafe {
            vipool_reader_slots(self.reader, pool.into(), 1, page.as_mut_ptr(), 4, &mut count)
        })
        .unwrap();
        let row = |row: &vipool_slot_row| SlotRow {
            address: ip(row.address).unwrap(),
            state: match row.state {
                0 => SlotState::Free,
                1 => SlotState::Used,
                2 => SlotState::Cooling,
                _ => SlotState::Lingering,
            },
            reserved: row.flags & VIPOOL_SLOT_RESERVED != 0,
            drained: row.flags & VIPOOL_SLOT_DRAINED != 0,
        };
        page[..count].iter().map(row).collect()
    }

    fn is_draining(&self) -> bool {
        let mut draining = 9;
        // SAFETY: valid places.
        check(unsafe { vipool_reader_is_draining(self.reader, &mut draining) }).unwrap();
        draining == 1
    }

    fn parse_session(text: &str) -> Result<u64, Status> {
        let mut session = 0;
        // SAFETY: a valid text and place.
        check(unsafe { vipool_session_parse(chars(text), text.len(), &mut session) })?;
        Ok(session)
    }

    fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Status> {
        let mut range = vipool_range::default();
        // SAFETY: a valid text and place.
        check(unsafe { vipool_range_parse(chars(text), text.len(), &mut range) })?;
        Ok((ip(range.first).unwrap(), ip(range.last).unwrap()))
    }

    fn through_text(given: &Handle) -> Option<Handle> {
        let (mut buffer, mut length) = ([0; 72], 0);
        let mut parsed = vipool_handle::default();
        // SAFETY: valid buffers and structs.
        unsafe {
            let buffer = buffer.as_mut_ptr();
            check(vipool_handle_format(&c_handle(given), buffer, 72, &mut length)).ok()?;
            check(vipool_handle_parse(buffer, length, &mut parsed)).ok()?;
        }
        Some(handle(&parsed))
    }

    fn rule(&self, path: &str, windows: bool) -> Option<(u64, u32)> {
        // Windows has its paths in UTF-16.
        let wide: Vec<u16> = path.encode_utf16().collect();
        let mut executable = sized::<vipool_executable>();
        executable.style = windows.into();
        executable.encoding = windows.into();
        (executable.path, executable.path_length) = match windows {
            false => (path.as_ptr().cast(), path.len()),
            true => (wide.as_ptr().cast(), wide.len()),
        };
        let mut rule = sized::<vipool_rule>();
        // SAFETY: valid structs.
        match check(unsafe { vipool_reader_find_rule(self.reader, &executable, &mut rule) }) {
            Ok(()) => Some((rule.id, rule.features)),
            Err(status) => {
                assert_eq!(status, vipool_status::VIPOOL_ERR_NOT_FOUND as Status);
                None
            }
        }
    }

    fn rewrite(&self, handle: &Handle, rule: u64, listening: &[SocketAddr], call: Call) -> String {
        let mut listening = listening.to_vec();
        let mut options = sized::<vipool_rewriter_options>();
        options.handle = c_handle(handle);
        options.rule = rule;
        options.find_listener = Some(find_listener);
        options.context = (&raw mut listening).cast();
        let mut rewriter = null_mut();
        // SAFETY: valid structs; the context outlives the rewriter.
        unsafe {
            check(vipool_rewriter_new(self.reader, &options, &mut rewriter)).unwrap();
            let said = decide(rewriter, call);
            vipool_rewriter_free(rewriter);
            said
        }
    }
}

fn owned(text: *const c_char, length: usize) -> String {
    // SAFETY: a text of a snapshot that is still there.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast(), length) };
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn facts(socket: &SocketFacts, local: &Option<vipool_sockaddr>) -> vipool_socket {
    let mut facts = sized::<vipool_socket>();
    if let Some(local) = local {
        (facts.local, facts.local_length) = (local.bytes.as_ptr().cast(), local.length);
    }
    facts.protocol = match socket.protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
        Protocol::Other => 0,
    };
    facts.flags = u32::from(socket.v6only) * VIPOOL_SOCKET_V6ONLY
        + u32::from(socket.shares_port) * VIPOOL_SOCKET_SHARES_PORT;
    facts
}

/// # Safety
/// `rewriter` is one.
unsafe fn decide(rewriter: *const vipool_rewriter, call: Call) -> String {
    let mut outcome = sized::<vipool_outcome>();
    let mut yes = 9;
    let out = &raw mut outcome;
    // SAFETY: valid structs; what they point to outlives the calls.
    let status = unsafe {
        match call {
            Call::Bind(socket, address) => {
                let (local, address) = (socket.local.map(c_sockaddr), c_sockaddr(address));
                let (socket, bytes) = (facts(&socket, &local), address.bytes.as_ptr().cast());
                vipool_rewrite_bind(rewriter, &socket, bytes, address.length, out)
            }
            Call::Listen(socket) => {
                let local = socket.local.map(c_sockaddr);
                vipool_rewrite_listen(rewriter, &facts(&socket, &local), out)
            }
            Call::Connect(socket, to) => {
                let (local, to) = (socket.local.map(c_sockaddr), c_sockaddr(to));
                let (socket, bytes) = (facts(&socket, &local), to.bytes.as_ptr().cast());
                vipool_rewrite_connect(rewriter, &socket, bytes, to.length, out)
            }
            Call::Send(socket, to, fast) => {
                let (local, to) = (socket.local.map(c_sockaddr), c_sockaddr(to));
                let (socket, bytes) = (facts(&socket, &local), to.bytes.as_ptr().cast());
                vipool_rewrite_send(rewriter, &socket, bytes, to.length, fast.into(), out)
            }
            Call::SendSource(source, to) => {
                let to = to.map(c_sockaddr);
                let bytes = to.as_ref().map_or(null(), |to| to.bytes.as_ptr().cast());
                let length = to.map_or(0, |to| to.length);
                vipool_rewrite_send_source(rewriter, &c_ip(source), bytes, length, out)
            }
            Call::Shown(end, mut other) => {
                let (end, context) = (c_sockaddr(end), (&raw mut other).cast());
                let bytes = end.bytes.as_ptr().cast();
                vipool_rewrite_shown(rewriter, bytes, end.length, Some(ask_other), context, out)
            }
            Call::ShownIp(ip) => vipool_rewrite_shown_ip(rewriter, &c_ip(ip), out),
            Call::Multicast(to) => vipool_rewrite_multicast_interface(rewriter, &c_ip(to), out),
            Call::Hosts(client) => {
                let client = client.map(c_ip).unwrap_or_default();
                let mut hosts = sized::<vipool_host_addresses>();
                check(vipool_rewrite_host_addresses(rewriter, &client, &mut hosts)).unwrap();
                return match hosts.kind {
                    1 => format!("{:?} {:?}", ip(hosts.v4), ip(hosts.v6)),
                    _ => text(vipool_reason_name(hosts.code)),
                };
            }
            Call::IsOwn(ip) => vipool_rewrite_is_own_address(rewriter, &c_ip(ip), &mut yes),
            Call::Hides(ip) => vipool_rewrite_hides(rewriter, &c_ip(ip), &mut yes),
            Call::Retries(ip) => vipool_rewrite_retries(rewriter, &c_ip(ip), &mut yes),
        }
    };
    check(status).unwrap();
    match outcome.kind {
        0 => (yes == 1).to_string(),
        1 => {
            let mut said = socket_address(&outcome.address).to_string();
            if outcome.flags & VIPOOL_DO_CLEAR_V6ONLY != 0 {
                said += " v6only";
            }
            if outcome.flags & VIPOOL_DO_DEFER != 0 {
                said += " defer";
            }
            if outcome.flags & VIPOOL_DO_BIND_FIRST != 0 {
                said += &format!(" from {}", socket_address(&outcome.bind).ip());
                if outcome.flags & VIPOOL_DO_LATE_PORT != 0 {
                    said += " late";
                }
            }
            said
        }
        2 => text(vipool_reason_name(outcome.code)),
        _ => {
            assert_ne!(outcome.error, 0);
            text(vipool_refusal_name(outcome.code))
        }
    }
}
