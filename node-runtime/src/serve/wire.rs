//! The only place where the parts of the daemon are chosen and put together.
use super::streaming::Streaming;
use super::{Options, logging};
use crate::layout::Layout;
use anyhow::{Context, Result};
use berth_cgroups::{Cgroups, Driver};
use berth_engine::{Engine, Metrics, Parts, Paths};
use berth_images::{Images, ImagesConfig};
use berth_network::{Bridge, BridgeConfig, Leases, subnet_for};
use berth_oci::monitor::Launcher;
use berth_registry::{Client, ClientConfig, HostConfig};
use berth_settings::{CgroupManager, Live, NetworkMode, Settings};
use berth_store::Database;
use berth_trust::PolicySet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

const METRICS_ADDRESS: &str = "127.0.0.1:9464";
const ANY_PORT: &str = "127.0.0.1:0";

/// The daemon, put together.
pub struct Daemon {
    /// Use cases.
    pub engine: Arc<Engine>,
    /// Where documents come from.
    pub documents: PathBuf,
    /// Where metrics should be served.
    pub metrics_wish: String,
    /// The built-in network's configuration, if it is on.
    pub network: Option<BridgeConfig>,
    /// Why documents are refused.
    pub refused: watch::Receiver<String>,
    /// The streaming process.
    pub streaming: Arc<Streaming>,
    bridge: Option<Bridge>,
}

/// Puts it together. Order: settings, node, storage, network, engine.
pub async fn build(layout: &Layout, options: &Options, log: logging::Handle) -> Result<Daemon> {
    // Facts first: limits are those that the daemon was started with.
    let facts = berth_oci::probe::probe()?;
    let documents = options.config.clone().unwrap_or_else(|| layout.etc.clone());
    let check = Box::new(|settings: &Settings| PolicySet::new(&settings.policies).map(drop));
    let live = berth_settings::watch(documents.clone(), check)?;
    let settings = live.current.borrow().clone();
    let metrics = Metrics::new()?;
    follow(&live, log, metrics.clone());
    let cgroups = Cgroups::probe(driver(&settings)).context("control groups")?;
    let database = Arc::new(Database::open(&layout.lib.join("berth.redb")).context("database")?);
    let client = Client::new(registry(&settings)).context("registry client")?;
    let config = images_config(layout, &settings);
    let images = {
        let database = database.clone();
        tokio::task::spawn_blocking(move || Images::open(config, database, client)).await?.context("image store")?
    };
    follow_registries(live.current.clone(), images.clone());
    let network = bridge_config(layout, &settings)?;
    let bridge = match &network {
        Some(config) => Some(start_bridge(config.clone(), database).await?),
        None => None,
    };
    let engine = Engine::new(Parts {
        paths: Paths {
            lib: layout.lib.clone(),
            run: layout.run.clone(),
            cgroup_parent: cgroup_parent(layout, cgroups.driver()),
        },
        images,
        cgroups,
        bridge: bridge.clone(),
        launcher: launcher().await?,
        facts,
        settings: live.current,
        metrics,
    })?;
    let fallback = if layout.is_system() { METRICS_ADDRESS } else { ANY_PORT };
    let wish = options.metrics.clone().or_else(|| settings.metrics_address.clone());
    let metrics_wish = wish.unwrap_or_else(|| fallback.to_owned());
    let streaming = Arc::new(Streaming::new(engine.clone()));
    Ok(Daemon { engine, documents, metrics_wish, network, refused: live.refused, streaming, bridge })
}

impl Daemon {
    /// What a daemon without pods takes with it when it ends. With pods everything stays.
    pub async fn leave(&self, layout: &Layout) {
        for socket in [layout.cri_socket(), layout.node_socket()] {
            let _ = std::fs::remove_file(socket);
        }
        if self.engine.is_idle() {
            self.streaming.stop().await;
        }
        match self.engine.release().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => return tracing::warn!(error = %e, "something of an idle daemon stays"),
        }
        if let Some(bridge) = &self.bridge
            && let Err(e) = bridge.destroy().await
        {
            tracing::warn!(error = %e, "the built-in network stays");
        }
    }
}

/// Log level and refusals follow the documents.
fn follow(live: &Live, log: logging::Handle, metrics: Metrics) {
    let (mut current, mut refused) = (live.current.clone(), live.refused.clone());
    log.set(current.borrow_and_update().log_level);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                changed = current.changed() => match changed {
                    Ok(()) => log.set(current.borrow_and_update().log_level),
                    Err(_) => return,
                },
                changed = refused.changed() => match changed {
                    Ok(()) if !refused.borrow_and_update().is_empty() => metrics.event("settings_refused"),
                    Ok(()) => {}
                    Err(_) => return,
                },
            }
        }
    });
}

/// Registries follow the documents: pulls that begin after a change use it.
fn follow_registries(mut current: watch::Receiver<Arc<Settings>>, images: Images) {
    let mut in_force = registry(&current.borrow_and_update());
    tokio::spawn(async move {
        while current.changed().await.is_ok() {
            let wanted = registry(&current.borrow_and_update());
            if wanted.hosts == in_force.hosts && wanted.max_manifest_bytes == in_force.max_manifest_bytes {
                continue;
            }
            match Client::new(wanted.clone()) {
                Ok(client) => {
                    images.set_client(client);
                    in_force = wanted;
                }
                Err(e) => tracing::error!(error = %e, "registry settings are refused; the former stay in force"),
            }
        }
    });
}

fn driver(settings: &Settings) -> Driver {
    match settings.cgroup_manager {
        Some(CgroupManager::Systemd) => Driver::Systemd,
        Some(CgroupManager::Cgroupfs) => Driver::Cgroupfs,
        None => Cgroups::default_driver(),
    }
}

fn cgroup_parent(layout: &Layout, driver: Driver) -> String {
    match driver {
        Driver::Cgroupfs => layout.name(),
        // A dash in a slice's name means nesting, and the slice above would be nobody's to remove.
        Driver::Systemd => format!("{}.slice", layout.name().replace('-', "_")),
    }
}

fn registry(settings: &Settings) -> ClientConfig {
    let hosts = settings.registries.iter().map(|r| {
        let ca_pem = if r.tls.ca_pem.is_empty() { Vec::new() } else { vec![r.tls.ca_pem.clone()] };
        let config = HostConfig { ca_pem, insecure_skip_verify: r.tls.insecure, plain_http: r.plain_http };
        (r.host.clone(), config)
    });
    let mut config = ClientConfig { hosts: hosts.collect(), ..ClientConfig::default() };
    if let Some(bytes) = settings.limits.max_manifest_bytes {
        config.max_manifest_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    config
}

fn images_config(layout: &Layout, settings: &Settings) -> ImagesConfig {
    let mut config = ImagesConfig::new(layout.lib.join("images"));
    let (limits, wish) = (&mut config.limits, &settings.limits);
    limits.max_uncompressed_layer = wish.max_uncompressed_per_layer.unwrap_or(limits.max_uncompressed_layer);
    limits.max_uncompressed_image = wish.max_uncompressed_per_image.unwrap_or(limits.max_uncompressed_image);
    limits.max_entries = wish.max_tar_entries.unwrap_or(limits.max_entries);
    config
}

fn bridge_config(layout: &Layout, settings: &Settings) -> Result<Option<BridgeConfig>> {
    if settings.network.mode != NetworkMode::Builtin {
        return Ok(None);
    }
    let subnet = match &settings.network.subnet {
        Some(text) => text.parse().with_context(|| format!("spec.network.subnet: {text:?} is not an IPv4 subnet"))?,
        None => subnet_for(layout.hash),
    };
    let table = layout.name();
    Ok(Some(BridgeConfig { bridge: layout.bridge(), subnet, ipv6: None, table, mtu: settings.network.mtu }))
}

async fn start_bridge(config: BridgeConfig, database: Arc<Database>) -> Result<Bridge> {
    let bridge = Bridge::open(config, Arc::new(DatabaseLeases(database))).await.context("built-in network")?;
    bridge.ensure().await.context("built-in network")?;
    Ok(bridge)
}

/// The store's leases, as the network wants them.
struct DatabaseLeases(Arc<Database>);

impl Leases for DatabaseLeases {
    fn all(&self) -> berth_model::Result<Vec<(String, Vec<u8>)>> {
        self.0.lease_all()
    }
    fn put(&self, key: &str, value: &[u8]) -> berth_model::Result<()> {
        self.0.lease_put(key, value)
    }
    fn remove(&self, key: &str) -> berth_model::Result<()> {
        self.0.lease_remove(key)
    }
}

/// Monitor and init lie beside our own executable.
async fn launcher() -> Result<Launcher> {
    let own = std::env::current_exe().context("own executable")?;
    let sibling = |name: &str| own.with_file_name(name);
    let (monitor, init) = (sibling("berth-monitor"), sibling("berth-init"));
    let loaded = tokio::task::spawn_blocking(move || Launcher::load(&monitor, &init)).await?;
    loaded.context("berth-monitor and berth-init must lie beside berth")
}
