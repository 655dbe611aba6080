//! CreateContainer: all that must be refused, by the name of its field.
use super::facts::NodeFacts;
use super::selinux::selinux_labels;
use super::{args, capabilities, confine, container, mounts, paths, process};
use crate::signal;
use berth_model::{
    ContainerConfig, Device, Error, ErrorKind, IdMapping, ImageConfig, Mount, NamespaceMode, PodConfig, Profile,
    Propagation, Result, RunAs, SecurityContext,
};
use std::path::Path;

/// Most entries of one list in a request: far above what pods have, and a bound on the work for a hostile one.
const MAX_LIST: usize = 4096;
/// Most supplementary groups (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;
/// Longest user name that is looked up, in bytes.
const MAX_USER: usize = 256;
/// Refuses what could not start. Errors: `InvalidArgument` naming the field, `FailedPrecondition` for what this node cannot
/// do; a recursive read-only mount that is not possible starts with `RROUnsupported`.
pub fn validate_container(
    config: &ContainerConfig,
    pod: &PodConfig,
    image: &ImageConfig,
    node: &NodeFacts,
) -> Result<()> {
    paths::name("metadata.name", &config.metadata.name, 253)?;
    paths::relative("log_path", &config.log_path)?;
    lists(config)?;
    args::arguments(config, image)?;
    args::environment(config, pod, image, node)?;
    process::working_dir(config, image)?;
    for (i, mount) in config.mounts.iter().enumerate() {
        self::mount(&format!("mounts[{i}]"), mount, pod, node)?;
    }
    mounts::image_volumes(config, image)?;
    for (i, device) in config.devices.iter().enumerate() {
        self::device(&format!("devices[{i}]"), device)?;
    }
    if let Some(signal) = config.stop_signal.filter(|signal| !(1..=signal::MAX).contains(&signal.0)) {
        return Err(Error::invalid("stop_signal", format_args!("{} is not a signal", signal.0)));
    }
    if let Some(score) = config.resources.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
        return Err(Error::invalid(
            "linux.resources.oom_score_adj",
            format_args!("{score} must be from -1000 to 1000"),
        ));
    }
    security(&config.security, pod, node)
}

fn lists(config: &ContainerConfig) -> Result<()> {
    let security = &config.security;
    for (field, length) in [
        ("mounts", config.mounts.len()),
        ("devices", config.devices.len()),
        ("linux.security_context.masked_paths", security.masked_paths.len()),
        ("linux.security_context.readonly_paths", security.readonly_paths.len()),
        ("linux.security_context.capabilities", security.add_capabilities.len() + security.drop_capabilities.len()),
    ] {
        if length > MAX_LIST {
            return Err(Error::invalid(field, format_args!("{length} entries are more than the limit of {MAX_LIST}")));
        }
    }
    Ok(())
}

fn mount(field: &str, mount: &Mount, pod: &PodConfig, node: &NodeFacts) -> Result<()> {
    let path_field = format!("{field}.container_path");
    let target = paths::absolute(&path_field, &mount.container_path)?;
    if target == Path::new("/") {
        return Err(Error::invalid(path_field, "the root of the container cannot be mounted over"));
    }
    let on_proc = target == Path::new("/proc") && mount.host_path.trim_end_matches('/') == "/proc";
    if !on_proc && !mounts::is_outside_proc(&target) {
        let problem =
            format!("{}: nothing may be mounted there: it would hide or forge what the kernel says", target.display());
        return Err(Error::invalid(path_field, problem));
    }
    match &mount.image {
        Some(image) => image_mount(field, mount, &image.sub_path)?,
        None => paths::absolute(&format!("{field}.host_path"), &mount.host_path).map(drop)?,
    }
    if mount.recursive_read_only {
        recursive_readonly(field, mount, node)?;
    }
    for (name, maps, index) in [("uid_mappings", &mount.uid_mappings, 0), ("gid_mappings", &mount.gid_mappings, 1)] {
        mount_mapping(&format!("{field}.{name}"), maps, pod, index)?;
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return Err(Error::invalid(field, "uid_mappings and gid_mappings are needed together"));
    }
    Ok(())
}

fn image_mount(field: &str, mount: &Mount, sub_path: &str) -> Result<()> {
    let failed = |problem: &str| {
        Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("ImageVolumeMountFailed: {field} ({}): {problem}", mount.container_path),
        ))
    };
    if !mount.host_path.is_empty() {
        return failed("host_path must be empty where an image is mounted");
    }
    if !mount.readonly {
        return failed("images are mounted read-only; set readonly");
    }
    if mount.propagation != Propagation::Private {
        return failed("images are mounted with private propagation");
    }
    let told = |e: Error| {
        let problem = format!("ImageVolumeMountFailed: {} ({})", e.message(), mount.container_path);
        Error::new(ErrorKind::InvalidArgument, problem)
    };
    paths::relative(&format!("{field}.image_sub_path"), sub_path).map(drop).map_err(told)
}

/// KEP-3857: only for read-only mounts with private propagation, and only where the kernel can.
fn recursive_readonly(field: &str, mount: &Mount, node: &NodeFacts) -> Result<()> {
    let refuse = |kind, problem: &str| {
        Err(Error::new(kind, format!("RROUnsupported: {field} ({}): {problem}", mount.container_path)))
    };
    if !mount.readonly {
        return refuse(ErrorKind::InvalidArgument, "recursive_read_only needs readonly");
    }
    if mount.propagation != Propagation::Private {
        return refuse(ErrorKind::InvalidArgument, "recursive_read_only needs private propagation");
    }
    if !node.recursive_readonly() {
        return refuse(ErrorKind::FailedPrecondition, "this node's kernel cannot do it; Linux 5.12 can");
    }
    Ok(())
}

/// A mount is shifted by the pod's own mapping or not at all.
fn mount_mapping(field: &str, maps: &[IdMapping], pod: &PodConfig, index: usize) -> Result<()> {
    if maps.is_empty() {
        return Ok(());
    }
    let Some((uid, gid)) = pod.security.namespaces.user else {
        return Err(Error::invalid(field, "the pod has no user namespace"));
    };
    if *maps != [[uid, gid][index.min(1)]] {
        return Err(Error::invalid(field, "must be the one mapping of the pod's user namespace"));
    }
    Ok(())
}

fn device(field: &str, device: &Device) -> Result<()> {
    let path_field = format!("{field}.container_path");
    let target = paths::absolute(&path_field, &device.container_path)?;
    if !target.starts_with("/dev") || target == Path::new("/dev") {
        return Err(Error::invalid(path_field, format_args!("{} is not below /dev", target.display())));
    }
    paths::absolute(&format!("{field}.host_path"), &device.host_path).map(drop)
}

fn security(security: &SecurityContext, pod: &PodConfig, node: &NodeFacts) -> Result<()> {
    let field = |name: &str| format!("linux.security_context.{name}");
    if security.privileged && !pod.security.privileged {
        return Err(Error::invalid(field("privileged"), "a privileged container needs a privileged pod"));
    }
    capabilities(security, node)?;
    confine::apparmor(security, node)?;
    if let (Profile::Localhost(path), false) = (&security.seccomp, security.privileged) {
        // A relative one is looked for in the kubelet's directory, which it must not leave.
        let check = if path.starts_with('/') { paths::absolute } else { paths::relative };
        check(&field("seccomp.localhost_ref"), path)?;
        if path.is_empty() {
            return Err(Error::invalid(field("seccomp.localhost_ref"), "LOCALHOST needs the path of a profile"));
        }
    }
    selinux_labels(security, "", node)?;
    container::path_list("masked_paths", &security.masked_paths)?;
    container::path_list("readonly_paths", &security.readonly_paths)?;
    namespaces(security, pod)?;
    identity(security, pod)
}

fn namespaces(security: &SecurityContext, pod: &PodConfig) -> Result<()> {
    let field = |name: &str| format!("linux.security_context.namespace_options.{name}");
    let options = &security.namespaces;
    match options.pid {
        NamespaceMode::Target if options.target.is_empty() => {
            Err(Error::invalid(field("target_id"), "TARGET needs the id of a container of this pod"))
        }
        NamespaceMode::Node if pod.security.namespaces.user.is_some() => {
            Err(Error::invalid(field("pid"), "NODE is not possible in a pod with a user namespace"))
        }
        _ => Ok(()),
    }
}

fn identity(security: &SecurityContext, pod: &PodConfig) -> Result<()> {
    let field = |name: &str| format!("linux.security_context.{name}");
    let (uids, gids) = pod.security.namespaces.user.unzip();
    match &security.run_as {
        RunAs::Image => {}
        RunAs::Uid { uid, gid } => {
            id(&field("run_as_user"), *uid, uids)?;
            gid.map_or(Ok(()), |gid| id(&field("run_as_group"), gid, gids))?;
        }
        RunAs::Name { name, gid } => {
            let valid = |c: char| !c.is_control() && c != ':';
            if name.is_empty() || name.len() > MAX_USER || !name.chars().all(valid) {
                return Err(Error::invalid(
                    field("run_as_username"),
                    format_args!("{name:?} cannot be the name of a user"),
                ));
            }
            gid.map_or(Ok(()), |gid| id(&field("run_as_group"), gid, gids))?;
        }
    }
    let groups = &security.supplemental_groups;
    if groups.len() > MAX_GROUPS {
        let problem = format!("{} groups are more than the kernel's limit of {MAX_GROUPS}", groups.len());
        return Err(Error::invalid(field("supplemental_groups"), problem));
    }
    groups.iter().enumerate().try_for_each(|(i, gid)| id(&field(&format!("supplemental_groups[{i}]")), *gid, gids))
}

/// u32::MAX means "leave as it is" to the kernel (CVE-2024-40635's class), and an id outside the mapping is nobody.
fn id(field: &str, id: u32, map: Option<IdMapping>) -> Result<()> {
    if id == u32::MAX {
        return Err(Error::invalid(field, format_args!("{id} is not an id")));
    }
    match map {
        Some(map) if id >= map.length => Err(Error::invalid(
            field,
            format_args!("{id} is not mapped in the pod's user namespace of {} ids", map.length),
        )),
        _ => Ok(()),
    }
}
