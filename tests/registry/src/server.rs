//! Connections: accept, TLS, HTTP/1, faults on the way out, the log.
//!
//! Owns: one answer's way from [`routes`] to the wire. Must not: know the distribution API.
use crate::fault::{Fault, Shape, body_stream};
use crate::registry::AuthMode;
use crate::routes::{self, Answer};
use crate::state::{Counters, Request, State};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Largest request body taken: enough for a chart or an image layer of a test.
const MAX_REQUEST: usize = 256 << 20;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub counters: Arc<Counters>,
}

impl Shared {
    pub fn new(auth: AuthMode, base_url: String) -> Self {
        Self { state: Mutex::new(State::new(auth, base_url)), counters: Arc::default() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the handle is dropped; connections end with it.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        shared.counters.connected();
        let _ = stream.set_nodelay(true);
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        serve_connection(stream, shared, h2).await;
                    }
                }
                None => serve_connection(stream, shared, false).await,
            }
        });
    }
}

async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S, shared: Arc<Shared>, h2: bool) {
    let service = service_fn(|request| handle(request, Arc::clone(&shared)));
    if h2 {
        shared.counters.connected_h2();
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let service = service_fn(move |request| handle(request, Arc::clone(&shared)));
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
        return;
    }
    // An error here is a client that went away, or a fault that cut the connection.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn handle(request: http::Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let faults = take_faults(&shared, &parts.method, &path);
    let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(io::Error::other)?.to_bytes();
    for fault in &faults {
        if let Fault::DelayHeaders(wait) = fault {
            tokio::time::sleep(*wait).await;
        }
    }
    let honour_range = !faults.iter().any(|f| matches!(f, Fault::NoRange));
    let replaced = faults.iter().find_map(|f| replacement(f, &path));
    let answer = match replaced {
        Some(replaced) => replaced,
        None => Some(routes::answer(&mut shared.lock(), &parts, body, honour_range)),
    };
    let status = answer.as_ref().map_or(0, |a| a.status.as_u16());
    let headers =
        parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()));
    shared.lock().log.push(Request {
        method: parts.method.to_string(),
        path,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        status,
    });
    let answer = answer.ok_or_else(|| io::Error::other("dropped on purpose"))?;
    finish(answer, &faults, &parts.method, &shared)
}

/// The faults for this request; those with a count lose one.
fn take_faults(shared: &Shared, method: &Method, path: &str) -> Vec<Fault> {
    let mut state = shared.lock();
    let mut faults = Vec::new();
    for rule in &mut state.rules {
        if rule.when.matches(method, path) && rule.remaining != Some(0) {
            rule.remaining = rule.remaining.map(|n| n - 1);
            faults.push(rule.fault.clone());
        }
    }
    faults
}

/// An answer that a fault gives in place of the registry's; `Some(None)` is none at all.
fn replacement(fault: &Fault, path: &str) -> Option<Option<Answer>> {
    let redirect = |location: &str| {
        let mut answer = Answer::status(StatusCode::TEMPORARY_REDIRECT);
        answer.header(LOCATION, location);
        Some(Some(answer))
    };
    match fault {
        Fault::Drop => Some(None),
        Fault::Redirect(location) => redirect(location),
        Fault::RedirectLoop => redirect(path),
        Fault::Status { code, retry_after } => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = Answer::error(status, "UNKNOWN", "failed on purpose");
            if let Some(seconds) = retry_after {
                answer.header(RETRY_AFTER, &seconds.to_string());
            }
            Some(Some(answer))
        }
        _ => None,
    }
}

/// Bends the answer as the faults say and hands it to hyper.
fn finish(mut answer: Answer, faults: &[Fault], method: &Method, shared: &Shared) -> io::Result<Response<Body>> {
    let (mut shape, mut length, mut chunked) = (Shape::default(), None, false);
    for fault in faults {
        match fault {
            Fault::Delay { per_chunk, chunk } => (shape.per_chunk, shape.chunk) = (Some(*per_chunk), Some(*chunk)),
            Fault::Stall { after } => shape.stall_after = Some(*after),
            Fault::Truncate { after } => shape.truncate_after = Some(*after),
            Fault::Corrupt => answer.corrupt(),
            Fault::Extra(count) => {
                answer.body = [answer.body.as_ref(), &vec![b'+'; *count as usize]].concat().into();
                chunked = true;
            }
            Fault::Body(body) => answer.body = body.clone(),
            Fault::ContentType(value) => answer.header(CONTENT_TYPE, value),
            Fault::ContentLength(value) => length = Some(*value),
            Fault::Chunked => chunked = true,
            Fault::ContentRange(value) if answer.status == StatusCode::PARTIAL_CONTENT => {
                answer.header(CONTENT_RANGE, value);
            }
            Fault::ContentDigest(value) => answer.header(routes::CONTENT_DIGEST, value),
            _ => {}
        }
    }
    if let Some(length) = length {
        shape.short = length > answer.body.len() as u64;
        answer.body.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    }
    let mut response = Response::builder().status(answer.status);
    if let Some(headers) = response.headers_mut() {
        headers.extend(answer.headers);
        headers.retain_non_empty();
        if !chunked {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length.unwrap_or(answer.body.len() as u64)));
        }
    }
    let body = if *method == Method::HEAD {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    } else {
        BodyExt::boxed_unsync(StreamBody::new(body_stream(answer.body, shape, Arc::clone(&shared.counters))))
    };
    response.body(body).map_err(io::Error::other)
}

/// Drops headers that a fault emptied.
trait RetainNonEmpty {
    fn retain_non_empty(&mut self);
}

impl RetainNonEmpty for http::HeaderMap {
    fn retain_non_empty(&mut self) {
        let empty: Vec<_> = self.iter().filter(|(_, v)| v.is_empty()).map(|(n, _)| n.clone()).collect();
        for name in empty {
            self.remove(name);
        }
    }
}
