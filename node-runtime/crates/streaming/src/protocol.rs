//! The conversation between `berth serve` and its `berth streaming`: one JSON message per packet of a `SOCK_SEQPACKET` pair, with
//! descriptors beside those that name them.
//!
//! Both ends are one build, started by one another, so the messages have no versions. The end of the socket means that the daemon is
//! gone: the streaming process then takes no new session and ends with its last one.
use berth_model::{Error, Result};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// The descriptor that a streaming process finds its end of the socket pair at.
pub const CHANNEL_FD: i32 = 3;

/// From the streaming process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First of all: where it listens. No reply.
    Listening {
        /// The address, with the port that was chosen.
        address: SocketAddr,
    },
    /// A client came with this token. A token can be taken once. Reply: [`Reply::Granted`] or [`Reply::Refused`].
    Take {
        /// Comes back with the reply.
        tag: u32,
        /// From the URL.
        token: String,
        /// What the URL asks for; a token for something else is refused.
        kind: Kind,
    },
    /// The client's streams are there: begin. Reply: [`Reply::Started`] or [`Reply::Refused`].
    Start {
        /// Comes back with the reply.
        tag: u32,
        /// The token that was taken.
        token: String,
        /// Size of the terminal, if the client has told it already.
        size: Option<Size>,
    },
    /// The client went away before its session began; the daemon forgets the token. No reply.
    Abandon {
        /// The token that was taken.
        token: String,
    },
}

/// From the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The token is good, and used up.
    Granted {
        /// Of the request.
        tag: u32,
        /// What it stands for.
        session: Session,
    },
    /// The session has begun. Descriptors follow, see [`Started`].
    Started {
        /// Of the request.
        tag: u32,
        /// What has begun.
        started: Started,
    },
    /// No.
    Refused {
        /// Of the request.
        tag: u32,
        /// Why, for the status of the answer.
        refusal: Refusal,
        /// Why, for people.
        message: String,
    },
}

/// Kinds of sessions; the first part of a URL's path is its name in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `/exec/TOKEN`
    Exec,
    /// `/attach/TOKEN`
    Attach,
    /// `/portforward/TOKEN`
    PortForward,
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Session {
    /// A command in a container, which [`Request::Start`] starts.
    Exec {
        /// Streams that the client asked the daemon for.
        streams: Streams,
        /// Where the end of the command is told.
        monitor: MonitorPlace,
    },
    /// The streams of a container's main process.
    Attach {
        /// Streams that the client asked the daemon for.
        streams: Streams,
        /// Where the end of the container is told.
        monitor: MonitorPlace,
    },
    /// Connections to ports of a pod.
    PortForward {
        /// Id of the pod, for messages.
        pod: String,
        /// Ports that the CRI call named. Only a client that speaks channels over WebSocket depends on them; may be empty.
        ports: Vec<u16>,
    },
}

/// Streams of a session. With a terminal there is no stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// To the process.
    pub stdin: bool,
    /// From it.
    pub stdout: bool,
    /// From it.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

/// How to reach the monitor of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorPlace {
    /// Id of the pod.
    pub pod: String,
    /// The pod's runtime directory, with the monitor's socket.
    pub directory: PathBuf,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// A session that has begun, and its descriptors in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Started {
    /// With a terminal: its master. Without: stdin to write to if [`Streams::stdin`], then stdout and stderr to read from.
    Exec {
        /// Id of the monitor's task, whose exit ends the session.
        task: String,
    },
    /// With a terminal: its master to write to, then a copy of the output to read from. Without: stdin to write to if `stdin`, then
    /// copies of stdout and stderr to read from.
    Attach {
        /// Id of the monitor's task, whose exit ends the session.
        task: String,
        /// Whether stdin follows: the container may have none, or have it closed.
        stdin: bool,
        /// Whether the process has a terminal, whatever the client asked for.
        tty: bool,
        /// Whether the process's stdin is closed when this session's ends.
        stdin_once: bool,
    },
    /// The pod's network namespace.
    PortForward,
}

/// Why the daemon says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such token (never given, used, expired), or what it stands for is gone: 404.
    NotFound,
    /// Cannot be done in this state: 409 before the session has begun.
    State,
    /// The program cannot be executed: the exit code that a shell gives (126 or 127) is what the client is told.
    Command {
        /// 126 or 127.
        code: i32,
    },
    /// Anything else: 500.
    Internal,
}

/// The packet of a message.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let bytes = serde_json::to_vec(message).map_err(|e| Error::internal(format!("message: {e}")))?;
    if bytes.len() > MAX_MESSAGE {
        return Err(Error::internal(format!("a message of {} bytes, the limit is {MAX_MESSAGE}", bytes.len())));
    }
    Ok(bytes)
}

/// Reads a packet.
pub fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("message of the other end: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_went() {
        let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        let monitor = MonitorPlace { pod: "p".into(), directory: "/run/berth/pods/p".into() };
        let reply = Reply::Granted { tag: 7, session: Session::Exec { streams, monitor } };
        assert_eq!(decode::<Reply>(&encode(&reply).unwrap()).unwrap(), reply);
        let reply = Reply::Granted { tag: 9, session: Session::PortForward { pod: "p".into(), ports: vec![80, 443] } };
        assert_eq!(decode::<Reply>(&encode(&reply).unwrap()).unwrap(), reply);
        let request = Request::Start { tag: 8, token: "t".into(), size: Some(Size { rows: 24, cols: 80 }) };
        assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
        assert!(decode::<Request>(b"{\"Start\":{}}").is_err());
    }
}
