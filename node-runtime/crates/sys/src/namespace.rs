//! Namespaces: join, leave, name.
//!
//! Owns: `setns`, `unshare` and their flags. Must not: decide an order; that is init's knowledge.
use std::io;
use std::os::fd::BorrowedFd;

/// A set of namespace kinds (`CLONE_NEW*`, `linux/sched.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// Mount namespace.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS.cast_unsigned());
    /// Cgroup namespace.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP.cast_unsigned());
    /// UTS namespace: host and domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS.cast_unsigned());
    /// IPC namespace.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC.cast_unsigned());
    /// User namespace.
    pub const USER: Self = Self(libc::CLONE_NEWUSER.cast_unsigned());
    /// PID namespace, of children made from then on.
    pub const PID: Self = Self(libc::CLONE_NEWPID.cast_unsigned());
    /// Network namespace.
    pub const NET: Self = Self(libc::CLONE_NEWNET.cast_unsigned());

    /// Both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set if `condition`, else none.
    #[must_use]
    pub const fn only_if(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    /// The flag word.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// Joins the namespace behind an nsfs descriptor, which must be of that kind (`setns(2)`, EINVAL otherwise).
pub fn join(namespace: BorrowedFd<'_>, kind: Kinds) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(
        namespace,
        rustix::thread::ThreadNameSpaceType::from_bits_retain(kind.0),
    )?)
}

/// Joins several namespaces of the process behind a pidfd at once (5.8); ESRCH once the process is dead.
pub fn join_process(pidfd: BorrowedFd<'_>, kinds: Kinds) -> io::Result<()> {
    join(pidfd, kinds)
}

/// Moves the calling process into new namespaces (`unshare(2)`).
pub fn unshare(kinds: Kinds) -> io::Result<()> {
    // SAFETY: the call is unsafe only with UnshareFlags::FILES; `Kinds` has namespace bits alone.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::from_bits_retain(kinds.0)) }?)
}

/// Sets the host name of the UTS namespace; at most 64 bytes.
pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Sets the NIS domain name of the UTS namespace; at most 64 bytes.
pub fn set_domainname(name: &str) -> io::Result<()> {
    Ok(rustix::system::setdomainname(name.as_bytes())?)
}
