//! Becomes a container.
//!
//! Owns: the order (host's rights first, then namespaces, then the clone, then the tree). Must not: hold a host path in the
//! container longer than until `pivot`.
use crate::cgroup::Join;
use crate::confine::{self, Labels, Last};
use crate::failure::{Explain, Failure, Result};
use crate::root::Root;
use crate::sources::Sources;
use crate::split::{Split, split};
use crate::talk::Talk;
use crate::{hide, mounts, overlay, prepare, stdio, terminal};
use berth_model::Propagation;
use berth_monitor_api::spec::{ContainerSpec, JoinNamespaces, PidNamespace};
use berth_sys::clone::Clone;
use berth_sys::mount::{self, Change, Sharing, attr};
use berth_sys::namespace::{self, Kinds};
use berth_sys::openat::{self, Access};
use berth_sys::{identity, task};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Runs until init has handed over its child, or, in the child, until the program is executed.
pub fn run(talk: &mut Talk, spec: ContainerSpec, target: Option<OwnedFd>) -> Result<()> {
    talk.phase("sources")?;
    let procfs = prepare::prepare(&spec.process)?;
    let join = Join::prepare(&spec.cgroup)?;
    let names = Namespaces::open(&spec.namespaces, target)?;
    let userns = names.user.as_ref().map(AsFd::as_fd);
    let mut sources = Sources::open(&spec, userns, &procfs)?;
    talk.phase("rootfs")?;
    let overlay = overlay::assemble(&spec.rootfs, spec.mount_label.as_deref(), userns)?;
    talk.phase("namespaces")?;
    if names.user.is_some() {
        stdio::open_pipes_to_all()?;
    }
    let labels = Labels::before_clone(procfs, &spec.process, names.user.is_some());
    names.join()?;
    let own_pid = spec.namespaces.pid == PidNamespace::New;
    let how = Clone {
        namespaces: Kinds::MOUNT.and(Kinds::PID.only_if(own_pid)),
        sibling: true,
        // In a user namespace the group's files are not ours any more; the descriptors opened before are.
        cgroup: join.directory().filter(|_| names.user.is_none()),
    };
    let Split::Task(me) = split(talk, &how)? else { return Ok(()) };
    drop(names);

    talk.phase("cgroup")?;
    join.join(talk, &me)?;
    let pid = me.pid;
    drop(join);
    if spec.namespaces.new_cgroup {
        namespace::unshare(Kinds::CGROUP).explain(|| "make a cgroup namespace")?;
    }
    let labels = labels.after_clone(&spec.process)?;
    confine::new_session(&labels, &spec.process)?;

    talk.phase("mounts")?;
    task::set_umask(0);
    // What the host mounts later may still come in; nothing of ours goes out.
    mount::change_root_sharing(Sharing::Slave).explain(|| "take the tree out of the host's peer groups")?;
    let old = openat::open_host(Path::new("/"), Access::Path).explain(|| "open the old root")?;
    mount::attach(overlay.as_fd(), old.as_fd()).explain(|| "attach the root filesystem")?;
    let root = Root::new(overlay);
    let dev = mounts::make_all(&root, &spec, &mut sources)?;
    if let Some(size) = spec.process.terminal {
        terminal::open(talk, &root, size, dev.as_ref())?;
    }
    talk.leave_monitor();
    hide::make_read_only(&root, &spec.readonly_paths)?;
    hide::mask(&root, &spec.masked_paths, sources.null)?;

    talk.phase("pivot")?;
    pivot(&root, &old, &spec)?;
    drop((old, dev));
    talk.phase("confine")?;
    confine::finish(talk, &spec.process, Last { root, labels, pid })
}

fn pivot(root: &Root, old: &OwnedFd, spec: &ContainerSpec) -> Result<()> {
    let what = || "pivot to the root filesystem";
    task::change_dir(root.as_fd()).explain(what)?;
    mount::pivot_here().explain(what)?;
    task::change_dir(old.as_fd()).explain(what)?;
    mount::detach_cwd().explain(|| "detach the old root")?;
    task::change_dir_to(Path::new("/")).explain(what)?;
    // Before the root becomes read-only.
    confine::enter_cwd(root, &spec.process.cwd, true)?;
    let set = attr::read_only_if(spec.rootfs.readonly);
    let sharing = match spec.rootfs_propagation {
        Propagation::Private => None,
        Propagation::HostToContainer => Some(Sharing::Slave),
        Propagation::Bidirectional => Some(Sharing::Shared),
    };
    if set != 0 || sharing.is_some() {
        mount::change(root.as_fd(), false, &Change { set, sharing, idmap: None })
            .explain(|| "set attributes of the root")?;
    }
    Ok(())
}

/// Namespaces to join, opened as the host's root.
struct Namespaces {
    user: Option<OwnedFd>,
    others: Vec<(OwnedFd, Kinds, String)>,
    pid_of: Option<OwnedFd>,
}

impl Namespaces {
    fn open(spec: &JoinNamespaces, target: Option<OwnedFd>) -> Result<Self> {
        let open = |path: &Path| {
            openat::open_host(path, Access::Read).explain(|| format!("open the namespace {}", path.display()))
        };
        let mut others = Vec::new();
        for (path, kind) in [(&spec.net, Kinds::NET), (&spec.ipc, Kinds::IPC), (&spec.uts, Kinds::UTS)] {
            if let Some(path) = path {
                others.push((open(path)?, kind, path.display().to_string()));
            }
        }
        let pid_of = match (spec.pid, target) {
            (PidNamespace::Target, None) => {
                return Err(Failure::refused("the process whose PID namespace is to be joined was not handed over"));
            }
            (PidNamespace::Target, target) => target,
            _ => None,
        };
        Ok(Self { user: spec.user.as_deref().map(open).transpose()?, others, pid_of })
    }

    /// The PID namespace of a process while we may still look at it; then the user namespace, whose root may join the others.
    fn join(&self) -> Result<()> {
        if let Some(pidfd) = &self.pid_of {
            namespace::join_process(pidfd.as_fd(), Kinds::PID)
                .explain(|| "join the PID namespace (has its first process ended?)")?;
        }
        if let Some(user) = &self.user {
            namespace::join(user.as_fd(), Kinds::USER).explain(|| "join the user namespace")?;
        }
        for (fd, kind, name) in &self.others {
            namespace::join(fd.as_fd(), *kind).explain(|| format!("join the namespace {name}"))?;
        }
        if self.user.is_some() {
            identity::become_root().explain(|| "become root of the user namespace")?;
            task::forbid_inspection().explain(|| "forbid inspection")?;
        }
        Ok(())
    }
}
