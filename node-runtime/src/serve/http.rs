//! Metrics over HTTP: `/metrics` (Prometheus text) and `/healthz`, on an address that settings move.
use super::process::ProcessFigures;
use anyhow::{Context, Result};
use berth_endpoint::{CONNECTIONS, Page};
use berth_engine::Engine;
use berth_node_api::Scrape;
use prometheus::{Encoder, TextEncoder};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

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
    tokio::spawn(berth_endpoint::serve(listener, permits, move |path| {
        let scraped = scraped.clone();
        async move { page(&scraped, &path) }
    }))
}

fn page(scraped: &Scraped, path: &str) -> Page {
    match path {
        "/metrics" => metrics(scraped).map_or_else(|e| Page::failed(&e.to_string()), Page::ok),
        "/healthz" => Page::ok("ok\n"),
        _ => Page::not_found("/metrics /healthz"),
    }
}

fn metrics(scraped: &Scraped) -> Result<Vec<u8>, prometheus::Error> {
    let engine = &scraped.engine;
    engine.count_states();
    scraped.process.read();
    let mut text = Vec::new();
    TextEncoder::new().encode(&engine.metrics().registry().gather(), &mut text)?;
    Ok(text)
}
