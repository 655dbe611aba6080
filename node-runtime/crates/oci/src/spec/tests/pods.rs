//! RunPodSandbox.
use super::*;
use crate::spec::{SandboxInputs, sandbox_spec, validate_pod};
use berth_model::{ErrorKind, NamespaceMode as Mode, PortMapping, Protocol};

fn spec(pod: &PodConfig) -> Result<berth_monitor_api::spec::SandboxSpec> {
    sandbox_spec(&SandboxInputs { pod, dir: &dir(), file_label: None, init_cgroup: Some(CgroupJoin::Moved) })
}

#[test]
fn an_ordinary_pod() {
    let mut pod = pod();
    pod.security.namespaces.pid = Mode::Container;
    validate_pod(&pod, &node()).unwrap();
    let spec = spec(&pod).unwrap();
    assert_eq!(
        (spec.net, spec.ipc, spec.uts),
        (Some(dir().namespace("net")), Some(dir().namespace("ipc")), Some(dir().namespace("uts")))
    );
    assert_eq!((spec.hostname.as_str(), spec.pid_init, spec.user), ("web", None, None));
    let shm = spec.shm.unwrap();
    assert_eq!((shm.path, shm.size), (dir().shm(), 64 << 20));
    assert_eq!(spec.sysctls.len(), 2);
}

#[test]
fn on_the_nodes_namespaces_nothing_is_made() {
    let mut pod = pod();
    pod.security.namespaces.network = Mode::Node;
    pod.security.namespaces.ipc = Mode::Node;
    pod.security.namespaces.pid = Mode::Node;
    validate_pod(&pod, &node()).unwrap();
    assert_eq!(spec(&pod).unwrap(), Default::default());
}

#[test]
fn a_shared_pid_namespace_has_an_init_in_a_cgroup() {
    let made = spec(&pod()).unwrap().pid_init.unwrap();
    assert_eq!((made.cgroup, made.oom_score_adj), (CgroupJoin::Moved, -998));
    assert!(sandbox_spec(&SandboxInputs { pod: &pod(), dir: &dir(), file_label: None, init_cgroup: None }).is_err());
}

#[test]
fn a_user_namespace_is_made_with_its_mapping() {
    let pod = mapped_pod();
    validate_pod(&pod, &node()).unwrap();
    let user = spec(&pod).unwrap().user.unwrap();
    assert_eq!((user.path, user.uid, user.gid), (dir().namespace("user"), MAP, MAP));
}

#[test]
fn refusals_name_the_field() {
    type Change = fn(&mut PodConfig);
    let changes: [(&str, Change); 21] = [
        ("metadata.name", |p| p.metadata.name.clear()),
        ("metadata.name", |p| p.metadata.name = "a/b".into()),
        ("metadata.namespace", |p| p.metadata.namespace.clear()),
        ("metadata.uid", |p| p.metadata.uid = "x\n".into()),
        ("runtime_handler", |p| p.handler = "kata".into()),
        ("hostname", |p| p.hostname = "h".repeat(65)),
        ("hostname", |p| p.hostname = "a b".into()),
        ("log_directory", |p| p.log_directory = "logs".into()),
        ("log_directory", |p| p.log_directory = "/logs/../x".into()),
        ("dns_config.servers[0]", |p| p.dns.servers = vec!["1.1.1.1\nnameserver 2.2.2.2".into()]),
        ("dns_config.searches[0]", |p| p.dns.searches = vec![String::new()]),
        ("linux.cgroup_parent", |p| p.cgroup_parent = "/a/../b".into()),
        ("port_mappings[0]", |p| {
            p.ports = vec![PortMapping { protocol: Protocol::Tcp, container_port: 0, host_port: 80, host_ip: None }];
        }),
        ("options.network", |p| p.security.namespaces.network = Mode::Container),
        ("options.ipc", |p| p.security.namespaces.ipc = Mode::Target),
        ("options.pid", |p| p.security.namespaces.pid = Mode::Target),
        ("userns_options.uids", |p| p.security.namespaces.user = Some((IdMapping { container: 1, ..MAP }, MAP))),
        ("userns_options.gids", |p| p.security.namespaces.user = Some((MAP, IdMapping { length: 0, ..MAP }))),
        ("userns_options.uids", |p| p.security.namespaces.user = Some((IdMapping { host: u32::MAX, ..MAP }, MAP))),
        ("linux.sysctls[vm.swappiness]", |p| drop(p.sysctls.insert("vm.swappiness".into(), "1".into()))),
        ("options.pid", |p| {
            p.security.namespaces.user = Some((MAP, MAP));
            p.security.namespaces.pid = Mode::Node;
        }),
    ];
    for (field, change) in changes {
        let mut pod = pod();
        change(&mut pod);
        let error = validate_pod(&pod, &node()).expect_err(field);
        assert!(error.message().contains(field), "{field}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[test]
fn what_the_kubelet_and_critest_send_is_taken() {
    for parent in
        ["", "/kubepods/burstable/pod1-2-3", "/kubepods.slice/kubepods-pod1_2.slice", "/test.slice", "kubepods"]
    {
        validate_pod(&PodConfig { cgroup_parent: parent.into(), ..pod() }, &node()).unwrap();
    }
    validate_pod(&PodConfig { hostname: String::new(), ..pod() }, &node()).unwrap();
    validate_pod(&PodConfig { log_directory: "/var/log/pods/ns_web_u-1".into(), ..pod() }, &node()).unwrap();
}

#[test]
fn a_node_without_idmapped_mounts_says_so() {
    let error = validate_pod(&mapped_pod(), &NodeFacts { user_namespaces: false, ..node() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.message().contains("userns_options"), "{error}");
}
