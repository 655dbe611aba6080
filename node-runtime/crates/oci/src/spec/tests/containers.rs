//! Namespaces, privileges, masked paths, devices, profiles.
use super::*;
use crate::spec::validate_container;
use berth_cgroups::{DeviceAccess, DeviceKind};
use berth_model::{NamespaceMode as Mode, Profile};
use berth_monitor_api::spec::PidNamespace;

#[test]
fn pid_namespaces() {
    for (in_pod, in_container, expected) in [
        (Mode::Pod, Mode::Pod, PidNamespace::Target),
        (Mode::Pod, Mode::Container, PidNamespace::New),
        (Mode::Pod, Mode::Target, PidNamespace::Target),
        (Mode::Container, Mode::Container, PidNamespace::New),
        (Mode::Container, Mode::Pod, PidNamespace::New),
        (Mode::Container, Mode::Target, PidNamespace::Target),
        (Mode::Node, Mode::Node, PidNamespace::Host),
        (Mode::Node, Mode::Pod, PidNamespace::Host),
        (Mode::Node, Mode::Container, PidNamespace::New),
    ] {
        let (mut pod, mut container) = (pod(), container());
        pod.security.namespaces.pid = in_pod;
        container.security.namespaces.pid = in_container;
        assert_eq!(
            assemble(&pod, &container, &image()).unwrap().namespaces.pid,
            expected,
            "{in_pod:?} {in_container:?}"
        );
    }
}

#[test]
fn the_pods_namespaces_are_joined_whatever_the_container_says() {
    let own = assemble(&pod(), &container(), &image()).unwrap().namespaces;
    assert_eq!(own.net, Some(dir().namespace("net")));
    assert_eq!((own.ipc, own.uts, own.user), (Some(dir().namespace("ipc")), Some(dir().namespace("uts")), None));
    let mut host = mapped_pod();
    host.security.namespaces.network = Mode::Node;
    host.security.namespaces.ipc = Mode::Node;
    let spec = assemble(&host, &container(), &image()).unwrap();
    assert_eq!((spec.namespaces.net, spec.namespaces.ipc, spec.namespaces.uts), (None, None, None));
    assert_eq!(spec.namespaces.user, Some(dir().namespace("user")));
    let mut claims = container();
    claims.security.namespaces.network = Mode::Node;
    assert!(assemble(&pod(), &claims, &image()).unwrap().namespaces.net.is_some());
}

#[test]
fn lists_of_paths_are_taken_as_given() {
    let mut config = container();
    assert!(assemble(&pod(), &config, &image()).unwrap().masked_paths.is_empty(), "empty means none");
    config.security.masked_paths = strings(&["/proc/kcore", "/proc/kcore/", "/sys/firmware"]);
    config.security.readonly_paths = strings(&["/proc/sys"]);
    let spec = assemble(&pod(), &config, &image()).unwrap();
    assert_eq!(spec.masked_paths, [Path::new("/proc/kcore"), Path::new("/sys/firmware")]);
    assert_eq!(spec.readonly_paths, [Path::new("/proc/sys")]);
}

#[test]
fn privileged_lifts_what_confines() {
    let mut pod = pod();
    pod.security.privileged = true;
    let mut config = container();
    config.security.privileged = true;
    config.security.masked_paths = strings(&["/proc/kcore"]);
    config.security.apparmor = Profile::Localhost("x".into());
    validate_container(&config, &pod, &image(), &node()).unwrap();
    let spec = assemble(&pod, &config, &image()).unwrap();
    assert!(spec.masked_paths.is_empty() && !spec.namespaces.new_cgroup);
    assert_eq!((spec.process.capabilities.bounding, spec.process.apparmor), (HELD, None));
    let sys = spec.mounts.iter().find(|mount| mount.target == Path::new("/sys")).unwrap();
    assert_eq!(sys.kind, MountKind::Sysfs { readonly: false });
    assert!(assemble(&self::pod(), &container(), &image()).unwrap().namespaces.new_cgroup);
}

#[test]
fn apparmor_by_node() {
    let without = node();
    let with = NodeFacts { apparmor: true, ..node() };
    for (profile, node, expected) in [
        (Profile::Unconfined, &with, Ok(None)),
        (Profile::RuntimeDefault, &with, Ok(Some("berth-default"))),
        (Profile::RuntimeDefault, &without, Ok(None)),
        (Profile::Localhost("mine".into()), &with, Ok(Some("mine"))),
        (Profile::Localhost("localhost/mine".into()), &with, Ok(Some("mine"))),
        (Profile::Localhost("mine".into()), &without, Err("AppArmor is not enabled")),
        (Profile::Localhost(String::new()), &with, Err("name of a profile")),
        (Profile::Localhost("a\nb".into()), &with, Err("name of a profile")),
    ] {
        let mut config = container();
        config.security.apparmor = profile.clone();
        let got = crate::spec::confine::apparmor(&config.security, node);
        match expected {
            Ok(name) => assert_eq!(got.as_ref().unwrap().as_deref(), name, "{profile:?}"),
            Err(text) => assert!(got.unwrap_err().message().contains(text), "{profile:?}"),
        }
    }
}

fn device(path: &str) -> ResolvedDevice {
    ResolvedDevice {
        container_path: path.into(),
        host_path: "/dev/sda".into(),
        kind: DeviceKind::Block,
        major: 8,
        minor: 0,
        mode: 0o660,
        uid: 0,
        gid: 6,
        access: DeviceAccess::ALL,
    }
}

#[test]
fn devices_are_made_once_and_not_in_the_hosts_dev() {
    let devices = [device("/dev/x"), device("/dev/x"), device("/dev/null"), device("/dev/pts/3"), device("/dev/a/b")];
    let spec = assemble_with(&pod(), &container(), &image(), &devices, (&[], &[])).unwrap();
    let paths: Vec<_> = spec.devices.iter().map(|node| node.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/dev/x", "/dev/a/b"]);
    assert!(spec.devices[0].block && spec.devices[0].mode == 0o660);
    let mut config = container();
    config.mounts =
        vec![berth_model::Mount { container_path: "/dev".into(), host_path: "/dev".into(), ..Default::default() }];
    assert!(assemble_with(&pod(), &config, &image(), &devices, (&[], &[])).unwrap().devices.is_empty());
    config.mounts[0].container_path = "/dev/x".into();
    let nodes = assemble_with(&pod(), &config, &image(), &devices, (&[], &[])).unwrap().devices;
    assert_eq!(nodes.len(), 1, "a mount takes the place of a device: {nodes:?}");
}

#[test]
fn the_root_is_read_only_or_shifted_by_the_requests_word() {
    let mut config = container();
    config.security.read_only_rootfs = true;
    let plain = assemble(&pod(), &config, &image()).unwrap().rootfs;
    assert_eq!((plain.readonly, plain.idmapped, plain.owner), (true, false, None));
    let mapped = assemble(&mapped_pod(), &container(), &image()).unwrap().rootfs;
    assert_eq!((mapped.readonly, mapped.idmapped, mapped.owner), (false, true, Some((100_000, 100_000))));
}
