//! Tests each row of the socket matrix (docs/socket-matrix.md) with the real hook and a real map.
//!
//! Each row is a C function. It runs in a program without the hook, in an unlisted program with the
//! hook, and in a listed program. For some rows, another session listens on the same ports during
//! the third run. The program prints the visible addresses and the results. This transcript must be
//! the same in all three runs. The program itself checks the addresses in the kernel.

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

fn matrix_program() -> PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| compile("matrix", MATRIX_SOURCES, &[])).clone()
}

/// Returns a list that contains only `port`.
fn single_port(port: u16) -> Vec<PortRange> {
    vec![PortRange { first: port, last: port }]
}

fn rule() -> Program {
    support::listed_program(matrix_program())
        .with_own_ports(single_port(8311))
        .with_shared_ports(single_port(8411))
}

/// Returns the addresses on which the host listens during the three runs of a row.
fn host_listeners(row: &str) -> &'static [(&'static str, &'static str)] {
    match row {
        "2" => &[("0.0.0.0", "8002")],
        "5-host-connect" => &[(HOST_ADDRESS, "8505")],
        "11" => &[("127.0.0.1", "8211"), ("127.0.0.1", "8311"), ("127.0.0.1", "8411")],
        "23" => &[("127.0.0.1", "8223"), ("::1", "8223")],
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
        "3-loopback" | "3-wildcard" | "32-loopback" | "32-answers-loopback" => {
            host.change_rules(|rule| {
                rule.features.virtual_ip = false;
                if row == "3-wildcard" {
                    rule.flags.wildcard = WildcardBind::Loopback;
                }
            })
        }
        "23-kept" => host.change_rules(|rule| rule.flags.keep_ephemeral = true),
        "30-v6only" => host.remove_ipv6_pool(),
        "30-refused" => {
            host.remove_ipv6_pool();
            host.change_rules(|rule| rule.features.loopback = false);
        }
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
        matrix_program();
        preload_path();
    };
    let needs: &[&str] = if row == "22-dropped-privileges" { &["root"] } else { &[] };
    in_namespace(test_name, needs, prepare, || {
        let start_listener = |mut command: Command, address: &str, port: &str| {
            start_until_ready(command.args(["listen", address, port]))
        };
        let mut host = TestHost::new(vec![rule()]);
        let _service = start_until_ready(host.external_command(matrix_program()).arg("serve"));
        let _host_listeners: Vec<_> = host_listeners(row)
            .iter()
            .map(|(address, port)| start_listener(Command::new(matrix_program()), address, port))
            .collect();
        let external_ports: &[&str] = if row == "7-ports" { &["8007", "8107"] } else { &[] };
        let _external_listeners: Vec<_> = external_ports
            .iter()
            .map(|port| {
                start_listener(host.external_command(matrix_program()), EXTERNAL_ADDRESS, port)
            })
            .collect();
        let _name_server = (row == "44").then(|| {
            host.set_name_server(EXTERNAL_ADDRESS);
            start_until_ready(host.external_command(matrix_program()).arg("dns"))
        });
        configure(&mut host, row);
        let (own_session, other_session) = (host.session(1), host.session(2));
        if row.starts_with('6') {
            run_ip_command(&format!("addr del {}/24 dev v0", own_session.v()));
        }
        let unhooked_transcript = transcript(&host, &own_session, row, RunMode::Unhooked);
        let unlisted_transcript = transcript(&host, &own_session, row, RunMode::Unlisted);
        let _other_listeners: Vec<_> = other_session_listeners(row)
            .iter()
            .map(|(address, port)| {
                start_listener(other_session.command(matrix_program()), address, port)
            })
            .collect();
        let listed_transcript = transcript(&host, &own_session, row, RunMode::Listed);
        assert_eq!(
            unhooked_transcript, unlisted_transcript,
            "the hook must not change an unlisted program"
        );
        assert_eq!(
            unhooked_transcript, listed_transcript,
            "a listed program must not see rewritten addresses"
        );
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
        RunMode::Unhooked => Command::new(matrix_program()),
        RunMode::Unlisted => {
            // The copy has another name, so no rule matches it.
            let unlisted_copy = host.directory.join("unlisted");
            std::fs::copy(matrix_program(), &unlisted_copy).unwrap();
            session.command(&unlisted_copy)
        }
        RunMode::Listed => session.command(matrix_program()),
    };
    if mode == RunMode::Listed {
        command.env("MATRIX_LISTED", "1");
    }
    command
        .env("MATRIX_V", session.v())
        .env("MATRIX_L", session.l())
        .env("MATRIX_V6", session.addresses.v6.map_or("none".to_owned(), |v6| v6.to_string()))
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
    assert!(
        host.external_command("bash").args(["-c", &connect_script]).status().unwrap().success()
    );
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
            let row_names = output_of(&mut Command::new(matrix_program()));
            assert_eq!(row_names.lines().collect::<Vec<_>>(), [$($row),*]);
        }
    };
}

rows! {
    row_1_loopback_bind_uses_l "1";
    row_2_host_wildcard_listener_conflicts "2";
    row_3_wildcard_bind_uses_v "3";
    row_3_wildcard_bind_passes_without_virtual_ip "3-loopback";
    row_3_wildcard_loopback_rule_binds_l "3-wildcard";
    row_5_host_address_bind_uses_v "5";
    row_5_link_local_bind_passes "5-link-local";
    row_8_port_is_visible_after_bind "8";
    row_15_unspecified_family_bind_is_wildcard "15";
    row_18_unbound_socket_has_wildcard_name "18";
    row_21_listen_binds_unbound_socket_to_v "21";
    row_23_ephemeral_loopback_bind_uses_l "23";
    row_23_keep_ephemeral_rule_keeps_loopback "23-kept";
    row_26_shared_udp_port_bind_passes "26";
    row_29_host_ipv6_wildcard_listener_conflicts "29";
    row_38_reuseport_group_stays_in_session "38";
    row_4_socket_bound_to_wildcard_connects_anywhere "4";
    row_5_host_address_connect_prefers_session "5-host-connect";
    row_6_calls_fail_without_interface_address "6";
    row_6_calls_pass_without_interface_address "6-pass";
    row_7_external_connect_uses_v "7";
    row_7_connections_share_local_ports "7-ports";
    row_9_bind_after_failed_connect_uses_l "9";
    row_10_connect_keeps_bound_port "10";
    row_11_loopback_connect_prefers_session "11";
    row_12_wildcard_connect_equals_loopback_connect "12";
    row_13_unspecified_connect_disconnects "13";
    row_14_nonblocking_connect_is_in_progress "14";
    row_19_external_client_connects_to_v "19";
    row_20_loopback_client_is_visible_as_loopback "20";
    row_11b_loopback_datagrams_reach_session "11b";
    row_11b_udplite_datagrams_reach_session "11b-udplite";
    row_22_external_datagram_uses_v "22";
    row_22_every_datagram_has_right_source "22-bound-or-not";
    row_22_mapped_destination_uses_v "22-families";
    row_22_portless_binding_is_kept "22-portless";
    row_22_source_is_right_without_privileges "22-dropped-privileges";
    row_25_loopback_datagram_has_loopback_source "25";
    row_25_fortified_recvfrom_acts_like_recvfrom "25-fortified";
    row_16_invalid_arguments_fail_as_unhooked "16";
    row_17_truncated_name_has_whole_length "17";
    row_34_other_families_are_not_rewritten "34";
    row_45_successful_calls_keep_errno "45";
    row_45_successful_message_calls_keep_errno "45-messages";
    row_24_message_source_is_rewritten "24";
    row_24_message_array_may_end_at_page_end "24-pages";
    row_24_ipv6_message_source_is_rewritten "24-ipv6";
    row_24_link_local_message_source_passes "24-link-local";
    row_24_loopback_answer_with_packet_info_stays_on_host "24-loopback";
    row_25_received_messages_have_loopback_addresses "25-messages";
    row_25_large_message_array_has_visible_sources "25-large-array";
    row_27_multicast_uses_interface_of_v "27";
    row_28_fast_open_is_rewritten_like_connect "28";
    row_30_ipv6_wildcard_bind_uses_v "30";
    row_30_ephemeral_ipv6_datagram_socket_reaches_both_families "30-udp";
    row_30_v6only_wildcard_bind_without_ipv6_address_uses_l6 "30-v6only";
    row_30_v6only_wildcard_bind_without_session_address_fails "30-refused";
    row_31_v6only_socket_rejects_mapped_addresses "31";
    row_32_ipv6_loopback_uses_l6 "32";
    row_32_wildcard_client_connects_without_virtual_ip "32-loopback";
    row_32_bound_ipv6_socket_has_one_family "32-bound";
    row_32_ipv6_loopback_answer_reaches_wildcard_client "32-answers";
    row_32_ipv6_loopback_answer_needs_no_virtual_ip "32-answers-loopback";
    row_32_failed_connect_keeps_v6only "32-v6only";
    row_32_bound_socket_is_refused_without_a_listener "32-refused";
    row_33_mapped_addresses_stay_mapped "33";
    row_35_passed_descriptors_keep_names "35";
    row_36_closed_descriptors_leave_no_state "36";
    row_37_jumps_leave_no_state "37";
    row_39_lookup_without_name_is_wildcard "39";
    row_40_host_name_resolves_to_v "40";
    row_41_localhost_lookup_passes "41";
    row_42_reverse_lookup_returns_host_name_and_localhost "42";
    row_43_getifaddrs_hides_other_sessions "43";
    row_44_c_library_sockets_are_not_rewritten "44";
    row_49_direct_system_calls_are_not_rewritten "49";
    row_20_accept_without_buffer_keeps_visible_names "20-null-address";
    row_32_socket_bound_to_wildcard_connects_to_ipv6_loopback "32-wildcard";
    row_34_other_protocols_are_not_rewritten "34-protocols";
    row_35_inherited_socket_has_visible_names "35-inherited";
    row_35_received_socket_has_visible_names "35-passed";
    row_35_child_connect_is_visible_to_parent "35-forked";
}

#[test]
fn c_and_rust_constants_agree() {
    let header = include_str!("c/matrix.h");
    assert!(header.contains(&format!("#define HOST_ADDRESS \"{HOST_ADDRESS}\"")));
    assert!(header.contains(&format!("#define EXTERNAL_ADDRESS \"{EXTERNAL_ADDRESS}\"")));
}
