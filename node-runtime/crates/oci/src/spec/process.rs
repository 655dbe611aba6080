//! The process of a container, and of a command in it.
use super::facts::NodeFacts;
use super::selinux::SelinuxLabels;
use super::{args, capabilities, confine, paths};
use berth_model::{ContainerConfig, ImageConfig, PodConfig, Result, SecurityContext};
use berth_monitor_api::spec::{ContainerSpec, Process, SeccompFilter, TerminalSize, User};
use std::path::PathBuf;

/// The container's process; its seccomp filter is compiled and its labels are chosen already.
pub(crate) fn process(
    container: &ContainerConfig,
    pod: &PodConfig,
    image: &ImageConfig,
    node: &NodeFacts,
    (seccomp, selinux): (Option<SeccompFilter>, Option<SelinuxLabels>),
) -> Result<Process> {
    let security = &container.security;
    Ok(Process {
        args: args::arguments(container, image)?,
        env: args::environment(container, pod, image, node)?,
        cwd: working_dir(container, image)?,
        user: user(security, image),
        capabilities: capabilities(security, node)?,
        no_new_privs: security.no_new_privs,
        seccomp,
        apparmor: confine::apparmor(security, node)?,
        selinux: selinux.map(|labels| labels.process),
        oom_score_adj: container.resources.oom_score_adj,
        rlimits: node.rlimits.clone(),
        terminal: container.tty.then(TerminalSize::default),
    })
}

/// Who the process is to be.
pub fn user(security: &SecurityContext, image: &ImageConfig) -> User {
    User {
        run_as: security.run_as.clone(),
        image_user: image.user.clone(),
        supplemental_groups: security.supplemental_groups.clone(),
        groups_policy: security.groups_policy,
    }
}

/// The container's, else the image's, else `/`.
pub(crate) fn working_dir(container: &ContainerConfig, image: &ImageConfig) -> Result<PathBuf> {
    match (container.working_dir.as_str(), image.working_dir.as_str()) {
        ("", "") => Ok(PathBuf::from("/")),
        ("", image) => paths::absolute("image working directory", image),
        (own, _) => paths::absolute("working_dir", own),
    }
}

/// A command in a running container: everything is the container's but the arguments and the terminal.
pub fn exec_process(container: &ContainerSpec, command: &[String], terminal: Option<TerminalSize>) -> Process {
    let mut process = Process { args: command.to_vec(), terminal, ..container.process.clone() };
    if terminal.is_some() && !process.env.iter().any(|entry| args::names(entry, b"TERM")) {
        process.env.push([b"TERM=", args::DEFAULT_TERM].concat());
    }
    process
}
