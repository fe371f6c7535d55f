//! Tests of files, the journal, the process list and functions that read the state of the machine.

use std::fs;
use std::net::IpAddr;

use vipool::capi::status::vipool_status::*;
use vipool::map::{Settings, SlotState};
use vipool::policy::{Program, ProgramFlags};
use vipool::range::Range;

use crate::api::{Api, Step};
use crate::suite::{failed, ip, plan, session, user};

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

pub fn exclusive_writer_opens_and_closes<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    for in_files in [false, true] {
        let mut api = A::new_exclusive(&plan(), in_files.then_some(directory.path())).unwrap();
        let before = api.open(session(1), &user("ada"), 100).unwrap();
        let done = api.run_exclusive(&[
            Step::Open(session(2), "bob"),
            Step::Open(session(2), "bob"),
            Step::CloseByHandle(before.handle),
            Step::CloseByHandle(before.handle),
            Step::Close(session(1)),
            Step::Open(session(3), "eve"),
            Step::Close(session(3)),
        ]);
        let ips = |place: usize| -> Vec<_> {
            done[place].as_ref().unwrap().iter().map(|lease| lease.address).collect()
        };
        assert_eq!(ips(0), [ip("10.0.5.11"), ip("127.3.0.3")]);
        assert_eq!(ips(1), ips(0));
        assert_eq!(done[2], Ok(before.leases));
        assert_eq!(failed(done[3].clone()), VIPOOL_ERR_STALE);
        assert_eq!(failed(done[4].clone()), VIPOOL_ERR_NOT_OPEN);
        assert_eq!(done[5], done[6]);
        // The map can still be used after the exclusive writer was dropped.
        assert_eq!(api.sessions().len(), 1);
        let found = api.find(session(2)).unwrap();
        assert_eq!(api.find_in_map(session(2)), Ok(found.clone()));
        assert_eq!(failed(api.find_in_map(session(3))), VIPOOL_ERR_NOT_OPEN);
        assert_eq!(api.find_by_handle(&found.0), Some(found.1));
        assert_eq!(api.find_by_handle(&before.handle), None);
        assert_eq!(api.boot(), found.0.boot);
        api.open(session(4), &user("ada"), 100).unwrap();
    }
}

pub fn journal_lists_events<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let missing = A::journal(directory.path(), 1).unwrap_err();
    assert_eq!(missing, VIPOOL_ERR_MISSING as i32);
    let api = A::create_in_files(&plan(), directory.path()).unwrap();
    let client = user("ada").with_client(ip("192.0.2.9"));
    let opened = api.open(session(1), &client, 100).unwrap();
    api.close_session(session(1), 107).unwrap();
    let (entries, lost, next) = A::journal(directory.path(), 1).unwrap();
    assert_eq!((entries.len(), lost, next), (3, 0, 4));
    for (number, (entry, lease)) in (1..).zip(entries.iter().zip(&opened.leases)) {
        assert_eq!((entry.number, entry.tick, entry.kind), (number, 100, 1));
        assert_eq!((entry.session, entry.generation), (session(1), lease.generation));
        assert_eq!((entry.address, entry.client), (Some(lease.address), client.client));
        assert_eq!(entry.user.as_deref(), Some("ada"));
    }
    let last = &entries[2];
    assert_eq!((last.number, last.tick, last.kind, &last.user), (3, 107, 2, &None));
    let (entries, _, next) = A::journal(directory.path(), 3).unwrap();
    assert_eq!((entries.len(), next), (1, 4));
    let (entries, _, next) = A::journal(directory.path(), 4).unwrap();
    assert_eq!((entries.len(), next), (0, 4));

    // Write more events than the journal can hold.
    for _ in 0..400 {
        api.open(session(1), &user("ada"), 200).unwrap();
        api.close_session(session(1), 200).unwrap();
    }
    let (entries, lost, next) = A::journal(directory.path(), 1).unwrap();
    assert_eq!((entries.len(), lost, next), (1024, 179, 1204));
    assert_eq!(entries[0].number, 180);
}

pub fn copy_leaves_the_files_unchanged<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let api = A::create_in_files(&plan(), directory.path()).unwrap();
    let opened = api.open(session(1), &user("ada"), 100).unwrap();
    let read = |name| fs::read(directory.path().join(name)).unwrap();
    let (map, sessions) = (read("map"), read("sessions"));
    let copy = A::open_bytes(&map, &sessions).unwrap();
    assert_eq!(copy.sessions(), api.sessions());
    let nameless = A::open_bytes(&map, &[]).unwrap();
    assert_eq!(nameless.sessions()[0].user, None);
    assert_eq!(A::open_bytes(&map[..100], &[]).err(), Some(VIPOOL_ERR_DAMAGED as i32));
    copy.close(&opened.handle, 101).unwrap();
    assert!(api.is_live(&opened.handle));
}

pub fn match_results_explain_each_rule<A: Api>() {
    let mut listed = plan();
    for (pattern, script) in
        [("/usr/bin/nc", None), ("/opt/nc", None), ("nc", Some("x.py")), ("other", None)]
    {
        let mut program = Program::new(pattern);
        program.script = script.map(str::to_owned);
        listed.policy.programs.push(program);
    }
    let api = A::new(&listed).unwrap();
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
    assert_eq!(rows[0].0, listed.policy.programs[0].id());
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
    let listed = |target: Option<&str>| {
        let mut program = Program::new(link);
        program.target = target.map(str::to_owned);
        plan().with_policy(vipool::policy::Policy::new([program]))
    };
    assert_eq!(A::new(&listed(None)).unwrap().rule(file, false), None);
    assert!(A::new(&listed(Some(file))).unwrap().rule(file, false).is_some());
    let followed = A::with_followed_links(&listed(None)).unwrap();
    assert!(followed.rule(file, false).is_some());
    assert!(followed.match_results(file)[0].2.contains("link"));
}

pub fn system_facts_are_reported<A: Api>() {
    assert_eq!(A::interfaces(), vipool::system::interfaces().unwrap());
    let lo = A::interfaces().into_iter().find(|interface| interface.name == "lo").unwrap();
    assert!(lo.addresses.iter().any(|net| net.addr() == ip("127.0.0.1")));
    assert_eq!(A::map_directory(), "/run/vipool");
    let own = A::leader_from_pid(std::process::id()).unwrap();
    assert_eq!(own.pid, std::process::id());
    assert!(own.start_time > 0 && own.pid_namespace > 0);
    assert_eq!(A::leader_from_pid(u32::MAX >> 1).unwrap_err(), VIPOOL_ERR_NOT_FOUND as i32);

    // The session of this process is its audit session, if it has one.
    let api = A::new(&plan()).unwrap();
    assert_eq!(api.process_session(0), None);
    let audit = fs::read_to_string("/proc/self/sessionid").unwrap_or_default();
    if let Ok(own) = format!("audit:{}", audit.trim()).parse() {
        api.open(own, &user("ada"), 100).unwrap();
        assert_eq!(api.process_session(0), Some((own, 1)));
        assert_eq!(api.process_session(std::process::id()), Some((own, 1)));
    }

    // The parent of this process has no rule.
    assert_eq!(api.parent_rule(), None);
    let parent = std::os::unix::process::parent_id();
    let executable = fs::read_link(format!("/proc/{parent}/exe")).unwrap();
    let mut listed = plan();
    listed.policy.programs = vec![
        Program::new(executable.to_str().unwrap())
            .with_flags(ProgramFlags::default().with_inherit(true)),
    ];
    let api = A::new(&listed).unwrap();
    assert_eq!(api.parent_rule(), Some((listed.policy.programs[0].id(), parent)));

    // One cooled address has a socket, so it must linger.
    let mut waiting = plan();
    waiting.settings = Settings::new().with_cool_down(1).with_check_in_use(true);
    waiting.pools.remove(0);
    let api = A::new(&waiting).unwrap();
    let first: IpAddr = api.open(session(1), &user("ada"), 100).unwrap().leases[0].address;
    api.open(session(2), &user("ada"), 100).unwrap();
    for value in [1, 2] {
        api.close_session(session(value), 100).unwrap();
    }
    let _socket = std::net::UdpSocket::bind((first, 0)).unwrap();
    let [freed, lingering, closed] = api.reap_by_system(200).unwrap();
    assert_eq!((freed, lingering, closed), (1, 1, 0));
    let slots = api.slots(0);
    assert_eq!(slots[0].state, SlotState::Free);
}

pub fn client_address_is_stored_and_removed<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let api = A::new(&plan()).unwrap();
    let handle = api.open(session(1), &user("ada"), 100).unwrap().handle;
    let other = api.open(session(2), &user("ada"), 100).unwrap().handle;
    A::set_client(directory.path(), &handle, ip("2001:db8::7")).unwrap();
    assert_eq!(A::get_client(directory.path(), &handle), Some(ip("2001:db8::7")));
    assert_eq!(A::get_client(directory.path(), &other), None);
    A::remove_client(directory.path(), &handle).unwrap();
    A::remove_client(directory.path(), &handle).unwrap();
    assert_eq!(A::get_client(directory.path(), &handle), None);
    let nowhere = directory.path().join("nowhere");
    A::set_client(&nowhere, &handle, ip("192.0.2.1")).unwrap_err();
}

pub fn ranges_are_formatted_and_intersected<A: Api>() {
    assert_eq!(A::range_text(&range("10.0.5.0/24")), "10.0.5.0-10.0.5.255");
    assert_eq!(A::range_text(&range("2001:db8::7")), "2001:db8::7");
    let both = A::intersection(&range("10.0.5.0/24"), &range("10.0.5.200-10.0.6.9"));
    assert_eq!(both, Some((ip("10.0.5.200"), ip("10.0.5.255"))));
    assert_eq!(A::intersection(&range("10.0.5.0/24"), &range("10.0.6.0/24")), None);
}
