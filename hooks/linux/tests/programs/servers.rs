//! Tests of native servers: redis, nginx, netcat, memcached, dnsmasq, sshd and PostgreSQL.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Endpoint, ProgramRun, run_in_two_sessions, session_id};
use crate::support::output_of;
use vipool_testing::needs::find_program;

#[test]
fn redis_runs_with_distribution_configuration() {
    run_in_two_sessions(
        "servers::redis_runs_with_distribution_configuration",
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
    run_nginx("servers::nginx_serves_ipv4_in_each_session", "listen 8080;", |run| {
        let reply = run.curl("http://127.0.0.1:8080/");
        assert_eq!(reply, format!("{} 127.0.0.1 127.0.0.1", run.number));
        let reply = run.curl(&format!("http://{}:8080/", run.session.v()));
        assert_eq!(reply, format!("{0} {1} {1}", run.number, run.session.v()));
    });
}

#[test]
fn nginx_serves_ipv6_in_each_session() {
    run_nginx(
        "servers::nginx_serves_ipv6_in_each_session",
        "listen 8080; listen [::]:8080;",
        |run| {
            assert!(run.curl("http://127.0.0.1:8080/").starts_with(&session_id(run)));
            assert!(run.curl("http://[::1]:8080/").starts_with(&session_id(run)));
        },
    );
}

#[test]
fn nginx_runs_with_distribution_configuration() {
    run_in_two_sessions(
        "servers::nginx_runs_with_distribution_configuration",
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
        "servers::netcat_serves_each_session",
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
        "servers::memcached_serves_each_session",
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
        "servers::dnsmasq_serves_each_session",
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
        |run| assert_eq!(run.query_python(client_script), session_id(run)),
    );
}

#[test]
fn sshd_serves_each_session() {
    run_in_two_sessions(
        "servers::sshd_serves_each_session",
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
        "servers::postgres_serves_each_session",
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
