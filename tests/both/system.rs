//! Tests of map files, the journal, the process list, client files, ranges, and functions that
//! read the state of the machine.

use std::fs;
use std::net::IpAddr;

use vipool::capi::status::vipool_status::*;
use vipool::map::{Settings, SlotState};
use vipool::policy::{Program, ProgramFlags};
use vipool::range::Range;

use crate::api::{Api, WriterOperation};
use crate::suite::{for_user, ip, plan, session_id, status_of};

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

pub fn exclusive_writer_opens_and_closes_sessions<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    for is_in_files in [false, true] {
        let mut api = A::new_exclusive(&plan(), is_in_files.then_some(directory.path())).unwrap();
        let first_session = api.open(session_id(1), &for_user("ada"), 100).unwrap();
        let results = api.run_exclusive(&[
            WriterOperation::Open(session_id(2), "bob"),
            WriterOperation::Open(session_id(2), "bob"),
            WriterOperation::CloseByHandle(first_session.handle),
            WriterOperation::CloseByHandle(first_session.handle),
            WriterOperation::Close(session_id(1)),
            WriterOperation::Open(session_id(3), "eve"),
            WriterOperation::Close(session_id(3)),
        ]);
        let addresses = |index: usize| -> Vec<_> {
            results[index].as_ref().unwrap().iter().map(|lease| lease.address).collect()
        };
        assert_eq!(addresses(0), [ip("10.0.5.11"), ip("127.3.0.3")]);
        assert_eq!(addresses(1), addresses(0));
        assert_eq!(results[2], Ok(first_session.leases));
        assert_eq!(status_of(results[3].clone()), VIPOOL_ERR_STALE);
        assert_eq!(status_of(results[4].clone()), VIPOOL_ERR_NOT_OPEN);
        assert_eq!(results[5], results[6]);
        // The map accepts ordinary operations again after `run_exclusive`.
        assert_eq!(api.sessions().len(), 1);
        let found_session = api.find(session_id(2)).unwrap();
        assert_eq!(api.find_in_map(session_id(2)), Ok(found_session.clone()));
        assert_eq!(status_of(api.find_in_map(session_id(3))), VIPOOL_ERR_NOT_OPEN);
        assert_eq!(api.find_by_handle(&found_session.0), Some(found_session.1));
        assert_eq!(api.find_by_handle(&first_session.handle), None);
        assert_eq!(api.boot(), found_session.0.boot);
        api.open(session_id(4), &for_user("ada"), 100).unwrap();
    }
}

pub fn journal_lists_events<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let missing_journal_error = A::journal(directory.path(), 1).unwrap_err();
    assert_eq!(missing_journal_error, VIPOOL_ERR_MISSING as i32);
    let api = A::create_in_files(&plan(), directory.path()).unwrap();
    let options = for_user("ada").with_client(ip("192.0.2.9"));
    let opened = api.open(session_id(1), &options, 100).unwrap();
    api.close_session(session_id(1), 107).unwrap();
    let (entries, lost, next_number) = A::journal(directory.path(), 1).unwrap();
    assert_eq!((entries.len(), lost, next_number), (4, 0, 5));
    for (number, (entry, lease)) in (1..).zip(entries.iter().zip(&opened.leases)) {
        assert_eq!((entry.number, entry.tick, entry.kind), (number, 100, 1));
        assert_eq!((entry.session, entry.generation), (session_id(1), lease.generation));
        assert_eq!(entry.pool, lease.pool);
        assert_eq!((entry.address, entry.client), (Some(lease.address), options.client));
        assert_eq!(entry.user.as_deref(), Some("ada"));
    }
    // The journal has one event for the release of each lease.
    for (number, (entry, lease)) in (3..).zip(entries[2..].iter().zip(&opened.leases)) {
        assert_eq!((entry.number, entry.tick, entry.kind), (number, 107, 2));
        assert_eq!((entry.session, entry.generation), (session_id(1), lease.generation));
        assert_eq!((entry.address, entry.pool), (Some(lease.address), lease.pool));
        assert_eq!(entry.user, None);
    }
    let (entries, _, next_number) = A::journal(directory.path(), 4).unwrap();
    assert_eq!((entries.len(), next_number), (1, 5));
    let (entries, _, next_number) = A::journal(directory.path(), 5).unwrap();
    assert_eq!((entries.len(), next_number), (0, 5));

    // Write more events than the journal can hold.
    for _ in 0..400 {
        api.open(session_id(1), &for_user("ada"), 200).unwrap();
        api.close_session(session_id(1), 200).unwrap();
    }
    let (entries, lost, next_number) = A::journal(directory.path(), 1).unwrap();
    assert_eq!((entries.len(), lost, next_number), (1024, 580, 1605));
    assert_eq!(entries[0].number, 581);

    // The event of a failed open has no address, but it names the exhausted pool.
    for value in 1..=4 {
        api.open(session_id(value), &for_user("ada"), 300).unwrap();
    }
    api.open(session_id(5), &for_user("ada"), 300).unwrap_err();
    let (entries, _, _) = A::journal(directory.path(), next_number + 8).unwrap();
    assert_eq!((entries.len(), entries[0].kind, entries[0].pool), (1, 3, 0));
    assert_eq!((entries[0].address, entries[0].generation), (None, 0));
}

pub fn copy_leaves_the_files_unchanged<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let api = A::create_in_files(&plan(), directory.path()).unwrap();
    let opened = api.open(session_id(1), &for_user("ada"), 100).unwrap();
    let read_file = |name| fs::read(directory.path().join(name)).unwrap();
    let (map, sessions) = (read_file("map"), read_file("sessions"));
    let copied_map = A::open_bytes(&map, &sessions).unwrap();
    assert_eq!(copied_map.sessions(), api.sessions());
    let copied_map_without_names = A::open_bytes(&map, &[]).unwrap();
    assert_eq!(copied_map_without_names.sessions()[0].user, None);
    assert_eq!(A::open_bytes(&map[..100], &[]).err(), Some(VIPOOL_ERR_DAMAGED as i32));
    copied_map.close(&opened.handle, 101).unwrap();
    assert!(api.is_live(&opened.handle));
}

pub fn match_results_explain_each_rule<A: Api>() {
    let mut plan_with_rules = plan();
    for (pattern, script) in
        [("/usr/bin/nc", None), ("/opt/nc", None), ("nc", Some("x.py")), ("other", None)]
    {
        let mut program = Program::new(pattern);
        program.script = script.map(str::to_owned);
        plan_with_rules.policy.programs.push(program);
    }
    let api = A::new(&plan_with_rules).unwrap();
    let rows = api.match_results("/usr/bin/nc");
    let results: Vec<_> = rows.iter().map(|(_, pattern, text)| (&**pattern, &**text)).collect();
    assert_eq!(
        results,
        [
            ("/usr/bin/nc", "matches by full path"),
            ("/opt/nc", "same file name, but the rule has another full path"),
            ("nc", "the interpreter is listed only with another script"),
            ("other", "another program"),
        ]
    );
    assert_eq!(rows[0].0, plan_with_rules.policy.programs[0].id());
    assert_eq!(api.rewrite_flags(), 0);
    assert_eq!(
        A::find_script(&["-u", "-W", "ignore", "/opt/run.py"]).as_deref(),
        Some("/opt/run.py")
    );
    assert_eq!(A::find_script(&["-c", "print(1)"]), None);
    assert_eq!(A::find_script(&[]), None);
}

pub fn followed_link_matches_its_target<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let (file, link) = (root.join("nc.real"), root.join("nc"));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let (file, link) = (file.to_str().unwrap(), link.to_str().unwrap());
    let plan_with_target = |target: Option<&str>| {
        let mut program = Program::new(link);
        program.target = target.map(str::to_owned);
        plan().with_policy(vipool::policy::Policy::new([program]))
    };
    assert_eq!(A::new(&plan_with_target(None)).unwrap().rule(file, false), None);
    assert!(A::new(&plan_with_target(Some(file))).unwrap().rule(file, false).is_some());
    let api = A::with_followed_links(&plan_with_target(None)).unwrap();
    assert!(api.rule(file, false).is_some());
    assert!(api.match_results(file)[0].2.contains("link"));
}

pub fn system_state_is_reported<A: Api>() {
    assert_eq!(A::interfaces(), vipool::system::interfaces().unwrap());
    let loopback_interface =
        A::interfaces().into_iter().find(|interface| interface.name == "lo").unwrap();
    assert!(loopback_interface.addresses.iter().any(|address| address.addr() == ip("127.0.0.1")));
    assert_eq!(A::map_directory(), "/run/vipool");
    let leader = A::leader_from_pid(std::process::id()).unwrap();
    assert_eq!(leader.pid, std::process::id());
    assert!(leader.start_time > 0 && leader.pid_namespace > 0);
    assert_eq!(A::leader_from_pid(u32::MAX >> 1).unwrap_err(), VIPOOL_ERR_NOT_FOUND as i32);

    // `process_session` returns the audit session of a process only if this session is open in the
    // map. The pid 0 means this process.
    let api = A::new(&plan()).unwrap();
    assert_eq!(api.process_session(0), None);
    let audit_text = fs::read_to_string("/proc/self/sessionid").unwrap_or_default();
    if let Ok(audit_session) = format!("audit:{}", audit_text.trim()).parse() {
        api.open(audit_session, &for_user("ada"), 100).unwrap();
        assert_eq!(api.process_session(0), Some((audit_session, 1)));
        assert_eq!(api.process_session(std::process::id()), Some((audit_session, 1)));
    }

    // The plan has no rule that this process could inherit.
    assert_eq!(api.parent_rule(), None);
    let parent_pid = std::os::unix::process::parent_id();
    let executable = fs::read_link(format!("/proc/{parent_pid}/exe")).unwrap();
    let mut plan_with_parent = plan();
    plan_with_parent.policy.programs = vec![
        Program::new(executable.to_str().unwrap())
            .with_flags(ProgramFlags::default().with_inherit(true)),
    ];
    let api = A::new(&plan_with_parent).unwrap();
    assert_eq!(api.parent_rule(), Some((plan_with_parent.policy.programs[0].id(), parent_pid)));

    // When `reap_by_system` runs, the addresses of two closed sessions have cooled down. A socket
    // is bound to the address of session 1, so this address must linger.
    let mut plan_with_in_use_check = plan();
    plan_with_in_use_check.settings =
        Settings::without_cool_down().with_cool_down(1).with_check_in_use(true);
    plan_with_in_use_check.pools.remove(0);
    let api = A::new(&plan_with_in_use_check).unwrap();
    let first_address: IpAddr =
        api.open(session_id(1), &for_user("ada"), 100).unwrap().leases[0].address;
    api.open(session_id(2), &for_user("ada"), 100).unwrap();
    for value in [1, 2] {
        api.close_session(session_id(value), 100).unwrap();
    }
    let _socket = std::net::UdpSocket::bind((first_address, 0)).unwrap();
    let [freed, lingering, closed] = api.reap_by_system(200).unwrap();
    assert_eq!((freed, lingering, closed), (1, 1, 0));
    // `slots` begins with slot 1, which has the address of session 2.
    let slots = api.slots(0);
    assert_eq!(slots[0].state, SlotState::Free);
}

pub fn client_address_is_stored_and_removed<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let api = A::new(&plan()).unwrap();
    let handle = api.open(session_id(1), &for_user("ada"), 100).unwrap().handle;
    let handle_without_client = api.open(session_id(2), &for_user("ada"), 100).unwrap().handle;
    A::set_client(directory.path(), &handle, ip("2001:db8::7")).unwrap();
    assert_eq!(A::get_client(directory.path(), &handle), Some(ip("2001:db8::7")));
    assert_eq!(A::get_client(directory.path(), &handle_without_client), None);
    A::remove_client(directory.path(), &handle).unwrap();
    A::remove_client(directory.path(), &handle).unwrap();
    assert_eq!(A::get_client(directory.path(), &handle), None);
    let missing_directory = directory.path().join("nowhere");
    A::set_client(&missing_directory, &handle, ip("192.0.2.1")).unwrap_err();
}

pub fn ranges_are_formatted_and_intersected<A: Api>() {
    assert_eq!(A::format_range(&range("10.0.5.0/24")), "10.0.5.0-10.0.5.255");
    assert_eq!(A::format_range(&range("2001:db8::7")), "2001:db8::7");
    let intersection = A::intersection(&range("10.0.5.0/24"), &range("10.0.5.200-10.0.6.9"));
    assert_eq!(intersection, Some((ip("10.0.5.200"), ip("10.0.5.255"))));
    assert_eq!(A::intersection(&range("10.0.5.0/24"), &range("10.0.6.0/24")), None);
}
