//! Tests unmodified real programs. Most tests run a server in two sessions on the same port at the
//! same time. A client in each session must reach the instance of its own session.
//!
//! docs/compatibility.md lists the results.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{
    EXTERNAL_ADDRESS, MATRIX_SOURCES, TestHost, TestSession, compile, in_namespace, listed_program,
    output_of, python_path, start_until_ready, wait_for_listener,
};
use vipool::policy::Program;
use vipool_testing::{ChildGuard, needs::find_program, preload_path};

/// The programs in the process list of these tests, except Python. Python is listed by its path,
/// which is determined at run time.
const LISTED_PROGRAMS: &[&str] = &[
    "redis-server",
    "redis-cli",
    "nginx",
    "nc",
    "nc.openbsd",
    "memcached",
    "dnsmasq",
    "sshd",
    "ssh",
    "ssh-keyscan",
    "node",
    "java",
    "postgres",
    "psql",
    "curl",
];

fn listed_programs() -> Vec<Program> {
    let python = python_path();
    LISTED_PROGRAMS.iter().map(listed_program).chain([listed_program(python)]).collect()
}

/// One run of a program, with its session and its own directory.
struct ProgramRun<'a> {
    session: &'a TestSession<'a>,
    number: u64,
    directory: PathBuf,
}

impl ProgramRun<'_> {
    /// Returns a command that runs `name` in the session.
    fn command(&self, name: &str) -> Command {
        self.session.command(find_program(name).unwrap_or_else(|| PathBuf::from(name)))
    }

    /// Returns a command that runs `program` with an empty tmpfs mounted on each directory. Other
    /// processes do not see these mounts.
    fn with_private_directories(&self, directories: &[&str], program: &[&str]) -> Command {
        let mut script = String::new();
        for directory in directories {
            script +=
                &format!("mkdir -p {directory} && mount -t tmpfs -o mode=755 none {directory} && ");
        }
        let mut command = self.session.command(find_program("unshare").unwrap());
        command.args(["-m", "sh", "-c", &(script + "exec \"$@\""), "sh"]).args(program);
        command
    }

    /// Returns the path of a file in the directory of the run.
    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file into the directory of the run. Returns the path of the file.
    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.directory.join(name), text).unwrap();
        self.path(name)
    }

    /// Runs a command in the session and returns its output.
    fn query(&self, name: &str, arguments: &[&str]) -> String {
        output_of(self.command(name).args(arguments)).trim().to_owned()
    }

    fn curl(&self, url: &str) -> String {
        self.query("curl", &["-sS", "--noproxy", "*", "--max-time", "20", url])
    }
}

/// The address and port on which the program listens, as the kernel stores them.
#[derive(Clone, Copy)]
enum Endpoint {
    V(u16),
    L(u16),
    /// A UDP port. The test does not wait until the server is ready, because [`wait_for_listener`]
    /// finds only TCP listeners. The client retries instead.
    Udp,
}

/// Runs a program in two sessions at once and queries each instance.
fn run_in_two_sessions(
    test_name: &str,
    needs: &[&str],
    endpoint: Endpoint,
    command_for: impl Fn(&ProgramRun<'_>) -> Command,
    query: impl Fn(&ProgramRun<'_>),
) {
    let prepare = || _ = preload_path();
    in_namespace(test_name, &[&["python3", "curl"], needs].concat(), prepare, || {
        let host = TestHost::new(listed_programs());
        let sessions = [host.session(1), host.session(2)];
        let runs: Vec<_> = (1..)
            .zip(&sessions)
            .map(|(number, session)| {
                let directory = host.directory.join(format!("run{number}"));
                fs::create_dir(&directory).unwrap();
                ProgramRun { session, number, directory }
            })
            .collect();
        let mut servers: Vec<_> =
            runs.iter().map(|run| (run, ChildGuard::start(&mut command_for(run)))).collect();
        for (run, child) in &mut servers {
            let address = match endpoint {
                Endpoint::V(port) => format!("{}:{port}", run.session.v()),
                Endpoint::L(port) => format!("{}:{port}", run.session.l()),
                Endpoint::Udp => continue,
            };
            wait_for_listener(&address, &mut child.0);
        }
        for run in &runs {
            query(run);
        }
        // Terminate only the processes that this test started. Their children exit with their
        // parents, or when the PID namespace ends.
        for (_, child) in &mut servers {
            let pid = child.0.id().to_string();
            let _ = Command::new("kill").arg(pid).status();
        }
    });
}

fn session_id(run: &ProgramRun<'_>) -> String {
    run.number.to_string()
}

#[test]
fn python_http_server_serves_each_session() {
    let test_name = "python_http_server_serves_each_session";
    run_in_two_sessions(
        test_name,
        &[],
        Endpoint::L(8000),
        |run| {
            run.write("session_id", &session_id(run));
            let mut command = run.command(python_path().to_str().unwrap());
            command.args(["-m", "http.server", "--bind", "127.0.0.1", "8000"]);
            command.current_dir(&run.directory);
            command
        },
        |run| assert_eq!(run.curl("http://127.0.0.1:8000/session_id"), session_id(run)),
    );
}

#[test]
fn python_asyncio_serves_each_session() {
    let server_script = "
import asyncio, os
async def serve(reader, writer):
    await reader.readline()
    writer.write(os.environ['SESSION_ID'].encode() + b' ' + writer.get_extra_info('peername')[0].encode()
                 + b' ' + writer.get_extra_info('sockname')[0].encode())
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(serve, '0.0.0.0', 8000)
    await server.serve_forever()
asyncio.run(main())";
    let client_script = "
import asyncio
async def main():
    reader, writer = await asyncio.open_connection('127.0.0.1', 8000)
    assert writer.get_extra_info('peername') == ('127.0.0.1', 8000)
    writer.write(b'query\\n')
    print((await reader.read()).decode())
asyncio.run(main())";
    run_in_two_sessions(
        "python_asyncio_serves_each_session",
        &[],
        Endpoint::V(8000),
        |run| {
            let mut command = run.command(python_path().to_str().unwrap());
            command.args(["-c", server_script]).env("SESSION_ID", session_id(run));
            command
        },
        |run| {
            let reply = run.query(python_path().to_str().unwrap(), &["-c", client_script]);
            // The client connected to 127.0.0.1, so both ends see this address.
            assert_eq!(reply, format!("{} 127.0.0.1 127.0.0.1", run.number));
        },
    );
}

#[test]
fn python_socketserver_serves_each_session() {
    let server_script = "
import os, socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        data, socket = self.request
        socket.sendto(os.environ['SESSION_ID'].encode(), self.client_address)
class Server(socketserver.ForkingMixIn, socketserver.UDPServer):
    pass
with Server(('127.0.0.1', 8000), Handler) as server:
    server.serve_forever()";
    let client_script = "
import socket
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(0.5)
for _ in range(40):
    try:
        client.sendto(b'query', ('127.0.0.1', 8000))
        data, source = client.recvfrom(99)
    except OSError:
        continue
    assert source == ('127.0.0.1', 8000), source
    print(data.decode())
    break";
    run_in_two_sessions(
        "python_socketserver_serves_each_session",
        &[],
        Endpoint::Udp,
        |run| {
            let mut command = run.command(python_path().to_str().unwrap());
            command.args(["-c", server_script]).env("SESSION_ID", session_id(run));
            command
        },
        |run| {
            assert_eq!(
                run.query(python_path().to_str().unwrap(), &["-c", client_script]),
                session_id(run)
            );
        },
    );
}

/// Workers started by posix_spawn and vfork inherit the listening socket.
#[test]
fn python_workers_inherit_the_listener() {
    let server_script = "
import os, socket, subprocess, sys
server = socket.create_server(('127.0.0.1', 8000))
server.set_inheritable(True)
worker = '''
import os, socket, sys
server = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, peer = server.accept()
    connection.sendall((os.environ['SESSION_ID'] + ' ' + server.getsockname()[0] + ' ' + peer[0]).encode())
    connection.close()
'''
arguments = [sys.executable, '-c', worker, str(server.fileno())]
os.posix_spawn(sys.executable, arguments, os.environ)
subprocess.Popen(arguments, close_fds=False).wait()";
    let client_script = "
import socket
for _ in range(4):
    connection = socket.create_connection(('127.0.0.1', 8000))
    print(connection.recv(99).decode())";
    run_in_two_sessions(
        "python_workers_inherit_the_listener",
        &[],
        Endpoint::L(8000),
        |run| {
            let mut command = run.command(python_path().to_str().unwrap());
            command.args(["-c", server_script]).env("SESSION_ID", session_id(run));
            command
        },
        |run| {
            let reply = run.query(python_path().to_str().unwrap(), &["-c", client_script]);
            let expected_line = format!("{} 127.0.0.1 127.0.0.1", run.number);
            assert_eq!(reply.lines().collect::<Vec<_>>(), [&expected_line; 4]);
        },
    );
}

#[test]
fn node_http_serves_each_session() {
    let server_script = "require('http').createServer((request, response) => response.end(
        process.env.SESSION_ID + ' ' + request.socket.localAddress + ' '
        + request.socket.remoteAddress)).listen(8000)";
    run_in_two_sessions(
        "node_http_serves_each_session",
        &["node"],
        Endpoint::V(8000),
        |run| {
            let mut command = run.command("node");
            command.args(["-e", server_script]).env("SESSION_ID", session_id(run));
            command
        },
        |run| {
            let reply = run.curl("http://127.0.0.1:8000/");
            assert_eq!(reply, format!("{} ::ffff:127.0.0.1 ::ffff:127.0.0.1", run.number));
            let client_script = "fetch('http://127.0.0.1:8000/').then(response => response.text())
                .then(console.log)";
            assert!(run.query("node", &["-e", client_script]).starts_with(&session_id(run)));
        },
    );
}

#[test]
fn java_http_serves_each_session() {
    let server_script = "
import com.sun.net.httpserver.HttpServer;
import java.net.*;
public class Server {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(
            new InetSocketAddress(InetAddress.getLoopbackAddress(), 8000), 0);
        server.createContext(\"/\", exchange -> {
            byte[] reply = (System.getenv(\"SESSION_ID\") + exchange.getRemoteAddress().getAddress()).getBytes();
            exchange.sendResponseHeaders(200, reply.length);
            exchange.getResponseBody().write(reply);
            exchange.close();
        });
        server.start();
    }
}";
    run_in_two_sessions(
        "java_http_serves_each_session",
        &["java", "javac"],
        Endpoint::L(8000),
        |run| {
            let mut command = run.command("java");
            command.arg(run.write("Server.java", server_script)).env("SESSION_ID", session_id(run));
            command
        },
        |run| assert_eq!(run.curl("http://127.0.0.1:8000/"), format!("{}/127.0.0.1", run.number)),
    );
}

#[test]
fn redis_runs_with_distribution_configuration() {
    run_in_two_sessions(
        "redis_runs_with_distribution_configuration",
        &["root", "redis-server"],
        Endpoint::L(6379),
        |run| {
            // Both instances write to the same directories, so each instance has its own tmpfs
            // there.
            let command = ["redis-server", "/etc/redis/redis.conf", "--daemonize", "no"];
            run.with_private_directories(
                &["/run/redis", "/var/lib/redis", "/var/log/redis"],
                &command,
            )
        },
        |run| {
            assert_eq!(run.query("redis-cli", &["set", "session_id", &session_id(run)]), "OK");
            assert_eq!(run.query("redis-cli", &["get", "session_id"]), session_id(run));
            assert_eq!(
                run.query("redis-cli", &["-h", "::1", "get", "session_id"]),
                session_id(run)
            );
        },
    );
}

/// Runs nginx in two sessions. `listen` contains the `listen` directives of its configuration.
fn run_nginx(test_name: &str, listen: &'static str, query: impl Fn(&ProgramRun<'_>)) {
    run_in_two_sessions(
        test_name,
        &["nginx"],
        Endpoint::V(8080),
        |run| {
            let configuration = format!(
                "daemon off; user root; pid {0}/pid; error_log {0}/error.log;
                 events {{}}
                 http {{
                     access_log off;
                     client_body_temp_path {0}; proxy_temp_path {0}; fastcgi_temp_path {0};
                     uwsgi_temp_path {0}; scgi_temp_path {0};
                     server {{
                         {listen}
                         location / {{ return 200 '{1} $server_addr $remote_addr'; }}
                     }}
                 }}",
                run.directory.display(),
                run.number
            );
            let mut command = run.command("nginx");
            command.arg("-c").arg(run.write("nginx.conf", &configuration));
            command
        },
        query,
    );
}

#[test]
fn nginx_serves_ipv4_in_each_session() {
    run_nginx("nginx_serves_ipv4_in_each_session", "listen 8080;", |run| {
        let reply = run.curl("http://127.0.0.1:8080/");
        assert_eq!(reply, format!("{} 127.0.0.1 127.0.0.1", run.number));
        let reply = run.curl(&format!("http://{}:8080/", run.session.v()));
        assert_eq!(reply, format!("{0} {1} {1}", run.number, run.session.v()));
    });
}

#[test]
fn nginx_serves_ipv6_in_each_session() {
    run_nginx("nginx_serves_ipv6_in_each_session", "listen 8080; listen [::]:8080;", |run| {
        assert!(run.curl("http://127.0.0.1:8080/").starts_with(&session_id(run)));
        assert!(run.curl("http://[::1]:8080/").starts_with(&session_id(run)));
    });
}

#[test]
fn nginx_runs_with_distribution_configuration() {
    run_in_two_sessions(
        "nginx_runs_with_distribution_configuration",
        &["root", "nginx"],
        Endpoint::V(80),
        |run| {
            let directories = ["/run", "/var/log/nginx", "/var/lib/nginx", "/var/www/html"];
            let script = format!(
                "echo {} > /var/www/html/index.html; exec nginx -g 'daemon off;'",
                run.number
            );
            run.with_private_directories(&directories, &["sh", "-c", &script])
        },
        |run| {
            assert_eq!(run.curl("http://127.0.0.1/"), session_id(run));
            assert_eq!(run.curl("http://[::1]/"), session_id(run));
        },
    );
}

#[test]
fn netcat_serves_each_session() {
    run_in_two_sessions(
        "netcat_serves_each_session",
        &["nc"],
        Endpoint::L(7000),
        |run| {
            let mut command = run.command("sh");
            let serve_once = format!("echo {} | nc -l -s 127.0.0.1 -p 7000", run.number);
            command.args(["-c", &serve_once]);
            command
        },
        |run| assert_eq!(run.query("nc", &["-N", "127.0.0.1", "7000"]), session_id(run)),
    );
}

#[test]
fn memcached_serves_each_session() {
    run_in_two_sessions(
        "memcached_serves_each_session",
        &["memcached", "nc"],
        Endpoint::L(11211),
        |run| {
            let mut command = run.command("memcached");
            command.args(["-u", "root", "-l", "127.0.0.1", "-U", "11211", "-t", "2"]);
            command
        },
        |run| {
            let script = format!(
                "printf 'set session_id 0 0 1\\r\\n{}\\r\\nget session_id\\r\\nquit\\r\\n' | nc 127.0.0.1 11211",
                run.number
            );
            let reply = output_of(run.command("sh").args(["-c", &script]));
            assert!(reply.contains(&format!("\r\n{}\r\n", run.number)), "{reply}");
        },
    );
}

#[test]
fn dnsmasq_serves_each_session() {
    let client_script = "
import socket, struct
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(0.5)
question = struct.pack('>6H', 7, 256, 1, 0, 0, 0) + b'\\7session\\4test\\0' + struct.pack('>2H', 1, 1)
for _ in range(40):
    try:
        client.sendto(question, ('127.0.0.1', 5300))
        data, source = client.recvfrom(512)
    except OSError:
        continue
    print(data[-1])
    break";
    run_in_two_sessions(
        "dnsmasq_serves_each_session",
        &["dnsmasq"],
        Endpoint::Udp,
        |run| {
            let mut command = run.command("dnsmasq");
            command.args([
                "--no-daemon",
                "--conf-file=/dev/null",
                "--user=root",
                "--group=root",
                "--no-resolv",
                "--no-hosts",
                "--port=5300",
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
            ]);
            command.arg(format!("--pid-file={}", run.path("pid")));
            command.arg(format!("--address=/session.test/10.0.0.{}", run.number));
            command
        },
        |run| {
            assert_eq!(
                run.query(python_path().to_str().unwrap(), &["-c", client_script]),
                session_id(run)
            )
        },
    );
}

#[test]
fn sshd_serves_each_session() {
    run_in_two_sessions(
        "sshd_serves_each_session",
        &["root", "sshd"],
        Endpoint::V(2222),
        |run| {
            let key = run.path("key");
            let mut key_generation = Command::new("ssh-keygen");
            key_generation.args(["-q", "-t", "ed25519", "-N", "", "-f", &key]);
            assert!(key_generation.status().unwrap().success());
            let command =
                ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "2222", "-h", &key];
            run.with_private_directories(&["/run/sshd"], &command)
        },
        |run| {
            let reply = run.query("ssh-keyscan", &["-t", "ed25519", "-p", "2222", "127.0.0.1"]);
            let public_key = fs::read_to_string(run.path("key.pub")).unwrap();
            let public_key = public_key.split(' ').nth(1).unwrap();
            assert!(reply.contains(public_key), "{reply}");
        },
    );
}

#[test]
fn postgres_serves_each_session() {
    run_in_two_sessions(
        "postgres_serves_each_session",
        &["root", "postgres"],
        Endpoint::L(5432),
        |run| {
            let data_directory = run.path("data");
            let postgres_command = |program: &Path| {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
                command
                    .arg(program)
                    .args(["-D", &data_directory])
                    .env("LC_ALL", "C")
                    .current_dir("/");
                command
            };
            let chown_status = Command::new("chown").arg("postgres").arg(&run.directory).status();
            assert!(chown_status.unwrap().success());
            let initdb_status = postgres_command(&find_program("initdb").unwrap())
                .args(["-A", "trust", "--no-sync"])
                .stdout(std::process::Stdio::null())
                .status();
            assert!(initdb_status.unwrap().success());
            let settings = format!(
                "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
                 cluster_name = 'session{}'\n",
                run.number
            );
            fs::write(format!("{data_directory}/postgresql.auto.conf"), settings).unwrap();
            let server_command = postgres_command(&find_program("postgres").unwrap());
            let mut command = run.command("setpriv");
            command.args(server_command.get_args()).current_dir("/");
            command
        },
        |run| {
            let query = ["-h", "127.0.0.1", "-U", "postgres", "-Atc", "show cluster_name"];
            let mut reply = String::new();
            for _ in 0..100 {
                let output = run.command("psql").args(query).output().unwrap();
                reply = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                if output.status.success() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            assert_eq!(reply, format!("session{}", run.number));
        },
    );
}

/// Tests the main use case. Clients in two sessions have different source addresses on the external
/// host. Servers in both sessions bind the same port of the wildcard address, and clients in the
/// sessions and on the external host reach them.
#[test]
fn each_session_has_its_own_source() {
    let test_name = "each_session_has_its_own_source";
    let compile_matrix = || compile("matrix", MATRIX_SOURCES, &[]);
    let prepare = || {
        compile_matrix();
        preload_path();
    };
    in_namespace(test_name, &["python3", "curl"], prepare, || {
        let host = TestHost::new(listed_programs());
        let _service = start_until_ready(host.external_command(compile_matrix()).arg("serve"));
        let sessions = [host.session(1), host.session(2)];
        // The external server sees a different source for each session.
        for session in &sessions {
            let client_script = format!(
                "import socket; connection = socket.create_connection(('{EXTERNAL_ADDRESS}', 7)); \
                 print(connection.recv(99).decode())"
            );
            let source = output_of(session.command(python_path()).args(["-c", &client_script]));
            assert_eq!(source.trim(), session.v());
        }
        // Both sessions serve port 8000 on 0.0.0.0, for internal and external clients.
        let mut servers = Vec::new();
        for (name, session) in ["one", "two"].iter().zip(&sessions) {
            let directory = host.directory.join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("session_id"), name).unwrap();
            let mut command = session.command(python_path());
            command.args(["-m", "http.server", "8000"]).current_dir(&directory);
            servers.push(ChildGuard::start(&mut command));
            wait_for_listener(&format!("{}:8000", session.v()), &mut servers.last_mut().unwrap().0);
        }
        for (name, session) in ["one", "two"].iter().zip(&sessions) {
            let curl = find_program("curl").unwrap();
            let internal_output =
                session.command(&curl).args(["-sS", "http://127.0.0.1:8000/session_id"]).output();
            assert_eq!(String::from_utf8_lossy(&internal_output.unwrap().stdout), *name);
            let url = format!("http://{}:8000/session_id", session.v());
            assert_eq!(output_of(host.external_command(&curl).args(["-sS", &url])), *name);
        }
    });
}

/// The classes of Python's socket tests that every run covers. They test TCP, UDP, IPv6, messages
/// and lookups.
const SHORT_RUN_CLASSES: &[&str] = &[
    "GeneralModuleTests",
    "BasicTCPTest",
    "BasicUDPTest",
    "NonBlockingTCPTests",
    "CreateServerTest",
    "CreateServerFunctionalTest",
    "NetworkConnectionAttributesTest",
    "SendmsgUDP6Test",
    "RecvmsgIntoUDPTest",
];

/// Runs Python's socket tests: those of `classes`, or all tests if `classes` is empty. Returns the
/// sorted results.
fn run_socket_tests(mut command: Command, classes: &[&str]) -> Vec<String> {
    let runner = "
import sys, unittest
class Result(unittest.TextTestResult):
    def addSuccess(self, test): super().addSuccess(test); print(test.id(), 'ok')
    def addFailure(self, test, error): super().addFailure(test, error); print(test.id(), 'failed')
    def addError(self, test, error): super().addError(test, error); print(test.id(), 'error')
    def addSkip(self, test, reason): super().addSkip(test, reason); print(test.id(), 'skipped')
import test.test_socket
# On a virtual machine without a vsock loopback, this test never ends, with or without the hook.
test.test_socket.ThreadedVSOCKSocketStreamTest.__unittest_skip__ = True
loader = unittest.defaultTestLoader
names = ['test.test_socket.' + name for name in sys.argv[1:]] or ['test.test_socket']
suite = loader.loadTestsFromNames(names)
unittest.TextTestRunner(stream=sys.stderr, resultclass=Result).run(suite)";
    let output = command.args(["-c", runner]).args(classes).output().unwrap();
    let stdout_text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines: Vec<_> = stdout_text.lines().map(str::to_owned).collect();
    let min_result_count = if classes.is_empty() { 300 } else { 100 };
    assert!(
        lines.len() > min_result_count,
        "{stdout_text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    lines.sort();
    lines
}

/// The results that differ in a listed program. A socket on ::1 is bound to an IPv4-mapped address,
/// so its option `IPV6_V6ONLY` is cleared (row 32).
const LISTED_DIFFERENCES: &[&str] =
    &["test.test_socket.CreateServerTest.test_ipv6_only_default failed"];

/// Under `cargo xtask test --long`, all classes run, which takes minutes. Only the tests in
/// [`LISTED_DIFFERENCES`] depend on behaviour that the hook changes.
#[test]
fn python_socket_tests_are_unaffected() {
    let test_name = "python_socket_tests_are_unaffected";
    let classes = vipool_testing::effort(SHORT_RUN_CLASSES, &[]);
    let has_tests = || {
        let output = Command::new("python3").args(["-c", "import test.test_socket"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !has_tests() {
        return vipool_testing::record_skip(
            "test.test_socket",
            "apt-get install libpython3-testsuite",
        );
    }
    let prepare = || _ = preload_path();
    in_namespace(test_name, &["python3"], prepare, || {
        let mut host = TestHost::new(vec![listed_program("another")]);
        let unhooked_results = run_socket_tests(Command::new(python_path()), classes);
        let hooked_results = run_socket_tests(host.session(1).command(python_path()), classes);
        assert_eq!(
            unhooked_results, hooked_results,
            "the hook must not change an unlisted program"
        );
        host.change_policy(|policy| policy.programs.push(listed_program(python_path())));
        let listed_results = run_socket_tests(host.session(1).command(python_path()), classes);
        let differences: Vec<&String> =
            listed_results.iter().filter(|result| !unhooked_results.contains(result)).collect();
        assert_eq!(listed_results.len(), unhooked_results.len());
        assert_eq!(
            differences, LISTED_DIFFERENCES,
            "a listed program must not see rewritten addresses"
        );
    });
}
