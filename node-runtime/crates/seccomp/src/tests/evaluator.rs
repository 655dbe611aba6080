//! The meaning of a profile in plain words, without any of the compiler's means.
use super::interpreter::Data;
use crate::{Action, Arch, CompileInput, Condition, Op, Profile, Rule, number};

pub(super) fn answer(profile: &Profile, input: &CompileInput, data: &Data) -> u32 {
    let Some(arch) = arch_of(profile, input, data) else { return Action::KillProcess.return_value() };
    action(profile, input, arch, data).return_value()
}

fn arch_of(profile: &Profile, input: &CompileInput, data: &Data) -> Option<Arch> {
    let listed = |arch: Arch| {
        arch == input.arch
            || profile.architectures.contains(&arch)
            || profile.arch_map.iter().any(|(native, subs)| *native == input.arch && subs.contains(&arch))
    };
    let arch = match data.arch {
        0xc000_003e if data.nr >= 0x4000_0000 && data.nr != u32::MAX => Arch::X32,
        0xc000_003e => Arch::X86_64,
        0x4000_0003 => Arch::X86,
        0xc000_00b7 => Arch::Aarch64,
        0x4000_0028 => Arch::Arm,
        _ => return None,
    };
    let family = |arch| matches!(arch, Arch::X86 | Arch::X32 | Arch::X86_64);
    (listed(arch) && family(arch) == family(input.arch)).then_some(arch)
}

fn action(profile: &Profile, input: &CompileInput, arch: Arch, data: &Data) -> Action {
    let names = |rule: &Rule| rule.names.iter().any(|name| number(arch, name) == Some(data.nr));
    let counts = |rule: &&Rule| {
        let (i, e) = (&rule.includes, &rule.excludes);
        let go = if matches!(input.arch, Arch::X86_64) { "amd64" } else { "arm64" };
        i.capabilities & !input.bounding == 0
            && (i.arches.is_empty() || i.arches.iter().any(|a| a == go))
            && i.min_kernel.unwrap_or((0, 0)) <= input.kernel
            && e.capabilities & input.bounding == 0
            && !e.arches.iter().any(|a| a == go)
            && e.min_kernel.is_none_or(|min| min > input.kernel)
    };
    let rules: Vec<&Rule> = profile
        .rules
        .iter()
        .filter(counts)
        .filter(|rule| rule.action != profile.default_action)
        .filter(|rule| names(rule))
        .collect();
    if let Some(rule) = rules.iter().find(|rule| rule.conditions.is_empty()) {
        return rule.action;
    }
    if let Some(rule) = rules.iter().find(|rule| holds(&rule.conditions, arch, data)) {
        return rule.action;
    }
    let known: Vec<u32> = profile.rules.iter().flat_map(|r| &r.names).filter_map(|n| number(arch, n)).collect();
    let newest = known.iter().filter(|nr| arch != Arch::Arm || **nr < 0xf_0000).max();
    let lets_pass = matches!(profile.default_action, Action::Allow | Action::Log | Action::Trace(_));
    match newest {
        Some(newest) if data.nr > *newest && !known.contains(&data.nr) && !lets_pass => Action::Errno(38),
        _ => profile.default_action,
    }
}

fn holds(conditions: &[Condition], arch: Arch, data: &Data) -> bool {
    let doubled = (0..6).any(|index| conditions.iter().filter(|c| c.index == index).count() > 1);
    let one = |c: &Condition| {
        let arg = data.args[usize::from(c.index)];
        let cut = |value: u64| if matches!(arch, Arch::X86 | Arch::Arm) { value % (1 << 32) } else { value };
        match c.op {
            Op::Eq => arg == cut(c.value),
            Op::Ne => arg != cut(c.value),
            Op::Lt => arg < c.value,
            Op::Le => arg <= c.value,
            Op::Gt => arg > c.value,
            Op::Ge => arg >= c.value,
            Op::MaskedEq => arg & cut(c.value) == cut(c.value_two),
        }
    };
    if doubled { conditions.iter().any(one) } else { conditions.iter().all(one) }
}
