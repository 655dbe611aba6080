//! The only place where the parts of the daemon are chosen and put together.
use super::further_sockets;
use super::http::Http;
use super::live::{self, Followers};
use super::streaming::Streaming;
use super::{Options, logging, registry};
use crate::accept;
use crate::image_places;
use crate::layout::Layout;
use crate::registries;
use anyhow::{Context, Result};
use berth_cgroups::{Cgroups, Driver};
use berth_engine::{Engine, Metrics, Parts, Paths, driver};
use berth_images::{Images, ImagesConfig};
use berth_network::{Bridge, BridgeConfig, Choice, Cni, CniConfig, Leases, Networks, subnet_for, subnet6_for};
use berth_oci::monitor::Launcher;
use berth_registry::Client;
use berth_registry::credentials::Given;
use berth_settings::{IpFamily, NetworkMode, Settings, Standing};
use berth_store::Database;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where the CNI project, Debian and Fedora have plugins.
const CNI_BIN_DIRS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// Seconds for all plugins of one attachment: with a DEL after a failed ADD, it is still within the kubelet's four minutes.
const CNI_TIMEOUT: u64 = 180;
/// Attachments at a time: enough that a plugin which waits keeps few waiting, and a node that boots forks no hundreds of programs.
const CNI_PARALLEL: usize = 32;
const METRICS_ADDRESS: &str = "127.0.0.1:9464";
const ANY_PORT: &str = "127.0.0.1:0";

/// The daemon, put together.
pub struct Daemon {
    /// Use cases.
    pub engine: Arc<Engine>,
    /// What a cluster's agent has handed over.
    pub credentials: Given,
    /// Where documents come from.
    pub documents: PathBuf,
    /// Where metrics should be served.
    pub metrics_wish: String,
    /// The built-in network's configuration, if it is on.
    pub network: Option<BridgeConfig>,
    /// The streaming process.
    pub streaming: Arc<Streaming>,
    bridge: Option<Bridge>,
    cni: Cni,
    images: Images,
}

/// Puts it together. Order: settings, node, storage, network, engine.
pub async fn build(layout: &Layout, options: &Options) -> Result<Daemon> {
    // Facts first: limits are those that the daemon was started with.
    let facts = berth_oci::probe::probe()?;
    let documents = options.config.clone().unwrap_or_else(|| layout.etc.clone());
    let live = watch(layout, &documents)?;
    let standing = Standing::new(live);
    let settings = standing.started();
    let metrics = Metrics::new()?;
    metrics.follow(&settings);
    let cgroups = Cgroups::probe(driver(&settings)).context("control groups")?;
    let database = Arc::new(Database::open(&layout.lib.join("berth.redb")).context("database")?);
    // What is wrong with them is told by whoever follows them (`serve/registry.rs`), from its first round on.
    let credentials = Given::default();
    let (mut wanted, _) = registries::client_config(&settings, layout, &credentials);
    wanted.observer = Some(metrics.registry_observer());
    let client = Client::new(wanted.clone()).context("registry client")?;
    let images = open_images(layout, &settings, &metrics, database.clone(), client).await.context("image store")?;
    registry::follow(standing.clone(), layout.clone(), images.clone(), wanted);
    let network = bridge_config(layout, &settings)?;
    let bridge = match &network {
        Some(config) => Some(start_bridge(config.clone(), database).await?),
        None => None,
    };
    let cni = start_cni(layout, &settings, &metrics).await?;
    let choice = match settings.network.mode {
        NetworkMode::Cni => Choice::Cni,
        NetworkMode::Builtin => Choice::Builtin,
    };
    let engine = Engine::new(Parts {
        paths: Paths {
            lib: layout.lib.clone(),
            run: layout.run.clone(),
            cgroup_parent: cgroup_parent(layout, cgroups.driver()),
        },
        images: images.clone(),
        cgroups,
        network: Networks { choice, builtin: bridge.clone(), cni: cni.clone() },
        launcher: launcher().await?,
        facts,
        standing,
        metrics,
    })?;
    tokio::spawn(engine.clone().follow_storage());
    let wish = options.metrics.clone().or_else(|| settings.metrics_address.clone());
    let metrics_wish = wish.unwrap_or_else(|| default_metrics(layout).to_owned());
    let streaming = Arc::new(Streaming::new(engine.clone()));
    Ok(Daemon { engine, credentials, documents, metrics_wish, network, streaming, bridge, cni, images })
}

/// The documents, and what makes them good on this node.
fn watch(layout: &Layout, documents: &Path) -> Result<berth_settings::Live> {
    let place = layout.clone();
    let strict = Arc::new(AtomicBool::new(true));
    let is_strict = strict.clone();
    let check = Arc::new(move |settings: &Settings| judge(&place, settings, is_strict.load(Ordering::Relaxed)));
    let watch = || berth_settings::watch(documents.to_owned(), accepted(layout), check.clone());
    let live = watch().or_else(|_| {
        // A disk that has lost its quota keeps no node from starting: containers with a limit are refused then, with words. A further
        // socket that cannot be had does, when it is bound.
        strict.store(false, Ordering::Relaxed);
        watch()
    })?;
    strict.store(true, Ordering::Relaxed);
    Ok(live)
}

/// Refuses settings that a daemon of this node would not accept. Errors: the field.
pub(crate) fn fit(layout: &Layout, settings: &Settings) -> berth_model::Result<()> {
    judge(layout, settings, true)
}

fn judge(layout: &Layout, settings: &Settings, strict: bool) -> berth_model::Result<()> {
    check_network(layout, settings)?;
    if strict {
        image_places::check(layout, settings)?;
        let place = image_places::wanted(layout, settings);
        Images::check_writable_limit_at(&place, settings.storage.writable_layer_limit)?;
        further_sockets::check(layout, &settings.spec.runtime.sockets.cri)?;
    }
    accept::everywhere(settings)
}

/// Where the documents that were accepted last are kept; the cluster's revisions lie beside them.
pub(crate) fn accepted(layout: &Layout) -> PathBuf {
    layout.lib.join("accepted-documents.json")
}

/// Has the next start go back to the configuration that the daemon came up with last, where it never came up with the present one.
pub(super) fn start_failed(layout: &Layout, problem: &anyhow::Error) {
    match berth_settings::start_failed(&accepted(layout), &format!("{problem:#}")) {
        Ok(None) => {}
        Ok(Some(revision)) => tracing::error!(
            revision,
            problem = %format!("{problem:#}"),
            "the daemon does not start with this revision; the next start is with the configuration before it"
        ),
        Err(e) => tracing::error!(error = %e, "the next start is with the same configuration"),
    }
}

fn default_metrics(layout: &Layout) -> &'static str {
    if layout.is_system() { METRICS_ADDRESS } else { ANY_PORT }
}

impl Daemon {
    /// From now on the parts follow the settings.
    pub fn follow(&self, layout: &Layout, options: &Options, log: logging::Handle, http: Http) -> Result<()> {
        let metrics = match options.metrics {
            Some(_) => None,
            None => Some((http, default_metrics(layout).to_owned())),
        };
        let (images, bridge, cni) = (self.images.clone(), self.bridge.clone(), self.cni.clone());
        let (engine, streaming) = (self.engine.clone(), self.streaming.clone());
        tokio::spawn(engine.clone().follow_prefetch());
        let followers = Followers { log, engine, images, bridge, cni, streaming, metrics, layout: layout.clone() };
        live::follow(self.engine.standing().clone(), followers, self.engine.metrics())
            .context("figures of the settings")
    }

    /// What a daemon without pods takes with it when it ends. With pods everything stays.
    pub async fn leave(&self, layout: &Layout) {
        for socket in [layout.cri_socket(), layout.node_socket()] {
            let _ = std::fs::remove_file(socket);
        }
        further_sockets::close(layout);
        if self.engine.is_idle() {
            self.streaming.stop().await;
        }
        match self.engine.release().await {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => return tracing::warn!(error = %e, "something of an idle daemon stays"),
        }
        further_sockets::sweep(layout);
        if let Some(bridge) = &self.bridge
            && let Err(e) = bridge.destroy().await
        {
            tracing::warn!(error = %e, "the built-in network stays");
        }
    }
}

fn cgroup_parent(layout: &Layout, driver: Driver) -> String {
    match driver {
        Driver::Cgroupfs => layout.name(),
        // A dash in a slice's name means nesting, and the slice above would be nobody's to remove.
        Driver::Systemd => format!("{}.slice", layout.name().replace('-', "_")),
    }
}

/// The image store, where the settings want it. What it does not need any more where it was before goes in the background.
async fn open_images(
    layout: &Layout,
    settings: &Settings,
    metrics: &Metrics,
    database: Arc<Database>,
    client: Client,
) -> Result<Images> {
    let config = ImagesConfig { observer: metrics.observer(), ..images_config(layout, settings) };
    let (layout, settings) = (layout.clone(), settings.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let places = image_places::settle(&layout, &settings)?;
        let config = ImagesConfig { root: places.root.clone(), former: places.former.clone(), ..config };
        let images = Images::open(config, database, client)?;
        let used = images.places();
        std::thread::Builder::new().name("places".into()).spawn(move || {
            if let Err(e) = image_places::give_up(&layout, &places, &used) {
                tracing::warn!(error = %e, "a former place of the image store stays until the next start");
            }
        })?;
        Ok::<_, anyhow::Error>(images)
    });
    opened.await?
}

pub(super) fn images_config(layout: &Layout, settings: &Settings) -> ImagesConfig {
    let mut config = ImagesConfig::new(image_places::wanted(layout, settings));
    config.keep_layer_blobs = settings.storage.keep_compressed_layers;
    let (limits, wish) = (&mut config.limits, &settings.limits);
    limits.max_uncompressed_layer = wish.max_uncompressed_per_layer.unwrap_or(limits.max_uncompressed_layer);
    limits.max_uncompressed_image = wish.max_uncompressed_per_image.unwrap_or(limits.max_uncompressed_image);
    limits.max_entries = wish.max_tar_entries.unwrap_or(limits.max_entries);
    limits.max_ratio = wish.max_compression_ratio.map_or(limits.max_ratio, u64::from);
    let count = |wish: Option<u32>, default| wish.map_or(default, |n| usize::try_from(n).unwrap_or(usize::MAX));
    limits.max_layers = count(wish.max_layers, limits.max_layers);
    limits.max_index_entries = count(wish.max_index_entries, limits.max_index_entries);
    config
}

fn bridge_config(layout: &Layout, settings: &Settings) -> Result<Option<BridgeConfig>> {
    if settings.network.mode != NetworkMode::Builtin {
        return Ok(None);
    }
    let wish = &settings.spec.network;
    let subnet = match &wish.subnet {
        Some(text) => text.parse().with_context(|| format!("spec.network.subnet: {text:?} is not an IPv4 subnet"))?,
        None => subnet_for(layout.hash, 0),
    };
    let mut config = BridgeConfig::new(layout.bridge(), layout.name(), subnet);
    let families = wish.ip_families.as_deref().unwrap_or_default();
    if families.contains(&IpFamily::V6) || (families.is_empty() && wish.subnet6.is_some()) {
        let parse = |text: &String| {
            text.parse().with_context(|| format!("spec.network.subnet6: {text:?} is not an IPv6 subnet"))
        };
        config.subnet6 = Some(wish.subnet6.as_ref().map_or_else(|| Ok(subnet6_for(layout.hash, 0)), parse)?);
        config.prefer_ipv6 = families.first() == Some(&IpFamily::V6);
    }
    if wish.range_start.is_some() || wish.range_end.is_some() {
        let address = |name: &str, wish: &Option<String>, otherwise| match wish {
            Some(text) => text.parse().with_context(|| format!("spec.network.{name}: {text:?} is not an IPv4 address")),
            None => Ok(otherwise),
        };
        let (first, last) = config.pod_range();
        let range = (address("rangeStart", &wish.range_start, first)?, address("rangeEnd", &wish.range_end, last)?);
        config.range = Some(range);
    }
    // Subnets that somebody named stay what they are.
    let named = wish.subnet.is_some() || wish.subnet6.is_some() || config.range.is_some();
    config.derived_from = (!named).then_some(layout.hash);
    config.mtu = wish.mtu;
    Ok(Some(config))
}

/// Refuses what the next start would refuse, before it is accepted. Errors: `InvalidArgument` naming the field.
fn check_network(layout: &Layout, settings: &Settings) -> berth_model::Result<()> {
    use berth_model::{Error, ErrorKind};
    let refused = |e: anyhow::Error| Error::new(ErrorKind::InvalidArgument, format!("{e:#}"));
    let config = bridge_config(layout, settings).map_err(refused)?;
    let checked = config.map_or(Ok(()), |config| config.validate());
    checked.map_err(|e| Error::new(e.kind(), format!("spec.network.{}", e.message())))
}

/// The CNI client. It looks for a network only where it is the one to connect pods; what it has still to delete, it deletes anyhow.
async fn start_cni(layout: &Layout, settings: &Settings, metrics: &Metrics) -> Result<Cni> {
    let events = metrics.clone();
    let tell = Box::new(move |what: &'static str| events.event(what));
    let cni = Cni::open(layout.cni(), cni_config(layout, settings), tell).await.context("CNI client")?;
    if settings.network.mode == NetworkMode::Cni {
        cni.follow().await;
    } else {
        // One that was written while CNI was chosen goes.
        cni.write_configuration().await.context("CNI configuration")?;
    }
    Ok(cni)
}

/// Where plugins are, and how long they may take.
pub fn cni_config(layout: &Layout, settings: &Settings) -> CniConfig {
    let wish = &settings.spec.network.cni;
    let bin_dirs = wish.bin_dirs.clone().unwrap_or_else(|| CNI_BIN_DIRS.map(str::to_owned).to_vec());
    let timeout = wish.timeout.as_deref().and_then(berth_settings::seconds).unwrap_or(CNI_TIMEOUT);
    CniConfig {
        conf_dir: wish.conf_dir.as_ref().map_or_else(|| layout.cni_configurations(), PathBuf::from),
        bin_dirs: bin_dirs.into_iter().map(PathBuf::from).collect(),
        timeout: Duration::from_secs(timeout),
        conf_list: wish.conf_list.clone(),
        parallel_adds: wish.max_parallel_adds.and_then(|n| usize::try_from(n).ok()).unwrap_or(CNI_PARALLEL),
    }
}

async fn start_bridge(config: BridgeConfig, database: Arc<Database>) -> Result<Bridge> {
    Bridge::start(config, Arc::new(DatabaseLeases(database))).await.context("built-in network")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_the_next_start_would_refuse_is_refused() {
        let check = |network: &str| {
            let text = format!(
                "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{ name: node }}\n\
                 spec: {{ network: {{ {network} }} }}\n"
            );
            let settings = berth_settings::from_texts(&[("a.yaml".into(), text)]).unwrap();
            check_network(&Layout::new(None).unwrap(), &settings).map_err(|e| e.message().to_owned())
        };
        for good in ["mode: Builtin", "mode: Builtin, ipFamilies: [IPv4, IPv6], mtu: 1400", "subnet: 10.85.0.5/24"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let bad = [
            ("subnet: 10.85.0.5/24", "spec.network.subnet: 10.85.0.5/24"),
            ("subnet: 10.85.0.0/24, rangeStart: 10.86.0.9", "spec.network.rangeStart"),
            ("subnet6: 'fe80::/64'", "spec.network.subnet6: fe80::/64"),
            ("ipFamilies: [IPv4, IPv6], mtu: 1000", "spec.network.mtu: 1000"),
        ];
        for (network, begin) in bad {
            let problem = check(&format!("mode: Builtin, {network}")).unwrap_err();
            assert!(problem.starts_with(begin), "{network}: {problem}");
        }
    }

    /// What `berth config explain` says of limits is what holds.
    #[test]
    fn limits_without_documents_are_the_defaults_that_are_told() {
        let told = |name: &str| {
            let path = format!("spec.runtime.limits.{name}");
            let field = berth_settings::fields().find(|f| f.path == path).unwrap();
            field.value(&Default::default()).and_then(|v| v.as_u64()).unwrap()
        };
        let limits = ImagesConfig::new("/".into()).limits;
        assert_eq!(told("maxUncompressedPerLayer"), limits.max_uncompressed_layer);
        assert_eq!(told("maxUncompressedPerImage"), limits.max_uncompressed_image);
        assert_eq!(told("maxCompressionRatio"), limits.max_ratio);
        assert_eq!(told("maxTarEntries"), limits.max_entries);
        assert_eq!(told("maxLayers"), limits.max_layers as u64);
        assert_eq!(told("maxIndexEntries"), limits.max_index_entries as u64);
        assert_eq!(told("maxManifestBytes"), berth_registry::ClientConfig::default().max_manifest_bytes as u64);
    }
}
