//! `berth-operator`: wiring. Owns: the command line, logs, the order of start and end. Must not: decide anything.
#![forbid(unsafe_code)]
use berth_operator::cluster::lease::{self, Candidate};
use berth_operator::cluster::{self, Clock, Leadership, Stores, Writes};
use berth_operator::controllers::{self, Context, Events};
use berth_operator::observe::{self, Health, Metrics};
use berth_operator::uninstall::{self, Refusal};
use clap::{Parser, Subcommand, ValueEnum};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Reconciles RuntimeConfigs and ImagePolicies of a cluster, and rolls revisions out to its nodes.
#[derive(Debug, Parser)]
#[command(name = "berth-operator", version)]
struct Args {
    /// Namespace of the operator: of its lease, and of images that no policy may shut out.
    #[arg(long, env = "BERTH_NAMESPACE", default_value = "berth-system")]
    namespace: String,
    /// Further namespaces whose images no policy may shut out.
    #[arg(long, value_delimiter = ',', default_value = "kube-system")]
    system_namespaces: Vec<String>,
    /// Labels of the agents' pods, which are in the operator's namespace.
    #[arg(long, default_value = "app.kubernetes.io/name=berth,app.kubernetes.io/component=agent")]
    agent_selector: String,
    /// Version of the runtime that nodes get where no RuntimeConfig names one.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    runtime_version: String,
    /// Who this is, unlike every other replica: the name of its pod. Without one, the host's name and a random number.
    #[arg(long, env = "BERTH_POD_NAME")]
    identity: Option<String>,
    /// How long a lease lasts that is not renewed, in seconds; 5 to 600.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(5..=600))]
    lease_seconds: u64,
    /// Where probes and metrics are served, instead of a port of all addresses of both families.
    #[arg(long, conflicts_with = "port")]
    listen: Option<SocketAddr>,
    /// That port.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// How much is logged, as of `RUST_LOG`: `info`, or `berth_operator=debug,kube=warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log: String,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
    #[command(subcommand)]
    question: Option<Question>,
}

/// What is asked once, instead of reconciling.
#[derive(Debug, Clone, Copy, Subcommand)]
enum Question {
    /// Whether the release may be uninstalled. Exits with 1 and names the nodes if some run on Berth, with 2 if that cannot be found out.
    MayUninstall,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::new(&args.log);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    // Of all that is linked, only this provider is meant; rustls would not guess.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("rustls has its provider already");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(|e| e.to_string()).and_then(|runtime| match args.question {
        Some(Question::MayUninstall) => Ok(runtime.block_on(may_uninstall())),
        None => runtime.block_on(run(args)).map(|()| ExitCode::SUCCESS),
    });
    match ended {
        Ok(code) => code,
        Err(e) => {
            tracing::error!(error = e, "ends");
            ExitCode::FAILURE
        }
    }
}

/// The answer is for whoever uninstalls, and no line of a log.
async fn may_uninstall() -> ExitCode {
    let asked = async {
        let told = |e: &dyn std::fmt::Display| Refusal::Unknown(format!("no way to the API server: {e}"));
        let config = kube::Config::infer().await.map_err(|e| told(&e))?;
        let clock = Clock::default();
        let client = cluster::client::of(config, &clock).map_err(|e| told(&e))?;
        uninstall::ask(client, &clock).await
    };
    match asked.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => {
            eprintln!("{refusal}");
            ExitCode::from(refusal.exit_code())
        }
    }
}

/// A name that no other replica has: in containers all have process 1, and on the host's network all have its name.
fn of_its_own() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random = RandomState::new().build_hasher().finish();
    format!("{}-{random:016x}", host.trim())
}

async fn run(args: Args) -> Result<(), String> {
    let told = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    // Bound first: a second process on the address must not begin to lead.
    let listener = berth_endpoint::listen(args.listen, args.port).await.map_err(|e| told("probes and metrics", &e))?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION")).map_err(|e| told("metrics", &e))?;
    let config = kube::Config::infer().await.map_err(|e| told("no way to the API server", &e))?;
    let clock = Clock::default();
    let client = cluster::client::of(config, &clock).map_err(|e| told("no way to the API server", &e))?;
    let identity = args.identity.unwrap_or_else(of_its_own);
    let leadership = Leadership::default();
    let stores = Stores::watch(&client, &metrics, &args.namespace, &args.agent_selector);
    tokio::spawn(observe::serve(listener, Health { stores: stores.clone(), metrics: metrics.clone() }));
    let (stop, stopped) = watch::channel(false);
    let candidate = Candidate {
        namespace: args.namespace.clone(),
        name: "berth-operator".to_owned(),
        identity: identity.clone(),
        duration: Duration::from_secs(args.lease_seconds),
    };
    let (release, released) = watch::channel(false);
    let holding = tokio::spawn(lease::hold(client.clone(), candidate, leadership.clone(), released));
    let mut system_namespaces = args.system_namespaces;
    system_namespaces.push(args.namespace);
    system_namespaces.sort();
    system_namespaces.dedup();
    let context = Context {
        writes: Writes::new(client.clone(), leadership.clone(), metrics.clone()),
        events: Events::new(client, identity, leadership.clone()),
        clock,
        metrics,
        system_namespaces,
        system_images: Default::default(),
        told: Default::default(),
        written: Default::default(),
        runtime_version: args.runtime_version,
    };
    let mut terminated = signal(SignalKind::terminate()).map_err(|e| told("signals", &e))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(|e| told("signals", &e))?;
    // A pass that is under way is finished before the lease is given back.
    let leads = move || leadership.held();
    let mut passes = tokio::spawn(controllers::run(context, stores, leads, stopped));
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        ended = &mut passes => return Err(told("the controllers ended", &ended.err().map(|e| e.to_string()).unwrap_or_default())),
    }
    tracing::info!("ends when the pass under way is finished");
    let _ = stop.send(true);
    if tokio::time::timeout(Duration::from_secs(10), passes).await.is_err() {
        tracing::warn!("a pass took too long and is broken off; who leads next goes on");
    }
    let _ = release.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(15), holding).await;
    Ok(())
}
