//! `berth serve`: start order, sockets, end.
mod further_sockets;
mod http;
mod live;
mod lock;
pub(crate) mod logging;
mod notify;
mod process;
mod registry;
mod sockets;
mod streaming;
pub(crate) mod wire;

use crate::layout::Layout;
use anyhow::{Context, Result};
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

const REPLACE: &str = "Take over from the daemon that runs with this root. It is asked to end (SIGTERM); pods, their logs and open sessions
stay, and calls under way get a few seconds. Without a daemon it is an ordinary start. One that systemd or
`berth supervise` would start again is not replaced: the answer names the command that does it.";

/// Options of the daemon.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Read documents (RuntimeConfig, ImagePolicy as YAML) from DIR instead of /etc/berth or ROOT/etc.
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,

    /// Serve metrics on ADDRESS:PORT; default 127.0.0.1:9464, with --root a free port (see `berth info`).
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<String>,

    /// Take over from the daemon that runs with this root: it is asked to end, pods and sessions stay
    #[arg(long, long_help = REPLACE)]
    pub replace: bool,

    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}

/// Runs the daemon until SIGTERM or SIGINT. Pods live on.
pub fn run(layout: &Layout, options: &Options) -> Result<()> {
    berth_sys::memory::one_arena();
    let log = logging::start(options.log_json);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("cannot start the async runtime")?;
    runtime.block_on(serve(layout, options, log))
}

/// Everything up to the point where the sockets answer.
async fn start(
    layout: &Layout,
    options: &Options,
    log: logging::Handle,
    mut listeners: sockets::Listeners,
) -> Result<(wire::Daemon, sockets::Servers, watch::Receiver<String>)> {
    let daemon = wire::build(layout, options).await?;
    listeners.bind_further(layout, &daemon.engine.standing().started().spec.runtime.sockets.cri)?;
    daemon.engine.leave_pods_groups().await;
    daemon.engine.load_default_profile().await;
    daemon.engine.recover().await?;
    daemon.engine.keep_network();
    let http = http::serve(daemon.engine.clone(), &daemon.metrics_wish).await?;
    let metrics = http.address();
    let servers = sockets::serve(layout, &daemon, &http, listeners).await?;
    daemon.follow(layout, options, log, http)?;
    Ok((daemon, servers, metrics))
}

async fn serve(layout: &Layout, options: &Options, log: logging::Handle) -> Result<()> {
    // Signals are caught before anything exists, so that none ends the daemon half-made.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _lock = lock::take(layout, options.replace)?;
    let listeners = sockets::bind(layout)?;
    let (daemon, servers, metrics) = match start(layout, options, log, listeners).await {
        Ok(started) => started,
        Err(e) => {
            further_sockets::close(layout);
            wire::start_failed(layout, &e);
            return Err(e);
        }
    };
    daemon.engine.standing().live().came_up();
    notify::ready();
    tracing::info!(
        cri = %layout.cri_socket().display(),
        metrics = metrics.borrow().as_str(),
        version = berth_engine::VERSION,
        "berth is ready"
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = servers.ended() => return ended.context("a server ended by itself"),
    }
    tracing::info!("berth ends; pods live on");
    notify::stopping();
    servers.stop().await;
    daemon.leave(layout).await;
    Ok(())
}
