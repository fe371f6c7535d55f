//! Conversions between Rust values and the values of the C ABI.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

use std::ffi::{CStr, c_char};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vipool::capi::address::*;
use vipool::capi::process_list::vipool_ports;
use vipool::capi::session::*;
use vipool::capi::settings::*;
use vipool::capi::status::vipool_status;
use vipool::map::{AllocationTime, ExhaustionPolicy, Settings};
use vipool::policy::PortRange;
use vipool::range::Range;
use vipool::session::{Handle, Lease};

pub use super::structs::{handle, session_id, sized};
use crate::api::Status;

/// Returns an error if the status is not `VIPOOL_OK`.
pub fn check(status: vipool_status) -> Result<(), Status> {
    if status == vipool_status::VIPOOL_OK { Ok(()) } else { Err(status as Status) }
}

pub fn c_chars(text: &str) -> *const c_char {
    text.as_ptr().cast()
}

pub fn ip(address: vipool_ip) -> Option<IpAddr> {
    match address.family {
        4 => {
            let octets: [u8; 4] = address.bytes[..4].try_into().unwrap();
            Some(Ipv4Addr::from(octets).into())
        }
        6 => Some(address.bytes.into()),
        _ => None,
    }
}

pub fn c_ip(address: IpAddr) -> vipool_ip {
    let mut parsed_ip = vipool_ip::default();
    let text = address.to_string();
    // SAFETY: the text and struct are valid.
    check(unsafe { vipool_ip_parse(c_chars(&text), text.len(), &mut parsed_ip) }).unwrap();
    parsed_ip
}

pub fn c_range(range: &Range) -> vipool_range {
    vipool_range { first: c_ip(range.first()), last: c_ip(range.last()) }
}

pub fn c_sockaddr(address: SocketAddr) -> vipool_sockaddr {
    let mut sockaddr = vipool_sockaddr::default();
    // SAFETY: the structs are valid.
    check(unsafe { vipool_ip_to_sockaddr(&c_ip(address.ip()), address.port(), &mut sockaddr) })
        .unwrap();
    sockaddr
}

pub fn socket_address(sockaddr: &vipool_sockaddr) -> SocketAddr {
    let (mut address, mut port) = (vipool_ip::default(), 0);
    let bytes = sockaddr.bytes.as_ptr().cast();
    // SAFETY: the structs are valid.
    check(unsafe { vipool_ip_from_sockaddr(bytes, sockaddr.length, &mut address, &mut port) })
        .unwrap();
    SocketAddr::new(ip(address).unwrap(), port)
}

pub fn c_handle(handle: &Handle) -> vipool_handle {
    vipool_handle {
        session: handle.session.raw(),
        boot: handle.boot,
        slot: handle.slot,
        generation: handle.generation,
        pool: handle.pool.into(),
        reserved: 0,
    }
}

pub fn leases(array: &[vipool_lease], count: u32) -> Vec<Lease> {
    let lease = |lease: &vipool_lease| Lease {
        session: session_id(lease.session),
        pool: lease.pool as u16,
        slot: lease.slot,
        generation: lease.generation,
        address: ip(lease.address).unwrap(),
    };
    array[..count as usize].iter().map(lease).collect()
}

pub fn ports(ranges: &[PortRange]) -> Vec<vipool_ports> {
    ranges.iter().map(|range| vipool_ports { first: range.first, last: range.last }).collect()
}

pub fn copy_c_string(pointer: *const c_char) -> String {
    // SAFETY: the library returned the pointer. The text ends in NUL and is not freed yet.
    unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}

pub fn copy_text(text: *const c_char, length: usize) -> String {
    // SAFETY: the library returned the text and its length, and the owner of the text is not freed
    // yet.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast(), length) };
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Converts settings to C.
pub fn c_settings(settings: &Settings) -> vipool_settings {
    let (on_exhausted, wait_seconds) = match settings.on_exhausted {
        ExhaustionPolicy::Pass => (0, 0),
        ExhaustionPolicy::Refuse => (1, 0),
        ExhaustionPolicy::Wait(seconds) => (2, seconds),
    };
    vipool_settings {
        cool_down: settings.cool_down,
        low_water: settings.low_water,
        sessions_per_user: settings.sessions_per_user,
        max_sessions: settings.max_sessions,
        on_exhausted,
        wait_seconds,
        allocate: u32::from(settings.allocate == AllocationTime::FirstUse),
        flags: u32::from(settings.check_in_use) * VIPOOL_SETTING_CHECK_IN_USE
            + u32::from(settings.await_restore) * VIPOOL_SETTING_AWAIT_RESTORE,
        ..sized()
    }
}

/// Converts settings from C.
pub fn settings(settings: &vipool_settings) -> Settings {
    Settings::new()
        .with_cool_down(settings.cool_down)
        .with_check_in_use(settings.flags & VIPOOL_SETTING_CHECK_IN_USE != 0)
        .with_low_water(settings.low_water)
        .with_sessions_per_user(settings.sessions_per_user)
        .with_max_sessions(settings.max_sessions)
        .with_on_exhausted(match settings.on_exhausted {
            0 => ExhaustionPolicy::Pass,
            1 => ExhaustionPolicy::Refuse,
            _ => ExhaustionPolicy::Wait(settings.wait_seconds),
        })
        .with_allocate(if settings.allocate == 0 {
            AllocationTime::Logon
        } else {
            AllocationTime::FirstUse
        })
        .with_await_restore(settings.flags & VIPOOL_SETTING_AWAIT_RESTORE != 0)
}
