use proptest::prelude::*;

use super::*;
use crate::policy::{Executable, Features, PathStyle, PoolRule, ProgramFlags, RewriteFlags};

fn any_port_ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let range = any::<(u16, u16)>()
        .prop_map(|(port1, port2)| PortRange { first: port1.min(port2), last: port1.max(port2) });
    prop::collection::vec(range, 0..3)
}

fn any_path() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "/usr/bin/app",
        "/opt/app",
        "app",
        "APP",
        "bin/app",
        "",
        "/usr/bin/other",
        r"C:\Apps\app",
        r"c:/apps/APP",
        r"\\?\C:\Apps\app. ",
        "/opt/run.py",
        "run.py",
    ])
    .prop_map(str::to_owned)
}

fn any_program() -> impl Strategy<Value = Program> {
    (
        any_path(),
        prop::option::of(any_path()),
        prop::option::of(any_path()),
        0..=Features::ALL_BITS,
        0..=ProgramFlags::ALL_BITS,
        any_port_ranges(),
        any_port_ranges(),
    )
        .prop_map(
            |(pattern, target, script, feature_bits, flag_bits, own_ports, shared_ports)| Program {
                pattern,
                target,
                script,
                features: Features::from_bits(feature_bits),
                flags: ProgramFlags::from_bits(flag_bits),
                own_ports,
                shared_ports,
            },
        )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (
        prop::collection::vec(any_program(), 0..6),
        prop::collection::vec(any::<IpAddr>(), 0..4),
        any_port_ranges(),
        0..=RewriteFlags::ALL_BITS,
    )
        .prop_map(|(programs, host_addresses, wildcard_udp_ports, flag_bits)| Policy {
            programs,
            host_addresses,
            wildcard_udp_ports,
            rewrite: RewriteFlags::from_bits(flag_bits),
            ..Policy::default()
        })
}

fn contains(ports: &[PortRange], port: u16) -> bool {
    ports.iter().any(|range| (range.first..=range.last).contains(&port))
}

/// Calls every function that reads the bytes of a view. Returns a number that is 0 for an empty
/// view.
fn call_every_function(view: PolicyView<'_>, program: &Executable<'_>, port: u16) -> usize {
    let found_index = view.find(program).map_or(0, |found| found.index);
    let explained_count = view.explain(*program).count();
    let pattern_bytes: usize = view
        .programs()
        .map(|rule| {
            let _ = (rule.features(), rule.script());
            let _ = (rule.flags(), view.find_inherited(rule.id()).is_some());
            let _ = (rule.is_own_port(port), rule.is_shared_port(port));
            rule.pattern().len()
        })
        .sum();
    let _ = (view.rewrite_flags(), view.is_host_address(IpAddr::from([10, 0, 0, 1])));
    found_index
        + explained_count
        + pattern_bytes
        + view.host_addresses().count()
        + usize::from(view.is_wildcard_udp_port(port))
}

proptest! {
    #[test]
    fn compiled_policy_equals_its_source(
        policy in any_policy(), path in any_path(), invoked_as in prop::option::of(any_path()),
        script in prop::option::of(any_path()), is_windows: bool, port: u16, address: IpAddr,
    ) {
        let bytes = policy.encode();
        let view = PolicyView::new(&bytes);
        prop_assert!(view.is_valid());
        let program = Executable {
            path: path.as_bytes(),
            invoked_as: invoked_as.as_deref().map(str::as_bytes),
            script: script.as_deref().map(str::as_bytes),
            style: if is_windows { PathStyle::Windows } else { PathStyle::Posix },
        };
        let found_rule = view.find(&program).map(|found| (found.index, found.result));
        prop_assert_eq!(found_rule, policy.find(&program));
        prop_assert_eq!(view.programs().count(), policy.programs.len());
        for (rule, source) in view.programs().zip(&policy.programs) {
            prop_assert_eq!(rule.id(), source.id());
            prop_assert_eq!(rule.pattern(), source.pattern.as_bytes());
            prop_assert_eq!(rule.script(), source.script.as_deref().map(str::as_bytes));
            prop_assert_eq!(rule.features(), source.features);
            prop_assert_eq!(rule.flags(), source.flags);
            prop_assert_eq!(rule.is_own_port(port), contains(&source.own_ports, port));
            prop_assert_eq!(rule.is_shared_port(port), contains(&source.shared_ports, port));
        }
        prop_assert!(view.host_addresses().eq(policy.host_addresses.iter().copied()));
        prop_assert_eq!(view.is_host_address(address), policy.host_addresses.contains(&address));
        prop_assert_eq!(view.is_wildcard_udp_port(port), contains(&policy.wildcard_udp_ports, port));
        prop_assert_eq!(view.rewrite_flags(), policy.rewrite);
    }

    #[test]
    fn damaged_bytes_never_panic(
        policy in any_policy(), path in any_path(), script in prop::option::of(any_path()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        cut_length: prop::sample::Index, port: u16,
    ) {
        let mut bytes = policy.encode();
        for (index, value) in damage {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        let program = Executable {
            path: path.as_bytes(),
            invoked_as: None,
            script: script.as_deref().map(str::as_bytes),
            style: PathStyle::Posix,
        };
        call_every_function(PolicyView::new(&bytes), &program, port);
        bytes.truncate(cut_length.index(bytes.len()));
        call_every_function(PolicyView::new(&bytes), &program, port);
    }
}

#[test]
fn view_of_invalid_bytes_is_empty() {
    let program =
        Executable { path: b"/a", invoked_as: None, script: None, style: PathStyle::Posix };
    for bytes in [&b""[..], b"vpol", &[0xff; 4096], &[0; 4096]] {
        assert!(!PolicyView::new(bytes).is_valid());
        assert_eq!(call_every_function(PolicyView::new(bytes), &program, 80), 0);
    }
}

#[test]
fn most_specific_rule_wins() {
    let rule = |pattern: &str, script: Option<&str>| Program {
        pattern: pattern.into(),
        script: script.map(str::to_owned),
        ..Program::default()
    };
    let policy = Policy {
        programs: vec![
            rule("python3", None),
            rule("/usr/bin/python3", None),
            rule("/usr/bin/python3", Some("app.py")),
            rule("/usr/bin/python3", Some("/opt/app.py")),
            rule("/usr/bin/python3", None),
        ],
        ..Policy::default()
    };
    let bytes = policy.encode();
    let find = |path: &str, script: Option<&str>| {
        let program = Executable {
            path: path.as_bytes(),
            invoked_as: None,
            script: script.map(str::as_bytes),
            style: PathStyle::Posix,
        };
        PolicyView::new(&bytes).find(&program).map(|found| found.index)
    };
    assert_eq!(find("/usr/bin/python3", Some("/opt/app.py")), Some(3));
    assert_eq!(find("/usr/bin/python3", Some("/tmp/app.py")), Some(2));
    assert_eq!(find("/usr/bin/python3", Some("/tmp/b.py")), Some(1));
    assert_eq!(find("/usr/bin/python3", None), Some(1));
    assert_eq!(find("/opt/python3", None), Some(0));
    assert_eq!(find("/opt/perl", None), None);
}

#[test]
fn compiled_policy_contains_no_rules_for_pools() {
    let rule = PoolRule {
        pool: "lab".into(),
        users: vec!["ada-lovelace".into()],
        groups: vec!["students".into()],
        programs: vec!["firefox".into()],
    };
    let policy = Policy { pool_rules: vec![rule], ..Policy::default() };
    assert_eq!(policy.encode(), Policy::default().encode());
}
