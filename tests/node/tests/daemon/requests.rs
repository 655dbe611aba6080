//! Requests as a kubelet would send them, small: tests change the fields that they are about.
use super::Node;
use berth_node_tests::unique;
use berth_proto::cri::*;

/// A sandbox with this name, in the namespace `default`.
pub fn pod(node: &Node, name: &str) -> PodSandboxConfig {
    let log_directory = node.base().join("logs").join(name);
    std::fs::create_dir_all(&log_directory).unwrap();
    let metadata =
        PodSandboxMetadata { name: name.into(), uid: unique("uid-"), namespace: "default".into(), attempt: 0 };
    PodSandboxConfig {
        metadata: Some(metadata),
        hostname: name.into(),
        log_directory: log_directory.to_string_lossy().into_owned(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The sandbox's security context, to change.
pub fn pod_security(config: &mut PodSandboxConfig) -> &mut LinuxSandboxSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// A container of the image `tools:v1` that runs this command, with a log, in a pid namespace of its own.
pub fn container(node: &Node, name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: node.tools(), ..Default::default() }),
        command: command.iter().map(|c| (*c).to_owned()).collect(),
        log_path: format!("{name}.log"),
        labels: [("container".to_owned(), name.to_owned())].into(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container as i32, ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The same, for a shell script.
pub fn shell(node: &Node, name: &str, script: &str) -> ContainerConfig {
    container(node, name, &["sh", "-c", script])
}

/// The container's security context, to change.
pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The container's limits, to change.
pub fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

/// A bind mount.
pub fn bind(host: impl AsRef<std::path::Path>, target: &str) -> Mount {
    Mount {
        host_path: host.as_ref().to_string_lossy().into_owned(),
        container_path: target.into(),
        ..Default::default()
    }
}

/// `Int64Value`.
pub fn int64(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}
