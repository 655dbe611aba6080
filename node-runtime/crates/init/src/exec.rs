//! Enters a running container.
//!
//! Owns: the order of joining. The container is hostile from then on: nothing is opened by a path of its /proc, and what is
//! opened elsewhere is looked at first. Must not: create anything in it.
use crate::cgroup::Join;
use crate::confine::{self, Labels, Last};
use crate::failure::{Explain, Result};
use crate::root::Root;
use crate::split::{Split, split};
use crate::talk::Talk;
use crate::{prepare, stdio, terminal};
use berth_monitor_api::spec::ExecSpec;
use berth_sys::clone::Clone;
use berth_sys::namespace::{self, Kinds};
use berth_sys::openat::{self, Access};
use berth_sys::{identity, task};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Runs until init has handed over its child, or, in the child, until the program is executed.
pub fn run(talk: &mut Talk, spec: ExecSpec, target: OwnedFd) -> Result<()> {
    talk.phase("namespaces")?;
    let procfs = prepare::prepare(&spec.process)?;
    let join = Join::prepare(&spec.cgroup)?;
    if spec.user_namespace {
        stdio::open_pipes_to_all()?;
    }
    let labels = Labels::before_clone(procfs, &spec.process, spec.user_namespace);
    enter(&target, spec.user_namespace)?;
    let how =
        Clone { namespaces: Kinds::NONE, sibling: true, cgroup: join.directory().filter(|_| !spec.user_namespace) };
    let Split::Task(me) = split(talk, &how)? else { return Ok(()) };

    talk.phase("cgroup")?;
    join.join(talk, &me)?;
    let pid = me.pid;
    drop(join);
    // Last, because groups can be joined only within the namespace that one is in.
    namespace::join_process(target.as_fd(), Kinds::CGROUP).explain(|| "join the container's cgroup namespace")?;
    drop(target);
    let labels = labels.after_clone(&spec.process)?;
    confine::new_session(&labels, &spec.process)?;

    talk.phase("confine")?;
    let root = Root::new(openat::open_host(Path::new("/"), Access::Path).explain(|| "open the container's root")?);
    if let Some(size) = spec.process.terminal {
        terminal::open(talk, &root, size, None)?;
    }
    talk.leave_monitor();
    confine::finish(talk, &spec.process, Last { root, labels, pid })
}

fn enter(target: &OwnedFd, user_namespace: bool) -> Result<()> {
    let kinds = Kinds::MOUNT
        .and(Kinds::NET)
        .and(Kinds::IPC)
        .and(Kinds::UTS)
        .and(Kinds::PID)
        .and(Kinds::USER.only_if(user_namespace));
    namespace::join_process(target.as_fd(), kinds)
        .explain(|| "join the container's namespaces (the container is not running if this is ESRCH)")?;
    if user_namespace {
        identity::become_root().explain(|| "become root of the user namespace")?;
        task::forbid_inspection().explain(|| "forbid inspection")?;
    }
    Ok(())
}
