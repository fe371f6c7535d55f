//! Uses arbitrary text or a corrupted example as farm.toml: parses and validates the text, makes
//! the plans of at most four hosts, and formats the report.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vipool::farm::Farm;
use vipool::interface::Interface;
use vipool::policy::PolicyView;

fuzz_target!(|input: &[u8]| {
    let bytes = vipool_fuzz::corrupt(input, include_bytes!("../../examples/farm.toml"));
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    let (farm, mut report) = Farm::parse(text);
    let interfaces = [Interface {
        index: 2,
        name: "eth0".to_owned(),
        addresses: vec!["10.0.0.1/8".parse().unwrap(), "2001:db8::1/64".parse().unwrap()],
    }];
    let names = farm.servers.iter().map(|server| server.name.clone());
    for name in names.chain(["nowhere".to_owned()]).take(4) {
        for interfaces in [None, Some(&interfaces[..])] {
            let server_plan = farm.plan(&name, interfaces);
            let policy = server_plan.plan.policy.encode();
            let view = PolicyView::new(&policy);
            assert_eq!(view.programs().count(), server_plan.plan.policy.programs.len());
            report.extend(server_plan.findings);
        }
    }
    assert!(!report.to_string().contains('\0') || text.contains('\0'));
});
