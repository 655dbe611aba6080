//! What the default profile allows, as its users know it.
use super::answer;
use super::interpreter::Data;
use crate::{Action, Arch, CompileInput, compile, default_profile, number, table};
use berth_model::capability_bit;

/// containerd's default capabilities.
const USUAL: u64 = 0xa804_25fb;

fn ask(bounding: u64, arch: Arch, name: &str, first: u64) -> u32 {
    let native = if matches!(arch, Arch::Aarch64 | Arch::Arm) { Arch::Aarch64 } else { Arch::X86_64 };
    let nr = number(arch, name).unwrap_or_else(|| panic!("{name}"));
    let data = Data { nr, arch: arch.audit(), args: [first, 0, 0, 0, 0, 0] };
    answer(&default_profile(), &CompileInput { bounding, arch: native, kernel: (6, 18) }, data)
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

#[test]
fn without_special_capabilities() {
    for arch in [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64] {
        for (name, first, expected) in [
            ("read", 0, ALLOW),
            ("execve", 0, ALLOW),
            ("openat2", 0, ALLOW),
            ("ptrace", 0, ALLOW),
            ("mknodat", 0, ALLOW),
            ("futex_wait", 0, ALLOW),
            ("chroot", 0, ALLOW),
            ("unshare", 0x1000_0000, EPERM),
            ("setns", 0, EPERM),
            ("mount", 0, EPERM),
            ("fsopen", 0, EPERM),
            ("umount2", 0, EPERM),
            ("bpf", 0, EPERM),
            ("io_uring_setup", 0, EPERM),
            ("userfaultfd", 0, EPERM),
            ("keyctl", 0, EPERM),
            ("perf_event_open", 0, EPERM),
            ("open_by_handle_at", 0, EPERM),
            ("clone3", 0, ENOSYS),
            ("clone", 0x0001_1200, ALLOW),
            ("clone", 0x1000_0011, EPERM),
            ("clone", 0x0002_0000, EPERM),
            ("personality", 0, ALLOW),
            ("personality", 0xffff_ffff, ALLOW),
            ("personality", 0x0004_0000, EPERM),
            ("socket", 2, ALLOW),
            ("socket", 16, ALLOW),
            ("socket", 38, EPERM),
            ("socket", 40, EPERM),
            ("socket", 44, ALLOW),
            ("socket", 46, EPERM),
        ] {
            assert_eq!(ask(USUAL, arch, name, first), expected, "{arch:?} {name} {first:#x}");
        }
    }
    assert_eq!(ask(USUAL, Arch::X86_64, "socket", 0x1_0000_0026), EPERM, "the kernel cuts the family to 32 bits");
    assert_eq!(ask(USUAL, Arch::X86, "socketcall", 1), ALLOW);
    assert_eq!(ask(USUAL, Arch::Arm, "set_tls", 1), ALLOW);
}

#[test]
fn capabilities_bring_their_calls() {
    for (capability, name) in [
        ("SYS_ADMIN", "mount"),
        ("SYS_ADMIN", "unshare"),
        ("SYS_ADMIN", "clone3"),
        ("SYS_ADMIN", "bpf"),
        ("BPF", "bpf"),
        ("PERFMON", "perf_event_open"),
        ("SYSLOG", "syslog"),
        ("SYS_TIME", "clock_settime"),
        ("SYS_NICE", "mbind"),
        ("SYS_MODULE", "finit_module"),
        ("SYS_BOOT", "reboot"),
        ("SYS_PACCT", "acct"),
        ("SYS_PTRACE", "kcmp"),
        ("SYS_CHROOT", "chroot"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYS_TTY_CONFIG", "vhangup"),
        ("SYS_RAWIO", "iopl"),
    ] {
        assert_ne!(ask(0, Arch::X86_64, name, 0), ALLOW, "{name} without {capability}");
        assert_eq!(ask(capability_bit(capability).unwrap(), Arch::X86_64, name, 0), ALLOW, "{name} with {capability}");
    }
    assert_eq!(ask(1 << 21, Arch::X86_64, "clone", 0x1000_0000), ALLOW);
}

#[test]
fn what_no_kernel_has_yet_is_enosys_and_foreign_architectures_end_the_process() {
    let input = CompileInput { bounding: USUAL, arch: Arch::X86_64, kernel: (6, 18) };
    let ask = |nr, arch| answer(&default_profile(), &input, Data { nr, arch, args: [0; 6] });
    for (nr, arch, expected) in [
        (500, 0xc000_003e, ENOSYS),
        (500, 0x4000_0003, ENOSYS),
        (0x4000_0000 + 600, 0xc000_003e, ENOSYS),
        (u32::MAX, 0xc000_003e, ENOSYS),
        (63, 0xc000_00b7, Action::KillProcess.return_value()),
        (0, 0, Action::KillProcess.return_value()),
    ] {
        assert_eq!(ask(nr, arch), expected, "{nr:#x} on {arch:#x}");
    }
}

#[test]
fn before_kernel_4_8_tracing_is_left_out() {
    for (kernel, expected) in [((4, 7), EPERM), ((4, 8), ALLOW), ((5, 0), ALLOW), ((3, 19), EPERM)] {
        let input = CompileInput { bounding: USUAL, arch: Arch::X86_64, kernel };
        let data = Data { nr: 101, arch: 0xc000_003e, args: [0; 6] };
        assert_eq!(answer(&default_profile(), &input, data), expected, "{kernel:?}");
    }
}

#[test]
fn every_name_in_it_exists() {
    for name in default_profile().rules.iter().flat_map(|rule| &rule.names) {
        assert!(table::is_known(name), "{name}");
    }
    assert!(compile(&default_profile(), &CompileInput { bounding: 0, arch: Arch::X86_64, kernel: (5, 15) }).is_ok());
}
