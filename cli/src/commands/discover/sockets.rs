//! Observes the open sockets of all programs. Only root can examine other users' programs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use vipool::policy::script_argument;

use super::verdict::{Observations, Program};
use crate::system::auxv::started_as;
use crate::system::proc_net;
use crate::system::trace::SocketCall;

/// Names of interpreters, without version numbers (`python` for `python3.11`). If a process runs an
/// interpreter, the script also identifies the program.
const INTERPRETERS: &[&str] = &["python", "perl", "ruby", "node", "php", "bash", "sh", "dash"];

/// The socket calls that are inferred from the open sockets.
#[derive(Default)]
pub struct ObservedCalls {
    /// The calls of all programs that are not services of the system.
    pub programs: Observations,
    /// The calls of services of the system. All sessions share these services.
    pub services: Observations,
}

/// Infers the socket calls of each program from its open sockets.
///
/// Omits accepted connections. Also omits binds to ports of the ephemeral range, because the kernel
/// may have chosen the port.
pub fn observe_open_sockets() -> ObservedCalls {
    let owners = socket_owners();
    let ephemeral_ports = ephemeral_ports();
    let mut observed_calls = ObservedCalls::default();
    for rows in proc_net::socket_tables("self") {
        let listening_ports: HashSet<u16> =
            rows.iter().filter(|row| row.is_listening).map(|row| row.local.port()).collect();
        for row in rows {
            let Some((program, is_service)) = owners.get(&row.inode) else { continue };
            let call = if row.is_listening && !ephemeral_ports.contains(&row.local.port()) {
                SocketCall::Bind { is_tcp: row.is_tcp, address: row.local, has_succeeded: true }
            } else if !row.is_listening && !listening_ports.contains(&row.local.port()) {
                SocketCall::Connect { is_tcp: row.is_tcp, destination: row.remote }
            } else {
                continue;
            };
            let observations = match is_service {
                true => &mut observed_calls.services,
                false => &mut observed_calls.programs,
            };
            observations.entry(program.clone()).or_default().insert(call);
        }
    }
    observed_calls
}

/// Returns the program of a process.
pub fn identify_program(pid: u32) -> Option<Program> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    let name =
        name.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    let script = INTERPRETERS.contains(&name).then(|| find_script(pid)).flatten();
    // Symlinks can give one file several paths. The line for farm.toml should contain the path by
    // which the program was started.
    let invoked_as = started_as(pid)
        .filter(|link| link.is_absolute() && link.canonicalize().is_ok_and(|file| file == path));
    Some(Program { path: invoked_as.unwrap_or(path), script })
}

/// Returns the script that an interpreter runs, if the script is a file.
fn find_script(pid: u32) -> Option<PathBuf> {
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let script = script_argument(command_line.split(|byte| *byte == 0).skip(1))?;
    let script = Path::new(std::str::from_utf8(script).ok()?);
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let file = directory.join(script).canonicalize().ok()?;
    file.is_file().then_some(file)
}

/// Maps the inode number of each open socket to a program that has the socket open. The boolean is
/// true if this program runs as a service of the system.
fn socket_owners() -> HashMap<u64, (Program, bool)> {
    let mut owners = HashMap::new();
    for pid in proc_net::all_pids() {
        let Ok(sockets) = proc_net::open_sockets(pid) else { continue };
        if let (false, Some(program)) = (sockets.is_empty(), identify_program(pid)) {
            let control_groups = fs::read_to_string(format!("/proc/{pid}/cgroup"));
            let owner = (program, control_groups.is_ok_and(|text| is_system_service(&text)));
            owners.extend(sockets.into_keys().map(|inode| (inode, owner.clone())));
        }
    }
    owners
}

/// Returns whether a process belongs to a systemd service outside the sessions of users.
/// `control_groups` is the content of `/proc/PID/cgroup` (cgroups(7)).
fn is_system_service(control_groups: &str) -> bool {
    control_groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
        path.starts_with("/system.slice/") && path.split('/').any(|part| part.ends_with(".service"))
    })
}

/// Returns the ephemeral ports: the range from which the kernel chooses ports.
fn ephemeral_ports() -> std::ops::RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    ports.next().unwrap_or(32768)..=ports.next().unwrap_or(60999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_services_outside_user_sessions_are_system_services() {
        for (control_groups, is_service) in [
            ("0::/system.slice/ssh.service\n", true),
            ("0::/system.slice/system-getty.slice/getty@tty1.service", true),
            ("12:pids:/x\n1:name=systemd:/system.slice/redis-server.service", true),
            ("0::/user.slice/user-1000.slice/session-3.scope", false),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/app.service", false),
            ("0::/system.slice/docker-0123.scope", false),
            ("0::/", false),
            ("", false),
        ] {
            assert_eq!(is_system_service(control_groups), is_service, "{control_groups}");
        }
    }

    #[test]
    fn own_listener_is_observed_as_a_bind() {
        // Find a free port below the ephemeral range.
        let listener = (20000..30000)
            .find_map(|port| std::net::TcpListener::bind(("127.94.0.1", port)).ok())
            .unwrap();
        let own_program = identify_program(std::process::id()).unwrap();
        let address = listener.local_addr().unwrap();
        let bind = SocketCall::Bind { is_tcp: true, address, has_succeeded: true };
        assert!(observe_open_sockets().programs[&own_program].contains(&bind));
    }
}
