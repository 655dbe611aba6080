//! `/healthz`, `/livez`, `/readyz` and `/metrics`. Liveness asks nobody: an API server that is away is no reason to be restarted. Ready is
//! who has listed everything once, leader or not: a replica that stands by can take over.
use super::Metrics;
use crate::cluster::Stores;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long a client may take for its request.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may take in all: a client that does not read must not take the place of a probe.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// Most connections at a time.
const CONNECTIONS: usize = 64;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Health {
    /// What is watched.
    pub stores: Arc<Stores>,
    /// The series.
    pub metrics: Metrics,
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
            let answer = service_fn(move |request| std::future::ready(answer(&health, &request)));
            let mut builder = hyper::server::conn::http1::Builder::new();
            let connection = builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_LIMIT);
            let served = connection.serve_connection(TokioIo::new(stream), answer);
            if let Ok(Err(e)) = tokio::time::timeout(CONNECTION_LIMIT, served).await {
                tracing::debug!(error = %e, "a connection ended");
            }
        });
    }
}

fn answer(health: &Health, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match request.uri().path() {
        "/healthz" | "/livez" if health.stores.alive() => (StatusCode::OK, b"ok\n".to_vec()),
        "/healthz" | "/livez" => (StatusCode::INTERNAL_SERVER_ERROR, b"a watch has ended\n".to_vec()),
        "/readyz" if health.stores.synced() => (StatusCode::OK, b"ok\n".to_vec()),
        "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, b"not everything has been listed yet\n".to_vec()),
        "/metrics" => (StatusCode::OK, health.metrics.text()),
        _ => (StatusCode::NOT_FOUND, b"/healthz /livez /readyz /metrics\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    Ok(response)
}
