//! What clone3(2) is told: one structure and the flags that libc's `c_int` cannot hold, for [`crate::clone`] and [`crate::spawn`].
//! Owns: the kernel's layout. Must not: make the call.

/// Reset the child's signal handlers (5.5); `linux/sched.h`.
pub(crate) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// The child is born in the cgroup v2 group whose directory is given (5.7); `linux/sched.h`.
pub(crate) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of linux/sched.h, version 2 (88 bytes).
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct CloneArgs {
    pub(crate) flags: u64,
    pub(crate) pidfd: u64,
    pub(crate) child_tid: u64,
    pub(crate) parent_tid: u64,
    pub(crate) exit_signal: u64,
    pub(crate) stack: u64,
    pub(crate) stack_size: u64,
    pub(crate) tls: u64,
    pub(crate) set_tid: u64,
    pub(crate) set_tid_size: u64,
    pub(crate) cgroup: u64,
}

impl CloneArgs {
    /// What the kernel is told of its size: version 0 (64 bytes), unless a group is named. So the size tells whether one is, also to
    /// those who cannot look behind the pointer (seccomp(2)).
    pub(crate) fn size(&self) -> usize {
        if self.flags & CLONE_INTO_CGROUP == 0 { std::mem::offset_of!(Self, set_tid) } else { size_of::<Self>() }
    }
}

/// One of libc's flags as the kernel wants it.
pub(crate) fn flag(bits: i32) -> u64 {
    u64::from(bits.cast_unsigned())
}
