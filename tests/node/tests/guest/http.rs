//! One GET over plain HTTP/1.0, whose answers end with the connection and are never in chunks.
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For an answer: the guest stands still where the machine below has no time for it.
const LIMIT: Duration = Duration::from_secs(30);

/// The body of an answer 200; `None` for everything else.
pub async fn get(address: &str, path: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let text = String::from_utf8(answer).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).is_some_and(|code| code == "200").then(|| body.to_owned())
    };
    tokio::time::timeout(LIMIT, ask).await.ok()?
}
