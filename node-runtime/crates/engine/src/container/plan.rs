//! What create and start both need to decide, and the little reading of the node that deciding needs.
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::profiles;
use crate::record::{ContainerRecord, Life, PodRecord};
use berth_cgroups::DevicePolicy;
use berth_images::RootfsDirs;
use berth_model::{
    ContainerConfig, ContainerId, Error, ErrorKind, ImageConfig, NamespaceMode, PodConfig, Profile, Result, ResultExt,
};
use berth_monitor_api::spec::{ContainerSpec, Rootfs, SeccompFilter};
use berth_oci::devices::{self, ResolvedDevice};
use berth_oci::spec::{ContainerInputs, PodPaths, VolumeSource, container_spec, seccomp_filter};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long looking at a mount source may take: a dead network file system hangs for ever (containerd#13867).
const SOURCE_LIMIT: Duration = Duration::from_secs(10);
const SIGTERM: i32 = 15;

/// Host ids of root in the pod's user namespace.
pub(crate) fn mapped_root(pod: &PodConfig) -> Option<(u32, u32)> {
    pod.security.namespaces.user.map(|(uid, gid)| (uid.host, gid.host))
}

/// CRI's stop signal, else the image's, else TERM.
pub(crate) fn stop_signal(config: &ContainerConfig, image: &ImageConfig) -> Result<i32> {
    match config.stop_signal {
        Some(signal) => Ok(signal.0),
        None if image.stop_signal.is_empty() => Ok(SIGTERM),
        None => berth_oci::signal::parse(&image.stop_signal).context(|| "image's StopSignal"),
    }
}

/// Absolute path of the container's log.
pub(crate) fn log_path(pod: &PodConfig, config: &ContainerConfig) -> Option<PathBuf> {
    if pod.log_directory.is_empty() || config.log_path.is_empty() {
        return None;
    }
    Some(Path::new(&pod.log_directory).join(&config.log_path))
}

/// The container whose pid namespace is joined: it runs, and is of the same pod.
pub(crate) fn target_of(pod: &PodRecord, config: &ContainerConfig) -> Result<ContainerId> {
    let target = &config.security.namespaces.target;
    let id = ContainerId::parse(target).context(|| "security_context.namespace_options.target_id")?;
    match pod.containers.get(&id).map(|c| &c.life) {
        Some(Life::Running { .. }) => Ok(id),
        Some(_) => Err(Error::new(ErrorKind::FailedPrecondition, format!("target container {id} is not running"))),
        None => Err(Error::invalid("security_context.namespace_options.target_id", "is no container of this pod")),
    }
}

/// Task whose pid namespace a container joins: the pod's init, the target, or none.
pub(crate) fn joined_task(pod: &Pod, container: &ContainerRecord) -> Result<Option<String>> {
    let record = pod.record();
    match container.config.security.namespaces.pid {
        NamespaceMode::Target => target_of(&record, &container.config).map(|id| Some(id.as_str().to_owned())),
        NamespaceMode::Pod if record.init_pid.is_some() => Ok(Some(pod.id.as_str().to_owned())),
        _ => Ok(None),
    }
}

/// The compiled filter, or none. `config` is of [`Engine::with_profiles`].
pub(crate) async fn seccomp(
    engine: &Engine,
    pod: &PodConfig,
    config: &ContainerConfig,
) -> Result<Option<SeccompFilter>> {
    let bytes = match &config.security.seccomp {
        Profile::Localhost(path) if !config.security.privileged => {
            Some(match profiles::seccomp_text(&engine.settings().spec, path) {
                Some(text) => text,
                None => {
                    let path = PathBuf::from(path);
                    blocking(move || berth_oci::profiles::read_localhost(&path)).await?
                }
            })
        }
        _ => None,
    };
    seccomp_filter(&config.security, pod, bytes.as_deref(), &engine.facts)
}

/// Devices of the node that the container asks for: nodes are looked at, directories walked.
pub(crate) async fn resolve_devices(engine: &Engine, config: &ContainerConfig) -> Result<Vec<ResolvedDevice>> {
    let (wanted, all) = (config.devices.clone(), config.security.privileged);
    let _ = engine;
    blocking(move || devices::resolve(&wanted, all)).await
}

/// Every host path exists (a missing one is an error by the CRI), and answers in time.
pub(crate) async fn check_mount_sources(config: &ContainerConfig) -> Result<()> {
    let binds = config.mounts.iter().enumerate().filter(|(_, m)| m.image.is_none());
    let paths: Vec<(usize, String)> = binds.map(|(i, m)| (i, m.host_path.clone())).collect();
    let look = blocking(move || {
        for (i, path) in paths {
            std::fs::metadata(&path).map_err(|e| {
                Error::invalid(format!("config.mounts[{i}].host_path"), format!("{path} on the node: {e}"))
            })?;
        }
        Ok(())
    });
    tokio::time::timeout(SOURCE_LIMIT, look).await.unwrap_or_else(|_| {
        let problem = "a mount source did not answer within 10 seconds; is its network file system reachable?";
        Err(Error::new(ErrorKind::DeadlineExceeded, problem))
    })
}

/// The device rules of a container's cgroup.
pub(crate) fn device_policy(container: &ContainerRecord, devices: &[ResolvedDevice]) -> DevicePolicy {
    berth_oci::devices::rules(container.config.security.privileged, devices)
}

/// All that init needs to know.
pub(crate) fn specification(
    engine: &Engine,
    pod: &Pod,
    container: &ContainerRecord,
    parts: SpecParts,
) -> Result<ContainerSpec> {
    let record = pod.record();
    let dir = engine.paths.pod_dir(&pod.id);
    let private_cgroup = !container.config.security.privileged;
    let rootfs = Rootfs {
        lower: parts.rootfs.lower,
        upper: parts.rootfs.upper,
        work: parts.rootfs.work,
        owner: mapped_root(&record.config),
        idmapped: record.config.security.namespaces.user.is_some(),
        readonly: container.config.security.read_only_rootfs,
        mountpoint: dir.rootfs_point(),
    };
    let volumes: Vec<VolumeSource> =
        parts.rootfs.volumes.into_iter().map(|(target, source)| VolumeSource { target, source }).collect();
    container_spec(ContainerInputs {
        pod: &record.config,
        container: &container.config,
        image: &container.image_config,
        node: &engine.facts,
        pod_paths: &PodPaths::of(&dir, &record.config),
        rootfs,
        cgroup: engine.cgroups.join(&container.cgroup),
        cgroup_mount: engine.cgroups.container_mount(&container.cgroup, private_cgroup, private_cgroup),
        seccomp: parts.seccomp,
        selinux: engine.selinux_of(&record, &container.config.security)?,
        devices: &parts.devices,
        image_mounts: &parts.rootfs.image_volumes,
        volumes: &volumes,
    })
}

/// What was read from the node for one specification.
pub(crate) struct SpecParts {
    pub(crate) rootfs: RootfsDirs,
    pub(crate) seccomp: Option<SeccompFilter>,
    pub(crate) devices: Vec<ResolvedDevice>,
}
