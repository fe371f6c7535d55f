//! The sockets that are open now, by program. Other users' programs are seen by root only.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use vipool::os::trace::Call;

use super::verdict::{Program, Seen};
use crate::explain::process::started_as;
use crate::sockets;

/// Programs that run another one's file, which is what tells them apart.
const INTERPRETERS: &[&str] = &["python", "perl", "ruby", "node", "php", "bash", "sh", "dash"];

/// What programs are seen to do by the sockets that they have open.
///
/// A port that the system gives to outgoing connections is left out: nothing tells whether the
/// program asked for it.
pub fn open_now() -> Seen {
    let owners = owners();
    let ephemeral = ephemeral();
    let mut seen = Seen::new();
    for rows in sockets::tables("self") {
        let listening: HashSet<u16> =
            rows.iter().filter(|row| row.listening).map(|row| row.local.port()).collect();
        for row in rows {
            let Some(program) = owners.get(&row.inode) else { continue };
            let call = if row.listening && !ephemeral.contains(&row.local.port()) {
                Call::Bind { tcp: row.tcp, to: row.local, free: true }
            } else if !row.listening && !listening.contains(&row.local.port()) {
                Call::Connect { tcp: row.tcp, to: row.remote }
            } else {
                continue;
            };
            seen.entry(program.clone()).or_default().insert(call);
        }
    }
    seen
}

/// The program of a process.
pub fn program_of(pid: u32) -> Option<Program> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = path.file_name()?.to_string_lossy().into_owned();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let script = INTERPRETERS.contains(&name).then(|| script_of(pid)).flatten();
    // By the name it was started by, where one file has several: that is what a rule is to hold.
    let link = started_as(pid)
        .filter(|link| link.is_absolute() && link.canonicalize().is_ok_and(|file| file == path));
    Some(Program { path: link.unwrap_or(path), script })
}

/// The file that an interpreter runs: its first argument that is not an option.
fn script_of(pid: u32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = line.split(|byte| *byte == 0).skip(1);
    let first = arguments.find(|it| !it.starts_with(b"-"))?;
    let first = Path::new(std::str::from_utf8(first).ok()?);
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let file = directory.join(first).canonicalize().ok()?;
    file.is_file().then_some(file)
}

/// Who has which socket.
fn owners() -> HashMap<u64, Program> {
    let mut owners = HashMap::new();
    for pid in sockets::processes() {
        let Ok(open) = sockets::open_by(pid) else { continue };
        if let (false, Some(program)) = (open.is_empty(), program_of(pid)) {
            owners.extend(open.into_keys().map(|inode| (inode, program.clone())));
        }
    }
    owners
}

fn ephemeral() -> std::ops::RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    ports.next().unwrap_or(32768)..=ports.next().unwrap_or(60999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found() {
        // Below the ephemeral ports; taken ones are somebody else's.
        let listener = (20000..30000)
            .find_map(|port| std::net::TcpListener::bind(("127.94.0.1", port)).ok())
            .unwrap();
        let own = program_of(std::process::id()).unwrap();
        let to = listener.local_addr().unwrap();
        assert!(open_now()[&own].contains(&Call::Bind { tcp: true, to, free: true }));
    }
}
