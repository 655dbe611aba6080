//! Security contexts.
use super::{bounded, enumeration, id};
use berth_model::{
    Error, IdMapping, NamespaceMode, NamespaceOptions, Profile, Result, RunAs, SecurityContext, SelinuxOptions,
    SupplementalGroupsPolicy,
};
use berth_proto::cri as wire;

/// Decodes a sandbox's.
pub(crate) fn sandbox(context: wire::LinuxSandboxSecurityContext) -> Result<SecurityContext> {
    let at = |name: &str| format!("config.linux.security_context.{name}");
    Ok(SecurityContext {
        privileged: context.privileged,
        namespaces: namespaces(&at("namespace_options"), context.namespace_options.unwrap_or_default())?,
        selinux: selinux(context.selinux_options),
        run_as: run_as(&at(""), context.run_as_user, String::new(), context.run_as_group)?,
        supplemental_groups: groups(&at("supplemental_groups"), &context.supplemental_groups)?,
        groups_policy: policy(&at("supplemental_groups_policy"), context.supplemental_groups_policy)?,
        read_only_rootfs: context.readonly_rootfs,
        seccomp: profile(&at("seccomp"), context.seccomp, &context.seccomp_profile_path)?,
        apparmor: profile(&at("apparmor"), context.apparmor, "")?,
        ..SecurityContext::default()
    })
}

/// Decodes a container's.
pub(crate) fn container(context: wire::LinuxContainerSecurityContext) -> Result<SecurityContext> {
    let at = |name: &str| format!("config.linux.security_context.{name}");
    let capabilities = context.capabilities.unwrap_or_default();
    let names = |list: Vec<String>| list.into_iter().map(capability).collect();
    Ok(SecurityContext {
        privileged: context.privileged,
        namespaces: namespaces(&at("namespace_options"), context.namespace_options.unwrap_or_default())?,
        selinux: selinux(context.selinux_options),
        run_as: run_as(&at(""), context.run_as_user, context.run_as_username, context.run_as_group)?,
        supplemental_groups: groups(&at("supplemental_groups"), &context.supplemental_groups)?,
        groups_policy: policy(&at("supplemental_groups_policy"), context.supplemental_groups_policy)?,
        read_only_rootfs: context.readonly_rootfs,
        no_new_privs: context.no_new_privs,
        add_capabilities: names(capabilities.add_capabilities),
        drop_capabilities: names(capabilities.drop_capabilities),
        add_ambient_capabilities: names(capabilities.add_ambient_capabilities),
        seccomp: profile(&at("seccomp"), context.seccomp, &context.seccomp_profile_path)?,
        apparmor: apparmor(&at("apparmor"), context.apparmor, &context.apparmor_profile)?,
        masked_paths: context.masked_paths,
        readonly_paths: context.readonly_paths,
    })
}

/// Any case, with or without `CAP_`.
fn capability(name: String) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

fn mode(field: &str, number: i32) -> Result<NamespaceMode> {
    Ok(match enumeration(field, number)? {
        wire::NamespaceMode::Pod => NamespaceMode::Pod,
        wire::NamespaceMode::Container => NamespaceMode::Container,
        wire::NamespaceMode::Node => NamespaceMode::Node,
        wire::NamespaceMode::Target => NamespaceMode::Target,
    })
}

fn namespaces(field: &str, options: wire::NamespaceOption) -> Result<NamespaceOptions> {
    let named = |name: &str, number: i32, allowed: &[NamespaceMode]| {
        let field = format!("{field}.{name}");
        let mode = mode(&field, number)?;
        if allowed.contains(&mode) { Ok(mode) } else { Err(Error::invalid(field, format!("{mode:?} is not possible"))) }
    };
    let shared = [NamespaceMode::Pod, NamespaceMode::Node];
    let any = [NamespaceMode::Pod, NamespaceMode::Container, NamespaceMode::Node, NamespaceMode::Target];
    Ok(NamespaceOptions {
        network: named("network", options.network, &shared)?,
        pid: named("pid", options.pid, &any)?,
        ipc: named("ipc", options.ipc, &shared)?,
        target: options.target_id,
        user: user_namespace(&format!("{field}.userns_options"), options.userns_options)?,
    })
}

/// One range of users and one of groups, root mapped; NODE and nothing mean none.
fn user_namespace(field: &str, options: Option<wire::UserNamespace>) -> Result<Option<(IdMapping, IdMapping)>> {
    let Some(options) = options else { return Ok(None) };
    match mode(&format!("{field}.mode"), options.mode)? {
        NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => return Ok(None),
        NamespaceMode::Node => return Err(Error::invalid(field, "mode NODE takes no mappings")),
        NamespaceMode::Pod => {}
        other => return Err(Error::invalid(format!("{field}.mode"), format!("{other:?} is not possible"))),
    }
    let one = |name: &str, list: &[wire::IdMapping]| match mappings(list)[..] {
        [only] if only.container == 0 && only.length > 0 && only.host.checked_add(only.length).is_some() => Ok(only),
        [_] => Err(Error::invalid(format!("{field}.{name}"), "must map id 0 to a range that fits into 32 bits")),
        _ => Err(Error::invalid(format!("{field}.{name}"), format!("must be one mapping, not {}", list.len()))),
    };
    Ok(Some((one("uids", &options.uids)?, one("gids", &options.gids)?)))
}

pub(super) fn mappings(list: &[wire::IdMapping]) -> Vec<IdMapping> {
    list.iter().map(|m| IdMapping { container: m.container_id, host: m.host_id, length: m.length }).collect()
}

fn selinux(options: Option<wire::SeLinuxOption>) -> SelinuxOptions {
    let o = options.unwrap_or_default();
    SelinuxOptions { user: o.user, role: o.role, kind: o.r#type, level: o.level }
}

fn run_as(at: &str, user: Option<wire::Int64Value>, name: String, group: Option<wire::Int64Value>) -> Result<RunAs> {
    let gid = group.map(|g| id(&format!("{at}run_as_group"), g.value)).transpose()?;
    match (user, name) {
        (Some(user), _) => Ok(RunAs::Uid { uid: id(&format!("{at}run_as_user"), user.value)?, gid }),
        (None, name) if !name.is_empty() => {
            Ok(RunAs::Name { name: bounded(&format!("{at}run_as_username"), name)?, gid })
        }
        (None, _) if gid.is_some() => {
            let problem = "needs run_as_user or run_as_username beside it";
            Err(Error::invalid(format!("{at}run_as_group"), problem))
        }
        _ => Ok(RunAs::Image),
    }
}

fn groups(field: &str, list: &[i64]) -> Result<Vec<u32>> {
    list.iter().map(|g| id(field, *g)).collect()
}

fn policy(field: &str, number: i32) -> Result<SupplementalGroupsPolicy> {
    Ok(match enumeration(field, number)? {
        wire::SupplementalGroupsPolicy::Merge => SupplementalGroupsPolicy::Merge,
        wire::SupplementalGroupsPolicy::Strict => SupplementalGroupsPolicy::Strict,
    })
}

/// As [`profile`], but nothing at all is the runtime's default: the kubelet promises it to pods that say nothing, and the peers
/// apply it (KEP-24). Where AppArmor is off that means nothing.
fn apparmor(field: &str, structured: Option<wire::SecurityProfile>, deprecated: &str) -> Result<Profile> {
    match structured {
        None if deprecated.is_empty() => Ok(Profile::RuntimeDefault),
        other => profile(field, other, deprecated),
    }
}

/// The structured field wins over the deprecated text; nothing at all is unconfined (cri-contract 2.3).
fn profile(field: &str, profile: Option<wire::SecurityProfile>, deprecated: &str) -> Result<Profile> {
    let Some(profile) = profile else { return deprecated_profile(field, deprecated) };
    Ok(match enumeration(&format!("{field}.profile_type"), profile.profile_type)? {
        wire::security_profile::ProfileType::RuntimeDefault => Profile::RuntimeDefault,
        wire::security_profile::ProfileType::Unconfined => Profile::Unconfined,
        wire::security_profile::ProfileType::Localhost => localhost(field, &profile.localhost_ref)?,
    })
}

fn deprecated_profile(field: &str, text: &str) -> Result<Profile> {
    match text {
        "" | "unconfined" => Ok(Profile::Unconfined),
        "runtime/default" | "docker/default" => Ok(Profile::RuntimeDefault),
        text if text.starts_with("localhost/") => localhost(field, text),
        other => {
            Err(Error::invalid(field, format!("{other:?} is neither runtime/default, unconfined nor localhost/...")))
        }
    }
}

/// With and without the prefix `localhost/`.
fn localhost(field: &str, reference: &str) -> Result<Profile> {
    let name = reference.strip_prefix("localhost/").unwrap_or(reference);
    if name.is_empty() {
        return Err(Error::invalid(format!("{field}.localhost_ref"), "must not be empty"));
    }
    Ok(Profile::Localhost(bounded(field, name.to_owned())?))
}
