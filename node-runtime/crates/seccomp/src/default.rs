//! The default profile (`RuntimeDefault`): the shape that containerd, CRI-O and Docker share, so that what runs there runs here.
//!
//! What is left out, and why: system calls that reach beyond the container or widen the kernel's attack surface without being
//! needed by ordinary programs (mounting, modules, keyrings, io_uring, userfaultfd, kexec, swap, NUMA placement of others,
//! perf events, BPF); those that a capability guards come back with that capability in the bounding set.
use crate::json::FLAG_SPEC_ALLOW;
use crate::{Action, Arch, Condition, Op, Profile, Requirement, Rule};
use berth_model::capability_bit;

/// Allowed whatever the arguments. Names of every architecture; each takes what it has.
///
/// `socketcall` (32-bit x86) is here as at the peers: its arguments lie in memory that BPF cannot read, so programs of that
/// architecture can open the socket families left out below, and without it many could open none.
const ALLOWED: &str = "_llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range bind \
    breakpoint brk cacheflush cachestat capget capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 \
    clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close \
    close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat \
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 \
    fchownat fcntl fcntl64 fdatasync fgetxattr file_getattr file_setattr flistxattr flock fork fremovexattr \
    fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 \
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area get_tls getcpu getcwd getdents \
    getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername \
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit \
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
    listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr lstat \
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock \
    mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync \
    munlock munlockall munmap name_to_handle_at nanosleep newfstatat nice open openat openat2 pause pidfd_open \
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv \
    preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink \
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat \
    rename renameat renameat2 restart_syscall rmdir rseq rseq_slice_yield rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler \
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile \
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 \
    setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 \
    setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaction sigaltstack signal signalfd signalfd4 \
    sigpending sigprocmask sigreturn sigsuspend socketcall socketpair splice stat stat64 statfs statfs64 statmount \
    statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create \
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit \
    umask uname unlink unlinkat uprobe uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid \
    waitpid write writev";

/// Allowed with any one of these capabilities in the bounding set.
const BY_CAPABILITY: [(&str, &str); 14] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listns lookup_dcookie mount mount_setattr move_mount \
         open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 \
         unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// Since this version a tracer cannot change a call that seccomp has let pass (`kernel/seccomp.c`, commit 93e35efb8de4).
const PTRACE_SAFE: (u32, u32) = (4, 8);
const TRACING: &str = "process_vm_readv process_vm_writev ptrace";

/// Execution domains that ordinary programs use: Linux, its 32-bit mode, and either with UNAME26; and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// First socket family left out: `AF_ALG`, the kernel's cryptography (CVE-2026-31431).
const AF_ALG: u64 = 38;
/// Families above that are allowed: NFC 39, KCM 41, QIPCRTR 42, SMC 43, XDP 44, MCTP 45 (`AF_VSOCK`, 40, reaches the
/// hypervisor). Each by equality: the kernel cuts the argument to 32 bits, so "greater than" would let `AF_ALG | 1 << 32` by.
const FAMILIES_ABOVE: [u64; 6] = [39, 41, 42, 43, 44, 45];

/// `CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET` (`linux/sched.h`).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// `ENOSYS`: the C library then uses `clone`, whose flags are visible to the filter.
const CLONE3: Action = Action::Errno(crate::action::ENOSYS);

/// The default profile: everything not allowed fails with `EPERM`.
pub fn default_profile() -> Profile {
    let mut rules = vec![Rule::new(ALLOWED, Action::Allow)];
    rules.push(Rule {
        includes: Requirement { min_kernel: Some(PTRACE_SAFE), ..Requirement::default() },
        ..Rule::new(TRACING, Action::Allow)
    });
    let equal = |value| Condition { index: 0, op: Op::Eq, value, value_two: 0 };
    rules.extend(PERSONALITIES.map(|value| conditional("personality", equal(value))));
    rules.push(conditional("socket", Condition { index: 0, op: Op::Lt, value: AF_ALG, value_two: 0 }));
    rules.extend(FAMILIES_ABOVE.map(|value| conditional("socket", equal(value))));
    rules.extend(BY_CAPABILITY.map(|(capability, names)| Rule {
        includes: Requirement {
            capabilities: capability_bit(capability).unwrap_or_default(),
            ..Requirement::default()
        },
        ..Rule::new(names, Action::Allow)
    }));
    let admin = capability_bit("SYS_ADMIN").unwrap_or_default();
    let without_admin = Requirement { capabilities: admin, ..Requirement::default() };
    rules.push(Rule {
        excludes: without_admin.clone(),
        ..conditional("clone", Condition { index: 0, op: Op::MaskedEq, value: CLONE_NAMESPACES, value_two: 0 })
    });
    rules.push(Rule { excludes: without_admin, ..Rule::new("clone3", CLONE3) });
    Profile {
        default_action: Action::Errno(1),
        architectures: Vec::new(),
        arch_map: vec![(Arch::X86_64, vec![Arch::X86, Arch::X32]), (Arch::Aarch64, vec![Arch::Arm])],
        flags: FLAG_SPEC_ALLOW,
        rules,
    }
}

fn conditional(name: &str, condition: Condition) -> Rule {
    Rule { conditions: vec![condition], ..Rule::new(name, Action::Allow) }
}
