//! Looks at the node that is to be taken over or given back: the facts that a plan is made of.
//!
//! Owns: reading. Must not: judge or change.
use super::runtime::Peer;
use super::steps::{found, hashed, same_programs};
use super::{Permit, Start, boot_id, now_seconds, operation_id, systemd};
use crate::kubelets;
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::Plan;
use berth_adopt::plan::{
    self, CarrierKind, Commands, Facts, FileChange, Grant, Install, KubeletProcess, Permission, PodName, ReturnFacts,
    Runtime,
};
use berth_cgroups::Driver;
use std::path::{Path, PathBuf};

/// What kubeadm writes beside the kubelet's configuration.
const KUBEADM_FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
const KUBEADM_INSTANCE: &str = "/var/lib/kubelet/instance-config.yaml";
/// kubeadm's drop-in of the kubelet's unit.
const KUBEADM_DROP_IN: &str = "10-kubeadm.conf";

/// Everything about the node.
pub(super) async fn node(layout: &Layout, options: &Start) -> Result<Facts> {
    let pid = the_kubelet(options.kubelet_pid)?;
    let configuration = kubelets::configuration(pid);
    let unit = if systemd::is_here() { unit_of(pid) } else { None };
    let mut carriers = unit.as_deref().map(systemd::carriers).unwrap_or_default();
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
    let (new, daemon_before) = berth(layout).await?;
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
        commands: commands(options)?,
        carriers,
        instance_config: instance.map(|carrier| (carrier.path, carrier.text)),
        old,
        new,
        pods: peer.pods().await?,
        install: install(layout, options, daemon_before)?,
        permission: permission(&options.permit),
        control_plane: options.control_plane,
        keep_stats: options.keep_stats_gate,
        attributes: touched.into_iter().filter_map(attributes).collect(),
        existing: created.into_iter().filter(|path| std::fs::symlink_metadata(path).is_ok()).collect(),
        kubelet: KubeletProcess { pid, configuration, unit, kubeadm },
    })
}

/// The one kubelet of the node.
fn the_kubelet(only: Option<u32>) -> Result<u32> {
    let all = kubelets::of_this_node();
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

fn unit_of(pid: u32) -> Option<String> {
    systemd::unit_of(&node_files::text(format!("/proc/{pid}/cgroup"))?)
}

/// The socket of an endpoint, as a kubelet takes it.
fn socket(endpoint: &str) -> Result<PathBuf> {
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

/// Berth: as it answers, or as it will.
async fn berth(layout: &Layout) -> Result<(Runtime, bool)> {
    let socket = layout.cri_socket();
    if let Ok(mut peer) = Peer::connect(&socket).await {
        return Ok((peer.who(&socket).await.context("Berth's daemon")?, true));
    }
    let settings =
        berth_settings::load(&layout.etc).map_err(|e| anyhow!("documents of {}: {e}", layout.etc.display()))?;
    let driver = match crate::serve::wire::driver(&settings) {
        Driver::Systemd => "systemd",
        Driver::Cgroupfs => "cgroupfs",
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok((Runtime { socket, name: "berth".into(), version, cgroup_driver: Some(driver.into()) }, false))
}

fn commands(options: &Start) -> Result<Option<Commands>> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    match (&options.kubelet_stop, &options.kubelet_start) {
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

fn install(layout: &Layout, options: &Start, daemon_before: bool) -> Result<Install> {
    let own = std::env::current_exe().context("own program")?;
    let from = options.from.clone().or_else(|| own.parent().map(Path::to_owned)).unwrap_or_default();
    for name in super::steps::PROGRAMS {
        if !from.join(name).is_file() {
            bail!("--from {}: has no {name}", from.display());
        }
    }
    let prefix = options.prefix.clone();
    let version = options.version_name.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    if version.is_empty() || version.starts_with('.') || version.contains('/') || version == "current" {
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
    Ok(Install {
        current_before: current.and_then(|link| link.to_str().map(str::to_owned)),
        prefix_before: prefix.exists(),
        staged_before,
        daemon_before,
        systemd: layout.is_system() && systemd::is_here(),
        unit_before: systemd::is_here() && systemd::is_known("berth.service"),
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
        change.directory_before = change.path.parent().is_some_and(Path::exists);
        change.before = change.before.take().map(hashed);
        change.after = change.after.take().map(hashed);
        if found(&change.path)? != change.before {
            bail!("{} has changed while it was looked at", change.path.display());
        }
    }
    Ok(plan)
}

/// Everything about the way back.
pub(super) async fn way_back(adopted: &Plan, permit: &Permit, deadline: u64) -> Result<ReturnFacts> {
    let changed = |change: &FileChange| match found(&change.path) {
        Ok(now) if now == change.after => None,
        Ok(Some(now)) => Some((change.path.clone(), format!("sha256 {}, mode {:o}", now.sha256, now.mode))),
        Ok(None) => Some((change.path.clone(), "it is gone".to_owned())),
        Err(e) => Some((change.path.clone(), format!("{e:#}"))),
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
    let mut berth = Peer::connect(&adopted.to.socket).await.context("Berth's daemon must run to end its pods")?;
    let pods: Vec<PodName> = berth.pods().await?.into_iter().filter(|pod| pod.is_static).map(|pod| pod.name).collect();
    let kubelet = kubelets::of_this_node().first().map(|pid| kubelets::configuration(*pid)).unwrap_or_default();
    let now = now_seconds();
    Ok(ReturnFacts {
        id: operation_id("return"),
        boot_id: boot_id()?,
        now,
        deadline: now.saturating_add(deadline),
        permission: permission(permit),
        in_cluster: berth_adopt::kubelet::flag(&kubelet.arguments, "kubeconfig").is_some(),
        changed: adopted.files.iter().filter_map(changed).collect(),
        pods,
    })
}
