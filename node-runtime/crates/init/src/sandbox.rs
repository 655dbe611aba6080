//! Makes a pod's namespaces and pins them by bind mounts.
//!
//! Owns: their making, names, sysctls, /dev/shm. Must not: bring up an interface; networking is another's.
use crate::cgroup::Join;
use crate::failure::{Explain, Failure, Result};
use crate::split::{Split, split};
use crate::talk::Talk;
use crate::{pod_init, prepare};
use berth_model::IdMapping;
use berth_monitor_api::spec::{SandboxSpec, Shm, UserNamespace};
use berth_sys::clone::{Clone, Side, clone};
use berth_sys::mount::{self, NewMount, attr};
use berth_sys::namespace::{self, Kinds};
use berth_sys::openat::{self, Access};
use berth_sys::pidfd::{self, Child, Zombie};
use berth_sys::procfs::Procfs;
use berth_sys::{identity, task};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Makes everything; with a shared PID namespace, its PID 1 goes on as the monitor's child.
pub fn run(talk: &mut Talk, spec: &SandboxSpec) -> Result<()> {
    talk.phase("namespaces")?;
    let procfs = Procfs::with_system().explain(|| "mount a private procfs")?;
    task::forbid_inspection().explain(|| "forbid inspection")?;
    if let Some(shm) = &spec.shm {
        mount_shm(shm, spec.user.as_ref())?;
    }
    let join = spec.pid_init.as_ref().map(|init| Join::prepare(&init.cgroup)).transpose()?;
    if let Some(init) = &spec.pid_init {
        prepare::set_oom_score(&procfs, init.oom_score_adj)?;
    }
    make(spec, &procfs)?;
    talk.phase("sysctls")?;
    if spec.uts.is_some() && !spec.hostname.is_empty() {
        namespace::set_hostname(&spec.hostname).explain(|| format!("set the host name {}", spec.hostname))?;
    }
    for (key, value) in &spec.sysctls {
        set_sysctl(&procfs, key, value)?;
    }
    let Some(join) = join else { return talk.done(None) };
    talk.phase("pod-init")?;
    let cgroup = join.directory().filter(|_| spec.user.is_none());
    let how = Clone { namespaces: Kinds::MOUNT.and(Kinds::PID), sibling: true, cgroup };
    let Split::Task(me) = split(talk, &how)? else { return Ok(()) };
    join.join(talk, &me)?;
    let pid = me.pid;
    drop((join, procfs));
    pod_init::run(talk, pid)
}

fn kinds(spec: &SandboxSpec) -> [(&Option<PathBuf>, Kinds, &'static str); 3] {
    [(&spec.net, Kinds::NET, "net"), (&spec.ipc, Kinds::IPC, "ipc"), (&spec.uts, Kinds::UTS, "uts")]
}

/// Makes and pins the namespaces, and leaves the calling process in them.
fn make(spec: &SandboxSpec, procfs: &Procfs) -> Result<()> {
    let wanted = kinds(spec).iter().fold(Kinds::NONE, |all, (path, kind, _)| all.and(kind.only_if(path.is_some())));
    let Some(user) = &spec.user else {
        namespace::unshare(wanted).explain(|| "make namespaces")?;
        return pin(spec, procfs, "self");
    };
    // A holder, because maps are written from the parent namespace, and only what is made together with the user namespace
    // (or later, inside) belongs to it.
    let (wait, hold) = task::pipe().explain(|| "make a pipe")?;
    let how = Clone { namespaces: Kinds::USER.and(wanted), ..Clone::default() };
    // SAFETY: this program never starts a thread.
    let (pid, pidfd) = match unsafe { clone(&how) }.explain(|| "make a user namespace")? {
        Side::Parent { pid, pidfd } => (pid, pidfd),
        Side::Child => {
            drop(hold);
            let _ = task::read(&wait, &mut [0]);
            task::exit_now(0)
        }
    };
    let made = adopt(spec, procfs, user, (pid, &pidfd), wanted);
    drop(hold);
    while pidfd::try_wait(Child::Fd(pidfd.as_fd()), Zombie::Reap).is_ok_and(|found| found.is_none()) {
        std::thread::yield_now();
    }
    made
}

fn adopt(
    spec: &SandboxSpec,
    procfs: &Procfs,
    user: &UserNamespace,
    (pid, pidfd): (u32, &OwnedFd),
    wanted: Kinds,
) -> Result<()> {
    // Written by the host's root, so setgroups(2) stays allowed inside (user_namespaces(7)).
    for (file, map) in [("uid_map", user.uid), ("gid_map", user.gid)] {
        let IdMapping { container, host, length } = map;
        let line = format!("{container} {host} {length}\n");
        procfs.write(&format!("{pid}/{file}"), line.as_bytes()).explain(|| format!("write {file} {}", line.trim()))?;
    }
    pin_one(procfs, &pid.to_string(), "user", &user.path)?;
    pin(spec, procfs, &pid.to_string())?;
    namespace::join_process(pidfd.as_fd(), Kinds::USER.and(wanted)).explain(|| "join the user namespace")?;
    identity::become_root().explain(|| "become root of the user namespace")?;
    task::forbid_inspection().explain(|| "forbid inspection")
}

fn pin(spec: &SandboxSpec, procfs: &Procfs, process: &str) -> Result<()> {
    for (path, _, name) in kinds(spec) {
        if let Some(path) = path {
            pin_one(procfs, process, name, path)?;
        }
    }
    Ok(())
}

fn pin_one(procfs: &Procfs, process: &str, name: &str, path: &Path) -> Result<()> {
    let what = || format!("bind the {name} namespace to {}", path.display());
    let tree = mount::clone_below(procfs.root(), &format!("{process}/ns/{name}")).explain(what)?;
    let place = openat::open_host(path, Access::Path).explain(what)?;
    mount::attach(tree.as_fd(), place.as_fd()).explain(what)
}

fn mount_shm(shm: &Shm, user: Option<&UserNamespace>) -> Result<()> {
    let what = || format!("mount {}", shm.path.display());
    let context = NewMount::open("tmpfs").explain(what)?;
    context.set("source", "shm").explain(what)?;
    context.set("size", &shm.size.to_string()).explain(what)?;
    context.set("mode", "1777").explain(what)?;
    if let Some(label) = &shm.label {
        context.set("context", label).explain(|| format!("label {} {label}", shm.path.display()))?;
    }
    if let Some(user) = user {
        let root = |map: IdMapping, kind: &str| match map.container {
            0 => Ok(map.host.to_string()),
            _ => Err(Failure::refused(format!("the user namespace does not map {kind} 0"))),
        };
        context.set("uid", &root(user.uid, "user")?).explain(what)?;
        context.set("gid", &root(user.gid, "group")?).explain(what)?;
    }
    let tree = context.mount(attr::QUIET).explain(what)?;
    let place = openat::open_host(&shm.path, Access::Path).explain(what)?;
    mount::attach(tree.as_fd(), place.as_fd()).explain(what)
}

/// One sysctl of a namespace we are in; /proc/sys shows each process its own.
fn set_sysctl(procfs: &Procfs, key: &str, value: &str) -> Result<()> {
    let what = || format!("set the sysctl {key} to {value:?}");
    // One line, one write: a value must not smuggle in another (CVE-2022-0811).
    if value.chars().any(char::is_control) {
        return Err(Failure::refused(format!("{}: the value has control characters", what())));
    }
    if key == "kernel.domainname" {
        return namespace::set_domainname(value).explain(what);
    }
    let path = sysctl_path(key).ok_or_else(|| Failure::refused(format!("{}: not a valid name", what())))?;
    procfs.write(&path, value.as_bytes()).explain(what)
}

/// sysctl.d(5): whichever of `.` and `/` comes first separates; the other stands for itself, swapped.
fn sysctl_path(key: &str) -> Option<String> {
    let first = key.find(['.', '/'])?;
    let path = if key[first..].starts_with('/') {
        key.to_owned()
    } else {
        key.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    let clean = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    clean.then(|| format!("sys/{path}"))
}

#[cfg(test)]
mod tests {
    use super::sysctl_path;

    #[test]
    fn both_separators_are_understood() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward").unwrap(), "sys/net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding").unwrap(), "sys/net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding").unwrap(), "sys/net/ipv4/conf/eth0.1/forwarding");
        for bad in ["", "net", "net..x", ".net.x", "net/../../kernel", "a/."] {
            assert_eq!(sysctl_path(bad), None, "{bad}");
        }
    }
}
