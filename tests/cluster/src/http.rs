//! One request on plain HTTP from inside a node. Owns: that much of HTTP/1.0 and no more. Must not: follow, retry or keep a connection.
use crate::space::NodeSpace;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::time::Duration;

/// How long a server may think.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// Status and body. Errors: nobody answers.
pub fn get(space: &NodeSpace, address: &str, path: &str) -> io::Result<(u16, String)> {
    exchange(space, address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// Sends a body, such as `("PATCH", "application/merge-patch+json")`. Status and body of the answer. Errors: nobody answers.
pub fn send(
    space: &NodeSpace,
    address: &str,
    (method, kind): (&str, &str),
    path: &str,
    body: &Value,
) -> io::Result<(u16, String)> {
    let body = body.to_string();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}");
    exchange(space, address, &format!("{head}\r\n\r\n{body}"))
}

fn exchange(space: &NodeSpace, address: &str, request: &str) -> io::Result<(u16, String)> {
    let mut stream = space.connect(address)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    // A server answers HTTP/1.0 in one piece and closes.
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other(format!("no answer: {text:?}")))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.ok_or_else(|| io::Error::other(format!("no status in {head:?}")))?, body.to_owned()))
}

/// The body of a 200 as JSON.
pub fn json(space: &NodeSpace, address: &str, path: &str) -> io::Result<Value> {
    match get(space, address, path)? {
        (200, body) => serde_json::from_str(&body).map_err(io::Error::other),
        (status, body) => Err(io::Error::other(format!("{path}: {status}: {body}"))),
    }
}
