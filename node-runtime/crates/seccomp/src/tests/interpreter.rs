//! Runs the BPF that seccomp allows, and refuses what the kernel's checker (`kernel/seccomp.c`, `seccomp_check_filter`;
//! `net/core/filter.c`, `bpf_check_classic`) would refuse.
use berth_monitor_api::spec::BpfInstruction;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data {
    pub(super) nr: u32,
    pub(super) arch: u32,
    pub(super) args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let arg = |at: u32| self.args[usize::try_from(at / 8).unwrap()];
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 if offset.is_multiple_of(8) => arg(offset - 16) as u32,
            16..64 if offset.is_multiple_of(4) => (arg(offset - 16) >> 32) as u32,
            other => panic!("load of offset {other}"),
        }
    }
}

pub(super) fn check(program: &[BpfInstruction]) {
    assert!(!program.is_empty() && program.len() <= crate::MAX_INSTRUCTIONS);
    assert_eq!(program.last().unwrap().code, 0x06, "a program must end with a return");
    for (at, i) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match i.code {
            0x20 => assert!(i.k.is_multiple_of(4) && i.k < 64, "load of {}", i.k),
            0x54 | 0x06 => {}
            0x05 => assert!((i.k as usize) < left, "jump out of the program at {at}"),
            0x15 | 0x25 | 0x35 => assert!((i.jt.max(i.jf) as usize) < left, "branch out of the program at {at}"),
            other => panic!("operation {other:#x} at {at}"),
        }
    }
}

/// The value that the program returns.
pub(super) fn run(program: &[BpfInstruction], data: &Data) -> u32 {
    let (mut at, mut a) = (0, 0u32);
    loop {
        let i = program[at];
        at += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => a = data.word(i.k),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += branch(a == i.k),
            0x25 => at += branch(a > i.k),
            0x35 => at += branch(a >= i.k),
            0x06 => return i.k,
            other => panic!("operation {other:#x}"),
        }
    }
}

/// How many instructions run.
pub(super) fn steps(program: &[BpfInstruction], data: &Data) -> usize {
    let (mut at, mut a, mut count) = (0, 0u32, 0);
    loop {
        let i = program[at];
        at += 1;
        count += 1;
        let branch = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => a = data.word(i.k),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += branch(a == i.k),
            0x25 => at += branch(a > i.k),
            0x35 => at += branch(a >= i.k),
            _ => return count,
        }
    }
}
