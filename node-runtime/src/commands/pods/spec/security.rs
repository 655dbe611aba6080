//! Security contexts of a Pod as the CRI takes them, with a kubelet's defaults (`pkg/kubelet/kuberuntime/security_context.go`,
//! `pkg/securitycontext/util.go`; seccomp as with `seccompDefault: true`).
use super::translate::Facts;
use super::{Common, Container, Pod, Seccomp};
use berth_proto::cri as wire;
use wire::security_profile::ProfileType;

/// Hidden from containers that are not privileged; the node's thermal throttling files come on top.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Read-only in containers that are not privileged.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Ids of a user namespace, as many as a kubelet gives.
const USER_RANGE: u32 = 65_536;

/// An image on the node, as far as a container's user depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    /// The image's user by number.
    pub uid: Option<i64>,
    /// The image's user by name.
    pub username: String,
}

/// Whose namespaces.
pub(super) fn namespaces(pod: &Pod, facts: &Facts) -> wire::NamespaceOption {
    let node_or = |node: bool, other: wire::NamespaceMode| if node { wire::NamespaceMode::Node } else { other } as i32;
    let own_pid = match pod.share_process_namespace {
        true => wire::NamespaceMode::Pod,
        false => wire::NamespaceMode::Container,
    };
    let mapping = id_mappings(pod, facts);
    wire::NamespaceOption {
        network: node_or(pod.host_network, wire::NamespaceMode::Pod),
        pid: node_or(pod.host_pid, own_pid),
        ipc: node_or(pod.host_ipc, wire::NamespaceMode::Pod),
        target_id: String::new(),
        userns_options: (!pod.host_users).then(|| wire::UserNamespace {
            mode: wire::NamespaceMode::Pod as i32,
            uids: mapping.clone(),
            gids: mapping,
        }),
    }
}

/// The one range of ids of a pod with a user namespace.
pub(super) fn id_mappings(pod: &Pod, facts: &Facts) -> Vec<wire::IdMapping> {
    if pod.host_users {
        return Vec::new();
    }
    vec![wire::IdMapping { host_id: facts.first_user_id, container_id: 0, length: USER_RANGE }]
}

/// The pod's.
pub(super) fn sandbox(pod: &Pod, facts: &Facts) -> wire::LinuxSandboxSecurityContext {
    let common = &pod.security.common;
    wire::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, facts)),
        // The CRI takes a group only beside a user.
        run_as_group: common.run_as_user.and(common.run_as_group).map(id),
        run_as_user: common.run_as_user.map(id),
        supplemental_groups: pod.security.supplemental_groups.iter().map(|g| i64::from(*g)).collect(),
        supplemental_groups_policy: groups_policy(pod),
        privileged: privileged(pod),
        seccomp: Some(profile(common.seccomp.as_ref())),
        ..Default::default()
    }
}

/// Whether any container of the pod is privileged: then the sandbox is.
pub(super) fn privileged(pod: &Pod) -> bool {
    pod.containers.iter().any(|c| c.security.privileged)
}

fn groups_policy(pod: &Pod) -> i32 {
    let policy = match pod.security.strict_groups {
        true => wire::SupplementalGroupsPolicy::Strict,
        false => wire::SupplementalGroupsPolicy::Merge,
    };
    policy as i32
}

/// A container's. Errors: a user who is root where `runAsNonRoot` forbids it, or who cannot be told from root.
pub(super) fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    facts: &Facts,
) -> Result<wire::LinuxContainerSecurityContext, String> {
    let own = &container.security;
    let common = merged(&pod.security.common, &own.common);
    check_non_root(&common, image)?;
    let masked = || MASKED.iter().map(|p| (*p).to_owned()).chain(facts.thermal_paths.iter().cloned()).collect();
    let read_only = || READ_ONLY.iter().map(|p| (*p).to_owned()).collect();
    let (run_as_user, run_as_username) = user(&common, image);
    Ok(wire::LinuxContainerSecurityContext {
        capabilities: Some(wire::Capability {
            add_capabilities: own.add.clone(),
            drop_capabilities: own.drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged: own.privileged,
        namespace_options: Some(namespaces(pod, facts)),
        run_as_user,
        run_as_username,
        run_as_group: common.run_as_group.map(id),
        readonly_rootfs: own.read_only_root,
        supplemental_groups: pod.security.supplemental_groups.iter().map(|g| i64::from(*g)).collect(),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: if own.privileged { Vec::new() } else { masked() },
        readonly_paths: if own.privileged { Vec::new() } else { read_only() },
        seccomp: Some(if own.privileged {
            profile(Some(&Seccomp::Unconfined))
        } else {
            profile(common.seccomp.as_ref())
        }),
        ..Default::default()
    })
}

/// The container's word, else the pod's.
fn merged(pod: &Common, container: &Common) -> Common {
    Common {
        run_as_user: container.run_as_user.or(pod.run_as_user),
        run_as_group: container.run_as_group.or(pod.run_as_group),
        run_as_non_root: container.run_as_non_root.or(pod.run_as_non_root),
        seccomp: container.seccomp.clone().or_else(|| pod.seccomp.clone()),
    }
}

/// Nothing leaves the image's own user and group; a group alone needs the image's user beside it.
fn user(common: &Common, image: &Image) -> (Option<wire::Int64Value>, String) {
    match (common.run_as_user, common.run_as_group) {
        (Some(uid), _) => (Some(id(uid)), String::new()),
        (None, None) => (None, String::new()),
        (None, Some(_)) if image.username.is_empty() => {
            (Some(wire::Int64Value { value: image.uid.unwrap_or(0) }), String::new())
        }
        (None, Some(_)) => (None, image.username.clone()),
    }
}

fn check_non_root(common: &Common, image: &Image) -> Result<(), String> {
    if common.run_as_non_root != Some(true) {
        return Ok(());
    }
    match (common.run_as_user, image.uid, image.username.as_str()) {
        (Some(0), ..) => Err("runAsNonRoot is true and runAsUser is 0".to_owned()),
        (Some(_), ..) => Ok(()),
        (None, _, name) if !name.is_empty() => Err(format!(
            "runAsNonRoot is true and the image's user is the name {name:?}, which may be root; set runAsUser to a number"
        )),
        (None, Some(uid), _) if uid != 0 => Ok(()),
        _ => Err("runAsNonRoot is true and the image runs as root; set runAsUser".to_owned()),
    }
}

fn id(id: u32) -> wire::Int64Value {
    wire::Int64Value { value: i64::from(id) }
}

fn profile(seccomp: Option<&Seccomp>) -> wire::SecurityProfile {
    let (kind, localhost_ref) = match seccomp {
        None | Some(Seccomp::RuntimeDefault) => (ProfileType::RuntimeDefault, String::new()),
        Some(Seccomp::Unconfined) => (ProfileType::Unconfined, String::new()),
        Some(Seccomp::Localhost(file)) => (ProfileType::Localhost, file.clone()),
    };
    wire::SecurityProfile { profile_type: kind as i32, localhost_ref }
}
