//! The security contexts of a Pod and of its containers.
use super::reader::Object;
use super::{Common, ContainerSecurity, PodSecurity, Seccomp};

/// Largest user or group id that the API server takes.
const MAX_ID: i64 = i32::MAX as i64;

/// `spec.securityContext`.
pub(super) fn pod(mut o: Object<'_>) -> PodSecurity {
    let groups = o.take("supplementalGroups").map(|value| {
        let read = |v: &serde_json::Value| v.as_i64().filter(|id| (0..=MAX_ID).contains(id)).and_then(narrow);
        let groups = value.as_array().and_then(|list| list.iter().map(read).collect::<Option<Vec<u32>>>());
        if groups.is_none() {
            o.refuse("supplementalGroups", "must be a list of group ids");
        }
        groups.unwrap_or_default()
    });
    let sysctls = o.objects("sysctls", &[], |mut sysctl| {
        let pair = (sysctl.required("name"), sysctl.string("value").unwrap_or_default());
        sysctl.finish();
        pair
    });
    let policies = [("Merge", false), ("Strict", true)];
    let security = PodSecurity {
        common: common(&mut o),
        supplemental_groups: groups.unwrap_or_default(),
        strict_groups: o.word("supplementalGroupsPolicy", &policies).unwrap_or(false),
        sysctls: sysctls.into_iter().collect(),
    };
    o.finish();
    security
}

/// A container's.
pub(super) fn container(mut o: Object<'_>) -> ContainerSecurity {
    let (mut add, mut drop) = (Vec::new(), Vec::new());
    if let Some(mut capabilities) = o.object("capabilities", &[]) {
        (add, drop) = (capabilities.strings("add"), capabilities.strings("drop"));
        capabilities.finish();
    }
    let security = ContainerSecurity {
        common: common(&mut o),
        privileged: o.boolean("privileged").unwrap_or(false),
        allow_privilege_escalation: o.boolean("allowPrivilegeEscalation"),
        read_only_root: o.boolean("readOnlyRootFilesystem").unwrap_or(false),
        add,
        drop,
    };
    let admin = |name: &String| matches!(name.to_ascii_uppercase().as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN");
    let escalates = security.privileged || security.add.iter().any(admin);
    if security.allow_privilege_escalation == Some(false) && escalates {
        o.refuse("allowPrivilegeEscalation", "cannot be false for a container that is privileged or has SYS_ADMIN");
    }
    o.finish();
    security
}

fn common(o: &mut Object<'_>) -> Common {
    let run_as_non_root = o.boolean("runAsNonRoot");
    let (user, group) = (o.integer("runAsUser", 0, MAX_ID), o.integer("runAsGroup", 0, MAX_ID));
    let seccomp = o.object("seccompProfile", &[]).and_then(seccomp);
    Common { run_as_user: user.and_then(narrow), run_as_group: group.and_then(narrow), run_as_non_root, seccomp }
}

fn narrow(id: i64) -> Option<u32> {
    u32::try_from(id).ok()
}

fn seccomp(mut o: Object<'_>) -> Option<Seccomp> {
    let kinds = [("RuntimeDefault", 0), ("Unconfined", 1), ("Localhost", 2)];
    let kind = o.word("type", &kinds);
    if kind.is_none() && o.take("type").is_none() {
        o.refuse("type", "is required");
    }
    let file = o.string("localhostProfile");
    let profile = match (kind, file) {
        (Some(2), Some(file)) => {
            if file.is_empty() || file.starts_with('/') || file.split('/').any(|part| part == "..") {
                o.refuse("localhostProfile", "must be a path below the kubelet's seccomp directory");
            }
            Some(Seccomp::Localhost(file))
        }
        (Some(2), None) => {
            o.refuse("localhostProfile", "is required where type is Localhost");
            None
        }
        (kind, file) => {
            if file.is_some() {
                o.refuse("localhostProfile", "is only possible where type is Localhost");
            }
            match kind {
                Some(0) => Some(Seccomp::RuntimeDefault),
                Some(1) => Some(Seccomp::Unconfined),
                _ => None,
            }
        }
    };
    o.finish();
    profile
}
