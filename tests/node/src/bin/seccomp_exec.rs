//! Loads a seccomp filter with `no_new_privs` and becomes a program: `seccomp_exec FILTER PROGRAM`. FILTER is a file with the
//! flags on its first line and one instruction (`code jt jf k`) on each other line. Owns: nothing of the product. Must not: be
//! used outside of tests.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of tests fails the test that uses it.

use berth_sys::seccomp_load::{Instruction, load};
use std::os::unix::process::CommandExt;

const ATTEMPTS: usize = 1_000_000;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let text = std::fs::read_to_string(&args[1]).unwrap();
    let (flags, rest) = text.split_once('\n').unwrap();
    let program: Vec<Instruction> = rest.lines().map(instruction).collect();
    berth_sys::task::set_no_new_privs().unwrap();
    load(&program, flags.parse().unwrap()).unwrap();
    // A thread of the test that forks at the wrong moment holds the program open for writing until it executes its own: then
    // the kernel says ETXTBSY, for a moment.
    for _ in 0..ATTEMPTS {
        let error = std::process::Command::new(&args[2]).exec();
        assert!(error.kind() == std::io::ErrorKind::ExecutableFileBusy, "{}: {error}", args[2]);
    }
    panic!("{}: busy for too long", args[2]);
}

fn instruction(line: &str) -> Instruction {
    let words: Vec<u32> = line.split(' ').map(|word| word.parse().unwrap()).collect();
    Instruction { code: words[0] as u16, jt: words[1] as u8, jf: words[2] as u8, k: words[3] }
}
