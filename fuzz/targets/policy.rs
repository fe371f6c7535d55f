//! Reads arbitrary bytes, or a corrupted copy of a compiled policy, as a compiled policy. No call
//! may panic, loop endlessly, or read out of bounds.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use vipool::policy::{
    Executable, Features, PathStyle, Policy, PolicyView, PoolRule, PortRange, Program, ProgramFlags,
};

/// Returns a policy that uses every kind of entry.
fn sample_policy() -> Policy {
    let ports = vec![PortRange { first: 80, last: 90 }, PortRange { first: 443, last: 443 }];
    let program = |pattern: &str| {
        Program::new(pattern)
            .with_features(Features::default().with_virtual_ip(true).with_loopback(true))
            .with_own_ports(ports.clone())
            .with_shared_ports(ports.clone())
            .with_flags(ProgramFlags::default().with_inherit(true))
    };
    Policy::new([
        program("/usr/bin/python3").with_script("server.py"),
        program("nginx"),
        program(r"C:\Apps\App.exe"),
    ])
    .with_host_addresses([IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), "fe80::1".parse().unwrap()])
    .with_wildcard_udp_ports(ports)
    .with_pool_rules([PoolRule::new("lab")
        .with_users(["ada"])
        .with_groups(["students"])
        .with_programs(["/usr/bin/python3"])])
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
        let program = Executable::new(path.as_bytes(), style)
            .with_invoked_as(&b"nginx"[..])
            .with_script(script);
        let best_match = view.find(&program);
        assert!(view.explain(program).count() >= usize::from(best_match.is_some()));
        if let Some(best_match) = best_match {
            let rule = best_match.program;
            let _ = (rule.features(), rule.flags());
            let _ = (rule.is_own_port(85), rule.is_shared_port(443));
            let _ = view.find_inherited(rule.id());
        }
    }
    let _ = (view.is_host_address(IpAddr::V4(Ipv4Addr::LOCALHOST)), view.is_wildcard_udp_port(85));
});
