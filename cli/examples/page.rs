//! A web server with one page, and a client. `vipool demo` uses them if python3 is not installed.
//!
//! The program does not depend on vipool. `page serve PORT FILE` serves the file on 127.0.0.1, one
//! connection at a time. `page fetch PORT` prints the page of the server on this port.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    match arguments.as_slice() {
        ["serve", port, file] => serve(parse_port(port)?, &std::fs::read_to_string(file)?),
        ["fetch", port] => fetch(parse_port(port)?),
        _ => Err(io::Error::other("usage: page serve PORT FILE | page fetch PORT")),
    }
}

fn parse_port(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::other(format!("{port:?} is not a port")))
}

fn serve(port: u16, page: &str) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let address = listener.local_addr()?;
    println!("Serving HTTP on {} port {}", address.ip(), address.port());
    loop {
        let (mut client, _) = listener.accept()?;
        let length = page.len();
        // Reads the request up to the empty line. The path in the request does not matter.
        BufReader::new(&client).lines().map_while(Result::ok).find(String::is_empty);
        write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{page}")?;
    }
}

fn fetch(port: u16) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    server.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut response = String::new();
    server.read_to_string(&mut response)?;
    print!("{}", response.split_once("\r\n\r\n").map_or("", |(_, page)| page));
    Ok(())
}
