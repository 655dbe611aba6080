//! Looks at the node that is to be taken over or given back: the facts that a plan is made of.
//!
//! Owns: reading. Must not: judge or change.
use super::runtime::Peer;
use super::steps::{found, hashed, same_programs};
use super::{Give, KubeletCommands, Permit, Start, boot_id, now_seconds, operation_id, revision, systemd};
use crate::kubelets::{self, View};
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::journal::InForce;
use berth_adopt::kubelet::{Configuration, Files};
use berth_adopt::plan::{
    self, CarrierKind, Commands, Facts, FileChange, Found, Grant, Install, KubeletProcess, Permission, ReturnFacts,
};
use berth_adopt::{Direction, Plan, Refusal};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What kubeadm writes beside the kubelet's configuration.
const KUBEADM_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
const KUBEADM_INSTANCE: &str = "/var/lib/kubelet/instance-config.yaml";
/// kubeadm's drop-in of the kubelet's unit.
const KUBEADM_DROP_IN: &str = "10-kubeadm.conf";
/// How long systemd may be asked for what a drop-in overrides: whoever wants to know where the node is waits for that.
const OVERRIDDEN_LIMIT: Duration = Duration::from_secs(3);
/// How often, and after which pause, it is looked again where more than one kubelet seems to run.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Everything about the node.
pub(super) async fn node(
    layout: &Layout,
    options: &Start,
    handed: Option<Result<revision::Given, Refusal>>,
) -> Result<Facts> {
    let pid = the_kubelet(options.kubelet.kubelet_pid).await?;
    let configuration = kubelets::configuration(pid);
    let unit = if systemd::is_here() { unit_of(pid) } else { None };
    let (mut carriers, unit_process) = match &unit {
        Some(unit) => (systemd::carriers(unit).await?, systemd::main_process(unit).await?),
        None => (Vec::new(), None),
    };
    for file in &options.kubelet_flags_file {
        let carrier = systemd::carrier(file.clone(), CarrierKind::Environment);
        carriers.push(carrier.ok_or_else(|| anyhow!("--kubelet-flags-file {}: cannot be read", file.display()))?);
    }
    let named = |name: &str| carriers.iter().any(|carrier| carrier.path.ends_with(name));
    let kubeadm = unit.is_some() && (named(KUBEADM_DROP_IN) || named("kubeadm-flags.env"));
    if kubeadm && !named("kubeadm-flags.env") {
        carriers.extend(systemd::carrier(KUBEADM_FLAGS.into(), CarrierKind::Environment));
    }
    let old_socket = socket(&configuration.endpoint())?;
    let mut peer = Peer::connect(&old_socket).await.context("the runtime that the kubelet is on")?;
    let old = peer.who(&old_socket).await.context("the runtime that the kubelet is on")?;
    let mut berth = revision::berth(layout, handed).await?;
    let (pods, manifests) = (peer.pods().await?, manifests(pid, &configuration));
    let denied = revision::denied(berth.handed.change.as_ref(), berth.before, &pods, &manifests)?;
    berth.handed.unfit.extend(denied);
    let instance = kubeadm.then(|| systemd::carrier(KUBEADM_INSTANCE.into(), CarrierKind::Environment)).flatten();
    let created = plan::would_create(configuration.drop_in_dir.as_deref(), unit.as_deref());
    let sources = configuration.file.iter().map(|file| file.path.clone());
    let touched: Vec<PathBuf> =
        sources.chain(carriers.iter().map(|c| c.path.clone())).chain(instance.iter().map(|c| c.path.clone())).collect();
    let now = now_seconds();
    Ok(Facts {
        id: operation_id("adopt"),
        boot_id: boot_id()?,
        now,
        deadline: now.saturating_add(options.deadline.as_secs()),
        profile: options.profile.map(Into::into),
        commands: commands(&options.kubelet.commands)?,
        carriers,
        instance_config: instance.map(|carrier| (carrier.path, carrier.text)),
        old,
        new: berth.runtime,
        handed: berth.handed,
        pods,
        manifests,
        install: install(layout, options, berth.before).await?,
        permission: permission(&options.permit),
        control_plane: options.control_plane,
        keep_stats: options.keep_stats_gate,
        attributes: touched.into_iter().filter_map(attributes).collect(),
        existing: created.into_iter().filter(|path| std::fs::symlink_metadata(path).is_ok()).collect(),
        kubelet: KubeletProcess { pid, configuration, unit, unit_process, kubeadm },
    })
}

/// Static pods as the kubelet's directory has them, whether they run or not. What is no pod is the kubelet's to complain about.
fn manifests(pid: u32, configuration: &Configuration) -> Vec<plan::Manifest> {
    let Some(dir) = configuration.text("staticPodPath").filter(|dir| !dir.is_empty()) else { return Vec::new() };
    let view = View(pid);
    let Ok(files) = view.below(Path::new(&dir)) else { return Vec::new() };
    files.iter().filter_map(|file| plan::manifest(&view.text(file).ok()?)).collect()
}

/// The one kubelet of the node. One that is starting a program shows two processes for a moment, so that more are looked at again.
pub(super) async fn the_kubelet(only: Option<u32>) -> Result<u32> {
    let mut all = kubelets::of_this_node();
    for _ in 0..LOOKS {
        if all.len() < 2 {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        all = kubelets::of_this_node();
    }
    match (only, &all[..]) {
        (Some(pid), all) if all == [pid] => Ok(pid),
        (Some(pid), _) => bail!("process {pid} is not the only kubelet of this node ({all:?} are)"),
        (None, [pid]) => Ok(*pid),
        (None, []) => bail!(
            "no kubelet runs on this node (a process called `kubelet` in this mount namespace); distributions that link it into another \
             program (k3s, RKE2, k0s) are not known"
        ),
        (None, many) => bail!("{} kubelets run on this node: {many:?}", many.len()),
    }
}

/// Drop-ins of the adoption whose unit has another command line of its own since. What systemd does not say is not among them.
pub(super) async fn outdated(in_force: &InForce) -> Vec<PathBuf> {
    let look = async {
        let mut found = Vec::new();
        for (adopted, change) in in_force.adoption.iter().flat_map(|plan| plan.files.iter().map(move |f| (plan, f))) {
            let Some(unit) = plan::overridden_unit(change) else { continue };
            let carriers = systemd::carriers(unit).await.unwrap_or_default();
            if plan::is_outdated(adopted, change, &carriers) {
                found.push(change.path.clone());
            }
        }
        found
    };
    tokio::time::timeout(OVERRIDDEN_LIMIT, look).await.unwrap_or_default()
}

pub(super) fn unit_of(pid: u32) -> Option<String> {
    systemd::unit_of(&node_files::text(format!("/proc/{pid}/cgroup"))?)
}

/// The socket of an endpoint, as a kubelet takes it.
pub(super) fn socket(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        bail!("containerRuntimeEndpoint: {endpoint:?} is no unix socket; only those are known");
    }
    Ok(PathBuf::from(path))
}

fn attributes(path: PathBuf) -> Option<(PathBuf, (u32, u32, u32))> {
    let state = found(&path).ok()??;
    Some((path, (state.mode, state.uid, state.gid)))
}

/// The kubelet's commands, if they were given.
pub(super) fn commands(kubelet: &KubeletCommands) -> Result<Option<Commands>> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    match (&kubelet.kubelet_stop, &kubelet.kubelet_start) {
        (None, None) => Ok(None),
        (Some(stop), Some(start)) => {
            let commands = Commands { stop: words(stop), start: words(start) };
            for (flag, words) in [("--kubelet-stop", &commands.stop), ("--kubelet-start", &commands.start)] {
                if !words.first().is_some_and(|program| Path::new(program).is_absolute()) {
                    bail!("{flag}: its program must be a whole path");
                }
            }
            Ok(Some(commands))
        }
        _ => bail!("--kubelet-stop and --kubelet-start belong together"),
    }
}

async fn install(layout: &Layout, options: &Start, daemon_before: bool) -> Result<Install> {
    let own = std::env::current_exe().context("own program")?;
    let from = options.from.clone().or_else(|| own.parent().map(Path::to_owned)).unwrap_or_default();
    for name in super::steps::PROGRAMS {
        if !from.join(name).is_file() {
            bail!("--from {}: has no {name}", from.display());
        }
    }
    let prefix = options.prefix.clone();
    let version = options.version_name.clone().unwrap_or_else(|| berth_engine::VERSION.to_owned());
    if version.is_empty()
        || version.starts_with('.')
        || version.contains('/')
        || ["current", "previous"].contains(&version.as_str())
    {
        bail!("--version-name {version:?}: must be one plain name");
    }
    let place = prefix.join(&version);
    let staged_before = place.exists();
    if staged_before && !same_programs(&from, &place) {
        bail!(
            "{} has other programs than {}; use --version-name NAME for another directory",
            place.display(),
            from.display()
        );
    }
    let current = std::fs::read_link(prefix.join("current")).ok();
    let (unit_before, unit_enabled_before) =
        if systemd::is_here() { systemd::is_known("berth.service").await? } else { (false, false) };
    Ok(Install {
        current_before: current.and_then(|link| link.to_str().map(str::to_owned)),
        prefix_before: prefix.exists(),
        staged_before,
        daemon_before,
        systemd: layout.is_system() && systemd::is_here(),
        unit_before,
        unit_enabled_before,
        network_before: berth_network::beside::has_written(&layout.cni()),
        prefix,
        from,
        version,
    })
}

pub(super) fn permission(permit: &Permit) -> Permission {
    match (&permit.grant, permit.without_grant) {
        (Some(id), _) => Permission::Grant(Grant { id: id.clone(), expires: permit.expires() }),
        (None, true) => Permission::Person,
        (None, false) => Permission::Nobody,
    }
}

/// Sums, and what is there of directories: what a plan needs before it goes into the journal.
pub(super) fn complete(mut plan: Plan) -> Result<Plan> {
    for change in &mut plan.files {
        if plan.direction == Direction::Adopt {
            // The other ways know it from the adoption, or need it there.
            change.directory_before = change.path.parent().is_some_and(Path::exists);
        }
        change.before = change.before.take().map(hashed);
        change.after = change.after.take().map(hashed);
        if found(&change.path)? != change.before {
            bail!("{} has changed while it was looked at", change.path.display());
        }
    }
    Ok(plan)
}

async fn daemon_of(adopted: &Plan) -> Result<Peer> {
    let mut peer = Peer::connect(&adopted.to.socket).await?;
    peer.who(&adopted.to.socket).await?;
    Ok(peer)
}

/// Everything about the way back.
pub(super) async fn way_back(adopted: &Plan, options: &Give) -> Result<ReturnFacts> {
    let changed = |change: &FileChange| {
        let now = found(&change.path).map_err(|e| format!("{e:#}"));
        (now.as_ref() != Ok(&change.after)).then(|| Found { path: change.path.clone(), now })
    };
    let old = &adopted.from;
    let mut peer = Peer::connect(&old.socket)
        .await
        .with_context(|| format!("{} must run to give the node back to it", old.name))?;
    let found = peer.who(&old.socket).await?;
    if found.name != old.name {
        bail!("{} is served by {} now, and was by {}", old.socket.display(), found.name, old.name);
    }
    peer.ready().await.with_context(|| format!("{} is not ready", old.name))?;
    let daemon = daemon_of(adopted).await;
    let without_daemon = options.without_daemon && daemon.is_err();
    let (pods, others) = match daemon {
        Ok(mut berth) => {
            let pods = berth.pods().await?.into_iter().filter(|pod| pod.is_static).map(|pod| pod.name).collect();
            (pods, berth.others().await?)
        }
        // Nobody can say which ones there are; those that are to run are started by the kubelet all the same.
        Err(_) if without_daemon => (Vec::new(), Vec::new()),
        Err(e) => {
            return Err(e.context(
                "Berth's daemon must run to end its pods: start it again (`systemctl restart berth.service`, or `berth supervise`); \
                 where it cannot be mended, --without-daemon ends them by their processes",
            ));
        }
    };
    let kubelet = kubelets::of_this_node().first().map(|pid| kubelets::configuration(*pid));
    // One that ends meanwhile has no command line any more.
    let kubelet = kubelet.filter(|told| told.arguments.iter().any(|word| !word.is_empty()));
    let now = now_seconds();
    Ok(ReturnFacts {
        id: operation_id("return"),
        boot_id: boot_id()?,
        now,
        deadline: now.saturating_add(options.deadline.as_secs()),
        permission: permission(&options.permit),
        without_daemon,
        kubelet,
        commands: commands(&options.kubelet)?,
        changed: adopted.files.iter().filter_map(changed).collect(),
        pods,
        others,
    })
}
