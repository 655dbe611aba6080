//! From a profile to a BPF program for one machine and one container.
//!
//! Per architecture the numbers are cut into ranges with the same answer, and found by halving: about eight comparisons for
//! any system call. Which answers depend on arguments is kept apart, so that the kernel can remember the others in its bitmap
//! of calls that are always allowed (`kernel/seccomp.c`, `seccomp_cache_prepare`).
use crate::action::ENOSYS;
use crate::assembler::{Assembler, IF_EQ, IF_GE, IF_GT, Label};
use crate::profile::{Profile, Rule};
use crate::table::{ARM_PRIVATE, Row, X32_BIT, find, is_known};
use crate::{Action, Arch, Condition, Op};
use berth_model::{Error, Result};
use berth_monitor_api::spec::SeccompFilter;

/// Longest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// What a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CompileInput {
    /// The container's bounding capabilities, as a bit set.
    pub bounding: u64,
    /// Architecture of the node's kernel.
    pub arch: Arch,
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
}

/// Compiles a profile.
///
/// Errors: `InvalidArgument` where a restriction names a system call that this version does not know (it would restrict
/// nothing), and where the program is longer than [`MAX_INSTRUCTIONS`].
pub fn compile(profile: &Profile, input: &CompileInput) -> Result<SeccompFilter> {
    let default = profile.default_action;
    let mut rules = Vec::with_capacity(profile.rules.len());
    for (i, rule) in profile.rules.iter().enumerate() {
        let counts = rule.counts(input.arch, input.bounding, input.kernel) && rule.action != default;
        if counts {
            check_names(i, rule, default)?;
        }
        rules.push(Resolved { rule, counts, calls: rule.names.iter().filter_map(|name| find(name)).collect() });
    }
    let mut out = Assembler::new(MAX_INSTRUCTIONS);
    let mut dispatch = out.give(Action::KillProcess.return_value());
    let arches = arches(profile, input.arch);
    // Written from the end: the native architecture last, so that it is tried first.
    for arch in arches.iter().rev().filter(|arch| **arch != Arch::X32) {
        let ranges = ranges(default, &rules, *arch, arches.contains(&Arch::X32));
        let search = search(&mut out, &ranges, arch.is_32_bit());
        let section = out.load(OFFSET_NUMBER, search);
        dispatch = out.branch(IF_EQ, arch.audit(), section, dispatch);
    }
    out.load(OFFSET_ARCH, dispatch);
    let program = out.finish().ok_or_else(|| {
        let problem = format!(
            "compiles to more than the kernel's limit of {MAX_INSTRUCTIONS} instructions; use fewer conditions"
        );
        Error::invalid("seccomp profile", problem)
    })?;
    Ok(SeccompFilter { program, flags: profile.flags })
}

/// A rule with its names looked up.
struct Resolved<'a> {
    rule: &'a Rule,
    /// It counts for this container; else its names only tell what the profile knows.
    counts: bool,
    calls: Vec<&'static Row>,
}

// Offsets in struct seccomp_data (`linux/seccomp.h`). Both families are little-endian.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// Leaving out an unknown name is safe only where that leaves the call forbidden.
fn check_names(index: usize, rule: &Rule, default: Action) -> Result<()> {
    if rule.action.is_permissive() && !default.is_permissive() {
        return Ok(());
    }
    match rule.names.iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(
            format!("seccomp profile: syscalls[{index}].names"),
            format_args!(
                "{name:?} is no system call that this version knows, so it cannot be restricted; correct or remove it"
            ),
        )),
    }
}

/// The architectures that the filter lets in, native first.
fn arches(profile: &Profile, native: Arch) -> Vec<Arch> {
    let mapped = profile.arch_map.iter().filter(|(arch, _)| *arch == native).flat_map(|(_, subs)| subs);
    let mut all = vec![native];
    for arch in profile.architectures.iter().chain(mapped) {
        if native.runs(*arch) && !all.contains(arch) {
            all.push(*arch);
        }
    }
    all
}

/// The answer for a range of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    /// Conditions that must all hold, and what is then given; tried in order.
    chains: Vec<(Vec<Condition>, Action)>,
    /// What is given else.
    otherwise: Action,
}

impl Answer {
    fn always(action: Action) -> Self {
        Self { chains: Vec::new(), otherwise: action }
    }
}

/// A range starts here and ends where the next one starts.
type Range = (u32, Answer);

fn ranges(default: Action, rules: &[Resolved<'_>], arch: Arch, x32: bool) -> Vec<Range> {
    let mut all = Vec::new();
    let beyond = arch_ranges(default, rules, arch, 0, &mut all);
    if arch == Arch::X86_64 {
        if x32 {
            arch_ranges(default, rules, Arch::X32, X32_BIT, &mut all);
        } else {
            all.push((X32_BIT, Answer::always(Action::KillProcess)));
        }
        // -1 is what a tracer writes to skip a call: no call of x32.
        all.push((u32::MAX, Answer::always(beyond)));
    }
    all.dedup_by(|next, previous| next.1 == previous.1);
    all
}

/// Appends the ranges of one architecture from number `first` on, and returns the action beyond what the profile knows.
fn arch_ranges(default: Action, rules: &[Resolved<'_>], arch: Arch, first: u32, all: &mut Vec<Range>) -> Action {
    let mut named: Vec<(u32, usize)> = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        named.extend(rule.calls.iter().filter_map(|call| Some((call.number(arch)?, index))));
    }
    named.sort_unstable();
    // ARM's private calls lie far above the others and say nothing about which of those are known.
    let last = named.iter().map(|(nr, _)| *nr).filter(|nr| arch != Arch::Arm || *nr < ARM_PRIVATE).max();
    let beyond = if default.is_permissive() || last.is_none() { default } else { Action::Errno(ENOSYS) };
    let gap = |from: u32| Answer::always(if last.is_some_and(|last| from > last) { beyond } else { default });
    let mut next = first;
    for same in named.chunk_by(|a, b| a.0 == b.0) {
        let nr = same[0].0;
        if nr > next {
            all.push((next, gap(next)));
        }
        all.push((nr, answer_of(same.iter().map(|(_, index)| &rules[*index]), default)));
        next = nr + 1;
    }
    all.push((next, gap(next)));
    beyond
}

/// What the rules of one system call come to, in the order of the profile.
fn answer_of<'a>(rules: impl Iterator<Item = &'a Resolved<'a>> + Clone, default: Action) -> Answer {
    let rules = rules.filter(|rule| rule.counts).map(|resolved| resolved.rule);
    // The first rule without conditions decides alone, wherever it stands.
    if let Some(rule) = rules.clone().find(|rule| rule.conditions.is_empty()) {
        return Answer::always(rule.action);
    }
    let chains = rules.flat_map(|rule| rule.alternatives().into_iter().map(|conditions| (conditions, rule.action)));
    Answer { chains: chains.collect(), otherwise: default }
}

/// Writes the search for the number that was loaded.
fn search(out: &mut Assembler, ranges: &[Range], narrow: bool) -> Label {
    match ranges {
        [] => out.give(Action::KillProcess.return_value()),
        [(_, answer)] => self::answer(out, answer, narrow),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let high_label = search(out, high, narrow);
            let low_label = search(out, low, narrow);
            out.branch(IF_GE, high[0].0, high_label, low_label)
        }
    }
}

fn answer(out: &mut Assembler, answer: &Answer, narrow: bool) -> Label {
    let mut next = out.give(answer.otherwise.return_value());
    for (conditions, action) in answer.chains.iter().rev() {
        if out.overflowed() {
            break;
        }
        let mut pass = out.give(action.return_value());
        for condition in conditions.iter().rev() {
            pass = self::condition(out, *condition, narrow, pass, next);
        }
        next = pass;
    }
    next
}

/// Writes one comparison of 64 bits out of comparisons of 32.
fn condition(out: &mut Assembler, condition: Condition, narrow: bool, pass: Label, fail: Label) -> Label {
    let condition = if narrow { condition.narrowed() } else { condition };
    let (high, low) = halves(condition.value);
    let argument = Argument { offset: OFFSET_ARGUMENTS + 8 * u32::from(condition.index) };
    match condition.op {
        Op::Eq => argument.equals(out, (high, low), None, pass, fail),
        Op::Ne => argument.equals(out, (high, low), None, fail, pass),
        Op::MaskedEq => argument.equals(out, halves(condition.value_two), Some((high, low)), pass, fail),
        Op::Gt => argument.above(out, IF_GT, (high, low), pass, fail),
        Op::Ge => argument.above(out, IF_GE, (high, low), pass, fail),
        Op::Le => argument.above(out, IF_GT, (high, low), fail, pass),
        Op::Lt => argument.above(out, IF_GE, (high, low), fail, pass),
    }
}

fn halves(value: u64) -> (u32, u32) {
    // The casts cut on purpose.
    ((value >> 32) as u32, value as u32)
}

struct Argument {
    offset: u32,
}

impl Argument {
    fn equals(&self, out: &mut Assembler, value: (u32, u32), mask: Option<(u32, u32)>, yes: Label, no: Label) -> Label {
        let low = self.half(out, self.offset, value.1, mask.map(|m| m.1), yes, no);
        self.half(out, self.offset + 4, value.0, mask.map(|m| m.0), low, no)
    }

    #[allow(clippy::too_many_arguments, reason = "one comparison has that many parts")]
    fn half(&self, out: &mut Assembler, offset: u32, value: u32, mask: Option<u32>, yes: Label, no: Label) -> Label {
        let mut next = out.branch(IF_EQ, value, yes, no);
        if let Some(mask) = mask.filter(|mask| *mask != u32::MAX) {
            next = out.and(mask, next);
        }
        out.load(offset, next)
    }

    /// `code` is what the lower half is compared by where the upper halves are equal.
    fn above(&self, out: &mut Assembler, code: u16, value: (u32, u32), yes: Label, no: Label) -> Label {
        let low = out.branch(code, value.1, yes, no);
        let low = out.load(self.offset, low);
        let equal = out.branch(IF_EQ, value.0, low, no);
        let higher = out.branch(IF_GT, value.0, yes, equal);
        out.load(self.offset + 4, higher)
    }
}
