//! More of the tests: farms, the writer, the journal, and what the machine says.

use std::fs;
use std::net::IpAddr;

use vipool::capi::status::vipool_status::*;
use vipool::farm::{Farm, PoolOptions, RewriteOptions, Server, ServerRange};
use vipool::interface::Interface;
use vipool::map::{ExhaustionPolicy, Settings, SlotState};
use vipool::policy::{
    Features, LoopbackConnect, PoolRule, PortRange, Program, ProgramFlags, RewriteFlags,
    WildcardBind,
};
use vipool::pool::Reservation;
use vipool::range::Range;

use crate::api::{Api, Step};
use crate::suite::{addresses, failed, ip, plan, session, user};

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

/// Of everything that a farm can say, something that is not the default.
fn farm() -> Farm {
    let servers = vec![
        Server { max_sessions: Some(3), ..Server::new("ts1") },
        Server { enabled: false, ..Server::new("ts2") },
        Server::new("ts3.example.net"),
    ];
    let mut farm = Farm { servers, ..Farm::default() };
    let lab = PoolRule::new("lab").with_users(["eve"]).with_programs(["firefox"]);
    farm.pools = vec![PoolOptions { rule: lab, max_addresses: Some(2) }];
    let entry = |addresses: &str, server: &str, pool: &str| ServerRange {
        addresses: vec![range(addresses)],
        server: Some(server.into()),
        pool: pool.into(),
        ..ServerRange::default()
    };
    farm.ranges = vec![
        ServerRange {
            exclude: vec![range("10.0.5.12")],
            ..entry("10.0.5.10-10.0.5.14", "ts1", "default")
        },
        entry("10.0.5.100-10.0.5.110", "ts1", "lab"),
        entry("10.0.6.10-10.0.6.20", "ts2", "default"),
        entry("10.0.7.10-10.0.7.20", "ts3.example.net", "default"),
    ];
    farm.loopback.ranges = vec![range("127.9.0.0/28")];
    farm.loopback.exclude = vec![range("127.9.0.4")];
    farm.network.subnets = vec![
        "10.0.5.0/24".parse().unwrap(),
        "10.0.6.0/24".parse().unwrap(),
        "10.0.7.0/24".parse().unwrap(),
    ];
    farm.network.dhcp_ranges = vec![range("10.0.5.200-10.0.5.250")];
    farm.sessions.cool_down = 7;
    farm.sessions.check_in_use = false;
    farm.sessions.low_water = 1;
    farm.sessions.sessions_per_user = 2;
    farm.sessions.on_exhausted = ExhaustionPolicy::Wait(9);
    farm.reservations = vec![Reservation::new(ip("10.0.5.13"), "ada")];
    farm.rewrite = RewriteOptions {
        flags: RewriteFlags::default().with_pass_when_missing(true).with_hide_addresses(true),
        wildcard_udp_ports: vec![PortRange { first: 5000, last: 5001 }],
        fixed_ports: vec![PortRange { first: 80, last: 80 }],
    };
    farm.programs = vec![
        Program::new("/usr/bin/server")
            .with_features(Features::default().with_loopback(true).with_client_ip(true))
            .with_flags(
                ProgramFlags::default()
                    .with_inherit(true)
                    .with_map_ephemeral(true)
                    .with_wildcard(WildcardBind::Keep)
                    .with_loopback_connect(LoopbackConnect::Own),
            )
            .with_own_ports([PortRange { first: 81, last: 82 }])
            .with_shared_ports([PortRange { first: 631, last: 631 }]),
        Program::new("/usr/bin/python3")
            .with_script("/opt/run.py")
            .with_features(Features::default().with_client_ip(true)),
    ];
    farm
}

pub fn farms_built_by_calls<A: Api>() {
    let farm = farm();
    let (found, api) = A::of_farm(&farm, "ts1", None);
    assert_eq!(found, []);
    let api = api.unwrap();
    let pools: Vec<_> = api.pools().into_iter().map(|pool| (pool.name, pool.slots)).collect();
    let pool = |name: &str, slots| (name.to_owned(), slots);
    assert_eq!(pools[..2], [pool("default", 4), pool("lab", 2)]);
    assert_eq!(pools[2].0, "loopback");
    assert_eq!(
        api.settings(),
        Settings::new()
            .with_cool_down(7)
            .with_low_water(1)
            .with_sessions_per_user(2)
            .with_max_sessions(3)
            .with_on_exhausted(ExhaustionPolicy::Wait(9))
    );
    assert_eq!(api.choose_pool("eve", None).as_deref(), Some("lab"));
    assert_eq!(api.choose_pool("ada", Some("/usr/bin/firefox")).as_deref(), Some("lab"));
    assert_eq!(addresses(&api.open(session(1), &user("ada"), 100).unwrap())[0], "10.0.5.13");
    let excluded = user("bob").with_address(ip("10.0.5.12"));
    assert_eq!(failed(api.open(session(2), &excluded, 100)), VIPOOL_ERR_EXCLUDED);
    assert_eq!(api.pool_kind(ip("127.9.0.4")), None);
    assert_eq!(api.rule_flags(), 0b11);
    let (rule, features) = api.rule("/usr/bin/server", false).unwrap();
    assert_eq!((rule, features), (farm.programs[0].id(), 6));
    // Its script is not known here.
    assert_eq!(api.rule("/usr/bin/python3", false), None);
    let port = |first, last| PortRange { first, last };
    assert_eq!(A::fixed_ports(&farm), [port(80, 82)]);

    let (found, disabled) = A::of_farm(&farm, "TS2", None);
    assert_eq!((found, disabled.unwrap().pools()), (vec![], vec![]));
    let (_, other) = A::of_farm(&farm, "ts3", None);
    assert_eq!(other.unwrap().pools()[0].slots, 11);

    let eth = |index, name: &str, net: &str| Interface {
        index,
        name: name.into(),
        addresses: vec![net.parse().unwrap()],
    };
    let interfaces = [eth(1, "lo", "127.0.0.1/8"), eth(4, "eth1", "10.0.5.11/24")];
    let (found, matched) = A::of_farm(&farm, "ts1", Some(&interfaces));
    assert_eq!(found, [("eth1".to_owned(), "4".to_owned())]);
    // Without the host's own address too.
    assert_eq!(matched.unwrap().pools()[0].slots, 3);
    let (found, _) = A::of_farm(&farm, "ts1", Some(&interfaces[..1]));
    let missing = |key: &str| (key.to_owned(), "no-interface".to_owned());
    assert_eq!(found, [missing("range[0].addresses[0]"), missing("range[1].addresses[0]")]);
}

pub fn farms_that_are_wrong<A: Api>() {
    let mut wrong = farm();
    wrong.ranges[0].server = Some("ts9".into());
    wrong.programs[0].pattern = "bin/server".into();
    let (found, _) = A::of_farm(&wrong, "ts1", None);
    let keys: Vec<_> = found.iter().map(|(key, _)| &**key).collect();
    assert!(keys.contains(&"range[0].server") && keys.contains(&"program[0].path"), "{found:?}");
    let (found, none) = A::of_farm(&farm(), "nowhere", None);
    assert_eq!(found, [("server".to_owned(), "unknown-server".to_owned())]);
    assert_eq!(none.unwrap().pools(), []);
}

pub fn a_writer_has_the_map_to_itself<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    for in_files in [false, true] {
        let mut api = A::exclusive(&plan(), in_files.then_some(directory.path())).unwrap();
        let before = api.open(session(1), &user("ada"), 100).unwrap();
        let done = api.alone(&[
            Step::Open(session(2), "bob"),
            Step::Open(session(2), "bob"),
            Step::CloseHandle(before.handle),
            Step::CloseHandle(before.handle),
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
        // The map goes on after it.
        assert_eq!(api.sessions().len(), 1);
        let found = api.find(session(2)).unwrap();
        assert_eq!(api.find_in_map(session(2)), Ok(found.clone()));
        assert_eq!(failed(api.find_in_map(session(3))), VIPOOL_ERR_NOT_OPEN);
        assert_eq!(api.leases_of(&found.0), Some(found.1));
        assert_eq!(api.leases_of(&before.handle), None);
        assert_eq!(api.boot(), found.0.boot);
        api.open(session(4), &user("ada"), 100).unwrap();
    }
}

pub fn the_journal_tells_all<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let missing = A::journal(directory.path(), 1).unwrap_err();
    assert_eq!(missing, VIPOOL_ERR_MISSING as i32);
    let api = A::created(&plan(), directory.path()).unwrap();
    let client = user("ada").with_client(ip("192.0.2.9"));
    let opened = api.open(session(1), &client, 100).unwrap();
    api.close_session(session(1), 107).unwrap();
    let (entries, lost, next) = A::journal(directory.path(), 1).unwrap();
    assert_eq!((entries.len(), lost, next), (3, 0, 4));
    for (number, (entry, lease)) in (1..).zip(entries.iter().zip(&opened.leases)) {
        assert_eq!((entry.number, entry.at, entry.kind), (number, 100, 1));
        assert_eq!((entry.session, entry.generation), (session(1), lease.generation));
        assert_eq!((entry.address, entry.client), (Some(lease.address), client.client));
        assert_eq!(entry.user.as_deref(), Some("ada"));
    }
    let last = &entries[2];
    assert_eq!((last.number, last.at, last.kind, &last.user), (3, 107, 2, &None));
    let (entries, _, next) = A::journal(directory.path(), 3).unwrap();
    assert_eq!((entries.len(), next), (1, 4));
    let (entries, _, next) = A::journal(directory.path(), 4).unwrap();
    assert_eq!((entries.len(), next), (0, 4));

    // More than there is room for.
    for _ in 0..400 {
        api.open(session(1), &user("ada"), 200).unwrap();
        api.close_session(session(1), 200).unwrap();
    }
    let (entries, lost, next) = A::journal(directory.path(), 1).unwrap();
    assert_eq!((entries.len(), lost, next), (1024, 179, 1204));
    assert_eq!(entries[0].number, 180);
}

pub fn copies_of_files<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let api = A::created(&plan(), directory.path()).unwrap();
    let opened = api.open(session(1), &user("ada"), 100).unwrap();
    let read = |name| fs::read(directory.path().join(name)).unwrap();
    let (map, sessions) = (read("map"), read("sessions"));
    let copy = A::copied(&map, &sessions).unwrap();
    assert_eq!(copy.sessions(), api.sessions());
    let nameless = A::copied(&map, &[]).unwrap();
    assert_eq!(nameless.sessions()[0].user, None);
    assert_eq!(A::copied(&map[..100], &[]).err(), Some(VIPOOL_ERR_DAMAGED as i32));
    copy.close(&opened.handle, 101).unwrap();
    assert!(api.is_live(&opened.handle));
}

pub fn why_a_rule_holds<A: Api>() {
    let mut listed = plan();
    for (pattern, script) in
        [("/usr/bin/nc", None), ("/opt/nc", None), ("nc", Some("x.py")), ("other", None)]
    {
        let mut program = Program::new(pattern);
        program.script = script.map(str::to_owned);
        listed.policy.programs.push(program);
    }
    let api = A::new(&listed).unwrap();
    let rows = api.explain("/usr/bin/nc");
    let said: Vec<_> = rows.iter().map(|(_, pattern, text)| (&**pattern, &**text)).collect();
    assert_eq!(
        said,
        [
            ("/usr/bin/nc", "matches by full path"),
            ("/opt/nc", "same file name, but the rule has another full path"),
            ("nc", "the interpreter is listed only with another script"),
            ("other", "another program"),
        ]
    );
    assert_eq!(rows[0].0, listed.policy.programs[0].id());
    assert_eq!(api.rule_flags(), 0);
    assert_eq!(
        A::script_of(&["-u", "-W", "ignore", "/opt/run.py"]).as_deref(),
        Some("/opt/run.py")
    );
    assert_eq!(A::script_of(&["-c", "print(1)"]), None);
    assert_eq!(A::script_of(&[]), None);
}

pub fn links_are_followed<A: Api>() {
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
    let followed = A::followed(&listed(None)).unwrap();
    assert!(followed.rule(file, false).is_some());
    assert!(followed.explain(file)[0].2.contains("link"));
}

pub fn what_the_machine_says<A: Api>() {
    assert_eq!(A::interfaces(), vipool::system::interfaces().unwrap());
    let lo = A::interfaces().into_iter().find(|interface| interface.name == "lo").unwrap();
    assert!(lo.addresses.iter().any(|net| net.addr() == ip("127.0.0.1")));
    assert_eq!(A::map_directory(), "/run/vipool");
    let own = A::leader_of(std::process::id()).unwrap();
    assert_eq!(own.pid, std::process::id());
    assert!(own.start_time > 0 && own.pid_namespace > 0);
    assert_eq!(A::leader_of(u32::MAX >> 1).unwrap_err(), VIPOOL_ERR_NOT_FOUND as i32);

    // The session of this process, if the system gave it one.
    let api = A::new(&plan()).unwrap();
    assert_eq!(api.session_of(0), None);
    let audit = fs::read_to_string("/proc/self/sessionid").unwrap_or_default();
    if let Ok(own) = format!("audit:{}", audit.trim()).parse() {
        api.open(own, &user("ada"), 100).unwrap();
        assert_eq!(api.session_of(0), Some((own, 1)));
        assert_eq!(api.session_of(std::process::id()), Some((own, 1)));
    }

    // The rule of whoever started this one.
    assert_eq!(api.parents_rule(), None);
    let parent = std::os::unix::process::parent_id();
    let executable = fs::read_link(format!("/proc/{parent}/exe")).unwrap();
    let mut listed = plan();
    listed.policy.programs = vec![
        Program::new(executable.to_str().unwrap())
            .with_flags(ProgramFlags::default().with_inherit(true)),
    ];
    let api = A::new(&listed).unwrap();
    assert_eq!(api.parents_rule(), Some((listed.policy.programs[0].id(), parent)));

    // A socket on an address that has cooled.
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

pub fn clients_are_told<A: Api>() {
    let directory = tempfile::tempdir().unwrap();
    let api = A::new(&plan()).unwrap();
    let handle = api.open(session(1), &user("ada"), 100).unwrap().handle;
    let other = api.open(session(2), &user("ada"), 100).unwrap().handle;
    A::tell_client(directory.path(), &handle, ip("2001:db8::7")).unwrap();
    assert_eq!(A::client(directory.path(), &handle), Some(ip("2001:db8::7")));
    assert_eq!(A::client(directory.path(), &other), None);
    A::forget_client(directory.path(), &handle).unwrap();
    A::forget_client(directory.path(), &handle).unwrap();
    assert_eq!(A::client(directory.path(), &handle), None);
    let nowhere = directory.path().join("nowhere");
    A::tell_client(&nowhere, &handle, ip("192.0.2.1")).unwrap_err();
}

pub fn ranges<A: Api>() {
    assert_eq!(A::range_text(&range("10.0.5.0/24")), "10.0.5.0-10.0.5.255");
    assert_eq!(A::range_text(&range("2001:db8::7")), "2001:db8::7");
    let both = A::intersection(&range("10.0.5.0/24"), &range("10.0.5.200-10.0.6.9"));
    assert_eq!(both, Some((ip("10.0.5.200"), ip("10.0.5.255"))));
    assert_eq!(A::intersection(&range("10.0.5.0/24"), &range("10.0.6.0/24")), None);
}
