//! The rules of the CRI, as tables. What every test starts from is here.
mod containers;
mod mounts;
mod pods;
mod processes;
mod properties;
mod refusals;

use super::{ContainerInputs, NodeFacts, PodPaths, VolumeSource, container_spec};
use crate::devices::ResolvedDevice;
use crate::pod_dir::PodDir;
use berth_model::{ContainerConfig, ContainerMetadata, IdMapping, ImageConfig, PodConfig, PodId, PodMetadata, Result};
use berth_monitor_api::spec::{CgroupJoin, ContainerSpec, MountKind, Rlimit, Rootfs};
use berth_seccomp::Arch;
use std::path::{Path, PathBuf};

/// All capabilities of Linux 6.18 but SYS_RESOURCE.
const HELD: u64 = 0x1ff_feff_ffff;
const MAP: IdMapping = IdMapping { container: 0, host: 100_000, length: 65_536 };

fn node() -> NodeFacts {
    NodeFacts {
        bounding_capabilities: HELD,
        kernel: (6, 18),
        arch: Arch::X86_64,
        apparmor: false,
        selinux: false,
        selinux_contexts: None,
        cgroup_namespaces: true,
        user_namespaces: true,
        hostname: "node-1".to_owned(),
        rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: 4096 }],
    }
}

fn pod() -> PodConfig {
    PodConfig {
        metadata: PodMetadata { name: "web".into(), namespace: "default".into(), uid: "u-1".into(), attempt: 0 },
        hostname: "web".to_owned(),
        ..PodConfig::default()
    }
}

fn mapped_pod() -> PodConfig {
    let mut pod = pod();
    pod.security.namespaces.user = Some((MAP, MAP));
    pod
}

fn container() -> ContainerConfig {
    ContainerConfig { metadata: ContainerMetadata { name: "app".into(), attempt: 0 }, ..ContainerConfig::default() }
}

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/bin/server".to_owned()],
        cmd: vec!["--port=80".to_owned()],
        ..ImageConfig::default()
    }
}

fn dir() -> PodDir {
    PodDir::new(Path::new("/run/pods"), &PodId::from_random([7; 32]))
}

fn cgroup_mount() -> MountKind {
    MountKind::Cgroup { readonly: true, v1: Vec::new(), v1_links: Vec::new(), v2_bind: None }
}

fn rootfs() -> Rootfs {
    Rootfs {
        lower: vec!["/l".into()],
        upper: "/u".into(),
        work: "/w".into(),
        idmapped: false,
        owner: None,
        readonly: false,
        mountpoint: "/m".into(),
    }
}

/// The specification, with what a test does not care about filled in.
fn assemble(pod: &PodConfig, container: &ContainerConfig, image: &ImageConfig) -> Result<ContainerSpec> {
    assemble_with(pod, container, image, &[], (&[], &[]))
}

fn assemble_with(
    pod: &PodConfig,
    container: &ContainerConfig,
    image: &ImageConfig,
    devices: &[ResolvedDevice],
    (image_mounts, volumes): (&[Vec<PathBuf>], &[VolumeSource]),
) -> Result<ContainerSpec> {
    container_spec(ContainerInputs {
        pod,
        container,
        image,
        node: &node(),
        pod_paths: &PodPaths::of(&dir(), pod),
        rootfs: rootfs(),
        cgroup: CgroupJoin::Moved,
        cgroup_mount: cgroup_mount(),
        seccomp: None,
        selinux: None,
        devices,
        image_mounts,
        volumes,
    })
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}
