//! Metrics over HTTP: `/metrics` (Prometheus text) and `/healthz`.
use super::process::ProcessFigures;
use anyhow::{Context, Result};
use berth_engine::Engine;
use berth_node_api::Scrape;
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
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Scrapers served at a time; more wait.
const CONNECTIONS: usize = 16;
/// How long a client may take to send its request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How often, and with which pause, the former address is tried when another one cannot be had.
const RETURNS: u32 = 10;
const RETURN_PAUSE: Duration = Duration::from_millis(100);

/// What a scrape reads.
struct Scraped {
    engine: Arc<Engine>,
    process: ProcessFigures,
}

/// The running server.
pub struct Http {
    scraped: Arc<Scraped>,
    permits: Arc<Semaphore>,
    /// What was asked for.
    wish: String,
    address: watch::Sender<String>,
    accepting: JoinHandle<()>,
}

/// Listens on `address`. The error names it: another daemon may have it.
pub async fn serve(engine: Arc<Engine>, address: &str) -> Result<Http> {
    let listener = bind(address).await?;
    let process = ProcessFigures::new(engine.metrics().registry()).context("process figures")?;
    let scraped = Arc::new(Scraped { engine, process });
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let (at, _) = watch::channel(listener.local_addr()?.to_string());
    let accepting = accept(listener, scraped.clone(), permits.clone());
    Ok(Http { scraped, permits, wish: address.to_owned(), address: at, accepting })
}

async fn bind(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("metrics address {address}; set spec.metrics.address or --metrics to another one"))
}

impl Http {
    /// The same text as is served, for those who come another way.
    pub fn scrape(&self) -> Scrape {
        let scraped = self.scraped.clone();
        Scrape(Arc::new(move || metrics(&scraped).map_err(|e| berth_model::Error::internal(e.to_string()))))
    }

    /// Where it listens, as it changes.
    pub fn address(&self) -> watch::Receiver<String> {
        self.address.subscribe()
    }

    /// Moves to another address; scrapes under way go on. On an error the former address is served still.
    pub async fn rebind(&mut self, address: &str) -> Result<()> {
        if self.wish == address && self.accepts() {
            return Ok(());
        }
        let mut listener = bind(address).await;
        if listener.as_ref().is_err_and(in_use) {
            // Perhaps by ourselves: the same port on another address of the node, and the two exclude each other.
            self.hang_up().await;
            if let Ok(found) = bind(address).await {
                listener = Ok(found);
            }
        }
        let moved = listener.and_then(|listener| self.take(listener));
        if moved.is_ok() {
            self.wish = address.to_owned();
        } else if !self.accepts() {
            self.go_back().await;
        }
        moved
    }

    fn accepts(&self) -> bool {
        !self.accepting.is_finished()
    }

    /// Gives the address up.
    async fn hang_up(&mut self) {
        // A task that was waited for must not be waited for again.
        if self.accepts() {
            self.accepting.abort();
            let _ = (&mut self.accepting).await;
        }
    }

    /// Serves again where it did before.
    async fn go_back(&mut self) {
        let former = self.address.borrow().clone();
        for _ in 0..RETURNS {
            match bind(&former).await.and_then(|listener| self.take(listener)) {
                Ok(()) => return,
                Err(e) => tracing::warn!(error = %format!("{e:#}"), "the former metrics address is not free yet"),
            }
            tokio::time::sleep(RETURN_PAUSE).await;
        }
        tracing::error!(address = former, "metrics are served no more: the former address is lost");
    }

    fn take(&mut self, listener: TcpListener) -> Result<()> {
        let address = listener.local_addr()?.to_string();
        self.accepting.abort();
        self.accepting = accept(listener, self.scraped.clone(), self.permits.clone());
        tracing::info!(address, "metrics are served");
        self.address.send_replace(address);
        Ok(())
    }
}

/// Whether somebody listens there, or on another address that excludes it.
fn in_use(e: &anyhow::Error) -> bool {
    e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
}

fn accept(listener: TcpListener, scraped: Arc<Scraped>, permits: Arc<Semaphore>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let scraped = scraped.clone();
                    tokio::spawn(async move {
                        connection(scraped, stream).await;
                        drop(permit);
                    });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "metrics connection is lost");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

async fn connection(scraped: Arc<Scraped>, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let scraped = scraped.clone();
        async move { Ok::<_, Infallible>(answer(&scraped, &request)) }
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

fn answer(scraped: &Scraped, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match metrics(scraped) {
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

fn metrics(scraped: &Scraped) -> Result<Vec<u8>, prometheus::Error> {
    let engine = &scraped.engine;
    engine.count_states();
    scraped.process.read();
    let mut text = Vec::new();
    TextEncoder::new().encode(&engine.metrics().registry().gather(), &mut text)?;
    Ok(text)
}
