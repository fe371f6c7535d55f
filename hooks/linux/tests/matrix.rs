//! The socket matrix (docs/socket-matrix.md), row by row, on the real hook and a real map.
//!
//! Each row is a C function, run as a plain program, as one that is not listed though the hook is
//! loaded, and as a listed one in a session beside another session. What the program sees is
//! written down by it and must be the same each time; what the kernel has is checked by it.

mod support;

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use support::{
    EXTERNAL_ADDRESS, HOST_ADDRESS, MATRIX_SOURCES, TestHost, TestSession, compile, in_namespace,
    output_of, run_ip_command, start_piped, start_ready, stdout_on_success,
};
use vipool::policy::{PortRange, Program, WildcardBind};
use vipool_testing::preload_path;

fn binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("matrix", MATRIX_SOURCES, &[])).clone()
}

fn ports(first: u16, last: u16) -> Vec<PortRange> {
    vec![PortRange { first, last }]
}

fn rule() -> Program {
    Program {
        own_ports: ports(8311, 8311),
        shared_ports: ports(8411, 8411),
        ..support::listed_program(binary())
    }
}

/// Runs a row in all ways.
fn run_row(test: &str, name: &str) {
    let prepare = || {
        binary();
        preload_path();
    };
    let needs: &[&str] = if name == "22-dropped-privileges" { &["root"] } else { &[] };
    in_namespace(test, needs, prepare, || {
        let mut host = TestHost::new(vec![rule()]);
        let _service = start_ready(host.outside(binary()).arg("serve"));
        let _hosts: Vec<_> = match name {
            "2" => vec![("0.0.0.0", "8002")],
            "5-dialled" => vec![(HOST_ADDRESS, "8505")],
            "11" => vec![("127.0.0.1", "8211"), ("127.0.0.1", "8311"), ("127.0.0.1", "8411")],
            "23-mapped" => vec![("::1", "8223")],
            "32-bound" => vec![("::1", "8532")],
            "45" => vec![("127.0.0.1", "8211")],
            "29" => vec![("::", "8029")],
            _ => vec![],
        }
        .into_iter()
        .map(|(address, port)| start_ready(Command::new(binary()).args(["hold", address, port])))
        .collect();
        let _beside: Vec<_> = match name {
            "7-ports" => vec!["8007", "8107"],
            _ => vec![],
        }
        .into_iter()
        .map(|port| start_ready(host.outside(binary()).args(["hold", EXTERNAL_ADDRESS, port])))
        .collect();
        let _names = (name == "44").then(|| {
            host.set_name_server(EXTERNAL_ADDRESS);
            start_ready(host.outside(binary()).arg("names"))
        });
        match name {
            "6-pass" => host.replace(|policy| policy.pass_when_missing = true),
            "3-loopback" | "3-wildcard" | "32-loopback" => host.change_rules(|rule| {
                rule.features.virtual_ip = false;
                if name == "3-wildcard" {
                    rule.wildcard = WildcardBind::Loopback;
                }
            }),
            "23-mapped" => host.change_rules(|rule| rule.map_ephemeral = true),
            "43" => host.replace(|policy| policy.hide_addresses = true),
            "7-ports" => {
                std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
            }
            _ => {}
        }
        let (first, second) = (host.session(1), host.session(2));
        let v = first.v();
        if name.starts_with('6') {
            run_ip_command(&format!("addr del {v}/24 dev v0"));
        }
        let unhooked = observe(&host, &first, name, RunMode::Unhooked);
        let unlisted = observe(&host, &first, name, RunMode::Unlisted);
        // The same fixed ports in another session.
        let _beside: Vec<_> = match name {
            "1" => vec![("127.0.0.1", "8001")],
            "3" => vec![("0.0.0.0", "8003")],
            "11" => vec![("127.0.0.1", "8011"), ("0.0.0.0", "8111"), ("127.0.0.1", "8511")],
            "32" => vec![("::1", "8032")],
            "38" => vec![("0.0.0.0", "8038")],
            _ => vec![],
        }
        .into_iter()
        .map(|(address, port)| start_ready(second.command(binary()).args(["hold", address, port])))
        .collect();
        let listed = observe(&host, &first, name, RunMode::Listed);
        assert_eq!(unhooked, unlisted, "the hook changes an unlisted program");
        assert_eq!(unhooked, listed, "a listed program sees rewritten addresses");
    });
}

#[derive(Clone, Copy, PartialEq)]
enum RunMode {
    Unhooked,
    Unlisted,
    Listed,
}

/// What the program writes down of a row.
fn observe(host: &TestHost, session: &TestSession<'_>, name: &str, mode: RunMode) -> String {
    // The same file under another name is another program.
    let unlisted = host.directory.join("unlisted");
    let mut command = match mode {
        RunMode::Unhooked => Command::new(binary()),
        RunMode::Unlisted => {
            std::fs::copy(binary(), &unlisted).unwrap();
            session.command(&unlisted)
        }
        RunMode::Listed => session.command(binary()),
    };
    if mode == RunMode::Listed {
        command.env("MATRIX_LISTED", "1");
    }
    command
        .env("MATRIX_V", session.v())
        .env("MATRIX_L", session.l())
        .env("MATRIX_V6", session.v6())
        .env("MATRIX_L6", session.l6())
        .arg(name);
    match name {
        // Somebody dials from outside.
        "19" => {
            let (mut running, mut output) = start_piped(&mut command);
            let mut line = String::new();
            while !line.starts_with("dial") {
                line.clear();
                assert_ne!(
                    output.read_line(&mut line).unwrap(),
                    0,
                    "the program prints a dial line"
                );
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let dial = format!("exec 3<>/dev/tcp/{}/{}", words[1], words[2]);
            assert!(host.outside("bash").args(["-c", &dial]).status().unwrap().success());
            let mut seen = String::new();
            output.read_to_string(&mut seen).unwrap();
            assert!(running.0.wait().unwrap().success(), "{seen}");
            seen + "."
        }
        _ => {
            let output = command.output().unwrap();
            stdout_on_success(&command, output)
        }
    }
}

macro_rules! rows {
    ($($test:ident $name:literal;)*) => {
        $(#[test]
        fn $test() {
            run_row(stringify!($test), $name);
        })*

        /// Every row of the C program is a test here.
        #[test]
        fn every_row_is_run() {
            if !vipool_testing::have(&["cc"]) {
                return;
            }
            let known = output_of(&mut Command::new(binary()));
            assert_eq!(known.lines().collect::<Vec<_>>(), [$($name),*]);
        }
    };
}

rows! {
    row_1 "1";
    row_2 "2";
    row_3 "3";
    row_3_loopback "3-loopback";
    row_3_wildcard "3-wildcard";
    row_4 "4";
    row_5 "5";
    row_5_link_local "5-link-local";
    row_5_dialled "5-dialled";
    row_6 "6";
    row_6_pass "6-pass";
    row_7 "7";
    row_7_ports "7-ports";
    row_8 "8";
    row_9 "9";
    row_10 "10";
    row_11 "11";
    row_11b "11b";
    row_12 "12";
    row_13 "13";
    row_14 "14";
    row_15 "15";
    row_16 "16";
    row_17 "17";
    row_18 "18";
    row_19 "19";
    row_20 "20";
    row_21 "21";
    row_22 "22";
    row_23 "23";
    row_23_mapped "23-mapped";
    row_25 "25";
    row_26 "26";
    row_29 "29";
    row_34 "34";
    row_38 "38";
    row_45 "45";
    row_45_messages "45-messages";
    row_24 "24";
    row_24_pages "24-pages";
    row_24_ipv6 "24-ipv6";
    row_24_link_local "24-link-local";
    row_25_messages "25-messages";
    row_25_fortified "25-fortified";
    row_27 "27";
    row_28 "28";
    row_30 "30";
    row_31 "31";
    row_32 "32";
    row_32_loopback "32-loopback";
    row_32_bound "32-bound";
    row_33 "33";
    row_35 "35";
    row_36 "36";
    row_37 "37";
    row_39 "39";
    row_40 "40";
    row_41 "41";
    row_42 "42";
    row_43 "43";
    row_44 "44";
    row_49 "49";
    row_20_null_address "20-null-address";
    row_22_bound_or_not "22-bound-or-not";
    row_22_families "22-families";
    row_22_portless "22-portless";
    row_22_dropped_privileges "22-dropped-privileges";
    row_32_wildcard "32-wildcard";
    row_34_protocols "34-protocols";
    row_35_inherited "35-inherited";
    row_35_passed "35-passed";
    row_35_forked "35-forked";
}

/// What the constants of both sides say is the same.
#[test]
fn c_and_rust_constants_agree() {
    let header = include_str!("c/matrix.h");
    assert!(header.contains(&format!("#define HOST_ADDRESS \"{HOST_ADDRESS}\"")));
    assert!(header.contains(&format!("#define EXTERNAL_ADDRESS \"{EXTERNAL_ADDRESS}\"")));
}
