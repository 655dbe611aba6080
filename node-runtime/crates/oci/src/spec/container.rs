//! StartContainer: everything that init is told about one container.
use super::facts::{NodeFacts, PodPaths, VolumeSource};
use super::mounts::{self, MountInputs};
use super::selinux::SelinuxLabels;
use super::{paths, process};
use crate::devices::ResolvedDevice;
use berth_cgroups::DeviceKind;
use berth_model::{ContainerConfig, ImageConfig, NamespaceMode, PodConfig, Result};
use berth_monitor_api::spec::{
    CgroupJoin, ContainerSpec, DeviceNode, JoinNamespaces, MountKind, MountSpec, PidNamespace, Rootfs, SeccompFilter,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a container's specification is made from.
pub struct ContainerInputs<'a> {
    /// Its pod.
    pub pod: &'a PodConfig,
    /// The request, validated.
    pub container: &'a ContainerConfig,
    /// Its image.
    pub image: &'a ImageConfig,
    /// The node.
    pub node: &'a NodeFacts,
    /// The pod's files.
    pub pod_paths: &'a PodPaths,
    /// The root file system; whether it is read-only or shifted is taken from the request and the pod.
    pub rootfs: Rootfs,
    /// How it gets into its cgroup.
    pub cgroup: CgroupJoin,
    /// How /sys/fs/cgroup is made.
    pub cgroup_mount: MountKind,
    /// Its filter, see [`super::seccomp_filter`].
    pub seccomp: Option<SeccompFilter>,
    /// Its labels, see [`super::selinux_labels`].
    pub selinux: Option<SelinuxLabels>,
    /// Its devices.
    pub devices: &'a [ResolvedDevice],
    /// The layers of each image that a mount names, in the order of those mounts, topmost first.
    pub image_mounts: &'a [Vec<PathBuf>],
    /// A directory of the container's own for each of [`super::image_volumes`], filled from the image. A path without one stays a
    /// part of the root file system (and is read-only with it).
    pub volumes: &'a [VolumeSource],
}

/// Nodes and links that init always makes on its own /dev, or that lie in mounts of their own there.
const STANDARD_NODES: [&str; 14] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/core",
    "/dev",
];
const OWN_MOUNTS: [&str; 3] = ["/dev/pts", "/dev/shm", "/dev/mqueue"];

/// The specification. Errors: those of [`super::validate_container`].
pub fn container_spec(inputs: ContainerInputs<'_>) -> Result<ContainerSpec> {
    let ContainerInputs { pod, container, image, node, pod_paths, image_mounts, volumes, cgroup_mount, .. } = inputs;
    let (security, user) = (&container.security, pod.security.namespaces.user);
    let all = MountInputs { pod, container, node, pod_paths, cgroup_mount, image_mounts, volumes };
    let mounts = mounts::mounts(all)?;
    // A /dev of the host is not ours to make nodes in.
    let own_dev = mounts.iter().any(|mount| mount.kind == MountKind::Dev);
    let (masked, readonly): (&[String], &[String]) =
        if security.privileged { (&[], &[]) } else { (&security.masked_paths, &security.readonly_paths) };
    Ok(ContainerSpec {
        namespaces: JoinNamespaces {
            net: pod_paths.net.clone(),
            ipc: pod_paths.ipc.clone(),
            uts: pod_paths.uts.clone(),
            user: pod_paths.user.clone(),
            pid: pid_namespace(pod, container),
            new_cgroup: node.cgroup_namespaces && !security.privileged,
        },
        cgroup: inputs.cgroup,
        rootfs: Rootfs {
            readonly: security.read_only_rootfs,
            idmapped: user.is_some(),
            owner: user.map(|(uid, gid)| (uid.host, gid.host)),
            ..inputs.rootfs
        },
        devices: if own_dev { device_nodes(inputs.devices, &mounts) } else { Vec::new() },
        mounts,
        masked_paths: path_list("masked_paths", masked)?,
        readonly_paths: path_list("readonly_paths", readonly)?,
        mount_label: inputs.selinux.as_ref().map(|labels| labels.file.clone()),
        process: process::process(container, pod, image, node, (inputs.seccomp, inputs.selinux))?,
        rootfs_propagation: mounts::tree_propagation(container),
    })
}

/// The container's word, except where it only repeats the CRI's zero value (Pod) and its pod has no shared namespace: then the
/// pod's word counts.
pub(crate) fn pid_namespace(pod: &PodConfig, container: &ContainerConfig) -> PidNamespace {
    match (container.security.namespaces.pid, pod.security.namespaces.pid) {
        (NamespaceMode::Container, _) => PidNamespace::New,
        (NamespaceMode::Node, _) => PidNamespace::Host,
        (NamespaceMode::Target, _) => PidNamespace::Target,
        (NamespaceMode::Pod, NamespaceMode::Node) => PidNamespace::Host,
        (NamespaceMode::Pod, NamespaceMode::Container) => PidNamespace::New,
        (NamespaceMode::Pod, NamespaceMode::Pod | NamespaceMode::Target) => PidNamespace::Target,
    }
}

/// Nodes to make: not the standard ones, not below mounts of their own, each path once.
fn device_nodes(devices: &[ResolvedDevice], mounts: &[MountSpec]) -> Vec<DeviceNode> {
    let mut seen = BTreeSet::new();
    let mounted = |path: &Path| mounts.iter().any(|mount| mount.kind != MountKind::Dev && mount.target == path);
    let wanted = devices.iter().filter(|device| {
        let path = &device.container_path;
        let standard = STANDARD_NODES.iter().any(|node| path == Path::new(node));
        let below = OWN_MOUNTS.iter().any(|mount| path.starts_with(mount));
        !standard && !below && !mounted(path) && seen.insert(path.clone())
    });
    wanted
        .map(|device| DeviceNode {
            path: device.container_path.clone(),
            host_path: device.host_path.clone(),
            block: device.kind == DeviceKind::Block,
            major: device.major,
            minor: device.minor,
            mode: device.mode,
            uid: device.uid,
            gid: device.gid,
        })
        .collect()
}

pub(crate) fn path_list(field: &str, list: &[String]) -> Result<Vec<PathBuf>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for (i, path) in list.iter().enumerate() {
        let path = paths::absolute(&format!("linux.security_context.{field}[{i}]"), path)?;
        if seen.insert(path.clone()) {
            all.push(path);
        }
    }
    Ok(all)
}
