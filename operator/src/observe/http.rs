//! `/healthz`, `/livez`, `/readyz` and `/metrics`. Liveness asks nobody: an API server that is away is no reason to be restarted. Ready is
//! who has listed everything once, leader or not: a replica that stands by can take over.
use super::Metrics;
use crate::cluster::Stores;
use berth_endpoint::{CONNECTIONS, Page};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

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
    let pages = move |path: String| std::future::ready(page(&health, &path));
    berth_endpoint::serve(listener, Arc::new(Semaphore::new(CONNECTIONS)), pages).await;
}

fn page(health: &Health, path: &str) -> Page {
    match path {
        "/healthz" | "/livez" if health.stores.alive() => Page::ok("ok\n"),
        "/healthz" | "/livez" => Page::unavailable("a watch has ended"),
        "/readyz" if health.stores.synced() => Page::ok("ok\n"),
        "/readyz" => Page::unavailable("not everything has been listed yet"),
        "/metrics" => Page::ok(health.metrics.text()),
        _ => Page::not_found("/healthz /livez /readyz /metrics"),
    }
}
