//! Defaults, precedence, order, flags.
use super::*;
use crate::spec::image_volumes;
use berth_model::{ImageMount, Mount, MountOptions, NamespaceMode, Propagation};
use berth_monitor_api::spec::Bind;
use std::path::PathBuf;

fn bind(container_path: &str) -> Mount {
    Mount { container_path: container_path.into(), host_path: "/host".into(), ..Mount::default() }
}

fn with(mounts: Vec<Mount>) -> ContainerConfig {
    ContainerConfig { mounts, ..container() }
}

fn targets(spec: &ContainerSpec) -> Vec<&str> {
    spec.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect()
}

fn at<'a>(spec: &'a ContainerSpec, target: &str) -> &'a MountKind {
    &spec.mounts.iter().find(|mount| mount.target == Path::new(target)).unwrap().kind
}

fn bound<'a>(spec: &'a ContainerSpec, target: &str) -> &'a Bind {
    match at(spec, target) {
        MountKind::Bind(bind) => bind,
        other => panic!("{target} is {other:?}"),
    }
}

#[test]
fn the_defaults() {
    let spec = assemble(&pod(), &container(), &image()).unwrap();
    let expected = [
        "/proc",
        "/dev",
        "/sys",
        "/dev/mqueue",
        "/dev/shm",
        "/etc/resolv.conf",
        "/etc/hostname",
        "/etc/hosts",
        "/sys/fs/cgroup",
    ];
    assert_eq!(targets(&spec), expected);
    assert_eq!(at(&spec, "/sys"), &MountKind::Sysfs { readonly: true });
    assert_eq!(at(&spec, "/sys/fs/cgroup"), &cgroup_mount());
    assert_eq!(bound(&spec, "/dev/shm").source, dir().shm());
    let hosts = bound(&spec, "/etc/hosts");
    assert!(
        hosts.options == MountOptions::ALL && !hosts.readonly && !hosts.idmapped && hosts.source == dir().file("hosts")
    );
    let mut readonly = container();
    readonly.security.read_only_rootfs = true;
    let spec = assemble(&pod(), &readonly, &image()).unwrap();
    assert!(bound(&spec, "/etc/resolv.conf").readonly && !bound(&spec, "/dev/shm").readonly);
    let mut host_ipc = pod();
    host_ipc.security.namespaces.ipc = NamespaceMode::Node;
    assert_eq!(bound(&assemble(&host_ipc, &container(), &image()).unwrap(), "/dev/shm").source, Path::new("/dev/shm"));
}

#[test]
fn requests_take_the_place_of_defaults() {
    let spec = assemble(&pod(), &with(vec![bind("/etc/hosts"), bind("/dev/shm/")]), &image()).unwrap();
    assert_eq!(spec.mounts.len(), 9);
    assert_eq!(bound(&spec, "/etc/hosts").source, Path::new("/host"));
    assert_eq!(bound(&spec, "/dev/shm").source, Path::new("/host"));
    let spec = assemble(&pod(), &with(vec![bind("/dev")]), &image()).unwrap();
    assert!(!targets(&spec).iter().any(|target| target.starts_with("/dev/")), "{:?}", targets(&spec));
    assert_eq!(targets(&spec).iter().filter(|target| **target == "/dev").count(), 1);
}

#[test]
fn parents_come_first_and_equals_keep_their_order() {
    let spec = assemble(&pod(), &with(vec![bind("/a/b/c"), bind("/z"), bind("/a"), bind("/a/b")]), &image()).unwrap();
    let own: Vec<_> = targets(&spec).into_iter().filter(|t| t.starts_with("/a") || *t == "/z").collect();
    assert_eq!(own, ["/z", "/a", "/a/b", "/a/b/c"]);
    let twice =
        [Mount { host_path: "/first".into(), ..bind("/x") }, Mount { host_path: "/second".into(), ..bind("/x") }];
    let spec = assemble(&pod(), &with(twice.to_vec()), &image()).unwrap();
    let sources: Vec<_> = spec
        .mounts
        .iter()
        .filter(|mount| mount.target == Path::new("/x"))
        .map(|mount| match &mount.kind {
            MountKind::Bind(bind) => bind.source.to_str().unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sources, ["/first", "/second"]);
}

#[test]
fn flags_are_handed_on() {
    let full = Mount { readonly: true, recursive_read_only: true, ..bind("/r") };
    let shared = Mount { propagation: Propagation::Bidirectional, ..bind("/s") };
    let slave = Mount { propagation: Propagation::HostToContainer, ..bind("/h") };
    let spec = assemble(&pod(), &with(vec![full, slave.clone(), shared]), &image()).unwrap();
    let readonly = bound(&spec, "/r");
    assert!(
        readonly.readonly
            && readonly.recursive_readonly
            && readonly.recursive
            && readonly.options == MountOptions::default()
    );
    assert_eq!(bound(&spec, "/s").propagation, Propagation::Bidirectional);
    assert_eq!(spec.rootfs_propagation, Propagation::Bidirectional);
    let spec = assemble(&pod(), &with(vec![bind("/p"), slave]), &image()).unwrap();
    assert_eq!(spec.rootfs_propagation, Propagation::HostToContainer);
    assert_eq!(assemble(&pod(), &container(), &image()).unwrap().rootfs_propagation, Propagation::Private);
}

#[test]
fn mounts_are_shifted_with_the_pods_mapping_alone() {
    let mapped = Mount { uid_mappings: vec![MAP], gid_mappings: vec![MAP], ..bind("/m") };
    let spec = assemble(&mapped_pod(), &with(vec![mapped, bind("/n")]), &image()).unwrap();
    assert!(bound(&spec, "/m").idmapped && !bound(&spec, "/n").idmapped);
    assert!(bound(&spec, "/etc/hosts").idmapped && !bound(&spec, "/dev/shm").idmapped);
}

#[test]
fn images_are_stacked_from_the_layers_that_were_prepared() {
    let image_mount = |path: &str, sub_path: &str| Mount {
        host_path: String::new(),
        readonly: true,
        image: Some(ImageMount { image: "x".into(), sub_path: sub_path.into(), ..ImageMount::default() }),
        options: MountOptions { noexec: true, ..MountOptions::default() },
        ..bind(path)
    };
    let layers = [vec!["/x/1".into(), "/x/0".into()], vec!["/y/0".into(), "/e".into()]];
    let mounts = vec![image_mount("/model", ""), bind("/between"), image_mount("/part", "etc/./conf/")];
    let spec = assemble_with(&mapped_pod(), &with(mounts.clone()), &image(), &[], (&layers, &[])).unwrap();
    let tree = |target: &str| match &spec.mounts.iter().find(|m| m.target == Path::new(target)).unwrap().kind {
        MountKind::Image(tree) => tree.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((tree("/model").lower, tree("/part").lower), (layers[0].clone(), layers[1].clone()));
    assert_eq!(
        (tree("/model").sub_path.as_path(), tree("/part").sub_path.as_path()),
        (Path::new(""), Path::new("etc/conf"))
    );
    assert!(tree("/model").idmapped && tree("/model").options.noexec, "shifted like the root, without being asked");
    let error = assemble_with(&pod(), &with(mounts), &image(), &[], (&layers[..1], &[])).unwrap_err();
    assert!(error.message().starts_with("ImageVolumeMountFailed: mounts[2]"), "{error}");
}

#[test]
fn volumes_of_an_image_need_a_directory_and_give_way_to_requests() {
    let image = ImageConfig { volumes: strings(&["/data", "cache//x/", "/etc/hosts", "/data/"]), ..image() };
    let paths = |container: &ContainerConfig| image_volumes(container, &image).unwrap();
    assert_eq!(paths(&container()), [Path::new("/data"), Path::new("/cache/x")], "each once, not where we mount");
    assert_eq!(paths(&with(vec![bind("/data/")])), [Path::new("/cache/x")]);
    let source = VolumeSource { target: "/data".into(), source: "/c/volumes/0".into() };
    let sources: (&[Vec<PathBuf>], &[VolumeSource]) = (&[], &[source]);
    let spec = assemble_with(&mapped_pod(), &container(), &image, &[], sources).unwrap();
    let data = bound(&spec, "/data");
    assert!(data.source == Path::new("/c/volumes/0") && data.idmapped && !data.readonly);
    assert!(!targets(&spec).contains(&"/cache/x"), "without a directory it stays in the root");
    let spec = assemble_with(&pod(), &with(vec![bind("/data")]), &image, &[], sources);
    let spec = spec.unwrap();
    assert_eq!(bound(&spec, "/data").source, Path::new("/host"));
    assert_eq!(targets(&spec).iter().filter(|target| **target == "/data").count(), 1);
}

#[test]
fn volumes_of_an_image_that_cannot_be_are_refused() {
    for (volume, word) in [
        ("/", "root"),
        (".", "root"),
        ("/a/../../x", ".."),
        ("/proc/acpi", "kernel"),
        ("sys/x", "kernel"),
        ("a\0b", "NUL"),
    ] {
        let image = ImageConfig { volumes: strings(&[volume]), ..image() };
        let error = image_volumes(&container(), &image).unwrap_err();
        assert!(error.message().contains(word) && error.message().contains("VOLUME"), "{volume:?}: {error}");
    }
    let many = ImageConfig { volumes: (0..65).map(|n| format!("/v{n}")).collect(), ..image() };
    assert!(image_volumes(&container(), &many).unwrap_err().message().contains("limit of 64"));
}
