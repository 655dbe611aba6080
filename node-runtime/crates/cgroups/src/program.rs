//! The device program of a v2 group, as BPF instructions (`linux/bpf.h`, BPF_PROG_TYPE_CGROUP_DEVICE). Pure.
use crate::{DeviceAccess, DeviceKind, DevicePolicy, DeviceRule};
use berth_model::{Error, ErrorKind, Result};
use berth_sys::bpf::Instruction;

// Instruction codes: class | operation | source.
const LOAD_U32: u8 = 0x61; // LDX | MEM | W
const AND_IMM: u8 = 0x54; // ALU | AND | K
const RSH_IMM: u8 = 0x74; // ALU | RSH | K
const MOV_IMM: u8 = 0xb4; // ALU | MOV | K
const MOV_REG: u8 = 0xbc; // ALU | MOV | X
const JUMP_NE: u8 = 0x55; // JMP | JNE | K
const EXIT: u8 = 0x95; // JMP | EXIT

// Registers: 0 is the answer, 1 the context; the others hold its fields.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// struct bpf_cgroup_dev_ctx: access_type (low half the kind, high half the access), major, minor.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// Most rules of one program: a privileged pod's devices are not listed, so nobody comes near it.
const MAX_RULES: usize = 4_096;

/// Compiles a policy. The program answers 1 (allowed) as soon as one rule covers the whole access, else 0: the meaning of
/// v1's rules.
///
/// Errors: `InvalidArgument` for more than 4096 rules, `Internal` for device numbers beyond the kernel's.
pub fn device_program(policy: &DevicePolicy) -> Result<Vec<Instruction>> {
    if policy.rules.len() > MAX_RULES {
        return Err(Error::invalid(
            "devices",
            format!("{} rules, at most {MAX_RULES} are possible", policy.rules.len()),
        ));
    }
    let mut program = vec![
        op(LOAD_U32, KIND, CONTEXT, 0, 0),
        op(MOV_REG, ACCESS, KIND, 0, 0),
        op(AND_IMM, KIND, 0, 0, 0xffff),
        op(RSH_IMM, ACCESS, 0, 0, 16),
        op(LOAD_U32, MAJOR, CONTEXT, 4, 0),
        op(LOAD_U32, MINOR, CONTEXT, 8, 0),
    ];
    if !policy.allow_all {
        for rule in &policy.rules {
            program.extend(compile(rule)?);
        }
    }
    program.extend([op(MOV_IMM, ANSWER, 0, 0, policy.allow_all.into()), op(EXIT, 0, 0, 0, 0)]);
    Ok(program)
}

fn compile(rule: &DeviceRule) -> Result<Vec<Instruction>> {
    let number = |n: u32| {
        i32::try_from(n).map_err(|_| Error::new(ErrorKind::InvalidArgument, format!("device number {n} is too large")))
    };
    let mut code = vec![op(JUMP_NE, KIND, 0, 0, if rule.kind == DeviceKind::Block { BLOCK } else { CHAR })];
    if rule.access != DeviceAccess::ALL {
        // Anything asked for beyond what is allowed?
        let DeviceAccess { read, write, mknod } = rule.access;
        let allowed = [(read, READ), (write, WRITE), (mknod, MKNOD)];
        let allowed = allowed.into_iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit);
        code.extend([
            op(MOV_REG, ANSWER, ACCESS, 0, 0),
            op(AND_IMM, ANSWER, 0, 0, !allowed),
            op(JUMP_NE, ANSWER, 0, 0, 0),
        ]);
    }
    if let Some(major) = rule.major {
        code.push(op(JUMP_NE, MAJOR, 0, 0, number(major)?));
    }
    if let Some(minor) = rule.minor {
        code.push(op(JUMP_NE, MINOR, 0, 0, number(minor)?));
    }
    code.extend([op(MOV_IMM, ANSWER, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    let length = code.len();
    for (at, instruction) in code.iter_mut().enumerate().filter(|(_, i)| i.code == JUMP_NE) {
        // To the next rule; a rule has nine instructions at most.
        instruction.offset = i16::try_from(length - at - 1).unwrap_or(i16::MAX);
    }
    Ok(code)
}

fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | (source << 4), offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel's interpreter does with these instructions.
    fn run(program: &[Instruction], kind: i32, access: i32, major: u32, minor: u32) -> u64 {
        let context = [((access as u32) << 16) | kind as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (d, s) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            match i.code {
                LOAD_U32 => registers[d] = context[i.offset as usize / 4].into(),
                MOV_REG => registers[d] = registers[s] & 0xffff_ffff,
                MOV_IMM => registers[d] = (i.immediate as u32).into(),
                AND_IMM => registers[d] = ((registers[d] as u32) & i.immediate as u32).into(),
                RSH_IMM => registers[d] = ((registers[d] as u32) >> i.immediate).into(),
                JUMP_NE if registers[d] != i64::from(i.immediate) as u64 => at += i.offset as usize,
                JUMP_NE => {}
                EXIT => return registers[0],
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_standard_policy_allows_null_and_denies_disks() {
        let program = device_program(&DevicePolicy::standard()).unwrap();
        let ask = |kind, access, major, minor| run(&program, kind, access, major, minor);
        assert_eq!(ask(CHAR, READ | WRITE, 1, 3), 1);
        assert_eq!(ask(CHAR, READ, 136, 77), 1);
        assert_eq!(ask(CHAR, MKNOD, 1, 11), 1, "making a node is allowed");
        assert_eq!(ask(CHAR, READ, 1, 11), 0, "kmsg");
        assert_eq!(ask(CHAR, MKNOD | READ, 1, 1), 0, "mem");
        assert_eq!(ask(BLOCK, READ, 1, 3), 0, "block device with null's numbers");
        assert_eq!(ask(BLOCK, MKNOD, 8, 0), 1);
        assert_eq!(ask(BLOCK, WRITE, 8, 0), 0);
        assert_eq!(run(&device_program(&DevicePolicy::all()).unwrap(), BLOCK, WRITE, 8, 0), 1);
        assert_eq!(run(&device_program(&DevicePolicy::default()).unwrap(), CHAR, READ, 1, 3), 0);
    }

    fn rules() -> impl Strategy<Value = DeviceRule> {
        let small = || proptest::option::of(0u32..3);
        (any::<bool>(), small(), small(), 0u8..8).prop_map(|(block, major, minor, bits)| DeviceRule {
            kind: if block { DeviceKind::Block } else { DeviceKind::Char },
            major,
            minor,
            access: DeviceAccess { read: bits & 1 != 0, write: bits & 2 != 0, mknod: bits & 4 != 0 },
        })
    }

    proptest! {
        #[test]
        fn the_program_means_the_rules(
            rules in proptest::collection::vec(rules(), 0..6),
            block: bool, access in 1i32..8, major in 0u32..3, minor in 0u32..3,
        ) {
            let covers = |r: &DeviceRule| {
                (r.kind == DeviceKind::Block) == block
                    && r.major.is_none_or(|m| m == major)
                    && r.minor.is_none_or(|m| m == minor)
                    && (access & READ == 0 || r.access.read)
                    && (access & WRITE == 0 || r.access.write)
                    && (access & MKNOD == 0 || r.access.mknod)
            };
            let expected = rules.iter().any(covers);
            let program = device_program(&DevicePolicy { allow_all: false, rules }).unwrap();
            let answer = run(&program, if block { BLOCK } else { CHAR }, access, major, minor);
            prop_assert_eq!(answer, u64::from(expected));
        }
    }
}
