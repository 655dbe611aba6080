//! `/healthz`, `/livez`, `/readyz` and `/metrics`, with the daemon's series behind the agent's own. Alive is whose loop goes on, with or
//! without an API server and a daemon: neither comes back by a restart of the agent. Ready is whom the API server has answered.
use super::Metrics;
use crate::clock::Clock;
use crate::node_sock::NodeSock;
use berth_endpoint::{CONNECTIONS, Page};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

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
    let pages = move |path: String| {
        let health = health.clone();
        async move { page(&health, &path).await }
    };
    berth_endpoint::serve(listener, Arc::new(Semaphore::new(CONNECTIONS)), pages).await;
}

async fn page(health: &Health, path: &str) -> Page {
    match path {
        "/healthz" | "/livez" if health.metrics.silence() > SILENCE => Page::unavailable("the agent's loop hangs"),
        "/healthz" | "/livez" => Page::ok("ok\n"),
        "/readyz" if health.metrics.answered() => Page::ok("ok\n"),
        "/readyz" => Page::unavailable("the API server has not answered this agent yet"),
        "/metrics" => Page::ok(metrics(health).await),
        _ => Page::not_found("/healthz /livez /readyz /metrics"),
    }
}

async fn metrics(health: &Health) -> Vec<u8> {
    let daemon = health.daemon.metrics().await;
    health.metrics.text(daemon.as_deref(), health.clock.ahead())
}
