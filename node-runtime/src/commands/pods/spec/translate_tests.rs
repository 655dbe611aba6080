//! What a kubelet would send.
use super::super::parse::pods;
use super::*;
use wire::security_profile::ProfileType;

fn facts() -> Facts {
    Facts {
        uid: "u1".into(),
        log_directory: "/logs/default_web_u1".into(),
        empty_dirs: "/empty/u1".into(),
        resolv_conf: "nameserver 10.0.0.1\n".into(),
        node_memory: 4 << 30,
        recursive_read_only: true,
        first_user_id: 1 << 20,
        thermal_paths: vec!["/sys/devices/system/cpu/cpu0/thermal_throttle".into()],
    }
}

fn pod(spec: &str, container: &str) -> Pod {
    let text = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: web, labels: {{app: x}}}}, spec: {{{spec} containers: [{{name: c, image: 'r.io/i:1', {container}}}]}}}}"
    );
    pods("test", &text).unwrap().remove(0)
}

fn image() -> Image {
    Image { id: "sha256:1".into(), uid: Some(0), username: String::new() }
}

fn made(spec: &str, container: &str) -> wire::ContainerConfig {
    let pod = pod(spec, container);
    super::container(&pod, &pod.containers[0], &image(), &facts()).unwrap()
}

#[test]
fn a_sandbox_is_what_a_kubelet_asks_for() {
    let pod = pod(
        "",
        "resources: {limits: {cpu: 500m, memory: 128Mi}}, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81}]",
    );
    let config = sandbox(&pod, &facts());
    let metadata = config.metadata.unwrap();
    assert_eq!((metadata.name.as_str(), metadata.namespace.as_str(), metadata.uid.as_str()), ("web", "default", "u1"));
    assert_eq!((config.hostname.as_str(), config.log_directory.as_str()), ("web", "/logs/default_web_u1"));
    assert_eq!(config.dns_config, Some(wire::DnsConfig::default()), "the node's own");
    assert_eq!(config.port_mappings.len(), 1);
    assert_eq!((config.port_mappings[0].container_port, config.port_mappings[0].host_port), (80, 8080));
    assert_eq!(config.labels["io.kubernetes.pod.uid"], "u1");
    assert_eq!(config.labels["app"], "x");
    let linux = config.linux.unwrap();
    let resources = linux.resources.unwrap();
    assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes), (512, 50_000, 128 << 20));
    let security = linux.security_context.unwrap();
    assert!(!security.privileged);
    assert_eq!(security.seccomp.unwrap().profile_type, ProfileType::RuntimeDefault as i32);
    let namespaces = security.namespace_options.unwrap();
    assert_eq!((namespaces.network, namespaces.pid, namespaces.ipc), (0, wire::NamespaceMode::Container as i32, 0));
}

#[test]
fn a_container_has_limits_and_confinement() {
    let config = made("", "resources: {limits: {cpu: 500m, memory: 128Mi}}");
    let linux = config.linux.unwrap();
    let resources = linux.resources.unwrap();
    assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.cpu_period), (512, 50_000, 100_000));
    assert_eq!((resources.memory_limit_in_bytes, resources.oom_score_adj), (128 << 20, -997));
    let security = linux.security_context.unwrap();
    assert_eq!(security.seccomp.unwrap().profile_type, ProfileType::RuntimeDefault as i32);
    assert_eq!((security.masked_paths.len(), security.readonly_paths.len()), (13, 5));
    assert!(!security.no_new_privs && security.run_as_user.is_none());
    let image = config.image.unwrap();
    assert_eq!((image.image.as_str(), image.user_specified_image.as_str()), ("sha256:1", "r.io/i:1"));
    assert_eq!(config.log_path, "c/0.log");
    assert_eq!(config.annotations[GRACE_PERIOD], "30");
    assert_eq!(config.labels["io.kubernetes.container.name"], "c");
}

#[test]
fn names_are_expanded_in_commands_and_environment() {
    let config = made(
        "",
        "command: [echo, $(A), $(NOPE)], args: ['$$(A)'], env: [{name: A, value: x}, {name: B, value: '$(A)y'}]",
    );
    assert_eq!(config.command, ["echo", "x", "$(NOPE)"]);
    assert_eq!(config.args, ["$(A)"]);
    assert_eq!(config.envs[1].value, b"xy");
}

#[test]
fn mounts_name_their_source() {
    let spec = "hostUsers: false, volumes: [{name: h, hostPath: {path: /data}}, {name: e, emptyDir: {}}],";
    let mounts = "volumeMounts: [{name: h, mountPath: /h, readOnly: true, recursiveReadOnly: IfPossible}, {name: e, mountPath: /e}]";
    let config = made(spec, mounts);
    assert_eq!(config.mounts[0].host_path, "/data");
    assert!(config.mounts[0].readonly && config.mounts[0].recursive_read_only);
    assert_eq!(config.mounts[1].host_path, "/empty/u1/e");
    let mapping = wire::IdMapping { host_id: 1 << 20, container_id: 0, length: 65_536 };
    assert_eq!(config.mounts[1].uid_mappings, [mapping]);
    let options = config.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
    assert_eq!(options.userns_options.unwrap().gids, [mapping]);
}

#[test]
fn a_privileged_container_is_not_confined_and_its_pod_says_so() {
    let pod = pod("", "securityContext: {privileged: true}");
    assert!(sandbox(&pod, &facts()).linux.unwrap().security_context.unwrap().privileged);
    let config = super::container(&pod, &pod.containers[0], &image(), &facts()).unwrap();
    let security = config.linux.unwrap().security_context.unwrap();
    assert!(security.privileged && security.masked_paths.is_empty());
    assert_eq!(security.seccomp.unwrap().profile_type, ProfileType::Unconfined as i32);
}

#[test]
fn users_are_the_pods_the_containers_or_the_images() {
    let security = |spec: &str, container: &str| made(spec, container).linux.unwrap().security_context.unwrap();
    let pods = "securityContext: {runAsUser: 5, seccompProfile: {type: Unconfined}},";
    let own = security(pods, "securityContext: {runAsUser: 6, runAsGroup: 7, allowPrivilegeEscalation: false}");
    assert_eq!((own.run_as_user.unwrap().value, own.run_as_group.unwrap().value), (6, 7));
    assert!(own.no_new_privs);
    assert_eq!(own.seccomp.unwrap().profile_type, ProfileType::Unconfined as i32);
    assert_eq!(security(pods, "tty: false").run_as_user.unwrap().value, 5);
    let group = security("", "securityContext: {runAsGroup: 7}");
    assert_eq!(group.run_as_user.unwrap().value, 0, "a group needs a user beside it: the image's");
}

#[test]
fn root_is_refused_where_it_is_forbidden() {
    let non_root = |more: &str, image: Image| {
        let pod = pod("", &format!("securityContext: {{runAsNonRoot: true{more}}}"));
        super::container(&pod, &pod.containers[0], &image, &facts()).map(drop)
    };
    let named = Image { uid: None, username: "www".into(), ..image() };
    assert!(
        non_root("", image()).unwrap_err().starts_with("container c: runAsNonRoot is true and the image runs as root")
    );
    assert!(non_root(", runAsUser: 0", image()).is_err());
    assert!(non_root("", named.clone()).unwrap_err().contains("set runAsUser to a number"));
    assert!(non_root(", runAsUser: 9", named).is_ok());
    assert!(non_root("", Image { uid: Some(9), ..image() }).is_ok());
}
