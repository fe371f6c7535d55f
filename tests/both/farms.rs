//! Tests of farms that are built by function calls, without a file farm.toml.

use vipool::capi::status::vipool_status::*;
use vipool::farm::{Farm, PoolOptions, Server, ServerRange};
use vipool::interface::Interface;
use vipool::map::{ExhaustionPolicy, Settings};
use vipool::policy::{
    Features, LoopbackConnect, PoolRule, PortRange, Program, ProgramFlags, RewriteFlags,
    WildcardBind,
};
use vipool::pool::Reservation;
use vipool::range::Range;

use crate::api::Api;
use crate::suite::{addresses, for_user, ip, session_id, status_of};

fn range(text: &str) -> Range {
    text.parse().unwrap()
}

/// Returns a farm in which most settings differ from their defaults.
fn farm() -> Farm {
    let servers = vec![
        Server::new("ts1").with_max_sessions(3),
        Server::new("ts2").with_enabled(false),
        Server::new("ts3.example.net"),
    ];
    let mut farm = Farm::default();
    farm.servers = servers;
    let lab_rule = PoolRule::new("lab").with_users(["eve"]).with_programs(["firefox"]);
    farm.pools = vec![PoolOptions::new(lab_rule).with_max_addresses(2)];
    let server_range = |addresses: &str, server: &str, pool: &str| {
        ServerRange::new([range(addresses)]).with_server(server).with_pool(pool)
    };
    farm.ranges = vec![
        server_range("10.0.5.10-10.0.5.14", "ts1", "default").with_exclude([range("10.0.5.12")]),
        server_range("10.0.5.100-10.0.5.110", "ts1", "lab"),
        server_range("10.0.6.10-10.0.6.20", "ts2", "default"),
        server_range("10.0.7.10-10.0.7.20", "ts3.example.net", "default"),
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
    farm.rewrite.flags =
        RewriteFlags::default().with_pass_when_missing(true).with_hide_addresses(true);
    farm.rewrite.wildcard_udp_ports = vec![PortRange { first: 5000, last: 5001 }];
    farm.rewrite.fixed_ports = vec![PortRange { first: 80, last: 80 }];
    farm.programs = vec![
        Program::new("/usr/bin/server")
            .with_features(Features::default().with_loopback(true).with_client_ip(true))
            .with_flags(
                ProgramFlags::default()
                    .with_inherit(true)
                    .with_keep_ephemeral(true)
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

pub fn farm_built_by_calls_makes_a_plan<A: Api>() {
    let farm = farm();
    let (findings, api) = A::from_farm(&farm, "ts1", None);
    assert_eq!(findings, []);
    let api = api.unwrap();
    let pools: Vec<_> = api.pools().into_iter().map(|pool| (pool.name, pool.slots)).collect();
    let pool = |name: &str, slots| (name.to_owned(), slots);
    assert_eq!(pools[..2], [pool("default", 4), pool("lab", 2)]);
    assert_eq!(pools[2].0, "loopback");
    assert_eq!(
        api.settings(),
        Settings::without_cool_down()
            .with_cool_down(7)
            .with_low_water(1)
            .with_sessions_per_user(2)
            .with_max_sessions(3)
            .with_on_exhausted(ExhaustionPolicy::Wait(9))
    );
    assert_eq!(api.choose_pool("eve", None).unwrap().as_deref(), Some("lab"));
    assert_eq!(api.choose_pool("ada", Some("/usr/bin/firefox")).unwrap().as_deref(), Some("lab"));
    assert_eq!(addresses(&api.open(session_id(1), &for_user("ada"), 100).unwrap())[0], "10.0.5.13");
    let excluded_request = for_user("bob").with_address(ip("10.0.5.12"));
    assert_eq!(status_of(api.open(session_id(2), &excluded_request, 100)), VIPOOL_ERR_EXCLUDED);
    assert_eq!(api.pool_kind(ip("127.9.0.4")), None);
    assert_eq!(api.rewrite_flags(), 0b11);
    let (rule_id, features) = api.rule("/usr/bin/server", false).unwrap();
    assert_eq!((rule_id, features), (farm.programs[0].id(), 6));
    // The rule requires a script, but the call passes no script.
    assert_eq!(api.rule("/usr/bin/python3", false), None);
    let port_range = |first, last| PortRange { first, last };
    assert_eq!(A::fixed_ports(&farm), [port_range(80, 82)]);

    let (findings, disabled_api) = A::from_farm(&farm, "TS2", None);
    assert_eq!((findings, disabled_api.unwrap().pools()), (vec![], vec![]));
    let (_, ts3_api) = A::from_farm(&farm, "ts3", None);
    assert_eq!(ts3_api.unwrap().pools()[0].slots, 11);

    let interface = |index, name: &str, address: &str| Interface {
        index,
        name: name.into(),
        addresses: vec![address.parse().unwrap()],
    };
    let interfaces = [interface(1, "lo", "127.0.0.1/8"), interface(4, "eth1", "10.0.5.11/24")];
    let (findings, api_with_interfaces) = A::from_farm(&farm, "ts1", Some(&interfaces));
    assert_eq!(findings, [("eth1".to_owned(), "4".to_owned())]);
    // The plan also excludes the address of the host, 10.0.5.11.
    assert_eq!(api_with_interfaces.unwrap().pools()[0].slots, 3);
    let (findings, _) = A::from_farm(&farm, "ts1", Some(&interfaces[..1]));
    let missing_interface = |key: &str| (key.to_owned(), "no-interface".to_owned());
    assert_eq!(
        findings,
        [missing_interface("range[0].addresses[0]"), missing_interface("range[1].addresses[0]")]
    );
}

pub fn invalid_values_are_reported_as_findings<A: Api>() {
    let mut invalid_farm = farm();
    invalid_farm.ranges[0].server = Some("ts9".into());
    invalid_farm.programs[0].pattern = "bin/server".into();
    let (findings, _) = A::from_farm(&invalid_farm, "ts1", None);
    let keys: Vec<_> = findings.iter().map(|(key, _)| &**key).collect();
    assert!(keys.contains(&"range[0].server") && keys.contains(&"program[0].path"), "{findings:?}");
    let (findings, api) = A::from_farm(&farm(), "nowhere", None);
    assert_eq!(findings, [("server".to_owned(), "unknown-server".to_owned())]);
    assert_eq!(api.err(), Some(VIPOOL_ERR_FARM as i32));

    // A farm that is built by calls is validated like farm.toml.
    for range in ["224.0.0.1", "127.0.0.9", "0.0.0.0/0", "ff02::1"] {
        let mut invalid_farm = farm();
        invalid_farm.ranges[0].addresses = vec![range.parse().unwrap()];
        let (findings, api) = A::from_farm(&invalid_farm, "ts1", None);
        assert!(findings.iter().any(|(_, code)| code == "not-hosts"), "{range}: {findings:?}");
        assert_eq!(api.err(), Some(VIPOOL_ERR_FARM as i32), "{range}");
    }
    for pattern in ["", "/", "bin/server", "/bin/../server"] {
        let mut invalid_farm = farm();
        invalid_farm.programs[0].pattern = pattern.into();
        let (findings, api) = A::from_farm(&invalid_farm, "ts1", None);
        assert!(findings.iter().any(|(_, code)| code == "path"), "{pattern:?}: {findings:?}");
        assert_eq!(api.err(), Some(VIPOOL_ERR_FARM as i32), "{pattern:?}");
    }
}
