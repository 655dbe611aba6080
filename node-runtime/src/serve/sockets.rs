//! The daemon's two unix sockets, and serving what the settings add to them (`further_sockets`): for root only. Must not: be bound without
//! the root's lock (`lock`).
use super::further_sockets;
use super::http::Http;
use super::wire::Daemon;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_cri::{CallMetrics, CriService, MAX_MESSAGE};
use berth_node_api::{DaemonFacts, NodeService};
use berth_proto::cri::image_service_server::ImageServiceServer;
use berth_proto::cri::runtime_service_server::RuntimeServiceServer;
use berth_proto::node::node_server::NodeServer;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// How long calls under way may take when the daemon ends.
const END_LIMIT: Duration = Duration::from_secs(5);

/// The servers of all sockets.
pub struct Servers {
    tasks: JoinSet<Result<()>>,
    stop: watch::Sender<bool>,
    engine: Arc<berth_engine::Engine>,
}

/// The sockets, bound: clients that connect wait until they are served.
pub struct Listeners {
    cri: UnixListenerStream,
    node: UnixListenerStream,
    /// Where the CRI is served besides.
    further: Vec<UnixListenerStream>,
    further_paths: Vec<String>,
}

/// Binds the daemon's own two, so that nobody is turned away while the daemon finds its pods again. Only with the root's lock.
pub fn bind(layout: &Layout) -> Result<Listeners> {
    let (cri, node) = (listen(&layout.cri_socket())?, listen(&layout.node_socket())?);
    Ok(Listeners { cri, node, further: Vec::new(), further_paths: Vec::new() })
}

impl Listeners {
    /// Binds those of the settings, too. Errors: the field.
    pub fn bind_further(&mut self, layout: &Layout, paths: &[String]) -> Result<()> {
        self.further = further_sockets::bind(layout, paths)?;
        self.further_paths = paths.to_vec();
        Ok(())
    }
}

/// Serves them all.
pub async fn serve(layout: &Layout, daemon: &Daemon, http: &Http, listeners: Listeners) -> Result<Servers> {
    let (stop, stopped) = watch::channel(false);
    let calls = CallMetrics::new(daemon.engine.metrics().registry())?;
    let cri = CriService::new(daemon.engine.clone(), daemon.streaming.clone(), calls);
    let runtime = RuntimeServiceServer::new(cri.clone()).max_decoding_message_size(MAX_MESSAGE);
    let image = ImageServiceServer::new(cri).max_decoding_message_size(MAX_MESSAGE);
    let facts = DaemonFacts {
        root: layout.root.clone(),
        cri_socket: layout.cri_socket(),
        further_cri_sockets: listeners.further_paths,
        documents: daemon.documents.clone(),
        metrics_address: http.address(),
        credentials: daemon.credentials.clone(),
        metrics: http.scrape(),
        bridge: daemon.network.as_ref().map(|n| n.bridge.clone()).unwrap_or_default(),
    };
    let node = NodeServer::new(NodeService::new(daemon.engine.clone(), facts)).max_decoding_message_size(MAX_MESSAGE);
    let mut tasks = JoinSet::new();
    let router = Server::builder().add_service(runtime).add_service(image);
    for listener in listeners.further {
        tasks.spawn(run(router.clone(), listener, stopped.clone()));
    }
    tasks.spawn(run(router, listeners.cri, stopped.clone()));
    tasks.spawn(run(Server::builder().add_service(node), listeners.node, stopped));
    Ok(Servers { tasks, stop, engine: daemon.engine.clone() })
}

async fn run(
    router: tonic::transport::server::Router,
    listener: UnixListenerStream,
    mut stopped: watch::Receiver<bool>,
) -> Result<()> {
    let end = async move {
        let _ = stopped.wait_for(|s| *s).await;
    };
    router.serve_with_incoming_shutdown(listener, end).await.context("gRPC server")
}

/// A socket of a daemon that is gone is replaced; the root's lock says that it is gone.
fn listen(path: &Path) -> Result<UnixListenerStream> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("old socket {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("socket {}", path.display()))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
        .with_context(|| format!("socket {}", path.display()))?;
    Ok(UnixListenerStream::new(listener))
}

impl Servers {
    /// Resolves when one of them ends by itself.
    pub async fn ended(&self) -> Result<()> {
        while !self.tasks.is_empty() {
            if self.stop.is_closed() {
                bail!("a socket is not served any more");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        bail!("no socket is served any more")
    }

    /// Ends all: calls under way get a moment to finish.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // The one call that would never end.
        self.engine.end_events();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(END_LIMIT, all).await.is_err() {
            tracing::warn!("calls under way are cut off");
        }
    }
}
