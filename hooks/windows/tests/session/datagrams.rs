//! Tests of datagrams: a source address in a control message (row 24), and the addresses of
//! received datagrams (row 25).

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;

use vipool::policy::PortRange;

use super::support::{
    HOST_ADDRESS, TestHost, installed_file, stdout_of, test_program, unused_port,
};

/// The path of Perl on the Linux system that runs Wine. Wine can start Linux programs. The path
/// does not exist on Windows.
const PERL_PATH: &str = r"Z:\usr\bin\perl";
/// A Perl script that sends datagrams. Its arguments are an address, the destination port and the
/// number of datagrams. The address is both the source and the destination.
const PERL_SENDER: &str = "my ($from, $port, $count) = @ARGV; \
    socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(0, inet_aton($from))) or die; \
    for (1..$count) { send(S, q(x), 0, sockaddr_in($port, inet_aton($from))) or die }";

/// Sends datagrams from a loopback address to a port of the same address. Under Wine, a Linux
/// program sends the datagrams, because Wine binds each UDP socket to the wildcard address of
/// Linux.
fn send_datagrams(address: Ipv4Addr, port: u16, count: u16) {
    if Path::new(PERL_PATH).exists() {
        let mut perl = Command::new(PERL_PATH);
        perl.args(["-MSocket", "-e", PERL_SENDER, &address.to_string()]);
        // Wine cannot wait for a Linux program. The receiver waits for the datagrams instead.
        drop(perl.args([port.to_string(), count.to_string()]).spawn().unwrap());
        return;
    }
    let socket = UdpSocket::bind((address, 0)).unwrap();
    for _ in 0..count {
        socket.send_to(b"x", (address, port)).unwrap();
    }
}

#[test]
fn row_25_sources_of_received_datagrams_are_rewritten() {
    if Path::new(r"Z:\proc\self").exists() && !Path::new(PERL_PATH).exists() {
        vipool_testing::record_skip("perl", "apt-get install perl-base");
        return;
    }
    let host = TestHost::new(|_| ());
    let session = host.open_session(1);
    for (is_hooked, source) in [(false, Ipv4Addr::LOCALHOST), (true, session.loopback())] {
        let port = unused_port();
        let mut receiver = if is_hooked {
            session.start_row(25, port)
        } else {
            session.start_row_without_hooks(25, port)
        };
        send_datagrams(source, port, 5);
        // Once the system has reported the completion of an overlapped call, another thread of the
        // program may reuse or free the buffers. So the hook layer does not rewrite the addresses,
        // whether the call completes at once or later. This is a known limitation.
        let overlapped_source = if is_hooked { "L" } else { "127.0.0.1" };
        assert_eq!(
            receiver.continue_until_ready(),
            format!(
                "recvfrom: ok\nfrom 127.0.0.1 other\nWSARecvFrom: ok\nfrom 127.0.0.1 other\n\
                 WSARecvMsg: ok\nfrom 127.0.0.1 other, to 127.0.0.1\n\
                 overlapped, at once: ok\nfrom {overlapped_source} other\n\
                 overlapped WSARecvMsg, at once: ok\n\
                 from {overlapped_source} other, to {overlapped_source}\n\
                 overlapped, later: 997\n"
            )
        );
        send_datagrams(source, port, 1);
        assert_eq!(
            receiver.continue_until_ready(),
            format!("completion: ok\nfrom {overlapped_source} other\n")
        );
    }
}

#[test]
fn row_24_source_in_packet_information_is_rewritten() {
    let port = unused_port();
    let host = TestHost::new(|policy| {
        policy
            .programs
            .iter_mut()
            .for_each(|rule| rule.own_ports.push(PortRange { first: port, last: port }));
    });
    let session = host.open_session(1);
    let (v, l) = (session.virtual_ip(), session.loopback());
    let run_sending = |is_hooked: bool| {
        let mut command = Command::new(test_program("sending.exe"));
        command.arg(port.to_string()).arg(installed_file("vipool_hook.dll")).arg(HOST_ADDRESS);
        session.set_environment(&mut command);
        stdout_of(command.env("VIPOOL_DISABLE", if is_hooked { "0" } else { "1" }))
    };
    assert_eq!(
        run_sending(false),
        format!(
            "install returned 2\n192.0.2.1 from none: to 192.0.2.1 from none\n\
             192.0.2.1 from {HOST_ADDRESS}: to 192.0.2.1 from {HOST_ADDRESS}\n\
             192.0.2.1 from 0.0.0.0: to 192.0.2.1 from 0.0.0.0\n\
             192.0.2.1 from 198.51.100.7: to 192.0.2.1 from 198.51.100.7\n\
             127.0.0.1 from 127.0.0.1: to 127.0.0.1 from 127.0.0.1\n\
             127.0.0.1 from 127.0.0.1: to 127.0.0.1 from 127.0.0.1\n"
        )
    );
    assert_eq!(
        run_sending(true),
        format!(
            "install returned 1\n192.0.2.1 from none: to 192.0.2.1 from none\n\
             192.0.2.1 from {HOST_ADDRESS}: to 192.0.2.1 from {v}\n\
             192.0.2.1 from 0.0.0.0: to 192.0.2.1 from {v}\n\
             192.0.2.1 from 198.51.100.7: to 192.0.2.1 from 198.51.100.7\n\
             127.0.0.1 from 127.0.0.1: to {l} from {l}\n\
             127.0.0.1 from 127.0.0.1: to 127.0.0.1 from 127.0.0.1\n"
        )
    );
}
