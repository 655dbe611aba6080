//! Random profiles and calls: the compiled filter and the plain reading agree.
use super::evaluator;
use super::interpreter::{Data, check, run, steps};
use crate::{
    Action, Arch, CompileInput, Condition, Op, Profile, Requirement, Rule, compile, default_profile, number, table,
};
use proptest::prelude::*;

const NATIVES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];
const AUDITS: [u32; 5] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x1234];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        (0u16..200).prop_map(Action::Errno),
        (0u16..9).prop_map(Action::Trace),
        Just(Action::Trap),
        Just(Action::KillThread),
        Just(Action::KillProcess),
    ]
}

/// Few values, close to each other and to the edges, so that conditions and arguments meet.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        any::<u64>(),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(0x1_0000_0001),
        Just(0x7e02_0000),
        (0u64..64).prop_map(|bit| 1 << bit),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let op = prop::sample::select(vec![Op::Ne, Op::Lt, Op::Le, Op::Eq, Op::Ge, Op::Gt, Op::MaskedEq]);
    (0u8..6, op, value(), value()).prop_map(|(index, op, value, value_two)| Condition { index, op, value, value_two })
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let arches = prop::collection::vec(
        prop::sample::select(vec!["amd64".to_owned(), "arm64".to_owned(), "s390x".to_owned()]),
        0..2,
    );
    let kernel = prop::option::of((3u32..7, 0u32..20));
    (
        prop_oneof![3 => Just(0u64), 1 => 0u64..8],
        prop_oneof![3 => Just(Vec::new()), 1 => arches],
        prop_oneof![3 => Just(None), 1 => kernel],
    )
        .prop_map(|(capabilities, arches, min_kernel)| Requirement { capabilities, arches, min_kernel })
}

fn rule() -> impl Strategy<Value = Rule> {
    let known: Vec<String> = table::names().map(str::to_owned).collect();
    let names = prop::collection::vec(prop::sample::select(known), 1..8);
    (names, action(), prop::collection::vec(condition(), 0..4), requirement(), requirement()).prop_map(
        |(names, action, conditions, includes, excludes)| Rule { names, action, conditions, includes, excludes },
    )
}

fn profile() -> impl Strategy<Value = Profile> {
    let arch = prop::sample::select(vec![Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm]);
    (action(), prop::collection::vec(arch, 0..4), prop::collection::vec(rule(), 0..10)).prop_map(
        |(default_action, architectures, rules)| Profile {
            default_action,
            architectures,
            arch_map: Vec::new(),
            flags: 0,
            rules,
        },
    )
}

fn family(native: Arch) -> &'static [Arch] {
    if native == Arch::X86_64 { &[Arch::X86_64, Arch::X86, Arch::X32] } else { &[Arch::Aarch64, Arch::Arm] }
}

/// 32-bit calls come with empty upper halves.
fn data(nr: u32, arch: u32, args: [u64; 6]) -> Data {
    let narrow = matches!(arch, 0x4000_0003 | 0x4000_0028);
    Data { nr, arch, args: args.map(|arg| if narrow { arg & 0xffff_ffff } else { arg }) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn filters_do_what_profiles_say(
        profile in profile(),
        native in prop::sample::select(NATIVES.to_vec()),
        kernel in (3u32..7, 0u32..20),
        bounding in 0u64..8,
        calls in prop::collection::vec((0u32..480, prop::sample::select(AUDITS.to_vec()), prop::array::uniform6(value())), 24),
    ) {
        let input = CompileInput { bounding, arch: native, kernel };
        let filter = compile(&profile, &input).unwrap();
        check(&filter.program);
        let named = profile.rules.iter().flat_map(|r| &r.names).flat_map(|n| {
            family(native).iter().filter_map(move |a| Some((number(*a, n)?, a.audit())))
        });
        let args = calls.iter().map(|c| c.2).cycle();
        let edges = [0x3fff_ffff, 0x4000_0000, 0x4000_0200, 0x8000_0000, 0xffff_fffe, u32::MAX, 0xf_0000, 0xf_0003];
        let edges = edges.into_iter().flat_map(|nr| AUDITS.map(|arch| (nr, arch)));
        let random = calls.iter().map(|c| (c.0, c.1));
        for ((nr, arch), args) in named.chain(edges).chain(random).zip(args) {
            let data = data(nr, arch, args);
            prop_assert_eq!(run(&filter.program, &data), evaluator::answer(&profile, &input, &data), "{:x?}", data);
        }
    }

    #[test]
    fn any_bytes_parse_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Profile::parse(&bytes);
    }
}

#[test]
fn the_default_profile_on_every_number_of_every_architecture() {
    for native in NATIVES {
        for (bounding, kernel) in [(0xa804_25fbu64, (6, 18)), (u64::MAX, (4, 4))] {
            let (profile, input) = (default_profile(), CompileInput { bounding, arch: native, kernel });
            let filter = compile(&profile, &input).unwrap();
            check(&filter.program);
            assert!(filter.program.len() < 1000, "{} instructions", filter.program.len());
            let conditional = ["personality", "socket", "clone"];
            let mut longest = 0;
            for &arch in family(native) {
                let base = number(arch, "exit").unwrap() & 0x4000_0000;
                for nr in (base..base + 480).chain(0xf_0000..0xf_0008).chain([u32::MAX]) {
                    let decided = conditional.iter().any(|name| number(arch, name) == Some(nr));
                    let args =
                        [0, 1, 8, 37, 38, 39, 40, 41, 0x1_0000_0026, 0x2_0008, 0xffff_ffff, 0x1000_0000, 0x0001_0f00];
                    for arg in args.into_iter().take(if decided { args.len() } else { 1 }) {
                        let data = data(nr, arch.audit(), [arg; 6]);
                        assert_eq!(
                            run(&filter.program, &data),
                            evaluator::answer(&profile, &input, &data),
                            "{data:x?}"
                        );
                        longest = longest.max(steps(&filter.program, &data));
                    }
                }
            }
            assert!(longest < 50, "{longest} instructions for one call");
        }
    }
}

/// Hundreds of conditions: branches across more than 255 instructions, and in the end the kernel's limit.
#[test]
fn long_programs_jump_far_and_too_long_ones_are_refused() {
    let rules = |count: u64| -> Vec<Rule> {
        (0..count)
            .map(|n| Rule {
                conditions: vec![Condition { index: (n % 6) as u8, op: Op::Eq, value: n * 3, value_two: 0 }],
                ..Rule::new(
                    if n % 2 == 0 { "openat" } else { "ioctl" },
                    if n % 5 == 0 { Action::Trap } else { Action::Allow },
                )
            })
            .collect()
    };
    let mut profile = default_profile();
    profile.rules.retain(|rule| !rule.names.iter().any(|name| name == "openat"));
    profile.rules.extend(rules(200));
    let input = CompileInput { bounding: 0, arch: Arch::X86_64, kernel: (6, 18) };
    let program = compile(&profile, &input).unwrap().program;
    check(&program);
    assert!(program.len() > 600, "{} instructions need no far jumps", program.len());
    for n in (0..600).step_by(3) {
        for nr in [16, 257, 0, 300] {
            for index in 0..6 {
                let mut args = [u64::MAX; 6];
                args[index] = n;
                let data = Data { nr, arch: 0xc000_003e, args };
                assert_eq!(run(&program, &data), evaluator::answer(&profile, &input, &data), "{data:x?}");
            }
        }
    }
    profile.rules.extend(rules(5000));
    let error = compile(&profile, &input).unwrap_err();
    assert!(error.message().contains("4096 instructions"), "{error}");
}
