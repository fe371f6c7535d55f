//! Tests of memory of the caller: a callback may change the structs of the call, and output structs
//! may be uninitialised except for their size.
//!
//! Run the tests under Miri too. It detects a reference of the library to memory that a callback
//! changes.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use super::address::vipool_sockaddr;
use super::event::{EventSink, vipool_event, vipool_event_fn};
use super::layout::Versioned;
use super::leader::vipool_leader;
use super::maintenance::{vipool_map_reap, vipool_probe, vipool_reap_report};
use super::map::vipool_map;
use super::map_session::*;
use super::outcome::{vipool_outcome, vipool_outcome_kind};
use super::reader::*;
use super::rewrite::vipool_rewrite_visible_address;
use super::rewriter::*;
use super::session::{vipool_addresses, vipool_handle, vipool_session};
use super::snapshot::{vipool_reader_list_slots, vipool_slot_row};
use super::status::vipool_status::*;
use crate::map::{Map, Plan};
use crate::policy::{Features, Policy, Program};
use crate::pool::{MAX_SLOTS, Pool, PoolKind};

const SESSION: vipool_session = 0x0400_0000_0000_0007;
const VIRTUAL_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 5, 10));
const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 3, 0, 2));

/// The size that the callbacks write into structs of their caller.
const CHANGED_SIZE: usize = 0;

/// Returns a struct in which only the size is initialised.
fn with_size<T: Versioned>() -> MaybeUninit<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: a versioned struct begins with its size.
    unsafe { value.as_mut_ptr().cast::<usize>().write(size_of::<T>()) };
    value
}

/// Returns a zeroed struct with its size set.
fn zeroed_with_size<T: Versioned>() -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: zeros are a valid struct, and the struct begins with its size.
    unsafe {
        value.as_mut_ptr().cast::<usize>().write(size_of::<T>());
        value.assume_init()
    }
}

/// Returns a map in memory with a pool of virtual IPs, a pool of loopback addresses and one rule.
fn new_map(on_event: vipool_event_fn, context: *mut c_void) -> vipool_map {
    let pool = |kind, range: &str| {
        Pool::new("default", kind, &[range.parse().unwrap()], MAX_SLOTS).unwrap()
    };
    let features = Features::default().with_virtual_ip(true).with_loopback(true);
    let plan = Plan::new([
        pool(PoolKind::VirtualIp, "10.0.5.10-10.0.5.13"),
        pool(PoolKind::Loopback, "127.3.0.2-127.3.0.5"),
    ])
    .with_policy(Policy::new([Program::new("/bin/x").with_features(features)]));
    // SAFETY: the callbacks of the tests may be called with their context as long as the map
    // exists, and one thread uses the map.
    unsafe {
        let sink = EventSink::new(on_event, context);
        vipool_map::new(Map::in_memory(&plan).unwrap(), sink, false)
    }
}

/// Opens [`SESSION`] and returns its handle.
fn open_session(map: &vipool_map, options: *const vipool_open_options) -> vipool_handle {
    let mut opened = with_size::<vipool_opened_session>();
    let out = opened.as_mut_ptr();
    // SAFETY: the structs are valid. The call initialises the handle.
    unsafe {
        assert_eq!(vipool_map_open_session(map, SESSION, options, 100, out), VIPOOL_OK);
        (*out).handle
    }
}

/// Overwrites the size of the struct in `context`.
unsafe extern "C" fn change_size_at_event(context: *mut c_void, _: *const vipool_event) {
    // SAFETY: the context points to a struct that begins with its size.
    unsafe { context.cast::<usize>().write(CHANGED_SIZE) };
}

/// Overwrites the size of the struct in `context`. Returns 0, because the process runs.
unsafe extern "C" fn change_size_at_probe(context: *mut c_void, _: *const vipool_leader) -> u32 {
    // SAFETY: as above.
    unsafe { context.cast::<usize>().write(CHANGED_SIZE) };
    0
}

#[test]
fn opened_and_closed_session_keep_their_size_when_the_event_callback_changes_it() {
    let mut opened = with_size::<vipool_opened_session>();
    let out = opened.as_mut_ptr();
    let map = new_map(Some(change_size_at_event), out.cast());
    // SAFETY: the structs are valid. The calls initialise the members that are read.
    unsafe {
        assert_eq!(vipool_map_open_session(&raw const map, SESSION, null(), 100, out), VIPOOL_OK);
        assert_eq!(((*out).size, (*out).lease_count), (size_of::<vipool_opened_session>(), 2));
    }

    let mut closed = with_size::<vipool_closed_session>();
    let out = closed.as_mut_ptr();
    let map = new_map(Some(change_size_at_event), out.cast());
    open_session(&map, null());
    // SAFETY: as above.
    unsafe {
        out.cast::<usize>().write(size_of::<vipool_closed_session>());
        assert_eq!(vipool_map_close_session(&raw const map, SESSION, 101, out), VIPOOL_OK);
        assert_eq!(((*out).size, (*out).lease_count), (size_of::<vipool_closed_session>(), 2));
    }
}

#[test]
fn reap_report_keeps_its_size_when_the_probe_changes_it() {
    let map = new_map(None, null_mut());
    let mut options = zeroed_with_size::<vipool_open_options>();
    options.leader = vipool_leader { pid: 7, reserved: 0, start_time: 1, pid_namespace: 0 };
    open_session(&map, &raw const options);
    let mut report = with_size::<vipool_reap_report>();
    let out = report.as_mut_ptr();
    let mut probe = zeroed_with_size::<vipool_probe>();
    probe.has_exited = Some(change_size_at_probe);
    probe.context = out.cast();
    // SAFETY: the structs are valid. The call initialises the members that are read.
    unsafe {
        let (map, probe) = (&raw const map, &raw const probe);
        assert_eq!(vipool_map_reap(map, 100, 1000, probe, out), VIPOOL_OK);
        assert_eq!(((*out).size, (*out).closed), (size_of::<vipool_reap_report>(), 0));
    }
}

/// Overwrites the session of the handle in `context`.
unsafe extern "C" fn change_handle(context: *mut c_void, event: *const vipool_event) {
    // SAFETY: the context is NULL or points to a handle. The library passes a valid event.
    unsafe {
        assert_eq!((*event).session, SESSION);
        if let Some(handle) = context.cast::<vipool_handle>().as_mut() {
            handle.session = 0;
        }
    }
}

#[test]
fn session_is_closed_although_the_event_callback_changes_the_handle() {
    let mut handle = vipool_handle::default();
    let handle = &raw mut handle;
    let map = new_map(Some(change_handle), handle.cast());
    // SAFETY: the pointer to the handle and the structs are valid.
    unsafe {
        handle.write(open_session(&map, null()));
        assert_eq!((*handle).session, SESSION);
        let status = vipool_map_close_by_handle(&raw const map, handle, 101, null_mut());
        assert_eq!((status, (*handle).session), (VIPOOL_OK, 0));
    }
}

/// The arguments that [`change_arguments`] overwrites, and the address that it returns.
struct Arguments {
    address: *mut vipool_sockaddr,
    outcome: *mut vipool_outcome,
    other_end: vipool_sockaddr,
}

/// Overwrites the arguments of a rewrite call, and returns the address of the other end.
unsafe extern "C" fn change_arguments(
    context: *mut c_void,
    buffer: *mut c_void,
    capacity: u32,
) -> u32 {
    // SAFETY: the context points to `Arguments`, whose pointers are valid. The buffer has
    // `capacity` bytes.
    unsafe {
        let Arguments { address, outcome, other_end } = &*context.cast::<Arguments>();
        address.write_bytes(0xff, 1);
        outcome.cast::<usize>().write(CHANGED_SIZE);
        assert!(other_end.length <= capacity);
        buffer.copy_from(other_end.bytes.as_ptr().cast(), other_end.length as usize);
        other_end.length
    }
}

#[test]
fn address_is_rewritten_although_the_callback_changes_the_arguments() {
    let map = new_map(None, null_mut());
    let handle = open_session(&map, null());
    let reader = vipool_reader { reader: Arc::new(map.map().unwrap().reader().unwrap()) };
    let rule = reader.reader.policy().programs().next().unwrap().id();
    let options = vipool_rewriter_options { handle, rule, ..zeroed_with_size() };
    let mut rewriter = null_mut();
    let mut address = vipool_sockaddr::from(&SocketAddr::new(VIRTUAL_IP, 80));
    let mut outcome = with_size::<vipool_outcome>();
    let (address, outcome) = (&raw mut address, outcome.as_mut_ptr());
    let other_end = vipool_sockaddr::from(&SocketAddr::new(LOOPBACK, 80));
    let mut arguments = Arguments { address, outcome, other_end };
    // SAFETY: the pointers and structs are valid, and the rewriter is freed once. The call
    // initialises the members that are read.
    unsafe {
        assert_eq!(
            vipool_rewriter_new(&raw const reader, &raw const options, &mut rewriter),
            VIPOOL_OK
        );
        let status = vipool_rewrite_visible_address(
            rewriter,
            (&raw const (*address).bytes).cast(),
            (*address).length,
            Some(change_arguments),
            (&raw mut arguments).cast(),
            outcome,
        );
        assert_eq!(status, VIPOOL_OK);
        assert_eq!((*outcome).size, size_of::<vipool_outcome>());
        assert_eq!((*outcome).kind, vipool_outcome_kind::VIPOOL_REWRITTEN as u32);
        let visible = vipool_sockaddr::read(&raw const (*outcome).address);
        assert_eq!(visible, Some("127.0.0.1:80".parse().unwrap()));
        vipool_rewriter_free(rewriter);
    }
}

#[test]
fn uninitialised_output_is_filled() {
    let map = new_map(None, null_mut());
    let handle = open_session(&map, null());
    let reader = vipool_reader { reader: Arc::new(map.map().unwrap().reader().unwrap()) };
    let reader = &raw const reader;
    let mut found = with_size::<vipool_found_session>();
    let mut addresses = with_size::<vipool_addresses>();
    let mut rows = [const { MaybeUninit::<vipool_slot_row>::uninit() }; 3];
    rows[0] = with_size();
    let mut count = 0;
    // SAFETY: the handles and structs are valid. The calls initialise the members that are read.
    unsafe {
        let out = found.as_mut_ptr();
        assert_eq!(vipool_reader_find_by_handle(reader, &raw const handle, out), VIPOOL_OK);
        assert_eq!(((*out).handle, (*out).lease_count), (handle, 2));
        let addresses_of_leases = [(*out).leases[0].address, (*out).leases[1].address];
        assert_eq!(addresses_of_leases, [VIRTUAL_IP.into(), LOOPBACK.into()]);

        assert_eq!(vipool_reader_get_addresses(reader, SESSION, addresses.as_mut_ptr()), VIPOOL_OK);
        assert_eq!(addresses.assume_init().loopback, LOOPBACK.into());

        let first_row = rows.as_mut_ptr().cast();
        let status = vipool_reader_list_slots(reader, 0, 0, first_row, 3, &mut count, null_mut());
        assert_eq!((status, count), (VIPOOL_OK, 3));
        let addresses = rows.map(|row| row.assume_init().address);
        let expected = ["10.0.5.10", "10.0.5.11", "10.0.5.12"];
        assert_eq!(addresses, expected.map(|text| text.parse::<IpAddr>().unwrap().into()));
    }
}

#[test]
fn sockaddr_is_read_up_to_its_length() {
    let mut sockaddr = MaybeUninit::<vipool_sockaddr>::uninit();
    let pointer = sockaddr.as_mut_ptr();
    let address: SocketAddr = "10.0.5.10:80".parse().unwrap();
    let vipool_sockaddr { length, bytes } = vipool_sockaddr::from(&address);
    // SAFETY: the length and the bytes of this length are initialised before they are read.
    unsafe {
        (*pointer).length = length;
        (&raw mut (*pointer).bytes).cast::<u8>().copy_from(bytes.as_ptr(), length as usize);
        assert_eq!(vipool_sockaddr::read(pointer), Some(address));
        (*pointer).length = u32::MAX;
        assert_eq!(vipool_sockaddr::read(pointer), None);
    }
}
