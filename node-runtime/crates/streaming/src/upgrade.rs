//! Requests, their answers, and what a connection becomes.
//!
//! Owns: the statuses of answers, and the meeting of wire formats and sessions. Must not: copy a byte.
use crate::daemon::Denied;
use crate::protocol::{Kind, Refusal, Session, Streams};
use crate::server::{Place, Server};
use crate::session::{self, Context};
use crate::spdy_session;
use crate::streams::RemoteStreams;
use crate::websocket;
use crate::wire::protocols::{
    self, Channels, FORWARD_SOCKET, FORWARD_SPDY, ForwardSocket, REMOTE_SOCKET, REMOTE_SPDY, RemoteVersion,
};
use crate::wire::request::{self, Upgrade};
use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// SPDY's list of protocols, in the request and in the answer (k8s.io/streaming/pkg/httpstream/httpstream.go).
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// In the answer to a client none of whose protocols we speak.
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// How long the 101 may take to reach the client's side of the kernel.
const SWITCH: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// How a session will be spoken.
#[derive(Debug, Clone, Copy)]
enum Plan {
    RemoteSpdy(RemoteVersion),
    RemoteSocket(Channels),
    ForwardSpdy,
    ForwardSocket(ForwardSocket),
}

/// An answer that is no session: one line of text.
fn refuse(status: StatusCode, why: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{why}\n")));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn denied(denied: &Denied) -> Answer {
    match denied {
        Denied::Refused(Refusal::NotFound, why) => refuse(StatusCode::NOT_FOUND, why),
        Denied::Refused(Refusal::State, why) => refuse(StatusCode::CONFLICT, why),
        Denied::Refused(Refusal::Command { .. } | Refusal::Internal, why) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
        Denied::Gone => refuse(StatusCode::SERVICE_UNAVAILABLE, "the runtime is restarting, ask for a new session"),
    }
}

/// Answers a request, and begins its session if there is one.
pub(crate) async fn answer(
    server: Arc<Server>,
    place: Arc<Place>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    Ok(begin(server, place, request).await.unwrap_or_else(|answer| *answer))
}

async fn begin(server: Arc<Server>, place: Arc<Place>, request: Request<Incoming>) -> Result<Answer, Box<Answer>> {
    if place.full {
        let mut answer = refuse(StatusCode::TOO_MANY_REQUESTS, "too many streaming sessions are open, try again later");
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
        return Err(Box::new(answer));
    }
    if !matches!(*request.method(), Method::GET | Method::POST) {
        let mut answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "sessions are asked for with GET or POST");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return Err(Box::new(answer));
    }
    let Some((kind, token)) = request::target(request.uri().path()) else {
        return Err(Box::new(refuse(StatusCode::NOT_FOUND, "sessions are at /exec, /attach and /portforward")));
    };
    let (plan, switch) = plan(kind, request.headers(), request.method())?;
    let query = request::ports(request.uri().query().unwrap_or_default());
    let query = query.map_err(|why| Box::new(refuse(StatusCode::BAD_REQUEST, &why)))?;
    let token = token.to_owned();
    let mut session = server.daemon.take(&token, kind).await.map_err(|why| Box::new(denied(&why)))?;
    if let (Plan::ForwardSocket(ForwardSocket::Channels { .. }), Session::PortForward { ports, .. }) =
        (plan, &mut session)
    {
        if ports.is_empty() {
            *ports = query;
        }
        if ports.is_empty() || ports.len() > request::MAX_PORTS {
            server.daemon.abandon(&token).await;
            let why = format!("a client of channels names 1 to {} ports, this one {}", request::MAX_PORTS, ports.len());
            return Err(Box::new(refuse(StatusCode::BAD_REQUEST, &why)));
        }
    }
    let upgrading = hyper::upgrade::on(request);
    let open = server.open.clone();
    open.spawn(serve(server, place, plan, (session, token), upgrading));
    Ok(switch)
}

/// Chooses how to speak; gives the answer that switches to it.
fn plan(kind: Kind, headers: &HeaderMap, method: &Method) -> Result<(Plan, Answer), Box<Answer>> {
    let bad = |why: &str| Box::new(refuse(StatusCode::BAD_REQUEST, why));
    let mut switch = Response::new(Full::default());
    *switch.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answered = switch.headers_mut();
    answered.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let forward = kind == Kind::PortForward;
    let plan = match request::upgrade(headers).map_err(bad)? {
        Upgrade::Spdy => {
            answered.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            let choose = Choose { headers, name: STREAM_PROTOCOL, answered };
            if forward {
                choose.among(FORWARD_SPDY, ()).map(|()| Plan::ForwardSpdy)?
            } else {
                choose.among(REMOTE_SPDY, RemoteVersion::V1).map(Plan::RemoteSpdy)?
            }
        }
        Upgrade::WebSocket if method != Method::GET => return Err(bad("a WebSocket is asked for with GET")),
        Upgrade::WebSocket => {
            answered.insert(UPGRADE, HeaderValue::from_static("websocket"));
            answered.insert(SEC_WEBSOCKET_ACCEPT, websocket::accept(headers).map_err(bad)?);
            let choose = Choose { headers, name: SEC_WEBSOCKET_PROTOCOL, answered };
            if forward {
                let default = ForwardSocket::Channels { base64: false };
                choose.among(FORWARD_SOCKET, default).map(Plan::ForwardSocket)?
            } else {
                choose.among(REMOTE_SOCKET, Channels::PLAIN).map(Plan::RemoteSocket)?
            }
        }
    };
    Ok((plan, switch))
}

/// The choice of a protocol by the names in a header.
struct Choose<'a> {
    headers: &'a HeaderMap,
    name: HeaderName,
    answered: &'a mut HeaderMap,
}

impl Choose<'_> {
    fn among<T: Copy>(self, spoken: &'static [(&'static str, T)], default: T) -> Result<T, Box<Answer>> {
        let names = request::list(self.headers, &self.name);
        if let Some((chosen, meaning)) = protocols::choose(names, spoken, default) {
            if let Some(chosen) = chosen {
                self.answered.insert(self.name, HeaderValue::from_static(chosen));
            }
            return Ok(meaning);
        }
        let spoken = spoken.iter().map(|(name, _)| *name).filter(|name| !name.is_empty());
        let list = spoken.clone().collect::<Vec<_>>().join(", ");
        let mut answer =
            refuse(StatusCode::BAD_REQUEST, &format!("none of the protocols in {} is spoken here: {list}", self.name));
        for name in spoken {
            answer.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
        }
        Err(Box::new(answer))
    }
}

/// Serves a session once the connection has become one.
async fn serve(server: Arc<Server>, place: Arc<Place>, plan: Plan, granted: (Session, String), upgrading: OnUpgrade) {
    let (session, token) = granted;
    let upgraded = match timeout(SWITCH, upgrading).await {
        Ok(Ok(upgraded)) => upgraded,
        _ => return server.daemon.abandon(&token).await,
    };
    let line = place.line.clone();
    line.touch();
    let idle = server.idle;
    let watched = line.clone();
    let _idle = AbortOnDropHandle::new(tokio::spawn(async move { watched.watch_idle(idle).await }));
    let context =
        Context { daemon: server.daemon.clone(), monitors: server.monitors.clone(), line: line.clone(), token };
    match session {
        Session::Exec { streams, monitor } => {
            if let Some(remote) = remote(&server, &context, plan, streams, upgraded).await {
                session::exec(context, streams, monitor, remote).await;
            }
        }
        Session::Attach { streams, monitor } => {
            if let Some(remote) = remote(&server, &context, plan, streams, upgraded).await {
                session::attach(context, streams, monitor, remote).await;
            }
        }
        Session::PortForward { pod, ports } => forward(&server, context, plan, (pod, ports), upgraded).await,
    }
}

/// The client's streams; `None` if they did not come, and then the token is given up.
async fn remote(
    server: &Server,
    context: &Context,
    plan: Plan,
    streams: Streams,
    upgraded: Upgraded,
) -> Option<RemoteStreams> {
    let remote = match plan {
        Plan::RemoteSocket(how) => {
            Some(websocket::remote(websocket::open(upgraded).await, how, streams, &context.line).await)
        }
        Plan::RemoteSpdy(version) => {
            let streams = spdy_session::remote(TokioIo::new(upgraded), version, streams, &context.line);
            tokio::select! {
                streams = timeout(server.opening, streams) => streams.unwrap_or_else(|_| {
                    tracing::info!("a client did not open its streams within {} s", server.opening.as_secs());
                    None
                }),
                () = context.line.gone() => None,
            }
        }
        Plan::ForwardSpdy | Plan::ForwardSocket(_) => None,
    };
    if remote.is_none() {
        context.daemon.abandon(&context.token).await;
    }
    remote
}

async fn forward(server: &Server, context: Context, plan: Plan, pod: (String, Vec<u16>), upgraded: Upgraded) {
    let (pod, ports) = pod;
    match plan {
        Plan::ForwardSocket(ForwardSocket::Channels { base64 }) => {
            let socket = websocket::open(upgraded).await;
            let (pairs, closing) = websocket::pairs(socket, base64, &ports, &context.line).await;
            let (sender, receiver) = mpsc::channel(pairs.len().max(1));
            for pair in pairs {
                // There is room for all.
                let _ = sender.try_send(pair);
            }
            drop(sender);
            session::port_forward(context, pod, receiver).await;
            closing.close().await;
        }
        Plan::ForwardSocket(ForwardSocket::Tunnel) => {
            let tunnel = websocket::Tunnel::new(websocket::open(upgraded).await);
            spdy_forward(server, context, pod, tunnel).await;
        }
        Plan::ForwardSpdy => spdy_forward(server, context, pod, TokioIo::new(upgraded)).await,
        Plan::RemoteSpdy(_) | Plan::RemoteSocket(_) => context.daemon.abandon(&context.token).await,
    }
}

async fn spdy_forward<I>(server: &Server, context: Context, pod: String, io: I)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, receiver) = mpsc::channel(1);
    let pairing = tokio::spawn(spdy_session::pairs(io, server.opening, sender, context.line.clone()));
    session::port_forward(context, pod, receiver).await;
    // It ends with the client, as the receiver is gone.
    let _ = pairing.await;
}
