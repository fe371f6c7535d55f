//! Tests of servers that are written in Python, JavaScript and Java.

use super::{Endpoint, run_in_two_sessions, session_id};
use crate::support::python_path;

#[test]
fn python_http_server_serves_each_session() {
    let test_name = "runtimes::python_http_server_serves_each_session";
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
        "runtimes::python_asyncio_serves_each_session",
        &[],
        Endpoint::V(8000),
        |run| run.python_command(server_script),
        |run| {
            let reply = run.query_python(client_script);
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
        "runtimes::python_socketserver_serves_each_session",
        &[],
        Endpoint::Udp,
        |run| run.python_command(server_script),
        |run| {
            assert_eq!(run.query_python(client_script), session_id(run));
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
        "runtimes::python_workers_inherit_the_listener",
        &[],
        Endpoint::L(8000),
        |run| run.python_command(server_script),
        |run| {
            let reply = run.query_python(client_script);
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
        "runtimes::node_http_serves_each_session",
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
        "runtimes::java_http_serves_each_session",
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
