//! CreateContainer: one row per rule.
use super::*;
use crate::spec::validate_container;
use berth_model::{
    Device, ErrorKind, ImageMount, Mount, NamespaceMode as Mode, Profile, Propagation, RunAs, SelinuxOptions,
    StopSignal,
};

type Change = fn(&mut ContainerConfig);

fn mount(c: &mut ContainerConfig) -> &mut Mount {
    c.mounts = vec![Mount { container_path: "/x".into(), host_path: "/h".into(), ..Mount::default() }];
    &mut c.mounts[0]
}

fn image_mount(c: &mut ContainerConfig) -> &mut Mount {
    let image = Some(ImageMount { image: "x".into(), ..ImageMount::default() });
    c.mounts = vec![Mount { container_path: "/x".into(), readonly: true, image, ..Mount::default() }];
    &mut c.mounts[0]
}

fn device(c: &mut ContainerConfig) -> &mut Device {
    c.devices =
        vec![Device { container_path: "/dev/x".into(), host_path: "/dev/null".into(), permissions: "rw".into() }];
    &mut c.devices[0]
}

fn check(pod: &PodConfig, rows: &[(&str, ErrorKind, Change)]) {
    for (expected, kind, change) in rows {
        let mut config = container();
        change(&mut config);
        let error = validate_container(&config, pod, &image(), &node()).expect_err(expected);
        assert!(error.message().contains(expected), "{expected}: {error}");
        assert_eq!(error.kind(), *kind, "{error}");
    }
}

use ErrorKind::InvalidArgument as Bad;

#[test]
fn names_environment_and_signals() {
    check(
        &pod(),
        &[
            ("metadata.name", Bad, |c| c.metadata.name.clear()),
            ("log_path", Bad, |c| c.log_path = "/abs".into()),
            ("log_path", Bad, |c| c.log_path = "../x".into()),
            ("envs[0].key", Bad, |c| c.env = vec![(String::new(), vec![])]),
            ("envs[0].key", Bad, |c| c.env = vec![("A=B".into(), vec![])]),
            ("envs[0].key", Bad, |c| c.env = vec![("A\0".into(), vec![])]),
            ("envs[1] (B)", Bad, |c| c.env = vec![("A".into(), vec![]), ("B".into(), vec![0])]),
            ("envs[0] (A)", Bad, |c| c.env = vec![("A".into(), vec![b'x'; 131_072])]),
            ("envs: ", Bad, |c| c.env = (0..20).map(|i| (format!("A{i}"), vec![b'x'; 120_000])).collect()),
            ("args[1]", Bad, |c| c.args = vec!["a\0b".into()]),
            ("working_dir", Bad, |c| c.working_dir = "relative".into()),
            ("stop_signal", Bad, |c| c.stop_signal = Some(StopSignal(65))),
            ("stop_signal", Bad, |c| c.stop_signal = Some(StopSignal(0))),
            ("oom_score_adj", Bad, |c| c.resources.oom_score_adj = Some(1001)),
        ],
    );
    let empty = ImageConfig::default();
    let error = validate_container(&container(), &pod(), &empty, &node()).unwrap_err();
    assert!(error.message().contains("no command specified"), "{error}");
}

#[test]
fn mounts() {
    check(
        &pod(),
        &[
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = "x".into()),
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = "/".into()),
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = "//.".into()),
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = "/a/../b".into()),
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = "/a\0".into()),
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = "/proc/self".into()),
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = "/proc".into()),
            ("mounts[0].container_path", Bad, |c| mount(c).container_path = format!("/{}", "a".repeat(5000))),
            ("mounts[0].host_path", Bad, |c| mount(c).host_path.clear()),
            ("mounts[0].host_path", Bad, |c| mount(c).host_path = "h".into()),
            ("mounts[0].uid_mappings", Bad, |c| mount(c).uid_mappings = vec![MAP]),
            ("mounts: 5000 entries", Bad, |c| c.mounts = vec![Mount::default(); 5000]),
            ("RROUnsupported: mounts[0]", Bad, |c| mount(c).recursive_read_only = true),
            ("RROUnsupported: mounts[0]", Bad, |c| {
                *mount(c) = Mount {
                    readonly: true,
                    recursive_read_only: true,
                    propagation: Propagation::Bidirectional,
                    ..mount(c).clone()
                };
            }),
            ("RROUnsupported: mounts[0]", Bad, |c| {
                *mount(c) = Mount {
                    readonly: true,
                    recursive_read_only: true,
                    propagation: Propagation::HostToContainer,
                    ..mount(c).clone()
                };
            }),
            ("ImageVolumeMountFailed: mounts[0]", Bad, |c| image_mount(c).readonly = false),
            ("ImageVolumeMountFailed: mounts[0]", Bad, |c| image_mount(c).host_path = "/h".into()),
            ("ImageVolumeMountFailed: mounts[0]", Bad, |c| image_mount(c).propagation = Propagation::Bidirectional),
            ("mounts[0].image_sub_path", Bad, |c| image_mount(c).image.as_mut().unwrap().sub_path = "../x".into()),
        ],
    );
    let mut config = container();
    *mount(&mut config) = Mount { readonly: true, recursive_read_only: true, ..mount(&mut config.clone()).clone() };
    validate_container(&config, &pod(), &image(), &node()).unwrap();
    let old = NodeFacts { kernel: (5, 10), ..node() };
    let error = validate_container(&config, &pod(), &image(), &old).unwrap_err();
    assert!(error.message().starts_with("RROUnsupported") && error.kind() == ErrorKind::FailedPrecondition, "{error}");
}

#[test]
fn mappings_of_mounts_are_the_pods() {
    check(
        &mapped_pod(),
        &[
            ("mounts[0].uid_mappings", Bad, |c| mount(c).uid_mappings = vec![IdMapping { host: 5, ..MAP }]),
            ("mounts[0].gid_mappings", Bad, |c| {
                let m = mount(c);
                (m.uid_mappings, m.gid_mappings) = (vec![MAP], vec![MAP, MAP]);
            }),
            ("mounts[0]: uid_mappings and", Bad, |c| mount(c).uid_mappings = vec![MAP]),
            ("run_as_user", Bad, |c| c.security.run_as = RunAs::Uid { uid: 65_536, gid: None }),
            ("supplemental_groups[1]", Bad, |c| c.security.supplemental_groups = vec![1, 70_000]),
            ("options.pid", Bad, |c| c.security.namespaces.pid = Mode::Node),
        ],
    );
}

#[test]
fn devices_and_security() {
    check(
        &pod(),
        &[
            ("devices[0].container_path", Bad, |c| device(c).container_path = "/etc/x".into()),
            ("devices[0].container_path", Bad, |c| device(c).container_path = "/dev/../etc".into()),
            ("devices[0].container_path", Bad, |c| device(c).container_path = "/dev".into()),
            ("devices[0].host_path", Bad, |c| device(c).host_path.clear()),
            ("privileged", Bad, |c| c.security.privileged = true),
            ("add_capabilities[0]", Bad, |c| c.security.add_capabilities = vec!["NOPE".into()]),
            ("SYS_RESOURCE", ErrorKind::FailedPrecondition, |c| {
                c.security.add_capabilities = vec!["SYS_RESOURCE".into()]
            }),
            ("apparmor", ErrorKind::FailedPrecondition, |c| c.security.apparmor = Profile::Localhost("x".into())),
            ("seccomp.localhost_ref", Bad, |c| c.security.seccomp = Profile::Localhost("a/../../x".into())),
            ("seccomp.localhost_ref", Bad, |c| c.security.seccomp = Profile::Localhost(String::new())),
            ("masked_paths[0]", Bad, |c| c.security.masked_paths = vec!["proc".into()]),
            ("readonly_paths[0]", Bad, |c| c.security.readonly_paths = vec!["/proc/..".into()]),
            ("target_id", Bad, |c| c.security.namespaces.pid = Mode::Target),
            ("run_as_user", Bad, |c| c.security.run_as = RunAs::Uid { uid: u32::MAX, gid: None }),
            ("run_as_group", Bad, |c| c.security.run_as = RunAs::Uid { uid: 1, gid: Some(u32::MAX) }),
            ("run_as_username", Bad, |c| c.security.run_as = RunAs::Name { name: "a:b".into(), gid: None }),
            ("run_as_username", Bad, |c| c.security.run_as = RunAs::Name { name: String::new(), gid: None }),
            ("selinux_options", Bad, |c| c.security.selinux.level = "s0\n".into()),
        ],
    );
}

#[test]
fn selinux_options_count_only_where_selinux_is_on() {
    let mut config = container();
    config.security.selinux.level = "s0:c1,c2".into();
    validate_container(&config, &pod(), &image(), &node()).unwrap();
    let unknown = NodeFacts { selinux: true, ..node() };
    let refused = validate_container(&config, &pod(), &image(), &unknown).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::FailedPrecondition);
    let contexts = crate::spec::ContainerContexts {
        process: crate::spec::Context::parse("system_u:system_r:container_t:s0").unwrap(),
        file: crate::spec::Context::parse("system_u:object_r:container_file_t:s0").unwrap(),
    };
    let known = NodeFacts { selinux_contexts: Some(contexts), ..unknown };
    let labels = |config: &ContainerConfig, level: &str| crate::spec::selinux_labels(&config.security, level, &known);
    let own = labels(&config, "s0:c8,c9").unwrap().unwrap();
    assert_eq!(own.process, "system_u:system_r:container_t:s0:c1,c2");
    assert_eq!(own.file, "system_u:object_r:container_file_t:s0:c1,c2");
    config.security.selinux =
        SelinuxOptions { kind: "spc_t".into(), user: "user_u".into(), ..SelinuxOptions::default() };
    let own = labels(&config, "s0:c8,c9").unwrap().unwrap();
    assert_eq!(own.process, "user_u:system_r:spc_t:s0:c8,c9");
    assert_eq!(own.file, "user_u:object_r:container_file_t:s0:c8,c9");
    config.security.privileged = true;
    assert_eq!(labels(&config, "s0:c8,c9"), Ok(None));
}

#[test]
fn what_the_kubelet_and_critest_send_is_taken() {
    let mut config = container();
    config.log_path = "app/0.log".into();
    config.security.seccomp = Profile::Localhost("/var/lib/kubelet/seccomp/p.json".into());
    config.security.apparmor = Profile::RuntimeDefault;
    config.security.drop_capabilities = strings(&["ALL"]);
    config.stop_signal = Some(StopSignal(64));
    config.resources.oom_score_adj = Some(1000);
    for path in [
        "/etc/hosts",
        "/dev/termination-log",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "/proc/cpuinfo",
        "/dev/shm",
    ] {
        config.mounts.push(Mount { container_path: path.into(), host_path: "/h".into(), ..Mount::default() });
    }
    validate_container(&config, &pod(), &image(), &node()).unwrap();
    image_mount(&mut config);
    validate_container(&config, &pod(), &image(), &node()).unwrap();
}
