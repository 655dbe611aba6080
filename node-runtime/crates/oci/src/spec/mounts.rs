//! The mounts of a container: defaults, the request's, and their order.
use super::facts::{NodeFacts, PodPaths, VolumeSource};
use super::paths;
use berth_model::{
    ContainerConfig, Error, ErrorKind, ImageConfig, MOUNTABLE_IN_PROC, Mount, MountOptions, PodConfig, Propagation,
    Result,
};
use berth_monitor_api::spec::{Bind, ImageTree, MountKind, MountSpec};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Most paths that an image may declare as `VOLUME`: each is a directory on the node per container. Images have a handful.
const MAX_VOLUMES: usize = 64;

/// What the mounts are made of.
pub(crate) struct MountInputs<'a> {
    pub(crate) pod: &'a PodConfig,
    pub(crate) container: &'a ContainerConfig,
    pub(crate) node: &'a NodeFacts,
    pub(crate) pod_paths: &'a PodPaths,
    pub(crate) cgroup_mount: MountKind,
    pub(crate) image_mounts: &'a [Vec<PathBuf>],
    pub(crate) volumes: &'a [VolumeSource],
}

/// All mounts, parents before what lies below them, otherwise in the order: defaults, image's volumes, request's.
///
/// A mount of the request takes the place of a default at the same target; one on /dev of all defaults below it as well.
pub(crate) fn mounts(inputs: MountInputs<'_>) -> Result<Vec<MountSpec>> {
    let mut requested = Vec::new();
    let mut images = inputs.image_mounts.iter();
    for (i, mount) in inputs.container.mounts.iter().enumerate() {
        let field = format!("mounts[{i}]");
        let target = paths::absolute(&format!("{field}.container_path"), &mount.container_path)?;
        let kind = match &mount.image {
            Some(_) => image_tree(&inputs, &field, mount, images.next())?,
            None => bind(&inputs, &field, mount)?,
        };
        requested.push(MountSpec { kind, target });
    }
    let on_dev = requested.iter().any(|mount| mount.target == Path::new("/dev"));
    let taken =
        |target: &Path| requested.iter().any(|mount| mount.target == target) || (on_dev && target.starts_with("/dev"));
    let mut all: Vec<MountSpec> = defaults(&inputs).into_iter().filter(|mount| !taken(&mount.target)).collect();
    all.extend(volumes(&inputs).into_iter().filter(|volume| !taken(&volume.target)));
    all.extend(requested);
    all.sort_by_key(|mount| mount.target.components().count());
    Ok(all)
}

/// The paths of an image's `Volumes` that get a directory of their own: not those that the request or a default mounts
/// something on. A relative one counts from the root, as with containerd. Errors: `FailedPrecondition` for more than 64,
/// for one with `..`, for the root, and for one that would hide or forge what the kernel says.
pub fn image_volumes(container: &ContainerConfig, image: &ImageConfig) -> Result<Vec<PathBuf>> {
    let refuse = |volume: &str, problem: &str| {
        Err(Error::new(ErrorKind::FailedPrecondition, format!("VOLUME {volume:?} of the image: {problem}")))
    };
    if image.volumes.len() > MAX_VOLUMES {
        let problem =
            format!("the image declares {} volumes, more than the limit of {MAX_VOLUMES}", image.volumes.len());
        return Err(Error::new(ErrorKind::FailedPrecondition, problem));
    }
    let mut taken: BTreeSet<PathBuf> = DEFAULTS.iter().map(PathBuf::from).collect();
    for (i, mount) in container.mounts.iter().enumerate() {
        taken.insert(paths::absolute(&format!("mounts[{i}].container_path"), &mount.container_path)?);
    }
    let mut all = Vec::new();
    for volume in &image.volumes {
        let target = match paths::absolute("", &format!("/{volume}")) {
            Ok(target) => target,
            Err(e) => return refuse(volume, e.message().trim_start_matches(": ")),
        };
        if target == Path::new("/") {
            return refuse(volume, "the root of the container cannot be a volume");
        }
        if taken.contains(&target) {
            continue;
        }
        if target.starts_with("/proc") || target.starts_with("/sys") {
            return refuse(volume, "nothing may be mounted there: it would hide or forge what the kernel says");
        }
        taken.insert(target.clone());
        all.push(target);
    }
    Ok(all)
}

/// Whether something may be mounted at a path in the container, as far as /proc is concerned.
pub(crate) fn is_outside_proc(target: &Path) -> bool {
    !target.starts_with("/proc") || MOUNTABLE_IN_PROC.iter().any(|file| target == Path::new(file))
}

/// Where [`defaults`] are mounted.
const DEFAULTS: [&str; 9] = [
    "/proc",
    "/dev",
    "/dev/mqueue",
    "/sys",
    "/sys/fs/cgroup",
    "/dev/shm",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/etc/hosts",
];

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
            options: MountOptions::ALL,
        })
    };
    let readonly = container.security.read_only_rootfs;
    let kinds = [
        MountKind::Proc,
        MountKind::Dev,
        MountKind::Mqueue,
        MountKind::Sysfs { readonly: !privileged },
        inputs.cgroup_mount.clone(),
        ours(&pod_paths.shm, false, false),
        ours(&pod_paths.resolv_conf, readonly, shifted),
        ours(&pod_paths.hostname, readonly, shifted),
        ours(&pod_paths.hosts, readonly, shifted),
    ];
    DEFAULTS.into_iter().zip(kinds).map(|(target, kind)| MountSpec { target: PathBuf::from(target), kind }).collect()
}

/// An image is shifted with the pod's user namespace whatever the request says, like the root file system.
fn image_tree(
    inputs: &MountInputs<'_>,
    field: &str,
    mount: &Mount,
    layers: Option<&Vec<PathBuf>>,
) -> Result<MountKind> {
    let (Some(layers), Some(image)) = (layers, &mount.image) else {
        let problem =
            format!("ImageVolumeMountFailed: {field}: the image for {} was not prepared", mount.container_path);
        return Err(Error::new(ErrorKind::FailedPrecondition, problem));
    };
    Ok(MountKind::Image(ImageTree {
        lower: layers.clone(),
        sub_path: paths::relative(&format!("{field}.image_sub_path"), &image.sub_path)?,
        idmapped: inputs.pod.security.namespaces.user.is_some(),
        options: mount.options,
    }))
}

fn bind(inputs: &MountInputs<'_>, field: &str, mount: &Mount) -> Result<MountKind> {
    let own_namespace = inputs.pod.security.namespaces.user.is_some();
    Ok(MountKind::Bind(Bind {
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation: mount.propagation,
        idmapped: own_namespace && !mount.uid_mappings.is_empty(),
        recursive: true,
        options: mount.options,
        ..plain(paths::absolute(&format!("{field}.host_path"), &mount.host_path)?)
    }))
}

/// The directories that stand for the image's `Volumes` (CVE-2022-23648: init resolves their paths in the container's root).
fn volumes(inputs: &MountInputs<'_>) -> Vec<MountSpec> {
    let idmapped = inputs.pod.security.namespaces.user.is_some();
    let kind = |volume: &VolumeSource| MountKind::Bind(Bind { idmapped, ..plain(volume.source.clone()) });
    inputs.volumes.iter().map(|v| MountSpec { target: v.target.clone(), kind: kind(v) }).collect()
}

fn plain(source: PathBuf) -> Bind {
    Bind {
        source,
        readonly: false,
        recursive_readonly: false,
        propagation: Propagation::Private,
        idmapped: false,
        recursive: false,
        options: MountOptions::default(),
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
