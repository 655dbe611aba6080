//! The web server: HTTP/1.1, GET and HEAD, one request a connection.
//!
//! Owns: listening, limits, answers. Must not: read files or run anything.
use crate::signals;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Connections served at one time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// Largest request head.
const MAX_HEAD: u64 = 16 << 10;
/// A client that says nothing for so long is sent away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
pub fn serve() -> io::Result<u8> {
    let signals = signals::block()?;
    let port = match std::env::var("PORT") {
        Ok(text) => text.parse().map_err(|e| io::Error::other(format!("PORT {text:?}: {e}")))?,
        Err(_) => 80,
    };
    let busy = Arc::new(AtomicUsize::new(0));
    for listener in listen(port)? {
        println!("listening on {}", listener.local_addr()?);
        let busy = Arc::clone(&busy);
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || accept(&listener, &busy))?;
    }
    let signal = signals.wait()?;
    println!("{signal}: bye");
    Ok(0)
}

/// Both families. Where `[::]` takes IPv4 too (the kernel's default), one socket is both.
fn listen(port: u16) -> io::Result<Vec<TcpListener>> {
    let six = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port));
    let port = six.as_ref().ok().and_then(|l| l.local_addr().ok()).map_or(port, |a| a.port());
    match (six, TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))) {
        (Ok(six), Ok(four)) => Ok(vec![six, four]),
        (Ok(six), Err(_)) => Ok(vec![six]),
        (Err(_), Ok(four)) => Ok(vec![four]),
        (Err(_), Err(e)) => Err(io::Error::new(e.kind(), format!("port {port}: {e}"))),
    }
}

fn accept(listener: &TcpListener, busy: &Arc<AtomicUsize>) {
    loop {
        while busy.load(Ordering::Acquire) >= MAX_CONNECTIONS {
            std::thread::sleep(Duration::from_millis(5));
        }
        let Ok((stream, peer)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        busy.fetch_add(1, Ordering::AcqRel);
        let done = Busy(Arc::clone(busy));
        let started = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
            let _done = done;
            if let Err(e) = converse(&stream, peer) {
                println!("{peer} {e}");
            }
        });
        if let Err(e) = started {
            println!("{peer} refused: {e}");
        }
    }
}

/// Counts down when a connection ends, however it ends.
struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn converse(stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = BufReader::new(stream.take(MAX_HEAD));
    let mut request = String::new();
    head.read_line(&mut request)?;
    // The head is read to its end, or closing would reset the connection before the client has read the answer.
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = answer(method, path);
    println!("{peer} {} {} {}", printable(method), printable(path), &status[..3]);
    let mut out = stream;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    out.write_all(head.as_bytes())?;
    if method != "HEAD" {
        out.write_all(body.as_bytes())?;
    }
    out.flush()
}

fn answer(method: &str, path: &str) -> (&'static str, String) {
    if method.is_empty() || !path.starts_with('/') {
        return ("400 Bad Request", "not HTTP\n".into());
    }
    if method != "GET" && method != "HEAD" {
        return ("405 Method Not Allowed", "only GET and HEAD\n".into());
    }
    match path.split('?').next().unwrap_or_default() {
        "/" => ("200 OK", format!("Hello from {}, a pod run by Berth.\n", hostname())),
        "/healthz" => ("200 OK", "ok\n".into()),
        "/env" => {
            let pairs = std::env::vars_os();
            ("200 OK", pairs.map(|(k, v)| format!("{}={}\n", k.to_string_lossy(), v.to_string_lossy())).collect())
        }
        _ => ("404 Not Found", "no such page\n".into()),
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(|_| "somewhere".into(), |name| name.to_string_lossy().into_owned())
}

/// What a client sent, fit for a log line.
fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_refusals() {
        let code = |method, path| answer(method, path).0[..3].parse::<u16>().unwrap();
        assert_eq!(code("GET", "/?x=1"), 200);
        assert_eq!(code("HEAD", "/healthz"), 200);
        assert_eq!(code("GET", "/nothing"), 404);
        assert_eq!(code("POST", "/"), 405);
        assert_eq!(code("", ""), 400);
        assert!(answer("GET", "/").1.contains(&hostname()));
        assert_eq!(printable("a\nb\u{7}ü"), "a?b??");
    }
}
