//! Metrics over HTTP: `/metrics` (Prometheus text) and `/healthz`.
use anyhow::{Context, Result};
use berth_engine::Engine;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, TextEncoder};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Scrapers served at a time; more wait.
const CONNECTIONS: usize = 16;
/// How long a client may take to send its request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// The running server.
pub struct Http {
    /// Where it listens.
    pub address: String,
}

/// Listens on `address`. The error names it: another daemon may have it.
pub async fn serve(engine: Arc<Engine>, address: &str) -> Result<Http> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("metrics address {address}; set spec.metrics.address or --metrics to another one")
    })?;
    let address = listener.local_addr()?.to_string();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let engine = engine.clone();
                    tokio::spawn(async move {
                        connection(engine, stream).await;
                        drop(permit);
                    });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "metrics connection is lost");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(Http { address })
}

async fn connection(engine: Arc<Engine>, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let engine = engine.clone();
        async move { Ok::<_, Infallible>(answer(&engine, &request)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        tracing::debug!(error = %e, "metrics connection ended early");
    }
}

fn answer(engine: &Engine, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match metrics(engine) {
            Ok(text) => (StatusCode::OK, text),
            Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n").into_bytes()),
        },
        (&Method::GET, "/healthz") => (StatusCode::OK, b"ok\n".to_vec()),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, b"see /metrics\n".to_vec()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, b"only GET\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

fn metrics(engine: &Engine) -> Result<Vec<u8>, prometheus::Error> {
    engine.count_states();
    let mut text = Vec::new();
    TextEncoder::new().encode(&engine.metrics().registry().gather(), &mut text)?;
    Ok(text)
}
