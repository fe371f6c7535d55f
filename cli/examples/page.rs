//! A web server of one page, and its client: what `vipool demo` runs where there is no python3.
//!
//! It knows nothing of vipool. `page serve PORT FILE` serves the file on 127.0.0.1, one
//! connection after the other; `page fetch PORT` prints what is served there.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    match arguments.as_slice() {
        ["serve", port, file] => serve(number(port)?, &std::fs::read_to_string(file)?),
        ["fetch", port] => fetch(number(port)?),
        _ => Err(io::Error::other("usage: page serve PORT FILE | page fetch PORT")),
    }
}

fn number(port: &str) -> io::Result<u16> {
    port.parse().map_err(|_| io::Error::other(format!("{port:?} is not a port")))
}

fn serve(port: u16, page: &str) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let name = listener.local_addr()?;
    println!("Serving HTTP on {} port {}", name.ip(), name.port());
    loop {
        let (mut client, _) = listener.accept()?;
        let length = page.len();
        // The request, whatever it asks for: up to the empty line.
        BufReader::new(&client).lines().map_while(Result::ok).find(String::is_empty);
        write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{page}")?;
    }
}

fn fetch(port: u16) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    server.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    server.read_to_string(&mut answer)?;
    print!("{}", answer.split_once("\r\n\r\n").map_or("", |(_, page)| page));
    Ok(())
}
