//! The last part, the same for containers and exec: who the process is, what confines it, and the program.
//!
//! Owns: the order of identity and confinement (capabilities(7), seccomp(2)). Must not: open a path of the container after the
//! user's rights are gone, except the program's.
use crate::accounts;
use crate::failure::{Explain, Failure, Result};
use crate::program;
use crate::root::{Root, Want};
use crate::stdio;
use crate::talk::Talk;
use berth_model::account::Account;
use berth_monitor_api::spec::{Process, SeccompFilter};
use berth_monitor_api::sync::{self, Identity};
use berth_sys::openat::Access;
use berth_sys::procfs::Procfs;
use berth_sys::seccomp_load::{self, Instruction};
use berth_sys::task::{self, ExecList};
use berth_sys::{caps, identity};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// errno of permissions: root of a user namespace, or of the node on a network file system, may have less than the user.
const EACCES: i32 = 13;

/// The procfs that labels are written to. Whoever traces a process of a container's PID namespace has its descriptors, and a
/// procfs of the node would show all the node's processes. So the child makes its own, of the container's PID namespace.
/// Only where a user namespace keeps it from that (`mount_too_revealing`, fs/namespace.c) the node's is taken along: a
/// container there has no rights over a process that was executed outside.
pub struct Labels(Option<Procfs>);

impl Labels {
    /// In init, before the clone.
    pub fn before_clone(procfs: Procfs, process: &Process, user_namespace: bool) -> Self {
        Self(Some(procfs).filter(|_| user_namespace && Self::wanted(process)))
    }

    /// In the child.
    pub fn after_clone(self, process: &Process) -> Result<Self> {
        match self.0 {
            None if Self::wanted(process) => {
                let own = Procfs::processes_only().explain(|| "mount a private procfs")?;
                Ok(Self(Some(own)))
            }
            kept => Ok(Self(kept)),
        }
    }

    fn wanted(process: &Process) -> bool {
        process.apparmor.is_some() || process.selinux.is_some()
    }

    fn write(&self, file: &str, text: &[u8]) -> io::Result<()> {
        self.0.as_ref().map_or_else(|| Err(io::ErrorKind::Unsupported.into()), |procfs| procfs.write(file, text))
    }
}

/// Leads a session and a keyring of its own. The SELinux label goes onto the keyring, so it comes first.
pub fn new_session(labels: &Labels, process: &Process) -> Result<()> {
    // In a user namespace the kernel has set the flag anew at the change of ids.
    task::forbid_inspection().explain(|| "forbid inspection")?;
    task::new_session().explain(|| "start a session")?;
    if let Some(label) = &process.selinux {
        labels.write("self/attr/keycreate", label.as_bytes()).explain(|| format!("set the keyring label {label}"))?;
    }
    task::new_session_keyring().explain(|| "join a session keyring")?;
    if process.selinux.is_some() {
        labels.write("self/attr/keycreate", b"\n").explain(|| "reset the keyring label")?;
    }
    Ok(())
}

/// What the process takes along to the end.
pub struct Last {
    /// The container's root.
    pub root: Root,
    /// Where labels are written.
    pub labels: Labels,
    /// Id of this process in the monitor's PID namespace.
    pub pid: u32,
}

/// The working directory, made if asked for, and entered if we may as root. False: try again as the user.
pub fn enter_cwd(root: &Root, path: &Path, make: bool) -> Result<bool> {
    let what = || format!("change to the working directory {}", path.display());
    let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    let found = if make { root.ensure(path, Want::Directory) } else { root.open(path, Access::Path).explain(what) };
    let found = match found {
        Err(failure) if failure.errno == EACCES => return Ok(false),
        other => other?,
    };
    match task::change_dir(found.as_fd()) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        other => other.explain(what).map(|()| true),
    }
}

/// Does the rest and becomes the program. Never returns `Ok`.
pub fn finish(talk: &mut Talk, process: &Process, last: Last) -> Result<()> {
    let Last { root, labels, pid } = last;
    let Some(name) = process.args.first() else {
        return Err(Failure::refused("no command specified"));
    };
    let account = accounts::resolve(&root, &process.user)?;
    let arguments = program::strings("args", process.args.iter().map(String::as_bytes))?;
    let environment = program::strings("env", process.env.iter().map(Vec::as_slice))?;
    let environment = program::with_home(environment, &account.home);
    let filter = process.seccomp.as_ref().map(instructions);
    stdio::reopen_null(&root)?;
    stdio::give_to(account.uid)?;
    let entered = enter_cwd(&root, &process.cwd, false)?;
    for limit in &process.rlimits {
        task::set_limits(limit.resource, limit.soft, limit.hard)
            .explain(|| format!("set limit {} to {}:{}", limit.resource, limit.soft, limit.hard))?;
    }
    if let Some(profile) = &process.apparmor {
        set_apparmor(&labels, profile)?;
    }
    if process.no_new_privs {
        task::set_no_new_privs().explain(|| "set no_new_privs")?;
    }
    let identity = Identity { uid: account.uid, gid: account.gid, groups: account.groups.clone() };
    talk.ready(pid, identity)?;

    if let Some(label) = &process.selinux {
        labels.write("self/attr/exec", label.as_bytes()).explain(|| format!("set the SELinux label {label}"))?;
    }
    // From here on the process is one that the container's own may be able to trace: no descriptor of the host's any more.
    drop((root, labels));
    talk.close_all_others()?;
    become_user(process, &account)?;
    check_cwd(&process.cwd, entered)?;
    // By this step the daemon tells a program that cannot be executed from everything else that may fail.
    talk.now(sync::PROGRAM_STEP);
    let path = program::find(name, &environment)?;
    talk.now("exec");
    let (arguments, environment) = (ExecList::new(&arguments), ExecList::new(&environment));
    if let (Some(filter), Some(seccomp)) = (&filter, &process.seccomp) {
        seccomp_load::load(filter, seccomp.flags).explain(|| "load the seccomp filter")?;
    }
    drop_admin(process)?;
    talk.exec_next()?;
    task::reset_signals().explain(|| "reset signals")?;
    talk.now(sync::PROGRAM_STEP);
    Err(program::failure(name, "in the container", &task::execute(&path, &arguments, &environment)))
}

/// Without `no_new_privs` a filter needs `CAP_SYS_ADMIN`, which most containers have not: it is kept until the filter is loaded.
fn needs_admin(process: &Process) -> u64 {
    if process.seccomp.is_some() && !process.no_new_privs { caps::SYS_ADMIN } else { 0 }
}

fn become_user(process: &Process, account: &Account) -> Result<()> {
    let (wanted, who) = (process.capabilities, account);
    task::set_umask(0o022);
    caps::limit_bounding(wanted.bounding).explain(|| "limit the bounding set")?;
    caps::keep_over_setuid(true).explain(|| "keep capabilities")?;
    identity::set_groups(&who.groups).explain(|| format!("set groups {:?}", who.groups))?;
    identity::set_gid(who.gid).explain(|| format!("set group id {}", who.gid))?;
    identity::set_uid(who.uid).explain(|| format!("set user id {}", who.uid))?;
    // A change of id makes the process inspectable where fs.suid_dumpable is not 0.
    task::forbid_inspection().explain(|| "forbid inspection")?;
    caps::keep_over_setuid(false).explain(|| "keep capabilities no more")?;
    let admin = needs_admin(process);
    // Inheritable is empty but for ambient ones (CVE-2022-24769, CVE-2022-29162).
    caps::set(wanted.effective | admin, wanted.permitted | admin, wanted.ambient).explain(|| {
        format!("set capabilities (permitted {:#x}, effective {:#x})", wanted.permitted, wanted.effective)
    })?;
    caps::set_ambient(wanted.ambient).explain(|| "set ambient capabilities")
}

fn drop_admin(process: &Process) -> Result<()> {
    let wanted = process.capabilities;
    if needs_admin(process) & !(wanted.permitted & wanted.effective) == 0 {
        return Ok(());
    }
    caps::set(wanted.effective, wanted.permitted, wanted.ambient)
        .explain(|| "drop CAP_SYS_ADMIN (without no_new_privs the seccomp profile must allow capset)")
}

/// The working directory must be one that the container can name; `(unreachable)` would be a directory of the host
/// (CVE-2024-21626).
fn check_cwd(path: &Path, entered: bool) -> Result<()> {
    let what = || format!("change to the working directory {}", path.display());
    if !entered {
        task::change_dir_to(path).explain(what)?;
    }
    let found = task::current_dir().explain(what)?;
    if found.starts_with(b"/") { Ok(()) } else { Err(Failure::refused(format!("{}: it is outside the root", what()))) }
}

fn set_apparmor(labels: &Labels, profile: &str) -> Result<()> {
    let command = format!("exec {profile}");
    // AppArmor's own directory (5.8) stays right when several security modules run.
    labels
        .write("self/attr/apparmor/exec", command.as_bytes())
        .explain(|| format!("set the AppArmor profile {profile}"))
}

fn instructions(filter: &SeccompFilter) -> Vec<Instruction> {
    filter.program.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
}
