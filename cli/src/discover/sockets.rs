//! The sockets that are open now, by program: /proc/net and /proc/PID/fd (proc_net(5),
//! proc_pid_fd(5)). Other users' processes are seen by root only.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use vipool::os::trace::Call;

use super::verdict::{Program, Seen};

/// Programs that run another one's file, which is what tells them apart.
const INTERPRETERS: &[&str] = &["python", "perl", "ruby", "node", "php", "bash", "sh", "dash"];

/// One row of /proc/net/tcp and its like.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    listening: bool,
    inode: u64,
}

/// What programs are seen to do by the sockets that they have open.
///
/// A port that the system gives to outgoing connections is left out: nothing tells whether the
/// program asked for it.
pub fn open_now() -> Seen {
    let owners = owners();
    let ephemeral = ephemeral();
    let mut seen = Seen::new();
    for (file, tcp) in [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)] {
        let Ok(text) = fs::read_to_string(format!("/proc/net/{file}")) else { continue };
        let rows: Vec<Row> = text.lines().skip(1).filter_map(|line| row(line, tcp)).collect();
        let listening: HashSet<u16> =
            rows.iter().filter(|row| row.listening).map(|row| row.local.port()).collect();
        for row in rows {
            let Some(program) = owners.get(&row.inode) else { continue };
            let call = if row.listening && !ephemeral.contains(&row.local.port()) {
                Call::Bind { tcp, to: row.local, free: true }
            } else if !row.listening && !listening.contains(&row.local.port()) {
                Call::Connect { tcp, to: row.remote }
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
    Some(Program { path, script })
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
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_str().and_then(|name| name.parse().ok());
        let (Some(pid), Ok(files)) = (pid, fs::read_dir(process.path().join("fd"))) else {
            continue;
        };
        let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        let inodes: Vec<u64> = links
            .filter_map(|link| {
                link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
            })
            .collect();
        if let (false, Some(program)) = (inodes.is_empty(), program_of(pid)) {
            owners.extend(inodes.into_iter().map(|inode| (inode, program.clone())));
        }
    }
    owners
}

fn ephemeral() -> std::ops::RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    ports.next().unwrap_or(32768)..=ports.next().unwrap_or(60999)
}

fn row(line: &str, tcp: bool) -> Option<Row> {
    let mut fields = line.split_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = fields.next()?;
    let inode = fields.nth(5)?.parse().ok()?;
    // TCP_LISTEN; an unconnected UDP socket is TCP_CLOSE.
    let listening = state == if tcp { "0A" } else { "07" };
    Some(Row { local, remote, listening, inode })
}

/// `0100007F:1F90`: words of the address in the machine's order, the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u8>> = (0..ip.len() / 8)
        .map(|i| u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok())
        .flat_map(|word| match word {
            Some(word) => word.to_ne_bytes().map(Some).to_vec(),
            None => vec![None],
        })
        .collect();
    let ip: IpAddr = match words?.as_slice() {
        bytes if bytes.len() == 4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
        bytes => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn rows_of_proc_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0";
        let expected = Row {
            local: "127.0.0.1:8080".parse().unwrap(),
            remote: "0.0.0.0:0".parse().unwrap(),
            listening: true,
            inode: 4242,
        };
        assert_eq!(row(line, true), Some(expected));
        assert_eq!(
            address("00000000000000000000000001000000:0050"),
            Some("[::1]:80".parse().unwrap())
        );
        for odd in ["", "x", "0100007F", "0100007:50", "zz00007F:0050"] {
            assert_eq!(address(odd), None, "{odd}");
        }
    }

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
