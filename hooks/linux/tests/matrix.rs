//! Tests each row of the socket matrix (docs/socket-matrix.md) with the real hook and a real map.
//!
//! Each row is a C function. It runs in a program without the hook, in an unlisted program with the
//! hook, and in a listed program while another session is open. The program prints the visible
//! addresses and the results to a transcript. The transcript must be the same in all three runs.
//! The program itself checks the addresses in the kernel.

mod support;

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use support::{
    EXTERNAL_ADDRESS, HOST_ADDRESS, MATRIX_SOURCES, TestHost, TestSession, compile, in_namespace,
    output_of, run_ip_command, start_piped, start_until_ready, stdout_on_success,
};
use vipool::policy::{PortRange, Program, WildcardBind};
use vipool_testing::preload_path;

fn binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| compile("matrix", MATRIX_SOURCES, &[])).clone()
}

fn single_port(port: u16) -> Vec<PortRange> {
    vec![PortRange { first: port, last: port }]
}

fn rule() -> Program {
    support::listed_program(binary())
        .with_own_ports(single_port(8311))
        .with_shared_ports(single_port(8411))
}

/// Returns the addresses on which the host listens during a row.
fn host_listeners(row: &str) -> &'static [(&'static str, &'static str)] {
    match row {
        "2" => &[("0.0.0.0", "8002")],
        "5-host-connect" => &[(HOST_ADDRESS, "8505")],
        "11" => &[("127.0.0.1", "8211"), ("127.0.0.1", "8311"), ("127.0.0.1", "8411")],
        "23-mapped" => &[("::1", "8223")],
        "29" => &[("::", "8029")],
        "32-bound" => &[("::1", "8532")],
        "45" => &[("127.0.0.1", "8211")],
        _ => &[],
    }
}

/// Returns the addresses on which the other session listens while the listed program runs. The
/// ports are the same fixed ports that the row uses.
fn other_session_listeners(row: &str) -> &'static [(&'static str, &'static str)] {
    match row {
        "1" => &[("127.0.0.1", "8001")],
        "3" => &[("0.0.0.0", "8003")],
        "11" => &[("127.0.0.1", "8011"), ("0.0.0.0", "8111"), ("127.0.0.1", "8511")],
        "32" => &[("::1", "8032")],
        "38" => &[("0.0.0.0", "8038")],
        _ => &[],
    }
}

/// Changes the policy or the system if the row requires it.
fn configure(host: &mut TestHost, row: &str) {
    match row {
        "6-pass" => host.change_policy(|policy| policy.rewrite.pass_when_missing = true),
        "3-loopback" | "3-wildcard" | "32-loopback" => host.change_rules(|rule| {
            rule.features.virtual_ip = false;
            if row == "3-wildcard" {
                rule.flags.wildcard = WildcardBind::Loopback;
            }
        }),
        "23-mapped" => host.change_rules(|rule| rule.flags.map_ephemeral = true),
        "43" => host.change_policy(|policy| policy.rewrite.hide_addresses = true),
        "7-ports" => {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
        }
        _ => {}
    }
}

/// Runs a row in all modes and compares the transcripts.
fn run_row(test_name: &str, row: &str) {
    let prepare = || {
        binary();
        preload_path();
    };
    let needs: &[&str] = if row == "22-dropped-privileges" { &["root"] } else { &[] };
    in_namespace(test_name, needs, prepare, || {
        let start_listener = |mut command: Command, address: &str, port: &str| {
            start_until_ready(command.args(["listen", address, port]))
        };
        let mut host = TestHost::new(vec![rule()]);
        let _service = start_until_ready(host.external(binary()).arg("serve"));
        let _host_listeners: Vec<_> = host_listeners(row)
            .iter()
            .map(|(address, port)| start_listener(Command::new(binary()), address, port))
            .collect();
        let external_ports: &[&str] = if row == "7-ports" { &["8007", "8107"] } else { &[] };
        let _external_listeners: Vec<_> = external_ports
            .iter()
            .map(|port| start_listener(host.external(binary()), EXTERNAL_ADDRESS, port))
            .collect();
        let _name_server = (row == "44").then(|| {
            host.set_name_server(EXTERNAL_ADDRESS);
            start_until_ready(host.external(binary()).arg("dns"))
        });
        configure(&mut host, row);
        let (first, second) = (host.session(1), host.session(2));
        if row.starts_with('6') {
            run_ip_command(&format!("addr del {}/24 dev v0", first.v()));
        }
        let unhooked = transcript(&host, &first, row, RunMode::Unhooked);
        let unlisted = transcript(&host, &first, row, RunMode::Unlisted);
        let _other_listeners: Vec<_> = other_session_listeners(row)
            .iter()
            .map(|(address, port)| start_listener(second.command(binary()), address, port))
            .collect();
        let listed = transcript(&host, &first, row, RunMode::Listed);
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

/// Runs a row in one mode and returns its transcript.
fn transcript(host: &TestHost, session: &TestSession<'_>, row: &str, mode: RunMode) -> String {
    let mut command = match mode {
        RunMode::Unhooked => Command::new(binary()),
        RunMode::Unlisted => {
            // The copy has another name, so no rule matches it.
            let unlisted = host.directory.join("unlisted");
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
        .arg(row);
    if row == "19" {
        return transcript_with_external_client(host, &mut command);
    }
    let output = command.output().unwrap();
    stdout_on_success(&command, output)
}

/// Runs a program that prints "connect-to ADDRESS PORT". Connects to this address from the external
/// host. Returns the transcript after that line.
fn transcript_with_external_client(host: &TestHost, command: &mut Command) -> String {
    let (mut process, mut output) = start_piped(command);
    let mut line = String::new();
    while !line.starts_with("connect-to") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the program prints a connect-to line");
    }
    let words: Vec<_> = line.split_whitespace().collect();
    let connect_script = format!("exec 3<>/dev/tcp/{}/{}", words[1], words[2]);
    assert!(host.external("bash").args(["-c", &connect_script]).status().unwrap().success());
    let mut transcript = String::new();
    output.read_to_string(&mut transcript).unwrap();
    assert!(process.0.wait().unwrap().success(), "{transcript}");
    transcript
}

macro_rules! rows {
    ($($test:ident $row:literal;)*) => {
        $(#[test]
        fn $test() {
            run_row(stringify!($test), $row);
        })*

        #[test]
        fn every_row_of_the_c_program_has_a_test() {
            if !vipool_testing::have(&["cc"]) {
                return;
            }
            let listed = output_of(&mut Command::new(binary()));
            assert_eq!(listed.lines().collect::<Vec<_>>(), [$($row),*]);
        }
    };
}

rows! {
    row_1_loopback_bind "1";
    row_2_host_wildcard_conflict "2";
    row_3_wildcard_bind "3";
    row_3_without_virtual_ip "3-loopback";
    row_3_wildcard_to_loopback "3-wildcard";
    row_5_host_address_bind "5";
    row_5_link_local_bind "5-link-local";
    row_8_port_is_visible "8";
    row_15_unspecified_family_bind "15";
    row_18_unbound_name "18";
    row_21_listen_unbound "21";
    row_23_ephemeral_loopback_bind "23";
    row_23_mapped_ephemeral_bind "23-mapped";
    row_26_shared_udp_bind "26";
    row_29_host_ipv6_wildcard_conflict "29";
    row_38_reuseport_group "38";
    row_4_wildcard_bind_then_connect "4";
    row_5_host_address_connect "5-host-connect";
    row_6_missing_address_fails "6";
    row_6_missing_address_passes "6-pass";
    row_7_external_connect "7";
    row_7_ports_are_shared "7-ports";
    row_9_bind_after_failed_connect "9";
    row_10_host_address_bind_then_connect "10";
    row_11_loopback_connect "11";
    row_12_wildcard_connect "12";
    row_13_disconnect "13";
    row_14_nonblocking_connect "14";
    row_19_external_client "19";
    row_20_loopback_client "20";
    row_11b_loopback_datagrams "11b";
    row_22_external_datagrams "22";
    row_22_bound_or_not "22-bound-or-not";
    row_22_mapped_destination "22-families";
    row_22_portless_binding "22-portless";
    row_22_dropped_privileges "22-dropped-privileges";
    row_25_datagram_source "25";
    row_25_fortified_recvfrom "25-fortified";
    row_16_invalid_arguments "16";
    row_17_truncated_name "17";
    row_34_other_families "34";
    row_45_errno_is_kept "45";
    row_45_errno_is_kept_by_messages "45-messages";
    row_24_message_source "24";
    row_24_message_arrays_at_page_ends "24-pages";
    row_24_ipv6_message_source "24-ipv6";
    row_24_link_local_message_source "24-link-local";
    row_25_received_messages "25-messages";
    row_27_multicast_interface "27";
    row_28_fast_open "28";
    row_30_ipv6_wildcard_bind "30";
    row_31_mapped_address_on_v6only_socket "31";
    row_32_ipv6_loopback "32";
    row_32_ipv6_loopback_without_virtual_ip "32-loopback";
    row_32_bound_socket_has_one_family "32-bound";
    row_33_mapped_addresses "33";
    row_35_descriptors_keep_names "35";
    row_36_closed_descriptors_leave_no_state "36";
    row_37_jumps_leave_no_state "37";
    row_39_lookup_without_name "39";
    row_40_lookup_of_host_name "40";
    row_41_lookup_of_localhost "41";
    row_42_reverse_lookup "42";
    row_43_interface_list "43";
    row_44_sockets_of_the_c_library "44";
    row_49_direct_system_calls "49";
    row_20_accept_without_address "20-null-address";
    row_32_wildcard_client "32-wildcard";
    row_34_other_protocols "34-protocols";
    row_35_inherited_descriptor "35-inherited";
    row_35_passed_descriptor "35-passed";
    row_35_forked_connect "35-forked";
}

#[test]
fn c_and_rust_constants_agree() {
    let header = include_str!("c/matrix.h");
    assert!(header.contains(&format!("#define HOST_ADDRESS \"{HOST_ADDRESS}\"")));
    assert!(header.contains(&format!("#define EXTERNAL_ADDRESS \"{EXTERNAL_ADDRESS}\"")));
}
