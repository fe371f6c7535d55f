//! Implements the API of the suite with the functions of `include/vipool.h`.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

pub mod build;
mod machine;
mod reads;
mod rewrite;
mod structs;
pub mod values;

use std::ffi::c_void;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::ptr::{null, null_mut};

use vipool::capi::address::*;
use vipool::capi::executable::*;
use vipool::capi::farm::*;
use vipool::capi::leader::*;
use vipool::capi::maintenance::*;
use vipool::capi::map::*;
use vipool::capi::map_session::*;
use vipool::capi::plan::*;
use vipool::capi::reader::*;
use vipool::capi::rewriter::*;
use vipool::capi::session::*;
use vipool::capi::status::vipool_status;
use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::{OpenOptions, Plan};
use vipool::range::Range;
use vipool::session::{Handle, Lease, SessionId};

use crate::api::{Api, Call, OpenedSession, Status, WriterOperation};
use rewrite::{call_rewriter, find_listener};
use values::*;

pub struct CApi {
    map: *mut vipool_map,
    reader: *mut vipool_reader,
}

// SAFETY: the header allows threads to share both handles, except a map with
// VIPOOL_MAP_SINGLE_THREADED. Only one thread uses such a map in these tests.
unsafe impl Sync for CApi {}
// SAFETY: the header does not bind a handle to the thread that created it.
unsafe impl Send for CApi {}

impl Drop for CApi {
    fn drop(&mut self) {
        // SAFETY: each handle is NULL or comes from the library, and it is closed once.
        unsafe {
            vipool_reader_close(self.reader);
            vipool_map_close(self.map);
        }
    }
}

impl CApi {
    /// Calls `create` to create a map, and opens a reader of the map.
    fn from_map(
        create: impl FnOnce(*mut *mut vipool_map) -> vipool_status,
    ) -> Result<Self, Status> {
        let mut api = Self { map: null_mut(), reader: null_mut() };
        check(create(&mut api.map))?;
        // SAFETY: the map and the output pointer are valid.
        check(unsafe { vipool_reader_open_map(api.map, &mut api.reader) })?;
        Ok(api)
    }
}

unsafe extern "C" fn has_sockets(context: *mut c_void, address: *const vipool_ip) -> u32 {
    // SAFETY: `context` is the list that `CApi::reap` passed. The library passes a valid address.
    let (addresses_in_use, address) =
        unsafe { (&*context.cast::<Vec<IpAddr>>(), ip(*address).unwrap()) };
    addresses_in_use.contains(&address).into()
}

unsafe extern "C" fn is_alive(
    context: *mut c_void,
    id: vipool_session,
    _: *const vipool_leader,
) -> u32 {
    // SAFETY: `context` is the list that `CApi::reconcile` passed.
    unsafe { &*context.cast::<Vec<SessionId>>() }.contains(&session_id(id)).into()
}

impl Api for CApi {
    fn new(plan: &Plan) -> Result<Self, Status> {
        let plan = build::plan(plan, 0)?;
        // SAFETY: the plan is valid and is freed after the call.
        Self::from_map(|map| unsafe {
            let status = vipool_map_create_in_memory(plan, null(), map);
            vipool_plan_free(plan);
            status
        })
    }

    fn with_followed_links(plan: &Plan) -> Result<Self, Status> {
        let plan = build::plan(plan, VIPOOL_PLAN_FOLLOW_LINKS)?;
        // SAFETY: the plan is valid and is freed after the call.
        Self::from_map(|map| unsafe {
            let status = vipool_map_create_in_memory(plan, null(), map);
            vipool_plan_free(plan);
            status
        })
    }

    fn create_in_files(plan: &Plan, directory: &Path) -> Result<Self, Status> {
        let plan = build::plan(plan, 0)?;
        let directory = directory.to_str().unwrap();
        // SAFETY: the text is valid, and the plan is freed after the call.
        Self::from_map(|map| unsafe {
            let (text, length) = (c_chars(directory), directory.len());
            let status = vipool_map_create(text, length, plan, null(), map);
            vipool_plan_free(plan);
            status
        })
    }

    fn open_bytes(map: &[u8], sessions: &[u8]) -> Result<Self, Status> {
        let (bytes, length) = (map.as_ptr().cast(), map.len());
        let (session_bytes, session_length) = (sessions.as_ptr().cast(), sessions.len());
        // SAFETY: the arrays are valid.
        Self::from_map(|map| unsafe {
            vipool_map_open_bytes(bytes, length, session_bytes, session_length, null(), map)
        })
    }

    fn from_farm(
        farm: &Farm,
        host: &str,
        interfaces: Option<&[Interface]>,
    ) -> (Vec<(String, String)>, Result<Self, Status>) {
        let farm = build::farm(farm);
        let mut findings = Vec::new();
        let (mut count, mut total) = (1, 0);
        // SAFETY: the handles, texts and structs are valid. Each handle is freed once.
        unsafe {
            let plan = build::new_plan(farm, host, interfaces, 0);
            // Read one row per page to test paging.
            while count > 0 {
                let (mut finding, level) = (sized::<vipool_finding>(), 1);
                let (first_row, row) = (findings.len(), &raw mut finding);
                check(vipool_farm_list_findings(
                    farm, level, first_row, row, 1, &mut count, &mut total,
                ))
                .unwrap();
                if count > 0 {
                    let key = copy_text(finding.key, finding.key_length);
                    findings.push((key, copy_text(finding.code, finding.code_length)));
                }
            }
            assert_eq!(findings.len(), total);
            let plan = match plan {
                Ok(plan) => plan,
                Err(status) => {
                    vipool_farm_free(farm);
                    return (findings, Err(status));
                }
            };
            let map = Self::from_map(|map| vipool_map_create_in_memory(plan, null(), map));
            let mut page = [sized::<vipool_assignment>(); 4];
            let rows = page.as_mut_ptr();
            check(vipool_plan_list_assignments(plan, 0, rows, 4, &mut count, &mut total)).unwrap();
            assert_eq!(count, total);
            for assignment in &page[..count] {
                let name = copy_text(assignment.name, assignment.name_length);
                findings.push((name, assignment.index.to_string()));
            }
            vipool_plan_free(plan);
            vipool_farm_free(farm);
            (findings, map)
        }
    }

    fn new_exclusive(plan: &Plan, directory: Option<&Path>) -> Result<Self, Status> {
        let plan = build::plan(plan, 0)?;
        let mut options = sized::<vipool_map_options>();
        options.flags = VIPOOL_MAP_SINGLE_THREADED;
        // SAFETY: the text and the struct are valid, and the plan is freed after the call.
        Self::from_map(|map| unsafe {
            let status = match directory.map(|directory| directory.to_str().unwrap()) {
                Some(text) => vipool_map_create(c_chars(text), text.len(), plan, &options, map),
                None => vipool_map_create_in_memory(plan, &options, map),
            };
            vipool_plan_free(plan);
            status
        })
    }

    fn run_exclusive(&mut self, operations: &[WriterOperation]) -> Vec<Result<Vec<Lease>, Status>> {
        let run = |operation: &WriterOperation| match operation {
            WriterOperation::Open(id, user) => {
                let options = OpenOptions::new().with_user(*user);
                self.open(*id, &options, 100).map(|opened| opened.leases)
            }
            WriterOperation::Close(id) => self.close_session(*id, 100),
            WriterOperation::CloseByHandle(handle) => self.close(handle, 100),
        };
        operations.iter().map(run).collect()
    }

    fn open(
        &self,
        id: SessionId,
        options: &OpenOptions,
        now: u32,
    ) -> Result<OpenedSession, Status> {
        let mut c_options = sized::<vipool_open_options>();
        if let Some(user) = options.user {
            (c_options.user, c_options.user_length) = (c_chars(user), user.len());
        }
        if let Some(pool) = options.pool {
            (c_options.pool, c_options.pool_length) = (c_chars(pool), pool.len());
        }
        c_options.address = options.address.map(c_ip).unwrap_or_default();
        c_options.client = options.client.map(c_ip).unwrap_or_default();
        let mut opened = sized::<vipool_opened_session>();
        // SAFETY: the structs are valid.
        check(unsafe {
            vipool_map_open_session(self.map, id.raw(), &c_options, now, &mut opened)
        })?;
        Ok(OpenedSession {
            handle: handle(&opened.handle),
            leases: leases(&opened.leases, opened.lease_count),
            was_already_open: opened.flags & VIPOOL_OPENED_ALREADY != 0,
            is_low_water: opened.flags & VIPOOL_OPENED_LOW_WATER != 0,
            shortage: opened.shortage,
            shortage_pool: opened.shortage_pool as u16,
        })
    }

    fn close(&self, handle: &Handle, now: u32) -> Result<Vec<Lease>, Status> {
        let mut closed = sized::<vipool_closed_session>();
        // SAFETY: the structs are valid.
        check(unsafe {
            vipool_map_close_by_handle(self.map, &c_handle(handle), now, &mut closed)
        })?;
        Ok(leases(&closed.leases, closed.lease_count))
    }

    fn close_session(&self, id: SessionId, now: u32) -> Result<Vec<Lease>, Status> {
        let mut closed = sized::<vipool_closed_session>();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_map_close_session(self.map, id.raw(), now, &mut closed) })?;
        Ok(leases(&closed.leases, closed.lease_count))
    }

    fn choose_pool(&self, user: &str, program: Option<&str>) -> Result<Option<String>, Status> {
        let mut executable = sized::<vipool_executable>();
        let path = program.unwrap_or_default();
        (executable.path, executable.path_length) = (path.as_ptr().cast(), path.len());
        let program = if program.is_some() { &raw const executable } else { null() };
        let (mut buffer, mut length) = ([0; 64], 0);
        let (user_text, output) = (c_chars(user), buffer.as_mut_ptr());
        let mut choose = |output, capacity| {
            // SAFETY: the texts, structs and buffers are valid.
            unsafe {
                let user_length = user.len();
                vipool_map_choose_pool(
                    self.map,
                    user_text,
                    user_length,
                    program,
                    output,
                    capacity,
                    &mut length,
                )
            }
        };
        let (size_status, status) = (choose(null_mut(), 0), choose(output, 64));
        match status {
            vipool_status::VIPOOL_ERR_NOT_FOUND => Ok(None),
            status => {
                check(status)?;
                assert_eq!(size_status, vipool_status::VIPOOL_ERR_BUFFER);
                Ok(Some(copy_text(output, length)))
            }
        }
    }

    fn drain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        let mut change = sized::<vipool_admin_change>();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_map_drain(self.map, &c_range(range), now, &mut change) })?;
        Ok((change.addresses, change.held))
    }

    fn undrain(&self, range: &Range, now: u32) -> Result<(u32, u32), Status> {
        let mut change = sized::<vipool_admin_change>();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_map_undrain(self.map, &c_range(range), now, &mut change) })?;
        Ok((change.addresses, change.held))
    }

    fn set_draining(&self, is_draining: bool) -> Result<(), Status> {
        // SAFETY: the handle is valid.
        check(unsafe { vipool_map_set_draining(self.map, is_draining.into()) })
    }

    fn reserve(&self, address: IpAddr, user: &str, now: u32) -> Result<(), Status> {
        let address = c_ip(address);
        // SAFETY: the texts and structs are valid.
        check(unsafe {
            vipool_map_reserve(self.map, &address, c_chars(user), user.len(), now, null_mut())
        })
    }

    fn unreserve(&self, address: IpAddr, now: u32) -> Result<(), Status> {
        // SAFETY: the structs are valid.
        check(unsafe { vipool_map_unreserve(self.map, &c_ip(address), now, null_mut()) })
    }

    fn mark_restored(&self) -> Result<(), Status> {
        // SAFETY: the handle is valid.
        check(unsafe { vipool_map_mark_restored(self.map) })
    }

    fn recover(&self) -> Result<(), Status> {
        // SAFETY: the handle is valid.
        check(unsafe { vipool_map_recover(self.map) })
    }

    fn reap(&self, now: u32, addresses_in_use: &[IpAddr]) -> Result<[usize; 3], Status> {
        let mut addresses_in_use = addresses_in_use.to_vec();
        let mut probe = sized::<vipool_probe>();
        probe.has_sockets = Some(has_sockets);
        probe.context = (&raw mut addresses_in_use).cast();
        let mut report = sized::<vipool_reap_report>();
        // SAFETY: the structs are valid. The context outlives the call.
        check(unsafe { vipool_map_reap(self.map, now, 1000, &probe, &mut report) })?;
        Ok([report.freed as usize, report.lingering as usize, report.closed as usize])
    }

    fn reap_by_system(&self, now: u32) -> Result<[usize; 3], Status> {
        let mut report = sized::<vipool_reap_report>();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_map_reap(self.map, now, 1000, null(), &mut report) })?;
        Ok([report.freed as usize, report.lingering as usize, report.closed as usize])
    }

    fn reconcile(&self, now: u32, live_sessions: &[SessionId]) -> Result<usize, Status> {
        let (mut live_sessions, mut closed_count) = (live_sessions.to_vec(), 0);
        let context = (&raw mut live_sessions).cast();
        // SAFETY: the context outlives the call.
        check(unsafe {
            vipool_map_reconcile(self.map, now, Some(is_alive), context, &mut closed_count)
        })?;
        Ok(closed_count as usize)
    }

    fn rewrite(&self, handle: &Handle, rule: u64, listening: &[SocketAddr], call: Call) -> String {
        let mut listening = listening.to_vec();
        let mut options = sized::<vipool_rewriter_options>();
        options.handle = c_handle(handle);
        options.rule = rule;
        options.find_listener = Some(find_listener);
        options.context = (&raw mut listening).cast();
        let mut rewriter = null_mut();
        // SAFETY: the structs are valid. The context outlives the rewriter.
        unsafe {
            check(vipool_rewriter_new(self.reader, &options, &mut rewriter)).unwrap();
            let description = call_rewriter(rewriter, call);
            vipool_rewriter_free(rewriter);
            description
        }
    }
}
