//! Arbitrary bytes as a compiled process list: no panic, no endless loop, no read out of bounds.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use vipool::policy::{
    Executable, Features, PathStyle, Policy, PolicyView, PoolRule, PortRange, Program, ProgramFlags,
};

/// Returns a policy that uses every kind of entry.
fn sample_policy() -> Policy {
    let ports = vec![PortRange { first: 80, last: 90 }, PortRange { first: 443, last: 443 }];
    let program = |pattern: &str, script: Option<&str>| Program {
        pattern: pattern.to_owned(),
        script: script.map(str::to_owned),
        features: Features { virtual_ip: true, loopback: true, client_ip: false },
        own_ports: ports.clone(),
        shared_ports: ports.clone(),
        flags: ProgramFlags { inherit: true, ..ProgramFlags::default() },
        ..Program::default()
    };
    Policy {
        programs: vec![
            program("/usr/bin/python3", Some("server.py")),
            program("nginx", None),
            program(r"C:\Apps\App.exe", None),
        ],
        host_addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), "fe80::1".parse().unwrap()],
        wildcard_udp_ports: ports,
        pool_rules: vec![PoolRule {
            pool: "lab".to_owned(),
            users: vec!["ada".to_owned()],
            groups: vec!["students".to_owned()],
            programs: vec!["/usr/bin/python3".to_owned()],
        }],
        ..Policy::default()
    }
}

fuzz_target!(|input: &[u8]| {
    let valid = sample_policy().encode();
    let bytes = vipool_fuzz::corrupt(input, &valid);
    let view = PolicyView::new(&bytes);
    for (path, script, style) in [
        ("/usr/bin/python3", Some(&b"/srv/server.py"[..]), PathStyle::Posix),
        ("/usr/sbin/nginx", None, PathStyle::Posix),
        (r"c:\apps\APP.EXE", None, PathStyle::Windows),
    ] {
        let program =
            Executable { path: path.as_bytes(), invoked_as: Some(b"nginx"), script, style };
        let matched = view.find(&program);
        assert!(view.explain(program).count() >= usize::from(matched.is_some()));
        let _ = view.choose_pool("eve", || vec!["students".to_owned()], Some(&program));
        if let Some(matched) = matched {
            let rule = matched.program;
            let _ = (rule.features(), rule.flags());
            let _ = (rule.is_own_port(85), rule.is_shared_port(443));
            let _ = view.find_inherited(rule.id());
        }
    }
    let _ = (view.is_host_address(IpAddr::V4(Ipv4Addr::LOCALHOST)), view.is_wildcard_udp_port(85));
});
