//! A hook DLL of a vendor's own, in C over `vipool.dll`, in a program that knows nothing of it.

use std::process::Command;

use super::support::{HOST, Host, Session, output, port, program};

#[test]
fn a_vendors_own_dll_rewrites_too() {
    let host = Host::new(|_| ());
    let (one, two) = (host.session(1), host.session(2));
    let run = |session: &Session<'_>, row: &str, port: u16| {
        let mut command = Command::new(program("load.exe"));
        command.arg(program("windows_hook.dll")).arg(program("rows.exe"));
        command.args([row, &port.to_string()]);
        command.args([session.v().to_string(), session.l().to_string(), HOST.to_owned()]);
        session.enter(&mut command);
        output(&mut command)
    };
    for session in [&one, &two] {
        assert_eq!(run(session, "6", port()), "bind: ok\nname: V port\n");
        let both = run(session, "10", port());
        assert!(both.contains("connect: ok\n"), "{both}");
    }
}
