//! Exec and attach over SPDY.
//!
//! Owns: collecting exactly the streams that the token and the version ask for. Must not: know processes.
use super::STREAM_TYPE;
use crate::protocol::{Size, Streams};
use crate::spdy::{self, Connection, Incoming, Limits, Status, Stream, StreamReader, StreamWriter};
use crate::streams::{Finish, Line, RemoteStreams, Stdin, Writer};
use crate::wire::protocols::RemoteVersion;
use crate::wire::resize::SizeReader;
use crate::wire::status::Outcome;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Streams of one connection: five are the most that any version knows.
const MAX_STREAMS: usize = 16;
/// Bytes that wait for the process, over all streams.
const MAX_BUFFERED: usize = 1024 * 1024;

/// How an exec or attach over SPDY ends.
pub struct SpdyFinish {
    connection: Connection,
    error: StreamWriter,
    status: bool,
    refusing: JoinHandle<()>,
    line: Line,
    /// The client's stream for sizes would be reset if it went.
    _resize: Option<StreamWriter>,
}

impl SpdyFinish {
    /// Tells the outcome after all output, and closes the connection.
    pub async fn tell(self, outcome: &Outcome) {
        let Self { connection, mut error, status, refusing, line, .. } = self;
        let tell = async {
            // Errors are a client that is gone.
            if let Some(body) = outcome.encode(status) {
                let _ = error.write_all(&body).await;
            }
            let _ = error.shutdown().await;
            let _ = connection.close().await;
        };
        tokio::select! {
            () = tell => {}
            () = line.gone() => {}
        }
        refusing.abort();
    }
}

type Handles = (StreamReader, StreamWriter);

#[derive(Default)]
struct Found {
    error: Option<Handles>,
    stdin: Option<Handles>,
    stdout: Option<Handles>,
    stderr: Option<Handles>,
    resize: Option<Handles>,
}

impl Found {
    /// Takes a stream if it is wanted and not there yet.
    async fn take(&mut self, stream: Stream, wanted: &Wanted) {
        let place = match stream.header(STREAM_TYPE) {
            Some("error") => Some(&mut self.error),
            Some("stdin") if wanted.stdin => Some(&mut self.stdin),
            Some("stdout") if wanted.stdout => Some(&mut self.stdout),
            Some("stderr") if wanted.stderr => Some(&mut self.stderr),
            Some("resize") if wanted.resize => Some(&mut self.resize),
            _ => None,
        };
        match place {
            Some(place @ None) => match stream.accept().await {
                Ok(handles) => *place = Some(handles),
                Err(e) => tracing::debug!("{e}"),
            },
            _ => {
                tracing::debug!("a stream that is not wanted: {:?}", stream.headers());
                stream.refuse(Status::RefusedStream);
            }
        }
    }

    fn is_complete(&self, wanted: &Wanted) -> bool {
        self.error.is_some()
            && self.stdin.is_some() == wanted.stdin
            && self.stdout.is_some() == wanted.stdout
            && self.stderr.is_some() == wanted.stderr
            && self.resize.is_some() == wanted.resize
    }
}

struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

/// The streams of a connection that has just been made, once all are there. `None` if the connection ends before.
pub async fn remote<I>(io: I, version: RemoteVersion, streams: Streams, line: &Line) -> Option<RemoteStreams>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = Limits { streams: MAX_STREAMS, buffered: MAX_BUFFERED, ..Limits::default() };
    let (connection, mut incoming) = spdy::serve(io, limits);
    let wanted = Wanted {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr && !streams.tty,
        resize: streams.tty && version >= RemoteVersion::V3,
    };
    let mut found = Found::default();
    while !found.is_complete(&wanted) {
        match incoming.next().await? {
            Ok(stream) => found.take(stream, &wanted).await,
            Err(e) => {
                tracing::debug!("{e}");
                return None;
            }
        }
    }
    let refusing = tokio::spawn(refuse_rest(incoming, connection.gone(), line.clone()));
    arrange(found, version, (connection, refusing), line)
}

fn arrange(
    found: Found,
    version: RemoteVersion,
    (connection, refusing): (Connection, JoinHandle<()>),
    line: &Line,
) -> Option<RemoteStreams> {
    let (_, error) = found.error?;
    let (sizes, size) = watch::channel(None);
    let resize = found.resize.map(|(reader, writer)| {
        tokio::spawn(read_sizes(reader, sizes, line.clone()));
        writer
    });
    let stdin = found.stdin.map(|(reader, mut back)| {
        let reader = Box::new(reader);
        if version > RemoteVersion::V1 {
            return Stdin { reader, back: Some(Box::new(back)) };
        }
        // The first version's clients wait for the end of our half before they begin.
        tokio::spawn(async move { back.shutdown().await });
        Stdin { reader, back: None }
    });
    let output = |handles: Option<Handles>| handles.map(|(_, writer)| Box::new(writer) as Writer);
    Some(RemoteStreams {
        stdin,
        stdout: output(found.stdout),
        stderr: output(found.stderr),
        size,
        finish: Finish::Spdy(SpdyFinish {
            connection,
            error,
            status: version >= RemoteVersion::V4,
            refusing,
            line: line.clone(),
            _resize: resize,
        }),
    })
}

async fn refuse_rest(mut incoming: Incoming, gone: impl Future<Output = berth_model::Result<()>>, line: Line) {
    let refuse = async {
        while let Some(Ok(stream)) = incoming.next().await {
            stream.refuse(Status::RefusedStream);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = refuse => {}
        ended = gone => if let Err(e) = ended {
            tracing::debug!("{e}");
        },
    }
    line.cut();
}

async fn read_sizes(mut reader: StreamReader, sizes: watch::Sender<Option<Size>>, line: Line) {
    let mut sizer = SizeReader::default();
    let mut chunk = [0; 1024];
    let read = async {
        while let Ok(n @ 1..) = reader.read(&mut chunk).await {
            line.touch();
            if let Some(size) = sizer.push(&chunk[..n]) {
                sizes.send_replace(Some(size));
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = line.gone() => {}
    }
}
