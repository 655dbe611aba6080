//! `/healthz`, `/livez`, `/readyz` and `/metrics`, with the daemon's series behind the agent's own. Alive is whose loop goes on, with or
//! without an API server and a daemon: neither comes back by a restart of the agent. Ready is whom the API server has answered.
use super::Metrics;
use crate::clock::Clock;
use crate::node_sock::NodeSock;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a client may take for its request's head.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Most connections at a time.
const CONNECTIONS: usize = 16;
/// Longer than any step takes (`host`): then the loop hangs.
const SILENCE: Duration = Duration::from_secs(900);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Health {
    /// The agent's series.
    pub metrics: Metrics,
    /// Where the daemon's are asked for.
    pub daemon: NodeSock,
    /// The API server's clock.
    pub clock: Clock,
}

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener, health: Health) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let health = health.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let answer = service_fn(|request| {
                let health = health.clone();
                async move { Ok::<_, Infallible>(answer(&health, &request).await) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            let connection = builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT);
            if let Err(e) = connection.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(error = %e, "a connection ended");
            }
        });
    }
}

async fn answer(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let words = |text: &str| text.as_bytes().to_vec();
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz" | "/livez") if health.metrics.silence() > SILENCE => {
            (StatusCode::SERVICE_UNAVAILABLE, words("the agent's loop hangs\n"))
        }
        (&Method::GET, "/healthz" | "/livez") => (StatusCode::OK, words("ok\n")),
        (&Method::GET, "/readyz") if health.metrics.answered() => (StatusCode::OK, words("ok\n")),
        (&Method::GET, "/readyz") => {
            (StatusCode::SERVICE_UNAVAILABLE, words("the API server has not answered this agent yet\n"))
        }
        (&Method::GET, "/metrics") => (StatusCode::OK, metrics(health).await),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, words("/healthz /livez /readyz /metrics\n")),
        _ => (StatusCode::METHOD_NOT_ALLOWED, words("only GET\n")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

async fn metrics(health: &Health) -> Vec<u8> {
    let daemon = health.daemon.metrics().await;
    health.metrics.text(daemon.as_deref(), health.clock.ahead())
}
