//! Compiled filters in the real kernel: it takes them, and answers as the profile says. Needs x86_64 with 32-bit emulation.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // Tests.

#[path = "seccomp/elf.rs"]
mod elf;

use berth_monitor_api::spec::SeccompFilter;
use berth_seccomp::{Arch, CompileInput, Profile, compile, default_profile, number};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
/// Signal of a process that a filter ends.
const SIGSYS: i32 = 31;
/// containerd's default capabilities.
const USUAL: u64 = 0xa804_25fb;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn filter(&self, profile: &Profile, bounding: u64) -> PathBuf {
        let input = CompileInput { bounding, arch: Arch::X86_64, kernel: (6, 1) };
        let SeccompFilter { program, flags } = compile(profile, &input).unwrap();
        let lines = program.iter().map(|i| format!("{} {} {} {}\n", i.code, i.jt, i.jf, i.k));
        let path = self.dir.path().join(format!("filter-{bounding:x}"));
        std::fs::write(&path, format!("{flags}\n{}", lines.collect::<String>())).unwrap();
        path
    }

    fn native(&self, name: &str, args: &[u64]) -> Program {
        let path = self.dir.path().join(format!("{name}-{args:x?}"));
        elf::x86_64(&path, u64::from(number(Arch::X86_64, name).unwrap()), args);
        Program(path)
    }

    fn narrow(&self, name: &str, args: [u32; 3]) -> Program {
        let path = self.dir.path().join(format!("narrow-{name}-{args:x?}"));
        elf::x86(&path, number(Arch::X86, name).unwrap(), args);
        Program(path)
    }
}

/// Starts a program, and waits for its end.
fn ended(command: &mut Command) -> ExitStatus {
    let mut child = {
        let _alone = elf::alone();
        command.spawn().unwrap()
    };
    child.wait().unwrap()
}

struct Program(PathBuf);

impl Program {
    /// Errno of its call, without a filter.
    fn free(&self) -> i32 {
        self.status_free().code().unwrap()
    }

    fn status_free(&self) -> ExitStatus {
        ended(&mut Command::new(&self.0))
    }

    fn status(&self, filter: &PathBuf) -> ExitStatus {
        ended(Command::new(env!("CARGO_BIN_EXE_seccomp_exec")).arg(filter).arg(&self.0))
    }

    /// Errno of its call below a filter.
    fn below(&self, filter: &PathBuf) -> i32 {
        let status = self.status(filter);
        status.code().unwrap_or_else(|| panic!("{}: {status}", self.0.display()))
    }
}

/// Each call below would do something else without the filter, so that the answer is the filter's.
#[test]
fn the_default_profile_refuses() {
    let bench = Bench::new();
    let filter = bench.filter(&default_profile(), USUAL);
    for (name, args, expected) in [
        ("unshare", &[0x1000_0000_u64][..], EPERM),
        ("setns", &[u64::MAX, 0], EPERM),
        ("clone3", &[0, 0], ENOSYS),
        ("socket", &[38, 5, 0], EPERM),
        ("socket", &[0x1_0000_0026, 5, 0], EPERM),
        ("socket", &[40, 1, 0], EPERM),
        ("keyctl", &[0x7fff], EPERM),
        ("io_uring_setup", &[0, 0], EPERM),
        ("userfaultfd", &[0xffff], EPERM),
        ("fsopen", &[0, 0], EPERM),
        ("open_by_handle_at", &[u64::MAX, 0, 0], EPERM),
        ("personality", &[0x0004_0000], EPERM),
    ] {
        let program = bench.native(name, args);
        assert_ne!(program.free(), expected, "{name} {args:x?} without a filter");
        assert_eq!(program.below(&filter), expected, "{name} {args:x?}");
    }
}

#[test]
fn the_default_profile_lets_ordinary_calls_pass() {
    let bench = Bench::new();
    let filter = bench.filter(&default_profile(), USUAL);
    for (name, args) in [
        ("getpid", &[][..]),
        ("getrandom", &[0, 0, 0]),
        ("socket", &[1, 1, 0]),
        ("socket", &[2, 2, 0]),
        ("personality", &[0xffff_ffff]),
        ("mincore", &[0x40_0000, 1, 0]),
        ("openat2", &[u64::MAX, 0, 0, 0]),
        ("futex_wake", &[0, 0, 0, 0]),
        ("uretprobe", &[]),
    ] {
        let program = bench.native(name, args);
        let (free, below) = (program.status_free(), program.status(&filter));
        assert_eq!(below, free, "{name} {args:x?}");
    }
    let shell = ended(Command::new(env!("CARGO_BIN_EXE_seccomp_exec")).arg(&filter).arg("/bin/true"));
    assert!(shell.success(), "a dynamically linked program: {shell}");
}

#[test]
fn capabilities_open_the_default_profile() {
    let bench = Bench::new();
    let filter = bench.filter(&default_profile(), USUAL | 1 << 21);
    for (name, args) in [("setns", &[u64::MAX, 0][..]), ("clone3", &[0, 0]), ("fsopen", &[0, 0])] {
        let program = bench.native(name, args);
        assert_eq!(program.below(&filter), program.free(), "{name}");
    }
}

#[test]
fn architectures_are_told_apart() {
    let bench = Bench::new();
    let filter = bench.filter(&default_profile(), USUAL);
    for (name, args, expected) in [
        ("getpid", [0, 0, 0], 0),
        ("socket", [38, 5, 0], EPERM),
        ("socket", [1, 1, 0], 0),
        ("clone3", [0, 0, 0], ENOSYS),
    ] {
        assert_eq!(bench.narrow(name, args).below(&filter), expected, "32-bit {name} {args:?}");
    }
    let native_only = Profile { arch_map: Vec::new(), ..default_profile() };
    let filter = bench.filter(&native_only, 0);
    assert_eq!(
        bench.narrow("getpid", [0; 3]).status(&filter).signal(),
        Some(SIGSYS),
        "a 32-bit call in a 64-bit profile"
    );
    let path = bench.dir.path().join("x32");
    elf::x86_64(&path, 0x4000_0000 + 39, &[]);
    assert_eq!(Program(path).status(&filter).signal(), Some(SIGSYS), "a call of x32 in a 64-bit profile");
}

#[test]
fn numbers_beyond_the_profile_do_not_exist() {
    let bench = Bench::new();
    let names = r#"["execve", "exit", "rt_sigprocmask", "rt_sigaction", "sched_yield"]"#;
    let json = format!(
        r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": {names}, "action": "SCMP_ACT_ALLOW"}}]}}"#
    );
    let filter = bench.filter(&Profile::parse(json.as_bytes()).unwrap(), 0);
    assert_eq!(bench.native("sched_yield", &[]).below(&filter), 0);
    assert_eq!(bench.native("getpid", &[]).below(&filter), EPERM, "39 is below exit, 60, the last that is named");
    assert_eq!(bench.native("uname", &[0]).below(&filter), ENOSYS, "63 is above it");
}

/// getppid takes no arguments, so the conditions alone decide.
#[test]
fn arguments_are_compared_with_64_bits() {
    let bench = Bench::new();
    const BIG: u64 = 0x1_0000_0005;
    for (op, value, two, arg, holds) in [
        ("EQ", BIG, 0_u64, BIG, true),
        ("EQ", BIG, 0, 5, false),
        ("NE", BIG, 0, 5, true),
        ("NE", BIG, 0, BIG, false),
        ("GT", BIG, 0, BIG, false),
        ("GT", BIG, 0, BIG + 1, true),
        ("GT", BIG, 0, 0x2_0000_0000, true),
        ("GT", BIG, 0, 6, false),
        ("GE", BIG, 0, BIG, true),
        ("GE", BIG, 0, BIG - 1, false),
        ("LT", BIG, 0, BIG - 1, true),
        ("LT", BIG, 0, BIG, false),
        ("LE", BIG, 0, BIG, true),
        ("LE", BIG, 0, u64::MAX, false),
        ("MASKED_EQ", 0xff_0000_00ff, 0x01_0000_0005, 0x7702_1111_1105, false),
        ("MASKED_EQ", 0xff_0000_00ff, 0x01_0000_0005, 0x7701_1111_1105, true),
        ("MASKED_EQ", 0x8000_0000_0000_0000, 0x8000_0000_0000_0000, u64::MAX, true),
    ] {
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                "args": [{{"index": 5, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]}}]}}"#
        );
        let filter = bench.filter(&Profile::parse(json.as_bytes()).unwrap(), 0);
        let got = bench.native("getppid", &[0, 0, 0, 0, 0, arg]).below(&filter);
        assert_eq!(got, if holds { 77 } else { 0 }, "{arg:#x} {op} {value:#x} {two:#x}");
    }
}
