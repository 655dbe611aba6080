//! The mounts of a container: defaults, the request's, and their order.
use super::facts::{ImageMountSource, NodeFacts, PodPaths};
use super::paths;
use berth_model::{ContainerConfig, Error, ErrorKind, ImageConfig, Mount, PodConfig, Propagation, Result};
use berth_monitor_api::spec::{Bind, MountKind, MountSpec};
use std::path::{Path, PathBuf};

/// What the mounts are made of.
pub(crate) struct MountInputs<'a> {
    pub(crate) pod: &'a PodConfig,
    pub(crate) container: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) node: &'a NodeFacts,
    pub(crate) pod_paths: &'a PodPaths,
    pub(crate) cgroup_mount: MountKind,
    pub(crate) image_mounts: &'a [ImageMountSource],
    pub(crate) volumes: &'a [ImageMountSource],
}

/// All mounts, parents before what lies below them, otherwise in the order: defaults, image's volumes, request's.
///
/// A mount of the request takes the place of a default at the same target; one on /dev of all defaults below it as well.
/// A path in the image's `Volumes` is bound from the directory that the engine made for it; without one it stays a part of
/// the root file system.
pub(crate) fn mounts(inputs: MountInputs<'_>) -> Result<Vec<MountSpec>> {
    let mut requested = Vec::new();
    for (i, mount) in inputs.container.mounts.iter().enumerate() {
        let field = format!("mounts[{i}]");
        let target = paths::absolute(&format!("{field}.container_path"), &mount.container_path)?;
        requested.push(MountSpec { kind: requested_kind(&inputs, &field, mount)?, target });
    }
    let volumes = volumes(&inputs)?;
    let taken = |target: &Path| {
        requested.iter().chain(&volumes).any(|mount| mount.target == target)
            || (target.starts_with("/dev") && requested.iter().any(|mount| mount.target == Path::new("/dev")))
    };
    let mut all: Vec<MountSpec> = defaults(&inputs).into_iter().filter(|mount| !taken(&mount.target)).collect();
    all.extend(volumes.iter().filter(|volume| !requested.iter().any(|mount| mount.target == volume.target)).cloned());
    all.extend(requested);
    all.sort_by_key(|mount| mount.target.components().count());
    Ok(all)
}

fn defaults(inputs: &MountInputs<'_>) -> Vec<MountSpec> {
    let MountInputs { pod, container, pod_paths, .. } = inputs;
    let privileged = container.security.privileged;
    // The files are on a tmpfs of the node: with a user namespace they are shifted, so that they are its root's.
    let shifted = pod.security.namespaces.user.is_some() && inputs.node.idmapped_tmpfs();
    let ours = |source: &PathBuf, readonly: bool, idmapped: bool| {
        MountKind::Bind(Bind {
            source: source.clone(),
            readonly,
            recursive_readonly: false,
            propagation: Propagation::Private,
            idmapped,
            recursive: false,
            restrict: true,
        })
    };
    let readonly = container.security.read_only_rootfs;
    let all = [
        ("/proc", MountKind::Proc),
        ("/dev", MountKind::Dev),
        ("/dev/mqueue", MountKind::Mqueue),
        ("/sys", MountKind::Sysfs { readonly: !privileged }),
        ("/sys/fs/cgroup", inputs.cgroup_mount.clone()),
        ("/dev/shm", ours(&pod_paths.shm, false, false)),
        ("/etc/resolv.conf", ours(&pod_paths.resolv_conf, readonly, shifted)),
        ("/etc/hostname", ours(&pod_paths.hostname, readonly, shifted)),
        ("/etc/hosts", ours(&pod_paths.hosts, readonly, shifted)),
    ];
    all.into_iter().map(|(target, kind)| MountSpec { target: PathBuf::from(target), kind }).collect()
}

fn requested_kind(inputs: &MountInputs<'_>, field: &str, mount: &Mount) -> Result<MountKind> {
    if mount.image.is_some() {
        let found = inputs.image_mounts.iter().find(|source| source.container_path == mount.container_path);
        let source = found.ok_or_else(|| {
            let problem =
                format!("ImageVolumeMountFailed: {field}: the image for {} was not prepared", mount.container_path);
            Error::new(ErrorKind::FailedPrecondition, problem)
        })?;
        return Ok(MountKind::Bind(Bind { readonly: true, ..plain(source.source.clone()) }));
    }
    let own_namespace = inputs.pod.security.namespaces.user.is_some();
    Ok(MountKind::Bind(Bind {
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation: mount.propagation,
        idmapped: own_namespace && !mount.uid_mappings.is_empty(),
        recursive: true,
        ..plain(paths::absolute(&format!("{field}.host_path"), &mount.host_path)?)
    }))
}

/// The directories that stand for the image's `Volumes`. Their paths come from outside (CVE-2022-23648): cleaned here,
/// resolved in the container's root by init.
fn volumes(inputs: &MountInputs<'_>) -> Result<Vec<MountSpec>> {
    let mut all = Vec::new();
    for volume in &inputs.image.volumes {
        let target = paths::absolute("image volume", volume)?;
        if let Some(made) = inputs.volumes.iter().find(|source| &source.container_path == volume) {
            let idmapped = inputs.pod.security.namespaces.user.is_some();
            all.push(MountSpec { target, kind: MountKind::Bind(Bind { idmapped, ..plain(made.source.clone()) }) });
        }
    }
    Ok(all)
}

fn plain(source: PathBuf) -> Bind {
    Bind {
        source,
        readonly: false,
        recursive_readonly: false,
        propagation: Propagation::Private,
        idmapped: false,
        recursive: false,
        restrict: false,
    }
}

/// Propagation of the whole tree: as much as the most demanding mount needs.
pub(crate) fn tree_propagation(container: &ContainerConfig) -> Propagation {
    let needs = |wanted| container.mounts.iter().any(|mount| mount.propagation == wanted);
    if needs(Propagation::Bidirectional) {
        Propagation::Bidirectional
    } else if needs(Propagation::HostToContainer) {
        Propagation::HostToContainer
    } else {
        Propagation::Private
    }
}
