//! Implements the functions that need no map, and the functions that read the state of the machine.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

use std::ffi::CString;
use std::net::IpAddr;
use std::path::Path;
use std::ptr::{null, null_mut};

use ipnet::IpNet;
use vipool::capi::address::*;
use vipool::capi::client::*;
use vipool::capi::executable::*;
use vipool::capi::farm::*;
use vipool::capi::farm_settings::*;
use vipool::capi::interface::*;
use vipool::capi::journal::*;
use vipool::capi::leader::*;
use vipool::capi::map::vipool_map_get_directory;
use vipool::capi::process_list::*;
use vipool::capi::session::*;
use vipool::capi::status::vipool_status;
use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::map::Leader;
use vipool::policy::PortRange;
use vipool::range::Range;
use vipool::session::Handle;

use super::values::*;
use super::{CApi, build};
use crate::api::{JournalEntry, Machine, Status};

impl Machine for CApi {
    fn fixed_ports(farm: &Farm) -> Vec<PortRange> {
        let farm = build::farm(farm);
        let mut port_ranges = [vipool_ports::default(); 8];
        let mut count = 0;
        // SAFETY: the farm is freed once, and the array is valid.
        unsafe {
            let status_without_buffer =
                vipool_farm_list_fixed_ports(farm, null_mut(), 0, &mut count);
            assert_eq!(status_without_buffer == vipool_status::VIPOOL_OK, count == 0);
            let array = port_ranges.as_mut_ptr();
            check(vipool_farm_list_fixed_ports(farm, array, 8, &mut count)).unwrap();
            vipool_farm_free(farm);
        }
        let range = |range: &vipool_ports| PortRange { first: range.first, last: range.last };
        port_ranges[..count].iter().map(range).collect()
    }

    fn journal(
        directory: &Path,
        first_number: u64,
    ) -> Result<(Vec<JournalEntry>, u64, u64), Status> {
        let directory = directory.to_str().unwrap();
        let mut journal = null_mut();
        let (mut entries, mut lost_count, mut next_number) = (Vec::new(), 0, first_number);
        // SAFETY: the texts and structs are valid. The journal is closed once.
        unsafe {
            check(vipool_journal_open(c_chars(directory), directory.len(), &mut journal))?;
            // Read two rows per page to test paging.
            let mut row_buffer = [sized::<vipool_journal_row>(); 2];
            let mut page = sized::<vipool_journal_page>();
            page.count = 1;
            while page.count > 0 {
                let rows = row_buffer.as_mut_ptr();
                check(vipool_journal_list_events(journal, next_number, rows, 2, &mut page))
                    .unwrap();
                (lost_count, next_number) = (lost_count + page.lost, page.next);
                entries.extend(row_buffer[..page.count].iter().map(|row| {
                    JournalEntry {
                        number: row.number,
                        tick: row.tick,
                        kind: row.kind,
                        session: session_id(row.session),
                        address: ip(row.address),
                        generation: row.generation,
                        user: (row.user_length > 0)
                            .then(|| copy_text(row.user.as_ptr(), row.user_length as usize)),
                        client: ip(row.client),
                        pool: row.pool as u16,
                    }
                }));
            }
            vipool_journal_close(journal);
        }
        Ok((entries, lost_count, next_number))
    }

    fn set_client(directory: &Path, handle: &Handle, client: IpAddr) -> Result<(), Status> {
        let directory = directory.to_str().unwrap();
        let (path, length) = (c_chars(directory), directory.len());
        // SAFETY: the texts and structs are valid.
        check(unsafe {
            vipool_client_set(path, length, &c_handle(handle), &c_ip(client), null(), 0)
        })
    }

    fn get_client(directory: &Path, handle: &Handle) -> Option<IpAddr> {
        let directory = directory.to_str().unwrap();
        let (path, length) = (c_chars(directory), directory.len());
        let mut client = vipool_ip::default();
        // SAFETY: the texts and structs are valid.
        check(unsafe { vipool_client_get(path, length, &c_handle(handle), &mut client) }).ok()?;
        ip(client)
    }

    fn remove_client(directory: &Path, handle: &Handle) -> Result<(), Status> {
        let directory = directory.to_str().unwrap();
        // SAFETY: the texts and structs are valid.
        check(unsafe {
            vipool_client_remove(c_chars(directory), directory.len(), &c_handle(handle))
        })
    }

    fn find_script(arguments: &[&str]) -> Option<String> {
        let texts: Vec<_> = arguments.iter().map(|text| CString::new(*text).unwrap()).collect();
        let pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        let mut script = null();
        // SAFETY: the texts end in NUL, and the output pointer is valid.
        check(unsafe {
            vipool_executable_find_script(pointers.as_ptr(), pointers.len(), &mut script)
        })
        .ok()?;
        Some(copy_c_string(script))
    }

    fn interfaces() -> Vec<Interface> {
        let (mut list, mut array, mut count) = (null_mut(), null(), 0);
        // SAFETY: the output pointers are valid. All values are copied before the list is freed.
        unsafe {
            check(vipool_interface_list_new(&mut list)).unwrap();
            check(vipool_interface_list_get(list, &mut array, &mut count)).unwrap();
            let interfaces = (0..count).map(|index| &*array.add(index));
            let interfaces = interfaces.map(|c_interface| Interface {
                index: c_interface.index,
                name: copy_text(c_interface.name, c_interface.name_length),
                addresses: std::slice::from_raw_parts(
                    c_interface.addresses,
                    c_interface.address_count,
                )
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
        // SAFETY: the passed capacity is the length of the buffer.
        unsafe {
            check(vipool_map_get_directory(buffer.as_mut_ptr(), 64, &mut length)).unwrap();
            copy_text(buffer.as_ptr(), length)
        }
    }

    fn leader_from_pid(pid: u32) -> Result<Leader, Status> {
        let mut leader = vipool_leader::default();
        // SAFETY: the output pointer is valid.
        check(unsafe { vipool_leader_from_pid(pid, &mut leader) })?;
        let vipool_leader { pid, start_time, pid_namespace, .. } = leader;
        Ok(Leader { pid, start_time, pid_namespace })
    }

    fn format_range(range: &Range) -> String {
        let (mut buffer, mut length) = ([0; 92], 0);
        // SAFETY: the passed capacity is the length of the buffer.
        unsafe {
            let out = buffer.as_mut_ptr();
            check(vipool_range_format(&c_range(range), out, 92, &mut length)).unwrap();
            copy_text(buffer.as_ptr(), length)
        }
    }

    fn intersection(range: &Range, other_range: &Range) -> Option<(IpAddr, IpAddr)> {
        let mut intersection = vipool_range::default();
        let (range, other_range) = (c_range(range), c_range(other_range));
        // SAFETY: the structs are valid.
        match check(unsafe { vipool_range_intersect(&range, &other_range, &mut intersection) }) {
            Ok(()) => Some((ip(intersection.first).unwrap(), ip(intersection.last).unwrap())),
            Err(status) => {
                assert_eq!(status, vipool_status::VIPOOL_ERR_NOT_FOUND as Status);
                None
            }
        }
    }

    fn parse_session(text: &str) -> Result<u64, Status> {
        let mut session = 0;
        // SAFETY: the text and the output pointer are valid.
        check(unsafe { vipool_session_parse(c_chars(text), text.len(), &mut session) })?;
        Ok(session)
    }

    fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), Status> {
        let mut range = vipool_range::default();
        // SAFETY: the text and the output pointer are valid.
        check(unsafe { vipool_range_parse(c_chars(text), text.len(), &mut range) })?;
        Ok((ip(range.first).unwrap(), ip(range.last).unwrap()))
    }

    fn format_and_parse(original: &Handle) -> Option<Handle> {
        let (mut buffer, mut length) = ([0; 72], 0);
        let mut parsed_handle = vipool_handle::default();
        // SAFETY: the buffers and structs are valid.
        unsafe {
            let buffer = buffer.as_mut_ptr();
            check(vipool_handle_format(&c_handle(original), buffer, 72, &mut length)).ok()?;
            check(vipool_handle_parse(buffer, length, &mut parsed_handle)).ok()?;
        }
        Some(handle(&parsed_handle))
    }
}
