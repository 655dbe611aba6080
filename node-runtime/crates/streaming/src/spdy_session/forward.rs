//! Port-forward over SPDY: pairs of a data and an error stream.
//!
//! Owns: which two streams are a pair. Must not: connect to anything.
use super::STREAM_TYPE;
use crate::spdy::{self, Limits, Status, Stream, StreamReader, StreamWriter};
use crate::streams::{Line, Pair};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Header with the port.
const PORT: &str = "port";
/// Header with what both streams of a pair have in common.
const REQUEST_ID: &str = "requestid";
/// Most halves of pairs that wait for the other half.
const MAX_HALVES: usize = 1000;

/// What the headers of a stream say.
#[derive(Debug, PartialEq, Eq)]
struct Role {
    port: u16,
    data: bool,
    request: String,
}

/// Reads the headers of a stream. Clients from before 2015 send no request id; their error stream comes first and the data stream's
/// id is the next odd number.
fn role(id: u32, header: impl Fn(&str) -> Option<String>) -> Result<Role, &'static str> {
    let port = header(PORT).and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    let port = port.ok_or("the header port must be a number from 1 to 65535")?;
    let data = match header(STREAM_TYPE).as_deref() {
        Some("data") => true,
        Some("error") => false,
        _ => return Err("the header streamType must be data or error"),
    };
    let of_ids = || format!("#{}", if data { id.wrapping_sub(2) } else { id });
    let request = header(REQUEST_ID).filter(|request| !request.is_empty()).unwrap_or_else(of_ids);
    Ok(Role { port, data, request })
}

type Handles = (StreamReader, StreamWriter);

/// A half of a pair.
struct Half {
    role: Role,
    handles: Handles,
    /// Which timer is its own: ids may be used again.
    number: u64,
}

/// Pairs streams until the connection ends or nobody takes pairs any more.
pub async fn pairs<I>(io: I, opening: Duration, pairs: mpsc::Sender<Pair>, line: Line)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (connection, mut incoming) = spdy::serve(io, Limits::default());
    let mut pairing = Pairing { halves: HashMap::new(), timers: JoinSet::new(), opening, next: 0 };
    let gone = connection.gone();
    tokio::pin!(gone);
    loop {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some(Ok(stream)) => {
                    if let Some(pair) = pairing.add(stream).await
                        && pairs.send(pair).await.is_err()
                    {
                        break;
                    }
                }
                // The client opens no more; what it has open goes on.
                Some(Err(_)) | None => break,
            },
            Some(Ok((request, number))) = pairing.timers.join_next() => pairing.expire(&request, number).await,
            () = line.gone() => break,
        }
    }
    drop(pairs);
    tokio::select! {
        _ = &mut gone => {}
        () = line.gone() => {}
    }
    line.cut();
    let _ = connection.close().await;
}

struct Pairing {
    halves: HashMap<String, Half>,
    timers: JoinSet<(String, u64)>,
    opening: Duration,
    next: u64,
}

impl Pairing {
    /// Takes a stream; gives a pair if it was the second half.
    async fn add(&mut self, stream: Stream) -> Option<Pair> {
        let header = |name: &str| stream.header(name).map(str::to_owned);
        let role = match role(stream.id(), header) {
            Ok(role) if self.halves.len() < MAX_HALVES || self.halves.contains_key(&role.request) => role,
            Ok(_) => return refuse(stream, "too many streams wait for their other half"),
            Err(problem) => return refuse(stream, problem),
        };
        let twice = self.halves.get(&role.request).is_some_and(|half| half.role.data == role.data);
        if twice {
            return refuse(stream, "the request has such a stream already");
        }
        let handles = stream.accept().await.map_err(|e| tracing::debug!("{e}")).ok()?;
        let Some(other) = self.halves.remove(&role.request) else {
            self.wait(role, handles);
            return None;
        };
        let (port, data, error) =
            if role.data { (role.port, handles, other.handles) } else { (other.role.port, other.handles, handles) };
        let ((reader, data), (_, error)) = (data, error);
        let (reader, data, error) = (Box::new(reader), Box::new(data), Box::new(error));
        Some(Pair { port, reader, half_close: true, data, error })
    }

    fn wait(&mut self, role: Role, handles: Handles) {
        self.next += 1;
        let (request, number, opening) = (role.request.clone(), self.next, self.opening);
        self.halves.insert(request.clone(), Half { role, handles, number });
        self.timers.spawn(async move {
            tokio::time::sleep(opening).await;
            (request, number)
        });
    }

    /// Gives up a half whose other half did not come.
    async fn expire(&mut self, request: &str, number: u64) {
        if self.halves.get(request).is_none_or(|half| half.number != number) {
            return;
        }
        let Some(Half { role, handles: (_, mut writer), .. }) = self.halves.remove(request) else { return };
        if role.data {
            return writer.reset();
        }
        let problem = format!("error forwarding port {}: its data stream did not come", role.port);
        let _ = writer.write_all(problem.as_bytes()).await;
        let _ = writer.shutdown().await;
    }
}

fn refuse(stream: Stream, problem: &str) -> Option<Pair> {
    tracing::debug!("a stream is refused: {problem}");
    stream.refuse(Status::ProtocolError);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(id: u32, headers: &[(&str, &str)]) -> Result<Role, &'static str> {
        role(id, |name| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn roles() {
        let data = read(7, &[("port", "80"), ("streamtype", "data"), ("requestid", "3")]).unwrap();
        assert_eq!(data, Role { port: 80, data: true, request: "3".into() });
        let error = read(1, &[("port", "80"), ("streamtype", "error")]).unwrap();
        let data = read(3, &[("port", "80"), ("streamtype", "data"), ("requestid", "")]).unwrap();
        assert_eq!(error.request, data.request, "without request ids the numbers of the streams tell");
        for bad in [
            &[("port", "0"), ("streamtype", "data")][..],
            &[("port", "65536"), ("streamtype", "data")],
            &[("port", "80"), ("streamtype", "stdin")],
            &[("streamtype", "data")],
            &[("port", "80")],
        ] {
            assert!(read(1, bad).is_err(), "{bad:?}");
        }
    }
}
