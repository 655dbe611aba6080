//! The points of the crate's header, one test each.
use super::answer;
use super::interpreter::Data;
use crate::{Action, Arch, CompileInput, Condition, Op, Profile, Rule, compile};

const ALLOW: u32 = 0x7fff_0000;

fn profile(default_action: Action, rules: Vec<Rule>) -> Profile {
    Profile { default_action, architectures: vec![Arch::X86], arch_map: Vec::new(), flags: 0, rules }
}

fn when(name: &str, action: Action, conditions: &[(u8, Op, u64)]) -> Rule {
    let condition = |&(index, op, value): &(u8, Op, u64)| Condition { index, op, value, value_two: 0 };
    Rule { conditions: conditions.iter().map(condition).collect(), ..Rule::new(name, action) }
}

fn ask(profile: &Profile, nr: u32, args: [u64; 6]) -> u32 {
    let input = CompileInput { bounding: 0, arch: Arch::X86_64, kernel: (6, 1) };
    answer(profile, &input, Data { nr, arch: Arch::X86_64.audit(), args })
}

#[test]
fn a_rule_with_the_default_action_is_nothing() {
    let p = profile(
        Action::Errno(1),
        vec![Rule::new("read", Action::Errno(1)), when("read", Action::Allow, &[(0, Op::Eq, 5)])],
    );
    assert_eq!(ask(&p, 0, [5, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(ask(&p, 0, [4, 0, 0, 0, 0, 0]), 0x0005_0001);
}

#[test]
fn the_first_rule_without_conditions_decides_wherever_it_stands() {
    let rules = vec![
        when("read", Action::Trap, &[(0, Op::Eq, 5)]),
        Rule::new("read", Action::Log),
        Rule::new("read", Action::Allow),
    ];
    assert_eq!(ask(&profile(Action::Errno(1), rules), 0, [5, 0, 0, 0, 0, 0]), 0x7ffc_0000);
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let p = profile(Action::Errno(1), vec![when("read", Action::Allow, &[(0, Op::Eq, 1), (1, Op::Gt, 1 << 40)])]);
    assert_eq!(ask(&p, 0, [1, (1 << 40) + 1, 0, 0, 0, 0]), ALLOW);
    assert_ne!(ask(&p, 0, [1, 1 << 40, 0, 0, 0, 0]), ALLOW);
    assert_ne!(ask(&p, 0, [2, u64::MAX, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let p =
        profile(Action::Errno(1), vec![when("read", Action::Allow, &[(0, Op::Eq, 1), (0, Op::Eq, 2), (1, Op::Eq, 7)])]);
    for args in [[1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0], [9, 7, 0, 0, 0, 0]] {
        assert_eq!(ask(&p, 0, args), ALLOW, "{args:?}");
    }
    assert_ne!(ask(&p, 0, [3, 3, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn newer_calls_are_enosys_unless_the_default_lets_them_pass() {
    let rules = || vec![Rule::new("openat2", Action::Allow)];
    assert_eq!(ask(&profile(Action::KillProcess, rules()), 438, [0; 6]), 0x0005_0026);
    assert_eq!(ask(&profile(Action::KillProcess, rules()), 436, [0; 6]), 0x8000_0000);
    let log = vec![Rule::new("openat2", Action::Errno(1))];
    assert_eq!(ask(&profile(Action::Log, log), 438, [0; 6]), 0x7ffc_0000);
    assert_eq!(
        ask(&profile(Action::KillProcess, Vec::new()), 438, [0; 6]),
        0x8000_0000,
        "a profile that knows nothing"
    );
}

#[test]
fn minus_one_written_with_64_bits_is_minus_one_for_32_bit_programs() {
    let p = profile(Action::Allow, vec![when("setuid", Action::Trap, &[(0, Op::Eq, u64::MAX)])]);
    let input = CompileInput { bounding: 0, arch: Arch::X86_64, kernel: (6, 1) };
    let data = Data { nr: 23, arch: Arch::X86.audit(), args: [0xffff_ffff, 0, 0, 0, 0, 0] };
    assert_eq!(answer(&p, &input, data), 0x0003_0000);
}

#[test]
fn unknown_names_are_left_out_only_where_that_forbids() {
    let input = CompileInput { bounding: 0, arch: Arch::X86_64, kernel: (6, 1) };
    assert!(compile(&profile(Action::Errno(1), vec![Rule::new("future_call", Action::Allow)]), &input).is_ok());
    let error =
        compile(&profile(Action::Allow, vec![Rule::new("read future_call", Action::Errno(1))]), &input).unwrap_err();
    assert!(error.message().contains("syscalls[0].names") && error.message().contains("future_call"), "{error}");
    let foreign = vec![Rule::new("s390_pci_mmio_read arm_fadvise64_64", Action::Errno(1))];
    assert!(compile(&profile(Action::Allow, foreign), &input).is_ok());
}
