//! Writes BPF from its end to its start: every jump is forward, so its targets exist when it is written.
use berth_monitor_api::spec::BpfInstruction;
use std::collections::HashMap;

// Operations of classic BPF that seccomp accepts (`linux/bpf_common.h`).
pub(crate) const LOAD: u16 = 0x20; // LD | W | ABS
pub(crate) const AND: u16 = 0x54; // ALU | AND | K
pub(crate) const JUMP: u16 = 0x05; // JMP | JA
pub(crate) const IF_EQ: u16 = 0x15; // JMP | JEQ | K
pub(crate) const IF_GT: u16 = 0x25; // JMP | JGT | K
pub(crate) const IF_GE: u16 = 0x35; // JMP | JGE | K
pub(crate) const RETURN: u16 = 0x06; // RET | K

/// Distance within which an earlier written return is jumped to instead of writing another: below 255, so that the jump fits
/// with room for what is written in between.
const REUSE: usize = 200;

/// Place of an instruction, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program under construction, last instruction first.
pub(crate) struct Assembler {
    reversed: Vec<BpfInstruction>,
    returns: HashMap<u32, Label>,
    limit: usize,
    overflow: bool,
}

impl Assembler {
    /// A program of at most `limit` instructions.
    pub(crate) fn new(limit: usize) -> Self {
        Self { reversed: Vec::new(), returns: HashMap::new(), limit, overflow: false }
    }

    /// More than the limit was written: what follows is thrown away, and [`Self::finish`] gives `None`.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflow
    }

    /// The program, first instruction first.
    pub(crate) fn finish(mut self) -> Option<Vec<BpfInstruction>> {
        self.reversed.reverse();
        (!self.overflow).then_some(self.reversed)
    }

    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        if self.reversed.len() >= self.limit {
            self.overflow = true;
        } else {
            self.reversed.push(BpfInstruction { code, jt, jf, k });
        }
        Label(self.reversed.len().saturating_sub(1))
    }

    /// How many instructions the next one written would have to skip to get to `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len().saturating_sub(target.0 + 1)
    }

    /// Ends the program with a value.
    pub(crate) fn give(&mut self, value: u32) -> Label {
        if let Some(label) = self.returns.get(&value).filter(|label| self.distance(**label) < REUSE) {
            return *label;
        }
        let label = self.push(RETURN, 0, 0, value);
        self.returns.insert(value, label);
        label
    }

    fn go(&mut self, target: Label) -> Label {
        // The limit on instructions is far below what 32 bits hold.
        let skip = u32::try_from(self.distance(target)).unwrap_or(u32::MAX);
        self.push(JUMP, 0, 0, skip)
    }

    /// An instruction that goes on with `next`, wherever that is.
    fn then(&mut self, code: u16, k: u32, next: Label) -> Label {
        if self.distance(next) > 0 {
            self.go(next);
        }
        self.push(code, 0, 0, k)
    }

    /// Loads the word at an offset of `struct seccomp_data`.
    pub(crate) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.then(LOAD, offset, next)
    }

    /// Masks what was loaded.
    pub(crate) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.then(AND, mask, next)
    }

    /// Compares what was loaded with `k`.
    pub(crate) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let (mut yes, mut no) = (yes, no);
        loop {
            // Conditional jumps reach 255 instructions; a plain jump between them reaches anything. Writing one moves the
            // other target a step away, hence the loop.
            match (u8::try_from(self.distance(yes)), u8::try_from(self.distance(no))) {
                (Ok(jt), Ok(jf)) => return self.push(code, jt, jf, k),
                (Err(_), _) => yes = self.go(yes),
                (_, Err(_)) => no = self.go(no),
            }
            if self.overflow {
                return Label(0);
            }
        }
    }
}
