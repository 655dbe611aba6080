//! Seccomp profiles of users: any bytes give a profile or an error, and a profile that is taken compiles to a program that
//! the kernel's checker can accept (its length, jumps that stay inside, an answer at its end), or is refused.
#![no_main]
use berth_seccomp::{Arch, CompileInput, MAX_INSTRUCTIONS, Profile, compile};

const CLASS: u16 = 0x07;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = Profile::parse(bytes) else { return };
    let input = CompileInput { bounding: 0xa804_25fb, arch: Arch::X86_64, kernel: (6, 1) };
    let Ok(filter) = compile(&profile, &input) else { return };
    let program = &filter.program;
    assert!(!program.is_empty() && program.len() <= MAX_INSTRUCTIONS);
    for (at, instruction) in program.iter().enumerate() {
        let furthest = match instruction.code & CLASS {
            JUMP if instruction.code & 0xf0 == 0 => instruction.k as usize,
            JUMP => usize::from(instruction.jt.max(instruction.jf)),
            RETURN => continue,
            _ => 0,
        };
        assert!(at + 1 + furthest < program.len(), "instruction {at} leaves the program");
    }
});
