//! Implements the operations that read a map.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

use std::net::IpAddr;
use std::ptr::null_mut;

use vipool::capi::executable::*;
use vipool::capi::process::*;
use vipool::capi::reader::*;
use vipool::capi::rule::*;
use vipool::capi::session::*;
use vipool::capi::snapshot::*;
use vipool::capi::status::vipool_status;
use vipool::map::{PoolStatus, Settings, SlotRow, SlotState};
use vipool::pool::PoolKind;
use vipool::session::{Addresses, Handle, Lease, SessionId};

use super::CApi;
use super::values::*;
use crate::api::{Reads, SessionRow, Status};

impl CApi {
    /// Returns the properties of the map.
    fn info(&self) -> vipool_map_info {
        let mut info = sized();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_reader_get_info(self.reader, &mut info) }).unwrap();
        info
    }
}

impl Reads for CApi {
    fn find(&self, id: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        let mut found_session = sized::<vipool_found_session>();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_reader_find_session(self.reader, id.raw(), &mut found_session) })?;
        Ok((
            handle(&found_session.handle),
            leases(&found_session.leases, found_session.lease_count),
        ))
    }

    fn find_in_map(&self, id: SessionId) -> Result<(Handle, Vec<Lease>), Status> {
        // The C ABI finds sessions only through a reader, so open a new reader of the map.
        let mut reader = null_mut();
        let mut found_session = sized::<vipool_found_session>();
        // SAFETY: the structs are valid. The reader is closed once.
        let status = unsafe {
            check(vipool_reader_open_map(self.map, &mut reader))?;
            let status = vipool_reader_find_session(reader, id.raw(), &mut found_session);
            vipool_reader_close(reader);
            status
        };
        check(status)?;
        Ok((
            handle(&found_session.handle),
            leases(&found_session.leases, found_session.lease_count),
        ))
    }

    fn find_by_handle(&self, handle: &Handle) -> Option<Vec<Lease>> {
        let mut found_session = sized::<vipool_found_session>();
        // SAFETY: the structs are valid.
        unsafe {
            check(vipool_reader_find_by_handle(self.reader, &c_handle(handle), &mut found_session))
                .ok()?;
        }
        assert_eq!(self::handle(&found_session.handle), *handle);
        Some(leases(&found_session.leases, found_session.lease_count))
    }

    fn boot(&self) -> u64 {
        self.info().boot
    }

    fn process_session(&self, pid: u32) -> Option<(SessionId, u32)> {
        let mut found_session = sized::<vipool_found_session>();
        let mut found_by = 0;
        // SAFETY: the structs are valid.
        unsafe {
            check(vipool_reader_find_by_process(
                self.reader,
                pid,
                &mut found_session,
                &mut found_by,
            ))
            .ok()?;
        }
        Some((session_id(found_session.handle.session), found_by))
    }

    fn parent_rule(&self) -> Option<(u64, u32)> {
        let mut rule = sized::<vipool_rule>();
        let mut ancestor_pid = 0;
        // SAFETY: the structs are valid.
        unsafe {
            check(vipool_reader_find_parent_rule(self.reader, 0, &mut rule, &mut ancestor_pid))
                .ok()?;
        }
        assert_eq!(rule.matched_by, vipool_matched_by::VIPOOL_MATCHED_INHERITED as u32);
        Some((rule.id, ancestor_pid))
    }

    fn match_results(&self, path: &str) -> Vec<(u64, String, String)> {
        let mut executable = sized::<vipool_executable>();
        (executable.path, executable.path_length) = (path.as_ptr().cast(), path.len());
        let (mut rows, mut page) = (Vec::new(), [sized::<vipool_match_row>(); 2]);
        loop {
            let (mut count, first_row) = (0, rows.len());
            // SAFETY: the structs and texts are valid.
            unsafe {
                let out = page.as_mut_ptr();
                let status = vipool_reader_list_matches(
                    self.reader,
                    &executable,
                    first_row,
                    out,
                    2,
                    &mut count,
                    null_mut(),
                );
                check(status).unwrap();
            }
            if count == 0 {
                return rows;
            }
            rows.extend(page[..count].iter().map(|row| {
                let is_match = row.result == vipool_match_result::VIPOOL_MATCH_MATCHED as u32;
                assert_eq!(is_match, row.matched_by != 0);
                let text = copy_text(row.text, row.text_length);
                (row.id, copy_text(row.pattern, row.pattern_length), text)
            }));
        }
    }

    fn rewrite_flags(&self) -> u32 {
        self.info().rewrite_flags
    }

    fn addresses(&self, id: SessionId) -> Result<Addresses, Status> {
        let mut c_addresses = sized::<vipool_addresses>();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_reader_get_addresses(self.reader, id.raw(), &mut c_addresses) })?;
        let ipv4 = |address| match ip(address) {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        Ok(Addresses {
            v4: ipv4(c_addresses.v4),
            v6: match ip(c_addresses.v6) {
                Some(IpAddr::V6(address)) => Some(address),
                _ => None,
            },
            loopback: ipv4(c_addresses.loopback),
            loopback6: ipv4(c_addresses.loopback6),
        })
    }

    fn is_live(&self, handle: &Handle) -> bool {
        // SAFETY: the structs are valid.
        check(unsafe { vipool_reader_check_handle(self.reader, &c_handle(handle)) }).is_ok()
    }

    fn pool_kind(&self, address: IpAddr) -> Option<PoolKind> {
        let mut kind = 9;
        // SAFETY: the structs are valid.
        check(unsafe { vipool_reader_get_address_kind(self.reader, &c_ip(address), &mut kind) })
            .unwrap();
        match kind {
            0 => None,
            1 => Some(PoolKind::VirtualIp),
            2 => Some(PoolKind::Loopback),
            unknown_kind => panic!("kind {unknown_kind}"),
        }
    }

    fn settings(&self) -> Settings {
        let mut c_settings = sized();
        // SAFETY: the structs are valid.
        check(unsafe { vipool_reader_get_settings(self.reader, &mut c_settings) }).unwrap();
        settings(&c_settings)
    }

    fn sessions(&self) -> Vec<SessionRow> {
        let mut rows = Vec::new();
        let mut snapshot = null_mut();
        // SAFETY: the structs are valid. The texts are copied before the snapshot is freed.
        unsafe {
            check(vipool_snapshot_new(self.map, &mut snapshot)).unwrap();
            // Read two rows per page to test paging.
            let mut page = [sized::<vipool_session_row>(); 2];
            loop {
                let (mut count, mut total) = (0, 0);
                let (first_row, out) = (rows.len(), page.as_mut_ptr());
                check(vipool_snapshot_list_sessions(
                    snapshot, first_row, out, 2, &mut count, &mut total,
                ))
                .unwrap();
                if count == 0 {
                    assert_eq!(total, rows.len());
                    break;
                }
                rows.extend(page[..count].iter().map(|row| SessionRow {
                    session: session_id(row.session),
                    handle: handle(&row.handle),
                    leases: leases(&row.leases, row.lease_count),
                    user: (!row.user.is_null()).then(|| copy_text(row.user, row.user_length)),
                    client: ip(row.client),
                }));
            }
            vipool_snapshot_free(snapshot);
        }
        rows
    }

    fn pools(&self) -> Vec<PoolStatus> {
        let mut snapshot = null_mut();
        let mut page = [sized::<vipool_pool_row>(); 16];
        let mut count = 0;
        // SAFETY: the structs are valid. The texts are copied before the snapshot is freed.
        unsafe {
            check(vipool_snapshot_new_from_reader(self.reader, &mut snapshot)).unwrap();
            let (out, mut total) = (page.as_mut_ptr(), 0);
            check(vipool_snapshot_list_pools(snapshot, 0, out, 16, &mut count, &mut total))
                .unwrap();
            assert_eq!(total, count);
            let to_status = |row: &vipool_pool_row| {
                let mut status = PoolStatus::default();
                status.name = copy_text(row.name, row.name_length);
                status.loopback = row.kind == 2;
                status.ipv4 = row.family == 4;
                status.slots = row.slots;
                status.free = row.free;
                status.leased = row.leased;
                status.cooling = row.cooling;
                status.lingering = row.lingering;
                status.reserved = row.reserved;
                status.drained = row.drained;
                status.peak = row.peak;
                status
            };
            let pools = page[..count].iter().map(to_status).collect();
            vipool_snapshot_free(snapshot);
            pools
        }
    }

    fn slots(&self, pool: u16) -> Vec<SlotRow> {
        let mut page = [sized::<vipool_slot_row>(); 4];
        let mut count = 0;
        // SAFETY: the structs are valid.
        check(unsafe {
            let out = page.as_mut_ptr();
            vipool_reader_list_slots(self.reader, pool.into(), 1, out, 4, &mut count, null_mut())
        })
        .unwrap();
        let to_slot_row = |row: &vipool_slot_row| {
            let state = match row.state {
                0 => SlotState::Free,
                1 => SlotState::Leased,
                2 => SlotState::Cooling,
                _ => SlotState::Lingering,
            };
            SlotRow::new(ip(row.address).unwrap(), state)
                .with_reserved(row.flags & VIPOOL_SLOT_RESERVED != 0)
                .with_drained(row.flags & VIPOOL_SLOT_DRAINED != 0)
        };
        page[..count].iter().map(to_slot_row).collect()
    }

    fn is_draining(&self) -> bool {
        self.info().flags & VIPOOL_MAP_INFO_DRAINING != 0
    }

    fn rule(&self, path: &str, is_windows: bool) -> Option<(u64, u32)> {
        // Programs on Windows receive paths in UTF-16, so pass Windows paths in this encoding.
        let utf16: Vec<u16> = path.encode_utf16().collect();
        let mut executable = sized::<vipool_executable>();
        executable.style = is_windows.into();
        executable.encoding = is_windows.into();
        (executable.path, executable.path_length) = match is_windows {
            false => (path.as_ptr().cast(), path.len()),
            true => (utf16.as_ptr().cast(), utf16.len()),
        };
        let mut rule = sized::<vipool_rule>();
        // SAFETY: the structs are valid.
        match check(unsafe { vipool_reader_find_rule(self.reader, &executable, &mut rule) }) {
            Ok(()) => Some((rule.id, rule.features)),
            Err(status) => {
                assert_eq!(status, vipool_status::VIPOOL_ERR_NOT_FOUND as Status);
                None
            }
        }
    }
}
