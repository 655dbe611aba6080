//! `berth-agent`: wiring. Owns: the command line, logs, the order of start and end. Must not: decide anything.
#![forbid(unsafe_code)]
use berth_agent::clock::Clock;
use berth_agent::host::adopt::{Commands, Native};
use berth_agent::host::{Host, Kubelet, enter};
use berth_agent::kubernetes::Kubernetes;
use berth_agent::node_sock::NodeSock;
use berth_agent::observe::{Health, Metrics, serve};
use berth_agent::run::Agent;
use berth_agent::stage::{Stager, Staging};
use berth_agent::store::Store;
use clap::{Parser, Subcommand, ValueEnum};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Has one node's runtime be what the cluster wants, and reports.
#[derive(Debug, Parser)]
#[command(name = "berth-agent", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Become a program of the host, in the namespaces of a process of the host
    Enter(enter::Options),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Name of this node.
    #[arg(long, env = "BERTH_NODE_NAME", default_value = "")]
    node: String,
    /// Directory of the daemon's sockets.
    #[arg(long, default_value = "/run/berth")]
    run: PathBuf,
    /// Directory of what the daemon keeps; what the agent remembers lies in its directory `agent`.
    #[arg(long, default_value = "/var/lib/berth")]
    state: PathBuf,
    /// Directory on the host of the programs' versions, and of `current`.
    #[arg(long, default_value = "/opt/berth")]
    prefix: PathBuf,
    /// Directory of the versions that this image carries and that are put there; one that is not there is no error.
    #[arg(long, default_value = "/runtime")]
    programs: PathBuf,
    /// Version of the programs that take the node over; that of the agent.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    runtime_version: String,
    /// Root directory of the daemon on the host, if it is not the system's own.
    #[arg(long)]
    root: Option<PathBuf>,
    /// File with the process id of this node's kubelet, where several can be seen.
    #[arg(long)]
    kubelet_pid_file: Option<PathBuf>,
    /// Command of the host that stops a kubelet without a service manager: a program and words, no shell.
    #[arg(long, requires = "kubelet_start")]
    kubelet_stop: Option<String>,
    /// Command of the host that starts it, and returns then.
    #[arg(long, requires = "kubelet_stop")]
    kubelet_start: Option<String>,
    /// File of the host that has its flags.
    #[arg(long, requires = "kubelet_stop")]
    kubelet_flags_file: Vec<PathBuf>,
    /// Leave the kubelet's feature gate PodAndContainerStatsFromCRI as it is when the node is taken over.
    #[arg(long)]
    keep_stats_gate: bool,
    /// How much is logged, as of `RUST_LOG`: `info`, or `berth_agent=debug,kube=warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log: String,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    /// Secret of the agent's namespace with the credentials that configurations name.
    #[arg(long, requires = "namespace")]
    credentials_secret: Option<String>,
    /// Namespace of the agent.
    #[arg(long, env = "BERTH_NAMESPACE")]
    namespace: Option<String>,
    /// Where probes are answered, and the metrics of agent and daemon, instead of a port of all addresses of both families.
    #[arg(long, conflicts_with = "port")]
    listen: Option<SocketAddr>,
    /// That port.
    #[arg(long, default_value_t = 9464)]
    port: u16,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Action::Enter(options)) = &args.action {
        // No thread exists yet, and none may.
        eprintln!("berth-agent: {}", enter::become_program(options));
        return ExitCode::FAILURE;
    }
    let filter = tracing_subscriber::EnvFilter::new(&args.run.log);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.run.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(run(args.run))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(error = e, "ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Run) -> Result<(), String> {
    if args.node.is_empty() {
        return Err("--node or BERTH_NODE_NAME must name the node".to_owned());
    }
    let mut terminated = signal(SignalKind::terminate()).map_err(|e| format!("signals: {e}"))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|e| format!("signals: {e}"))?;
    let store = Store::open(&args.state.join("agent")).map_err(|e| e.to_string())?;
    let (clock, metrics) = (Clock::default(), Metrics::new(env!("CARGO_PKG_VERSION")).map_err(|e| e.to_string())?);
    let listener = berth_endpoint::listen(args.listen, args.port).await;
    let listener = listener.map_err(|e| format!("probes and metrics: {e}"))?;
    let host = host(&args);
    let health = Health { metrics: metrics.clone(), daemon: host.sock.clone(), clock: clock.clone() };
    tokio::spawn(serve(listener, health));
    let config = kube::Config::infer().await.map_err(|e| format!("no way to the API server: {e}"))?;
    let secret = args.namespace.clone().zip(args.credentials_secret.clone());
    let kubernetes = Kubernetes::connect(config, &clock, None)?.with_secret(secret);
    let seen = kubernetes.watch(&args.node, &metrics);
    let agent = Agent::new(host, kubernetes, store, clock, metrics);
    let (stop, stopped) = watch::channel(false);
    let mut working = tokio::spawn(agent.run(seen, stopped));
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        ended = &mut working => {
            return Err(format!("the agent's loop ended: {:?}", ended.err().map(|e| e.to_string())));
        }
    }
    tracing::info!("ends when the step under way is finished; the node goes on by itself");
    let _ = stop.send(true);
    // What it has begun on the host goes on by itself, and the journal says where it was.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(20), working).await;
    Ok(())
}

fn host(args: &Run) -> Host {
    let commands = args.kubelet_stop.clone().zip(args.kubelet_start.clone());
    // Outside of the image, whoever starts the agent has put the programs there.
    let stager = args.programs.is_dir().then(|| {
        let staging = Staging { from: args.programs.clone(), prefix: args.prefix.clone() };
        Arc::new(Stager::new(staging))
    });
    Host {
        stager,
        sock: NodeSock { path: args.run.join("node.sock") },
        state: args.state.clone(),
        prefix: args.prefix.clone(),
        root: args.root.clone(),
        version: args.runtime_version.clone(),
        kubelet: args.kubelet_pid_file.clone().map_or(Kubelet::Only, Kubelet::PidFile),
        commands: commands.map(|(stop, start)| Commands { stop, start, flags_files: args.kubelet_flags_file.clone() }),
        keep_stats: args.keep_stats_gate,
        native: Native::default(),
    }
}
