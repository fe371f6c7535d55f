//! The suite's API through the functions of `include/vipool.h`, as a C program calls them.

#![allow(unsafe_code, reason = "this is what a C program does")]

mod build;
mod rewrite;
mod values;

use std::ffi::{CString, c_void};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::ptr::{null, null_mut};

use ipnet::IpNet;
use vipool::capi::address::*;
use vipool::capi::client::*;
use vipool::capi::explain::*;
use vipool::capi::farm::*;
use vipool::capi::farm_rules::*;
use vipool::capi::interface::*;
use vipool::capi::journal::*;
use vipool::capi::leader::*;
use vipool::capi::list::*;
use vipool::capi::machine::*;
use vipool::capi::map::*;
use vipool::capi::open::*;
use vipool::capi::plan::*;
use vipool::capi::program::*;
use vipool::capi::reader::*;
use vipool::capi::rewriter::*;
use vipool::capi::session::*;
use vipool::capi::snapshot::*;
use vipool::capi::status::vipool_status;
use vipool::capi::upkeep::*;
use vipool::capi::writer::*;
use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::{Leader, OpenOptions, Plan, PoolStatus, Settings, SlotRow, SlotState};
use vipool::policy::PortRange;
use vipool::pool::PoolKind;
use vipool::range::Range;
use vipool::session::{Addresses, Handle, Lease, SessionId};

use crate::api::{Api, Call, Entry, Opened, Row, Status, Step};
use rewrite::{decide, find_listener};
use values::*;

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

impl C {
    /// A map that a call makes, with a reader of it.
    fn made(make: impl FnOnce(*mut *mut vipool_map) -> vipool_status) -> Result<Self, Status> {
        let mut made = Self { map: null_mut(), reader: null_mut() };
        check(make(&mut made.map))?;
        // SAFETY: a map, and a place for the reader.
        check(unsafe { vipool_map_reader(made.map, &mut made.reader) })?;
        Ok(made)
    }
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

impl Api for C {
    fn new(plan: &Plan) -> Result<Self, Status> {
        let plan = build::plan(plan)?;
        // SAFETY: a plan that goes back after the call.
        Self::made(|map| unsafe {
            let made = vipool_map_in_memory(plan, null(), map);
            vipool_plan_free(plan);
            made
        })
    }

    fn followed(plan: &Plan) -> Result<Self, Status> {
        let plan = build::plan(plan)?;
        // SAFETY: a plan that goes back after the calls.
        Self::made(|map| unsafe {
            check(vipool_plan_follow_links(plan)).unwrap();
            let made = vipool_map_in_memory(plan, null(), map);
            vipool_plan_free(plan);
            made
        })
    }

    fn created(plan: &Plan, directory: &Path) -> Result<Self, Status> {
        let plan = build::plan(plan)?;
        let directory = directory.to_str().unwrap();
        // SAFETY: a plan that goes back after the call, and a text.
        Self::made(|map| unsafe {
            let (text, length) = (chars(directory), directory.len());
            let made = vipool_map_create(text, length, plan, null(), map);
            vipool_plan_free(plan);
            made
        })
    }

    fn copied(map: &[u8], sessions: &[u8]) -> Result<Self, Status> {
        let (bytes, length) = (map.as_ptr().cast(), map.len());
        let (private, count) = (sessions.as_ptr().cast(), sessions.len());
        // SAFETY: valid arrays.
        Self::made(|map| unsafe {
            vipool_map_from_bytes(bytes, length, private, count, null(), map)
        })
    }

    fn of_farm(
        farm: &Farm,
        host: &str,
        interfaces: Option<&[Interface]>,
    ) -> (Vec<(String, String)>, Result<Self, Status>) {
        let farm = build::farm(farm);
        let (mut plan, mut carried) = (null_mut(), null_mut());
        // SAFETY: valid handles, texts and structs; each handle goes back once.
        unsafe {
            build::with_interfaces(interfaces, |array, count| {
                let (text, length) = (chars(host), host.len());
                let planned =
                    vipool_farm_plan(farm, text, length, array, count, &mut carried, &mut plan);
                check(planned).unwrap();
            });
            let mut findings = Vec::new();
            for number in 0..vipool_farm_finding_count(farm) {
                let mut finding = sized::<vipool_finding>();
                check(vipool_farm_finding(farm, number, &mut finding)).unwrap();
                let key = owned(finding.key, finding.key_length);
                findings.push((key, owned(finding.code, finding.code_length)));
            }
            let map = Self::made(|map| vipool_map_in_memory(plan, null(), map));
            for number in 0..vipool_match_count(carried) {
                let mut assignment = sized::<vipool_assignment>();
                check(vipool_match_get(carried, number, &mut assignment)).unwrap();
                let name = owned(assignment.name, assignment.name_length);
                findings.push((name, assignment.index.to_string()));
            }
            vipool_match_free(carried);
            vipool_plan_free(plan);
            vipool_farm_free(farm);
            (findings, map)
        }
    }

    fn fixed_ports(farm: &Farm) -> Vec<PortRange> {
        let farm = build::farm(farm);
        let mut list = [vipool_ports::default(); 8];
        let mut count = 0;
        // SAFETY: a farm that goes back, and an array.
        unsafe {
            let small = vipool_farm_fixed_ports(farm, null_mut(), 0, &mut count);
            assert_eq!(small == vipool_status::VIPOOL_OK, count == 0);
            check(vipool_farm_fixed_ports(farm, list.as_mut_ptr(), 8, &mut count)).unwrap();
            vipool_farm_free(farm);
        }
        let range = |range: &vipool_ports| PortRange { first: range.first, last: range.last };
        list[..count].iter().map(range).collect()
    }

    fn alone(&mut self, steps: &[Step]) -> Vec<Result<Vec<Lease>, Status>> {
        let mut writer = null_mut();
        // SAFETY: nothing else uses the map before the writer goes back.
        check(unsafe { vipool_writer_new(self.map, &mut writer) }).unwrap();
        let done = steps
            .iter()
            .map(|step| {
                let mut closed = sized::<vipool_closed>();
                // SAFETY: valid structs and texts.
                unsafe {
                    match step {
                        Step::Open(id, user) => {
                            let mut opened = sized::<vipool_opened>();
                            let mut given = sized::<vipool_open_options>();
                            (given.user, given.user_length) = (chars(user), user.len());
                            let out = &raw mut opened;
                            check(vipool_writer_open_session(writer, id.raw(), &given, 100, out))?;
                            return Ok(leases(&opened.leases, opened.lease_count));
                        }
                        Step::Close(id) => {
                            let out = &raw mut closed;
                            check(vipool_writer_close_session(writer, id.raw(), 100, out))?;
                        }
                        Step::CloseHandle(handle) => {
                            let handle = c_handle(handle);
                            check(vipool_writer_close(writer, &handle, 100, &mut closed))?;
                        }
                    }
                }
                Ok(leases(&closed.leases, closed.lease_count))
            })
            .collect();
        // SAFETY: it goes back once.
        unsafe { vipool_writer_free(writer) };
        done
    }

    fn journal(directory: &Path, first: u64) -> Result<(Vec<Entry>, u64, u64), Status> {
        let directory = directory.to_str().unwrap();
        let mut journal = null_mut();
        let (mut entries, mut lost, mut next) = (Vec::new(), 0, first);
        // SAFETY: valid texts and structs; the journal goes back once.
        unsafe {
            check(vipool_journal_open(chars(directory), directory.len(), &mut journal))?;
            // Pages of two.
            let mut page = [sized::<vipool_journal_row>(); 2];
            let mut count = 1;
            while count > 0 {
                let (mut more, rows) = (0, page.as_mut_ptr());
                let from = next;
                let status =
                    vipool_journal_since(journal, from, rows, 2, &mut count, &mut more, &mut next);
                check(status).unwrap();
                lost += more;
                entries.extend(page[..count].iter().map(|row| {
                    Entry {
                        number: row.number,
                        at: row.at,
                        kind: row.kind,
                        session: session(row.session),
                        address: ip(row.address),
                        generation: row.generation,
                        user: (row.user_length > 0)
                            .then(|| owned(row.user.as_ptr(), row.user_length as usize)),
                        client: ip(row.client),
                    }
                }));
            }
            vipool_journal_free(journal);
        }
        Ok((entries, lost, next))
    }

    fn tell_client(directory: &Path, handle: &Handle, client: IpAddr) -> Result<(), Status> {
        let directory = directory.to_str().unwrap();
        let (text, length) = (chars(directory), directory.len());
        // SAFETY: valid texts and structs.
        check(unsafe {
            vipool_client_write(text, length, &c_handle(handle), &c_ip(client), null(), 0)
        })
    }

    fn client(directory: &Path, handle: &Handle) -> Option<IpAddr> {
        let directory = directory.to_str().unwrap();
        let (text, length) = (chars(directory), directory.len());
        let mut client = vipool_ip::default();
        // SAFETY: valid texts and structs.
        check(unsafe { vipool_client_read(text, length, &c_handle(handle), &mut client) }).ok()?;
        ip(client)
    }

    fn forget_client(directory: &Path, handle: &Handle) -> Result<(), Status> {
        let directory = directory.to_str().unwrap();
        // SAFETY: valid texts and structs.
        check(unsafe { vipool_client_remove(chars(directory), directory.len(), &c_handle(handle)) })
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

    fn reap_by_system(&self, now: u32) -> Result<[usize; 3], Status> {
        let mut reaped = sized::<vipool_reaped>();
        // SAFETY: valid structs.
        check(unsafe { vipool_map_reap(self.map, now, 1000, null(), &mut reaped) })?;
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

    fn find_in_map(&self, id: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let mut found = sized::<vipool_found>();
        // SAFETY: valid structs.
        check(unsafe { vipool_map_find(self.map, id.raw(), &mut found) })?;
        Ok((handle(&found.handle), leases(&found.leases, found.lease_count)))
    }

    fn leases_of(&self, handle: &Handle) -> Option<Vec<Lease>> {
        let mut found = sized::<vipool_found>();
        // SAFETY: valid structs.
        unsafe {
            check(vipool_reader_leases_of(self.reader, &c_handle(handle), &mut found)).ok()?;
        }
        assert_eq!(self::handle(&found.handle), *handle);
        Some(leases(&found.leases, found.lease_count))
    }

    fn boot(&self) -> u64 {
        let mut boot = 0;
        // SAFETY: valid places.
        check(unsafe { vipool_reader_boot(self.reader, &mut boot) }).unwrap();
        boot
    }

    fn session_of(&self, pid: u32) -> Option<(SessionId, u32)> {
        let mut found = sized::<vipool_found>();
        let mut by = 0;
        // SAFETY: valid structs.
        unsafe {
            check(vipool_reader_lease_of_process(self.reader, pid, &mut found, &mut by)).ok()?;
        }
        Some((session(found.handle.session), by))
    }

    fn parents_rule(&self) -> Option<(u64, u32)> {
        let mut rule = sized::<vipool_rule>();
        let mut parent = 0;
        // SAFETY: valid structs.
        unsafe {
            check(vipool_reader_parents_rule(self.reader, 0, &mut rule, &mut parent)).ok()?;
        }
        assert_eq!(rule.matched_by, vipool_matched_by::VIPOOL_MATCHED_INHERITED as u32);
        Some((rule.id, parent))
    }

    fn explain(&self, path: &str) -> Vec<(u64, String, String)> {
        let mut executable = sized::<vipool_executable>();
        (executable.path, executable.path_length) = (path.as_ptr().cast(), path.len());
        let (mut rows, mut page) = (Vec::new(), [sized::<vipool_verdict_row>(); 2]);
        loop {
            let (mut count, first) = (0, rows.len());
            // SAFETY: valid structs and texts.
            unsafe {
                let out = page.as_mut_ptr();
                let explained =
                    vipool_reader_explain(self.reader, &executable, first, out, 2, &mut count);
                check(explained).unwrap();
            }
            if count == 0 {
                return rows;
            }
            rows.extend(page[..count].iter().map(|row| {
                let matches = row.verdict == vipool_verdict::VIPOOL_VERDICT_MATCHES as u32;
                assert_eq!(matches, row.matched_by != 0);
                let text = owned(row.text, row.text_length);
                (row.id, owned(row.pattern, row.pattern_length), text)
            }));
        }
    }

    fn rule_flags(&self) -> [bool; 3] {
        let mut flags = 0;
        // SAFETY: valid places.
        check(unsafe { vipool_reader_rule_flags(self.reader, &mut flags) }).unwrap();
        [VIPOOL_RULE_PASS_WHEN_MISSING, VIPOOL_RULE_HIDE_ADDRESSES, VIPOOL_RULE_SESSION_OVERRIDE]
            .map(|flag| flags & flag != 0)
    }

    fn script_of(arguments: &[&str]) -> Option<String> {
        let texts: Vec<_> = arguments.iter().map(|text| CString::new(*text).unwrap()).collect();
        let pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        let mut script = null();
        // SAFETY: texts with a NUL each, and a place.
        check(unsafe { vipool_script_of(pointers.as_ptr(), pointers.len(), &mut script) }).ok()?;
        Some(text(script))
    }

    fn interfaces() -> Vec<Interface> {
        let (mut list, mut array, mut count) = (null_mut(), null(), 0);
        // SAFETY: valid places; all is copied before the list goes back.
        unsafe {
            check(vipool_interface_list_new(&mut list)).unwrap();
            check(vipool_interface_list_get(list, &mut array, &mut count)).unwrap();
            let interfaces = (0..count).map(|place| &*array.add(place));
            let interfaces = interfaces.map(|given| Interface {
                index: given.index,
                name: owned(given.name, given.name_length),
                addresses: std::slice::from_raw_parts(given.addresses, given.address_count)
                    .iter()
                    .map(|subnet| {
                        let address = ip(subnet.address).unwrap();
                        IpNet::new(address, subnet.prefix_length as u8).unwrap()
                    })
                    .collect(),
            });
            let interfaces = interfaces.collect();
            vipool_interface_list_free(list);
            interfaces
        }
    }

    fn map_directory() -> String {
        let (mut buffer, mut length) = ([0; 64], 0);
        // SAFETY: a buffer of this size.
        unsafe {
            check(vipool_map_directory(buffer.as_mut_ptr(), 64, &mut length)).unwrap();
            owned(buffer.as_ptr(), length)
        }
    }

    fn leader_of(pid: u32) -> Result<Leader, Status> {
        let mut leader = vipool_leader::default();
        // SAFETY: a valid place.
        check(unsafe { vipool_leader_of(pid, &mut leader) })?;
        let vipool_leader { pid, start_time, pid_namespace, .. } = leader;
        Ok(Leader { pid, start_time, pid_namespace })
    }

    fn range_text(range: &Range) -> String {
        let (mut buffer, mut length) = ([0; 92], 0);
        // SAFETY: a buffer of this size.
        unsafe {
            let out = buffer.as_mut_ptr();
            check(vipool_range_format(&c_range(range), out, 92, &mut length)).unwrap();
            owned(buffer.as_ptr(), length)
        }
    }

    fn intersection(range: &Range, other: &Range) -> Option<(IpAddr, IpAddr)> {
        let mut both = vipool_range::default();
        let (range, other) = (c_range(range), c_range(other));
        // SAFETY: valid structs.
        match check(unsafe { vipool_range_intersection(&range, &other, &mut both) }) {
            Ok(()) => Some((ip(both.first).unwrap(), ip(both.last).unwrap())),
            Err(status) => {
                assert_eq!(status, vipool_status::VIPOOL_ERR_NOT_FOUND as Status);
                None
            }
        }
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
        let (mut of_reader, mut of_map) = (sized(), sized());
        // SAFETY: valid structs.
        unsafe {
            check(vipool_reader_settings(self.reader, &mut of_reader)).unwrap();
            check(vipool_map_settings(self.map, &mut of_map)).unwrap();
        }
        assert_eq!(of_reader, of_map);
        settings(&of_reader)
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
