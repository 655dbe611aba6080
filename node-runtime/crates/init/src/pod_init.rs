//! PID 1 of a pod's shared PID namespace: reaps, ignores signals, and has nothing that a container could want.
//!
//! Owns: how little it is. Must not: return.
use crate::failure::{Explain, Result};
use crate::mounts;
use crate::talk::Talk;
use berth_sys::mount::{self, Sharing, attr};
use berth_sys::openat::{self, Access};
use berth_sys::{caps, task};
use std::os::fd::AsFd;
use std::path::Path;

/// Says `Done` when it is what it shall be, then reaps for ever.
pub fn run(talk: &mut Talk, pid: u32) -> Result<()> {
    task::forbid_inspection().explain(|| "forbid inspection")?;
    task::new_session().explain(|| "start a session")?;
    task::new_session_keyring().explain(|| "join a session keyring")?;
    empty_root()?;
    task::set_name(c"berth-pod-init").explain(|| "set the name")?;
    task::set_no_new_privs().explain(|| "set no_new_privs")?;
    caps::limit_bounding(0).explain(|| "limit the bounding set")?;
    caps::set(0, 0, 0).explain(|| "drop all capabilities")?;
    talk.done(Some(pid))?;
    // 0 to 2 may be pipes whose readers wait for their end.
    if task::close_between(0, u32::MAX).is_err() {
        task::exit_now(1);
    }
    task::reap_for_ever()
}

/// Containers of the pod with `CAP_SYS_PTRACE` can look through /proc/1/root: it must not be the host's.
fn empty_root() -> Result<()> {
    let what = || "take an empty root";
    mount::change_root_sharing(Sharing::Slave).explain(what)?;
    let old = openat::open_host(Path::new("/"), Access::Path).explain(what)?;
    let tree = mounts::tmpfs(4096, 0o555, attr::RDONLY | attr::QUIET)?;
    mount::attach(tree.as_fd(), old.as_fd()).explain(what)?;
    task::change_dir(tree.as_fd()).explain(what)?;
    mount::pivot_here().explain(what)?;
    task::change_dir(old.as_fd()).explain(what)?;
    mount::detach_cwd().explain(what)?;
    task::change_dir_to(Path::new("/")).explain(what)
}
