//! Tests of features that exist only in the C ABI, such as text conversion, buffers, reserved
//! members and unknown flags.

#![allow(unsafe_code, reason = "the C ABI takes raw pointers")]

use std::ffi::{c_char, c_void};
use std::net::IpAddr;
use std::ptr::{null, null_mut};

use vipool::capi::address::{
    vipool_ip, vipool_ip_to_sockaddr, vipool_range, vipool_range_parse, vipool_sockaddr,
};
use vipool::capi::error::vipool_last_error;
use vipool::capi::farm::*;
use vipool::capi::farm_build::{vipool_farm_add_range, vipool_server_range};
use vipool::capi::farm_settings::*;
use vipool::capi::interface::vipool_interface;
use vipool::capi::leader::vipool_leader;
use vipool::capi::maintenance::vipool_map_recover;
use vipool::capi::map::*;
use vipool::capi::map_session::*;
use vipool::capi::outcome::vipool_outcome;
use vipool::capi::plan::*;
use vipool::capi::reader::*;
use vipool::capi::reason::{vipool_reason, vipool_reason_get_text};
use vipool::capi::rewrite::vipool_rewrite_bind;
use vipool::capi::rewriter::*;
use vipool::capi::rule::{vipool_reader_find_rule_by_id, vipool_rule};
use vipool::capi::session::*;
use vipool::capi::snapshot::*;
use vipool::capi::socket::vipool_socket;
use vipool::capi::status::vipool_status::{self, *};
use vipool::capi::text::vipool_utf16_to_utf8;
use vipool::map::{Settings, Shortage};
use vipool::policy::{Policy, Program, ProgramFlags};

use crate::suite::{ip, plan, session_id};
use crate::through_c::build;
use crate::through_c::values::{c_chars, c_ip, check, copy_c_string, copy_text, sized};

/// A map in memory with one open session, a reader of the map, and the id of the only rule.
struct Fixture {
    map: *mut vipool_map,
    reader: *mut vipool_reader,
    handle: vipool_handle,
    rule_id: u64,
}

impl Fixture {
    fn new() -> Self {
        let flags = ProgramFlags::default().with_inherit(true);
        let program = Program::new("/bin/x").with_flags(flags);
        let rule_id = program.id();
        let policy = Policy::new([program]);
        let (mut map, mut reader) = (null_mut(), null_mut());
        let mut opened = sized::<vipool_opened_session>();
        // SAFETY: the handles and structs are valid. The plan is freed once.
        unsafe {
            let plan = build::plan(&plan().with_policy(policy), 0).unwrap();
            check(vipool_map_create_in_memory(plan, null(), &mut map)).unwrap();
            vipool_plan_free(plan);
            check(vipool_reader_open_map(map, &mut reader)).unwrap();
            let id = session_id(1).raw();
            check(vipool_map_open_session(map, id, null(), 100, &mut opened)).unwrap();
        }
        Self { map, reader, handle: opened.handle, rule_id }
    }

    fn rewriter(&self) -> *mut vipool_rewriter {
        let mut rewriter = null_mut();
        let options =
            vipool_rewriter_options { handle: self.handle, rule: self.rule_id, ..sized() };
        // SAFETY: the handles and structs are valid.
        check(unsafe { vipool_rewriter_new(self.reader, &options, &mut rewriter) }).unwrap();
        rewriter
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SAFETY: the library returned both handles, and each handle is closed once.
        unsafe {
            vipool_reader_close(self.reader);
            vipool_map_close(self.map);
        }
    }
}

#[test]
fn utf16_is_converted_to_utf8() {
    let utf16: Vec<u16> = r"C:\Ärger\😀".encode_utf16().collect();
    let (mut buffer, mut length) = ([0 as c_char; 64], 0);
    let convert = |units: &[u16], buffer: *mut c_char, capacity, length: &mut usize| {
        // SAFETY: the arrays have at least the passed lengths. A null buffer has the capacity 0.
        unsafe { vipool_utf16_to_utf8(units.as_ptr(), units.len(), buffer, capacity, length) }
    };
    assert_eq!(convert(&utf16, null_mut(), 0, &mut length), VIPOOL_ERR_BUFFER);
    check(convert(&utf16, buffer.as_mut_ptr(), length + 1, &mut length)).unwrap();
    assert_eq!(copy_text(buffer.as_ptr(), length), r"C:\Ärger\😀");
    assert_eq!(convert(&[0xd800], buffer.as_mut_ptr(), 64, &mut length), VIPOOL_ERR_UTF16);
}

#[test]
fn formatted_session_id_parses_back() {
    for name in ["embedder:7", "logind:12", "windows:3"] {
        let (mut buffer, mut length, mut id, mut parsed_id) = ([0 as c_char; 32], 0, 0, 0);
        // SAFETY: the texts, buffers and output pointers are valid.
        unsafe {
            check(vipool_session_parse(c_chars(name), name.len(), &mut id)).unwrap();
            let out = buffer.as_mut_ptr();
            check(vipool_session_format(id, out, 32, &mut length)).unwrap();
            check(vipool_session_parse(out, length, &mut parsed_id)).unwrap();
        }
        assert_eq!((copy_text(buffer.as_ptr(), length), parsed_id), (name.to_owned(), id));
    }
}

#[test]
fn report_names_the_finding_and_its_line() {
    let toml = "[[range]]\naddresses = \"10.0.5.1/24\"\n";
    let (mut farm, mut length) = (null_mut(), 0);
    // SAFETY: the texts, buffers and output pointers are valid. The farm is freed once.
    unsafe {
        check(vipool_farm_parse(c_chars(toml), toml.len(), &mut farm)).unwrap();
        let status = vipool_farm_format_report(farm, null_mut(), 0, &mut length);
        assert_eq!(status, VIPOOL_ERR_BUFFER);
        let mut buffer = vec![0 as c_char; length + 1];
        let out = buffer.as_mut_ptr();
        check(vipool_farm_format_report(farm, out, length + 1, &mut length)).unwrap();
        let report = copy_text(out, length);
        assert!(report.contains("10.0.5.1/24") && report.contains('2'), "{report}");

        let (mut finding, mut count, mut total) = (sized::<vipool_finding>(), 0, 0);
        let row = &raw mut finding;
        check(vipool_farm_list_findings(farm, 2, 0, row, 1, &mut count, &mut total)).unwrap();
        assert_eq!((count, total, finding.level, finding.line), (1, 1, 2, 2));
        let status = vipool_farm_list_findings(farm, 3, 0, row, 1, &mut count, &mut total);
        assert_eq!(status, VIPOOL_ERR_KIND);
        vipool_farm_free(farm);
    }
}

#[test]
fn validation_lists_the_mistakes_of_a_built_farm() {
    let multicast = vipool_range { first: c_ip(ip("224.0.0.5")), last: c_ip(ip("224.0.0.5")) };
    let range = vipool_server_range { addresses: &multicast, address_count: 1, ..sized() };
    let mut farm = null_mut();
    // SAFETY: the structs and output pointers are valid. The farm is freed once.
    unsafe {
        let error_count = |farm| {
            let (mut count, mut total) = (0, 0);
            let status =
                vipool_farm_list_findings(farm, 2, 0, null_mut(), 0, &mut count, &mut total);
            check(status).unwrap();
            total
        };
        check(vipool_farm_new(&mut farm)).unwrap();
        check(vipool_farm_add_range(farm, &range)).unwrap();
        assert_eq!(error_count(farm), 0);
        check(vipool_farm_validate(farm)).unwrap();
        assert_eq!(error_count(farm), 1);
        vipool_farm_free(farm);
    }
}

#[test]
fn findings_of_an_earlier_plan_do_not_prevent_a_plan() {
    let addresses = vipool_range { first: c_ip(ip("10.0.5.1")), last: c_ip(ip("10.0.5.9")) };
    let range = vipool_server_range { addresses: &addresses, address_count: 1, ..sized() };
    let interface = vipool_interface { name: c_chars("x"), name_length: 1, ..sized() };
    let options = vipool_plan_options { interfaces: &interface, interface_count: 1, ..sized() };
    let (mut farm, mut plan) = (null_mut(), null_mut());
    // SAFETY: the structs and output pointers are valid. Each handle is freed once.
    unsafe {
        check(vipool_farm_new(&mut farm)).unwrap();
        check(vipool_farm_add_range(farm, &range)).unwrap();
        // The only interface has no subnet that contains the range.
        assert_eq!(vipool_plan_new(farm, &options, &mut plan), VIPOOL_ERR_FARM);
        check(vipool_plan_new(farm, &sized(), &mut plan)).unwrap();
        vipool_plan_free(plan);
        vipool_farm_free(farm);
    }
}

#[test]
fn created_map_is_opened_again_and_superseded() {
    let directory = tempfile::tempdir().unwrap();
    let directory_path = directory.path().to_str().unwrap();
    let (path, length) = (c_chars(directory_path), directory_path.len());
    let (mut first_map, mut second_map, mut reader) = (null_mut(), null_mut(), null_mut());
    let (mut opened, mut is_superseded) = (sized::<vipool_opened_session>(), 9);
    // SAFETY: the texts, handles and structs are valid. Each handle is freed once.
    unsafe {
        let plan = build::plan(&plan(), 0).unwrap();
        check(vipool_map_create(path, length, plan, null(), &mut first_map)).unwrap();
        check(vipool_map_open_session(first_map, session_id(1).raw(), null(), 100, &mut opened))
            .unwrap();
        vipool_map_close(first_map);
        check(vipool_reader_open(path, length, &mut reader)).unwrap();
        check(vipool_reader_is_superseded(reader, &mut is_superseded)).unwrap();
        assert_eq!(is_superseded, 0);

        check(vipool_map_open(path, length, null(), &mut first_map)).unwrap();
        check(vipool_map_close_by_handle(first_map, &opened.handle, 101, null_mut())).unwrap();
        vipool_map_close(first_map);
        check(vipool_map_create(path, length, plan, null(), &mut second_map)).unwrap();
        vipool_map_close(second_map);
        let mut info = sized::<vipool_map_info>();
        if vipool_reader_is_superseded(reader, &mut is_superseded) == VIPOOL_OK {
            check(vipool_reader_get_info(reader, &mut info)).unwrap();
            let has_superseded_flag = info.flags & VIPOOL_MAP_INFO_SUPERSEDED != 0;
            assert_eq!(has_superseded_flag, is_superseded == 1);
        }
        vipool_reader_close(reader);
        vipool_plan_free(plan);
    }
}

#[test]
fn rule_is_found_by_its_id() {
    let fixture = Fixture::new();
    let mut rule = sized::<vipool_rule>();
    // SAFETY: the handles and structs are valid.
    unsafe {
        check(vipool_reader_find_rule_by_id(fixture.reader, fixture.rule_id, &mut rule)).unwrap();
        assert_eq!(rule.id, fixture.rule_id);
        let status = vipool_reader_find_rule_by_id(fixture.reader, !fixture.rule_id, &mut rule);
        assert_eq!(status, VIPOOL_ERR_NOT_FOUND);
    }
}

#[test]
fn reserved_members_must_be_zero() {
    let fixture = Fixture::new();
    let (map, reader) = (fixture.map, fixture.reader);
    let (mut farm, mut created_plan, mut created_map, mut rewriter) =
        (null_mut(), null_mut(), null_mut(), null_mut());
    let assert_rejected = |status: vipool_status| assert_eq!(status, VIPOOL_ERR_UNKNOWN_FIELD);
    let (mut opened, mut outcome) = (sized::<vipool_opened_session>(), sized::<vipool_outcome>());
    // SAFETY: the handles and structs are valid. Each handle is freed once.
    unsafe {
        check(vipool_farm_new(&mut farm)).unwrap();
        let settings = vipool_rewrite_settings { reserved: 1, ..sized() };
        assert_rejected(vipool_farm_set_rewrite(farm, &settings));
        let interface = vipool_interface { name: c_chars("x"), name_length: 1, ..sized() };
        let interface = vipool_interface { reserved: 1, ..interface };
        let options = vipool_plan_options { interfaces: &interface, interface_count: 1, ..sized() };
        assert_rejected(vipool_plan_new(farm, &options, &mut created_plan));
        let options = vipool_plan_options { reserved: 1, ..sized() };
        assert_rejected(vipool_plan_new(farm, &options, &mut created_plan));
        check(vipool_plan_new(farm, &sized(), &mut created_plan)).unwrap();
        vipool_farm_free(farm);

        let options = vipool_map_options { reserved: 1, ..sized() };
        assert_rejected(vipool_map_create_in_memory(created_plan, &options, &mut created_map));
        vipool_plan_free(created_plan);

        let mut options = sized::<vipool_open_options>();
        options.leader.reserved = 1;
        assert_rejected(vipool_map_open_session(
            map,
            session_id(2).raw(),
            &options,
            100,
            &mut opened,
        ));
        let handle = vipool_handle { reserved: 1, ..fixture.handle };
        assert_rejected(vipool_map_close_by_handle(map, &handle, 100, null_mut()));
        assert_rejected(vipool_reader_check_handle(reader, &handle));

        let options = vipool_rewriter_options { handle: fixture.handle, ..sized() };
        let options = vipool_rewriter_options { rule: fixture.rule_id, reserved: 1, ..options };
        assert_rejected(vipool_rewriter_new(reader, &options, &mut rewriter));

        let rewriter = fixture.rewriter();
        let address = sockaddr(ip("127.0.0.1"));
        let bytes = address.bytes.as_ptr().cast();
        let socket = vipool_socket { protocol: 1, reserved: 1, ..sized() };
        assert_rejected(vipool_rewrite_bind(
            rewriter,
            &socket,
            bytes,
            address.length,
            &mut outcome,
        ));
        vipool_rewriter_free(rewriter);
    }
}

fn sockaddr(address: IpAddr) -> vipool_sockaddr {
    let mut sockaddr = vipool_sockaddr::default();
    let ip: vipool_ip = c_ip(address);
    // SAFETY: the structs are valid.
    check(unsafe { vipool_ip_to_sockaddr(&ip, 80, &mut sockaddr) }).unwrap();
    sockaddr
}

unsafe extern "C" fn get_unknown_protocol(_: *mut c_void) -> u32 {
    77
}

#[test]
fn unknown_flags_and_protocols_of_a_socket_are_rejected() {
    let fixture = Fixture::new();
    let rewriter = fixture.rewriter();
    let address = sockaddr(ip("127.0.0.1"));
    let bytes = address.bytes.as_ptr().cast();
    let local_address = sockaddr(ip("0.0.0.0"));
    let mut outcome = sized::<vipool_outcome>();
    let tcp_socket = vipool_socket {
        protocol: 1,
        local: local_address.bytes.as_ptr().cast(),
        local_length: local_address.length,
        ..sized()
    };
    let mut bind = |socket: vipool_socket| {
        // SAFETY: the handles and structs are valid.
        unsafe { vipool_rewrite_bind(rewriter, &socket, bytes, address.length, &mut outcome) }
    };
    assert_eq!(bind(tcp_socket), VIPOOL_OK);
    assert_eq!(bind(vipool_socket { flags: 4, ..tcp_socket }), VIPOOL_ERR_KIND);
    assert_eq!(bind(vipool_socket { protocol: 4, ..tcp_socket }), VIPOOL_ERR_KIND);
    let get_protocol = Some(get_unknown_protocol as unsafe extern "C" fn(*mut c_void) -> u32);
    assert_eq!(bind(vipool_socket { get_protocol, ..tcp_socket }), VIPOOL_ERR_KIND);
    // SAFETY: the rewriter is valid and is freed once.
    unsafe { vipool_rewriter_free(rewriter) };
}

#[test]
fn refusal_has_a_text() {
    let number = vipool_reason::VIPOOL_REASON_OTHER_SESSION_ADDRESS as u32;
    assert_eq!(
        copy_c_string(vipool_reason_get_text(number)),
        "the address belongs to another session"
    );
}

/// Returns the text of `vipool_last_error`.
fn last_error() -> String {
    copy_c_string(vipool_last_error())
}

#[test]
fn failed_open_reports_the_shortage() {
    let mut small_plan = plan().with_settings(Settings::without_cool_down().with_cool_down(60));
    small_plan.pools.truncate(1);
    let mut map = null_mut();
    let mut opened = sized::<vipool_opened_session>();
    // SAFETY: the handles and structs are valid. Each handle is freed once.
    unsafe {
        let plan = build::plan(&small_plan, 0).unwrap();
        check(vipool_map_create_in_memory(plan, null(), &mut map)).unwrap();
        vipool_plan_free(plan);
        let id = |value| session_id(value).raw();
        for value in 1..=4 {
            check(vipool_map_open_session(map, id(value), null(), 100, &mut opened)).unwrap();
        }
        for value in 1..=4 {
            let now = 100 + value as u32;
            check(vipool_map_close_session(map, id(value), now, null_mut())).unwrap();
        }
        let status = vipool_map_open_session(map, id(5), null(), 110, &mut opened);
        assert_eq!(status, VIPOOL_ERR_COOLING);
        assert_eq!((opened.shortage, opened.cooling_until), (VIPOOL_ERR_COOLING as i32, 161));
        assert_eq!((opened.shortage_pool, opened.lease_count, opened.handle.session), (0, 0, 0));
        vipool_map_close(map);
    }
}

#[test]
fn last_error_is_empty_or_of_the_last_call() {
    let (mut range, mut session) = (vipool_range::default(), 0);
    // SAFETY: the texts and output pointers are valid.
    unsafe {
        assert_eq!(vipool_range_parse(c_chars("x"), 1, &mut range), VIPOOL_ERR_RANGE_SYNTAX);
        assert!(!last_error().is_empty());
        check(vipool_session_parse(c_chars("7"), 1, &mut session)).unwrap();
        assert_eq!(last_error(), "");
        assert_eq!(vipool_range_parse(null(), 0, &mut range), VIPOOL_ERR_NULL);
        assert_eq!(last_error(), "a pointer that must not be NULL is NULL");
        check(vipool_range_parse(c_chars("10.0.0.0/8"), 10, &mut range)).unwrap();
        assert_eq!(last_error(), "");
    }
}

#[test]
fn messages_name_no_command_and_no_key_of_farm_toml() {
    let mut texts: Vec<String> = vipool_status::ALL
        .iter()
        .map(|status| status.text().to_str().unwrap().to_owned())
        .collect();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let mut map = null_mut();
    // SAFETY: the text and the output pointer are valid.
    let status = unsafe { vipool_map_open(c_chars(path), path.len(), null(), &mut map) };
    assert_eq!(status, VIPOOL_ERR_MISSING);
    texts.push(last_error());
    for shortage in [Shortage::Exhausted, Shortage::Lingering, Shortage::Draining] {
        texts.push(shortage.to_string());
    }
    for number in 0..=255 {
        texts.push(copy_c_string(vipool_reason_get_text(number)));
    }
    for text in texts {
        let has_command = text.contains("'vipool") || text.contains("vipool up");
        let has_key = text.contains("-sessions");
        assert!(!has_command && !has_key, "{text}");
    }
}

#[test]
fn directory_of_a_map_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let missing_directory = directory.path().join("missing");
    let missing_path = missing_directory.to_str().unwrap();
    let (mut map, mut reader) = (null_mut(), null_mut());
    // SAFETY: the texts, handles and output pointers are valid. The plan is freed once.
    unsafe {
        let plan = build::plan(&plan(), 0).unwrap();
        for path in ["", missing_path] {
            let status = vipool_map_create(c_chars(path), path.len(), plan, null(), &mut map);
            assert_eq!(status, VIPOOL_ERR_DIRECTORY, "{path:?}");
        }
        vipool_plan_free(plan);
        let status = vipool_map_open(c_chars(""), 0, null(), &mut map);
        assert_eq!(status, VIPOOL_ERR_DIRECTORY);
        assert_eq!(vipool_reader_open(c_chars(""), 0, &mut reader), VIPOOL_ERR_DIRECTORY);
        let (path, length) = (c_chars(missing_path), missing_path.len());
        let status = vipool_map_open(path, length, null(), &mut map);
        assert_eq!(status, VIPOOL_ERR_MISSING);
    }
    assert!(!missing_directory.exists());
}

/// Other writers cannot open or create the map. Snapshots and failed calls do not release the lock
/// of the holder.
#[test]
fn exclusive_holder_keeps_the_map_from_other_writers() {
    for holder_flags in [VIPOOL_MAP_EXCLUSIVE, VIPOOL_MAP_SINGLE_THREADED] {
        let directory = tempfile::tempdir().unwrap();
        let directory_text = directory.path().to_str().unwrap();
        let (path, length) = (c_chars(directory_text), directory_text.len());
        let (mut holder, mut other_writer, mut monitor) = (null_mut(), null_mut(), null_mut());
        let mut opened = sized::<vipool_opened_session>();
        // SAFETY: the texts, handles and structs are valid. Each handle is freed once.
        unsafe {
            let plan = build::plan(&plan(), 0).unwrap();
            let options_with = |flags| vipool_map_options { flags, ..sized() };
            let options = options_with(holder_flags);
            check(vipool_map_create(path, length, plan, &options, &mut holder)).unwrap();
            let options = options_with(VIPOOL_MAP_MONITOR);
            check(vipool_map_open(path, length, &options, &mut monitor)).unwrap();
            for value in 1..=3 {
                let id = session_id(value).raw();
                check(vipool_map_open_session(holder, id, null(), 100, &mut opened)).unwrap();
                // None of the following calls may release the lock of the holder.
                let mut snapshot = null_mut();
                check(vipool_snapshot_new(holder, &mut snapshot)).unwrap();
                vipool_snapshot_free(snapshot);
                check(vipool_snapshot_new(monitor, &mut snapshot)).unwrap();
                vipool_snapshot_free(snapshot);
                let exclusive = options_with(VIPOOL_MAP_EXCLUSIVE);
                for options in [null(), &raw const exclusive] {
                    let status = vipool_map_open(path, length, options, &mut other_writer);
                    assert_eq!(status, VIPOOL_ERR_BUSY_EXCLUSIVE);
                    let status = vipool_map_create(path, length, plan, options, &mut other_writer);
                    assert_eq!(status, VIPOOL_ERR_BUSY_EXCLUSIVE);
                }
                let status = vipool_map_open_session(monitor, id, null(), 100, &mut opened);
                assert_eq!(status, VIPOOL_ERR_BUSY_EXCLUSIVE);
                let status = vipool_map_close_session(monitor, id, 100, null_mut());
                assert_eq!(status, VIPOOL_ERR_BUSY_EXCLUSIVE);
                assert_eq!(vipool_map_recover(monitor), VIPOOL_ERR_BUSY_EXCLUSIVE);
                let status = vipool_map_update_session(monitor, id, null(), null());
                assert_eq!(status, VIPOOL_ERR_BUSY_EXCLUSIVE);
            }
            vipool_map_close(holder);
            check(vipool_map_open(path, length, null(), &mut other_writer)).unwrap();
            let id = session_id(9).raw();
            check(vipool_map_open_session(monitor, id, null(), 100, &mut opened)).unwrap();
            vipool_map_close(monitor);
            vipool_map_close(other_writer);
            vipool_plan_free(plan);
        }
    }
}

#[test]
fn open_session_refuses_another_user_and_takes_a_new_client() {
    let fixture = Fixture::new();
    let id = session_id(2).raw();
    let mut opened = sized::<vipool_opened_session>();
    let options_for = |name: &'static str| vipool_open_options {
        user: c_chars(name),
        user_length: name.len(),
        ..sized()
    };
    let mut snapshot = null_mut();
    let mut row = sized::<vipool_session_row>();
    let (mut count, second_session_index) = (0, 1);
    // SAFETY: the handles and structs are valid. The snapshot is freed once.
    unsafe {
        let out = &raw mut opened;
        check(vipool_map_open_session(fixture.map, id, &options_for("ada"), 100, out)).unwrap();
        let status = vipool_map_open_session(fixture.map, id, &options_for("bob"), 100, out);
        assert_eq!(status, VIPOOL_ERR_OTHER_USER);
        let options = vipool_open_options { address: c_ip(ip("10.0.5.13")), ..options_for("ada") };
        let status = vipool_map_open_session(fixture.map, id, &options, 100, out);
        assert_eq!(status, VIPOOL_ERR_OTHER_ADDRESS);
        let leader = vipool_leader { pid: 7, start_time: 1, ..vipool_leader::default() };
        let client = c_ip(ip("192.0.2.9"));
        check(vipool_map_update_session(fixture.map, id, &client, null())).unwrap();
        check(vipool_map_update_session(fixture.map, id, null(), &leader)).unwrap();
        let unknown_session = session_id(3).raw();
        let status = vipool_map_update_session(fixture.map, unknown_session, &client, &leader);
        assert_eq!(status, VIPOOL_ERR_NOT_OPEN);
        check(vipool_snapshot_new(fixture.map, &mut snapshot)).unwrap();
        let out = &raw mut row;
        check(vipool_snapshot_list_sessions(
            snapshot,
            second_session_index,
            out,
            1,
            &mut count,
            null_mut(),
        ))
        .unwrap();
        assert_eq!((row.session, row.client, row.leader), (id, client, leader));
        assert_eq!(copy_text(row.user, row.user_length), "ada");
        vipool_snapshot_free(snapshot);
    }
}
