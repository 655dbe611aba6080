//! One HTTP GET over a TCP connection of one's own: enough to see an answer as it is.
use crate::{Result, interrupt};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest answer that is read.
const MAX_ANSWER: u64 = 4 << 20;
const CONNECT: Duration = Duration::from_secs(2);
const READ: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status line, such as `HTTP/1.1 200 OK`.
    pub status: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Whether the status is 200.
    pub fn is_ok(&self) -> bool {
        self.status.split(' ').nth(1) == Some("200")
    }
}

/// GETs `path`, trying again for `patience` while nobody listens: a program needs a moment to start.
pub fn get(address: SocketAddr, path: &str, patience: Duration) -> Result<Answer> {
    let end = Instant::now() + patience;
    loop {
        interrupt::check()?;
        match once(address, path) {
            Ok(answer) => return Ok(answer),
            Err(e) if Instant::now() >= end => return Err(format!("http://{address}{path}: {e}")),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn once(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(READ))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.lines().next()?.to_owned();
    let chunked = head.lines().any(|l| l.to_ascii_lowercase().replace(' ', "") == "transfer-encoding:chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    status.starts_with("HTTP/").then_some(Answer { status, body })
}

/// `SIZE\r\nDATA\r\n`, until a size of 0 (RFC 9112, 7.1).
fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).unwrap_or_default();
        match tail.get(..size) {
            Some(data) if size > 0 => body.push_str(data),
            _ => break,
        }
        rest = tail.get(size + 2..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_with_and_without_chunks_are_read() {
        let plain = parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n").unwrap();
        assert!(plain.is_ok() && plain.body == "hi\n");
        let chunked =
            parse("HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
                .unwrap();
        assert!(!chunked.is_ok() && chunked.body == "abcde");
        assert!(parse("SSH-2.0\r\n\r\n").is_none() && parse("").is_none());
    }
}
