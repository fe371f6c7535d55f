//! Tests for the plans of servers.

use std::net::IpAddr;

use crate::farm::{DEFAULT_MAX_IPV6_ADDRESSES, Farm, LOOPBACK_POOL, ServerPlan};
use crate::interface::Interface;
use crate::map::{ExhaustionPolicy, Plan};
use crate::policy::{PortRange, choose_pool};
use crate::pool::{Pool, Reservation};

fn plan(text: &str, host: &str, interfaces: Option<&[Interface]>) -> ServerPlan {
    let (farm, report) = Farm::parse(text);
    assert!(!report.has_errors(), "{report}");
    farm.plan(host, interfaces)
}

fn pool<'p>(plan: &'p Plan, name: &str) -> &'p Pool {
    plan.pools.iter().find(|pool| pool.name() == name).expect(name)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const FARM: &str = r#"
[server.ts1]
max-sessions = 9
[server."ts2.corp.example"]
[server.ts3]
enabled = false
[[range]]
addresses = ["10.0.5.10-10.0.5.19", "2001:db8::/64"]
exclude = "10.0.5.15"
server = "ts1"
[[range]]
addresses = "10.0.5.20-10.0.5.29"
server = "ts1"
pool = "lab"
[[range]]
addresses = "10.0.6.10-10.0.6.19"
server = "ts2.corp.example"
[pool.lab]
groups = ["students"]
programs = ["/opt/lab"]
max-addresses = 4
[reservations]
ada = ["10.0.5.12", "10.0.6.12"]
[sessions]
when-exhausted = "wait 5s"
[[program]]
path = "/usr/bin/app"
own-ports = [7000, "7001-7005"]
[rewrite]
fixed-ports = [80, 7003]
"#;

#[test]
fn each_server_has_its_own_plan() {
    let ts1_plan = plan(FARM, "TS1.corp.example", None);
    assert_eq!(ts1_plan.findings, []);
    let pool_rows: Vec<_> = ts1_plan
        .plan
        .pools
        .iter()
        .map(|pool| (pool.name(), pool.is_ipv4(), pool.slot_count()))
        .collect();
    assert_eq!(
        pool_rows,
        [
            ("default", Some(true), 9),
            ("default", Some(false), DEFAULT_MAX_IPV6_ADDRESSES),
            ("lab", Some(true), 4),
            ("loopback", Some(true), 2048),
        ]
    );
    assert_eq!(pool(&ts1_plan.plan, "default").slot_of(ip("10.0.5.15")), None);
    assert_eq!(
        ts1_plan.plan.reservations,
        [Reservation { user: "ada".into(), address: ip("10.0.5.12") }]
    );
    assert_eq!(ts1_plan.plan.settings.max_sessions, 9);
    assert_eq!(ts1_plan.plan.settings.on_exhausted, ExhaustionPolicy::Wait(5));
    assert_eq!(ts1_plan.plan.policy.programs.len(), 1);
    assert_eq!(
        choose_pool(&ts1_plan.plan.policy.pool_rules, "eve", &["students"], None),
        Some("lab")
    );

    let ts2_plan = plan(FARM, "ts2", None);
    assert_eq!(pool(&ts2_plan.plan, "default").address(0), Some(ip("10.0.6.10")));
    assert_eq!(
        ts2_plan.plan.reservations,
        [Reservation { user: "ada".into(), address: ip("10.0.6.12") }]
    );
    assert_eq!(plan(FARM, "ts3", None).plan.pools, []);
    assert_eq!(plan(FARM, "ts3", None).plan.policy, crate::policy::Policy::default());
    for unknown_host in ["ts4", "", "ts2.other.example"] {
        let server_plan = plan(FARM, unknown_host, None);
        assert_eq!(server_plan.findings[0].code, "unknown-server");
        assert_eq!(server_plan.plan, Plan::default());
    }
    let (farm, _) = Farm::parse(FARM);
    let ports: Vec<_> = farm.fixed_ports().iter().map(PortRange::to_string).collect();
    assert_eq!(ports, ["80", "7000-7005"]);
}

#[test]
fn addresses_without_an_interface_are_left_out() {
    let eth0 = Interface {
        index: 2,
        name: "eth0".into(),
        addresses: vec!["10.0.5.12/28".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
    };
    let text = r#"
        [[range]]
        addresses = ["10.0.5.0-10.0.5.15", "10.0.7.1", "2001:db8::/126"]
        exclude = "10.0.5.3"
        "#;
    let server_plan = plan(text, "any", Some(std::slice::from_ref(&eth0)));
    let pools = &server_plan.plan.pools;
    let addresses = |pool: &Pool| {
        (0..pool.slot_count()).map(|slot| pool.address(slot).unwrap()).collect::<Vec<_>>()
    };
    let usable_octets = (1..=14).filter(|last_octet| ![3, 12].contains(last_octet));
    let expected = usable_octets.map(|last_octet| IpAddr::from([10, 0, 5, last_octet]));
    assert_eq!(addresses(&pools[0]), expected.collect::<Vec<_>>());
    assert_eq!(addresses(&pools[1]), [ip("2001:db8::2"), ip("2001:db8::3")]);
    assert_eq!(server_plan.plan.policy.host_addresses, [ip("10.0.5.12"), ip("2001:db8::1")]);
    let assigned_subnets: Vec<_> = server_plan
        .assignments
        .iter()
        .map(|assignment| (&*assignment.interface, assignment.subnet.to_string()))
        .collect();
    assert_eq!(
        assigned_subnets,
        [("eth0", "10.0.5.0/28".to_owned()), ("eth0", "2001:db8::/64".to_owned())]
    );
    let findings: Vec<_> = server_plan
        .findings
        .iter()
        .map(|finding| (finding.code, &*finding.key, &*finding.value))
        .collect();
    assert_eq!(findings, [("no-interface", "range[0].addresses[1]", "10.0.7.1")]);
    let without_interfaces = plan(text, "any", Some(&[]));
    assert_eq!(without_interfaces.findings.len(), 3);
    assert_eq!(
        without_interfaces.plan.pools.iter().map(Pool::slot_count).collect::<Vec<_>>(),
        [0, 0, 2048]
    );
}

#[test]
fn pool_has_the_first_and_last_usable_address_of_its_range() {
    type Row = (&'static str, u32, Option<&'static str>, Option<&'static str>);
    let table: [Row; 7] = [
        ("addresses = \"10.0.5.7/32\"", 1, Some("10.0.5.7"), Some("10.0.5.7")),
        ("addresses = \"10.0.5.8/31\"", 2, Some("10.0.5.8"), Some("10.0.5.9")),
        ("addresses = \"10.0.5.10-10.0.5.20\"", 11, Some("10.0.5.10"), Some("10.0.5.20")),
        (
            "addresses = \"10.0.5.10-10.0.5.20\"\nexclude = \"10.0.5.20\"",
            10,
            Some("10.0.5.10"),
            Some("10.0.5.19"),
        ),
        ("addresses = \"10.0.5.7\"\nexclude = \"10.0.5.0/24\"", 0, None, None),
        ("addresses = \"2001:db8::/64\"", 4096, Some("2001:db8::"), Some("2001:db8::fff")),
        ("addresses = \"10.0.0.0/12\"", 1 << 20, Some("10.0.0.0"), Some("10.15.255.255")),
    ];
    for (keys, slot_count, first_address, last_address) in table {
        let server_plan = plan(&format!("[[range]]\n{keys}"), "any", None);
        let pool = pool(&server_plan.plan, "default");
        assert_eq!(pool.slot_count(), slot_count, "{keys}");
        assert_eq!(pool.address(0), first_address.map(ip), "{keys}");
        let last_slot = slot_count.checked_sub(1);
        assert_eq!(last_slot.and_then(|slot| pool.address(slot)), last_address.map(ip), "{keys}");
        assert_eq!(pool.address(slot_count), None, "{keys}");
    }
}

#[test]
fn loopback_pool_never_contains_127_0_0_1() {
    let server_plan = plan("[loopback]\nranges = \"127.0.0.0/8\"", "any", None);
    let pool = pool(&server_plan.plan, LOOPBACK_POOL);
    assert_eq!(pool.slot_of(ip("127.0.0.1")), None);
    assert_eq!(pool.address(0), Some(ip("127.0.0.2")));
    let last_slot = pool.slot_count() - 1;
    assert!(pool.loopback6(last_slot).unwrap() <= ip("127.255.255.254"));
}
