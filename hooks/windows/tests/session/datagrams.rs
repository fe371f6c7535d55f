//! Datagrams whose control messages name an address (row 24), and what is shown of received ones (row
//! 25).

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;

use vipool::policy::PortRange;

use super::support::{HOST, Host, installed, output, port, program};

/// A program of the system that Wine runs on, which it can start too; not there on Windows.
const PERL: &str = r"Z:\usr\bin\perl";
const SEND: &str = "my ($from, $port, $count) = @ARGV; \
    socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(0, inet_aton($from))) or die; \
    for (1..$count) { send(S, q(x), 0, sockaddr_in($port, inet_aton($from))) or die }";

/// Sends datagrams from a loopback address to a port of the same. Wine sends none from there: each of
/// its UDP sockets is bound to the wildcard address of Linux.
fn send(address: Ipv4Addr, port: u16, count: u16) {
    if Path::new(PERL).exists() {
        let mut perl = Command::new(PERL);
        perl.args(["-MSocket", "-e", SEND, &address.to_string()]);
        // Nobody can wait for it: the receiver does.
        drop(perl.args([port.to_string(), count.to_string()]).spawn().unwrap());
        return;
    }
    let socket = UdpSocket::bind((address, 0)).unwrap();
    for _ in 0..count {
        socket.send_to(b"x", (address, port)).unwrap();
    }
}

#[test]
fn row_25_received_datagrams() {
    if Path::new(r"Z:\proc\self").exists() && !Path::new(PERL).exists() {
        vipool_testing::record_skip("perl", "apt-get install perl-base");
        return;
    }
    let host = Host::new(|_| ());
    let session = host.session(1);
    for (hooked, own) in [(false, Ipv4Addr::LOCALHOST), (true, session.l())] {
        let port = port();
        let mut receiver =
            if hooked { session.start_row(25, port) } else { session.start_plain_row(25, port) };
        send(own, port, 4);
        // Those that are there when the call returns are shown as 127.0.0.1.
        assert_eq!(
            receiver.ask(),
            "recvfrom: ok\nfrom 127.0.0.1 other\nWSARecvFrom: ok\nfrom 127.0.0.1 other\n\
             WSARecvMsg: ok\nfrom 127.0.0.1 other, to 127.0.0.1\n\
             overlapped, at once: ok\nfrom 127.0.0.1 other\noverlapped, later: 997\n"
        );
        // One that the system fills in after the call has returned is not: a known limit.
        send(own, port, 1);
        let later = if hooked { "L" } else { "127.0.0.1" };
        assert_eq!(receiver.ask(), format!("completion: ok\nfrom {later} other\n"));
    }
}

#[test]
fn row_24_sources_that_the_program_names() {
    let port = port();
    let host = Host::new(|policy| {
        policy
            .programs
            .iter_mut()
            .for_each(|rule| rule.own_ports.push(PortRange { first: port, last: port }));
    });
    let session = host.session(1);
    let (v, l) = (session.v(), session.l());
    let run = |hooked: bool| {
        let mut command = Command::new(program("sending.exe"));
        command.arg(port.to_string()).arg(installed("vipool_hook.dll")).arg(HOST);
        session.enter(&mut command);
        output(command.env("VIPOOL_DISABLE", if hooked { "0" } else { "1" }))
    };
    assert_eq!(
        run(false),
        format!(
            "hooked 2\n192.0.2.1 from nowhere: to 192.0.2.1 from nowhere\n\
             192.0.2.1 from {HOST}: to 192.0.2.1 from {HOST}\n\
             192.0.2.1 from 0.0.0.0: to 192.0.2.1 from 0.0.0.0\n\
             192.0.2.1 from 198.51.100.7: to 192.0.2.1 from 198.51.100.7\n\
             127.0.0.1 from 127.0.0.1: to 127.0.0.1 from 127.0.0.1\n\
             127.0.0.1 from 127.0.0.1: to 127.0.0.1 from 127.0.0.1\n"
        )
    );
    assert_eq!(
        run(true),
        format!(
            "hooked 1\n192.0.2.1 from nowhere: to 192.0.2.1 from nowhere\n\
             192.0.2.1 from {HOST}: to 192.0.2.1 from {v}\n\
             192.0.2.1 from 0.0.0.0: to 192.0.2.1 from {v}\n\
             192.0.2.1 from 198.51.100.7: to 192.0.2.1 from 198.51.100.7\n\
             127.0.0.1 from 127.0.0.1: to {l} from {l}\n\
             127.0.0.1 from 127.0.0.1: to 127.0.0.1 from 127.0.0.1\n"
        )
    );
}
