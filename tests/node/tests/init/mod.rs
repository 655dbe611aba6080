//! Plays the monitor and the daemon for `berth-init`, with real descriptors, on root filesystems of static busybox.
//!
//! Needs root, /bin/busybox (Debian's busybox-static) and the built program: `$BERTH_BIN_DIR/berth-init`, or the one that
//! `cargo build -p berth-init` leaves beside the tests.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod fixture;
pub mod groups;
pub mod run;

pub use fixture::Fixture;
pub use run::Run;

use berth_monitor_api::spec::{BpfInstruction, Capabilities, CgroupJoin, MountKind, MountSpec, Process, SeccompFilter};
use std::path::Path;

/// containerd's default capabilities by number (linux/capability.h): CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP
/// NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP.
pub const DEFAULT_CAPS: u64 = bits(&[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31]);
pub const SYS_PTRACE: u64 = 1 << 19;
pub const SYS_ADMIN: u64 = 1 << 21;
pub const NET_ADMIN: u64 = 1 << 12;

pub const fn bits(numbers: &[u32]) -> u64 {
    let (mut all, mut at) = (0, 0);
    while at < numbers.len() {
        all |= 1 << numbers[at];
        at += 1;
    }
    all
}

pub fn caps(set: u64) -> Capabilities {
    Capabilities { bounding: set, effective: set, permitted: set, ambient: 0 }
}

pub fn mount(target: &str, kind: MountKind) -> MountSpec {
    MountSpec { target: target.into(), kind }
}

pub const fn no_cgroup() -> CgroupJoin {
    CgroupJoin::Own { v2: None, v1_tasks: Vec::new() }
}

pub fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|a| (*a).to_owned()).collect(),
        env: vec![b"PATH=/bin".to_vec()],
        cwd: "/".into(),
        capabilities: caps(DEFAULT_CAPS),
        no_new_privs: true,
        ..Process::default()
    }
}

pub fn shell(script: &str) -> Process {
    process(&["sh", "-c", script])
}

/// A filter that answers one system call (x86_64's number) with EPERM and allows the rest.
pub fn forbid(number: u32) -> SeccompFilter {
    let i = |code, jt, jf, k| BpfInstruction { code, jt, jf, k };
    let program = vec![
        i(0x20, 0, 0, 0),           // A = nr
        i(0x15, 0, 1, number),      // nr?
        i(0x06, 0, 0, 0x0005_0001), // ERRNO(EPERM)
        i(0x06, 0, 0, 0x7fff_0000), // ALLOW
    ];
    SeccompFilter { program, flags: 0 }
}

/// The field of /proc/PID/status.
pub fn status(text: &str, field: &str) -> String {
    let start = format!("{field}:");
    let line = text.lines().find(|l| l.starts_with(&start)).unwrap_or_else(|| panic!("no {field} in {text}"));
    line[start.len()..].trim().to_owned()
}

/// Runs a program of the host, which must succeed.
pub fn host(program: &str, args: &[&str]) -> String {
    let out = std::process::Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(out.stdout).unwrap()
}

pub fn bind(source: &Path) -> berth_monitor_api::spec::Bind {
    berth_monitor_api::spec::Bind {
        source: source.to_owned(),
        readonly: false,
        recursive_readonly: false,
        propagation: berth_model::Propagation::Private,
        idmapped: false,
        recursive: true,
        options: berth_model::MountOptions::default(),
    }
}
