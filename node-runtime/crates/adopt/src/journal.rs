//! The journal of adoptions: one record a line, appended and synced before and after each step. Format: `docs/formats/adopt-journal.md`.
//!
//! Owns: the codec, and what a journal means ([`State`]). Must not: write files, or decide what to do next. Fuzz target: `adopt_journal`.
use crate::plan::{FileChange, Plan};
use crate::step::{Direction, Step};
use serde::{Deserialize, Serialize};

/// First line of a journal.
pub const HEADER: &str = "berth-adopt-journal 1\n";
/// Longest journal that is read, in bytes: the longest records of the adoption and of the settings in force, that of the operation that begins
/// beside them, and room for the steps of all.
pub const MAX_JOURNAL: u64 = 32 << 20;
/// Longest record in bytes: a plan may have four revisions of a cluster, each of up to 1 MiB (`MAX_REVISION` in `crds/src/runtime_revision.rs`),
/// wanted and former, configuration and policies; and the texts of the files that it changes, before and after.
pub const MAX_RECORD: usize = 8 << 20;
/// Length of the check sum and the space after it.
const SUM: usize = 9;

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Unix time in milliseconds.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// An operation begins; what it will do.
    Begin {
        /// All of it.
        plan: Box<Plan>,
    },
    /// A step begins.
    Enter {
        /// Which.
        step: Step,
    },
    /// A step is done.
    Done {
        /// Which.
        step: Step,
    },
    /// The walk back begins.
    Back {
        /// Why.
        reason: String,
        /// It was ended from outside: its process was killed, the node was booted, its leave ended. That says nothing of what it was for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        interrupted: bool,
    },
    /// A step was undone.
    Undone {
        /// Which.
        step: Step,
    },
    /// An undo failed; it will be tried again.
    Stuck {
        /// Which.
        step: Step,
        /// Why.
        reason: String,
    },
    /// The operation is over: all steps are done, or all are undone.
    End {
        /// Whether they are done.
        done: bool,
    },
}

/// What could be read of a journal.
#[derive(Debug, Default)]
pub struct Journal {
    /// Records, oldest first.
    pub records: Vec<Record>,
    /// Length of the part that is whole, in bytes. What is behind it is a write that was cut short.
    pub whole: usize,
}

/// A record as a line. Errors: it is longer than [`MAX_RECORD`].
pub fn encode(record: &Record) -> Result<String, String> {
    let json = serde_json::to_string(record).map_err(|e| e.to_string())?;
    if json.len() > MAX_RECORD {
        return Err(format!("a record of {} bytes is longer than {MAX_RECORD}", json.len()));
    }
    Ok(format!("{:08x} {json}\n", crc32(json.as_bytes())))
}

/// Reads a journal. A last line without its end, or one that is damaged and has nothing behind it, is a write that was cut short, and is left
/// out. Errors: it is no journal; damage with records behind it, since nobody can say then what was done; a whole record that this
/// version does not know, wherever it stands.
pub fn decode(bytes: &[u8]) -> Result<Journal, String> {
    if HEADER.as_bytes().starts_with(bytes) && bytes.len() < HEADER.len() {
        return Ok(Journal::default());
    }
    let Some(mut rest) = bytes.strip_prefix(HEADER.as_bytes()) else {
        return Err("is no journal of this version: its first line is not berth-adopt-journal 1".to_owned());
    };
    let mut journal = Journal { whole: HEADER.len(), ..Journal::default() };
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let number = journal.records.len() + 1;
        match summed(&rest[..end]) {
            Ok(json) => journal.records.push(serde_json::from_str(json).map_err(|e| {
                format!("record {number} is whole and not known to this version ({e}); use the version of Berth that has written it")
            })?),
            Err(_) if !rest[end + 1..].contains(&b'\n') => return Ok(journal),
            Err(problem) => return Err(format!("record {number} is damaged: {problem}")),
        }
        journal.whole += end + 1;
        rest = &rest[end + 1..];
    }
    Ok(journal)
}

/// The JSON of a line whose check sum holds.
fn summed(line: &[u8]) -> Result<&str, String> {
    if line.len() > MAX_RECORD + SUM {
        return Err("is too long".to_owned());
    }
    let text = std::str::from_utf8(line).map_err(|e| e.to_string())?;
    let (sum, json) = text.split_once(' ').ok_or("has no check sum")?;
    if sum.len() + 1 != SUM || u32::from_str_radix(sum, 16) != Ok(crc32(json.as_bytes())) {
        return Err("its check sum is another one".to_owned());
    }
    Ok(json)
}

/// What a byte adds to a check sum.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC-32 as in IEEE 802.3 and zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}

/// Where the last operation of a journal is.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Its plan.
    pub plan: Plan,
    /// Steps that began, in order, without those that were undone.
    pub entered: Vec<Step>,
    /// Steps that are done.
    pub done: Vec<Step>,
    /// Why it walks back.
    pub back: Option<String>,
    /// That was nothing that it has done itself ([`Event::Back`]).
    pub interrupted: bool,
    /// The undo that failed last, and why.
    pub stuck: Option<(Step, String)>,
    /// How it is over: whether its steps are done, or undone.
    pub ended: Option<bool>,
    /// Unix time in milliseconds of the last record.
    pub at: u64,
}

/// What is left to do of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Nowhere,
    /// Its remaining steps: what it was for is proven.
    Forward,
    /// To undo what it did.
    Back,
}

impl State {
    /// Of the last operation.
    pub fn last(records: &[Record]) -> Option<Self> {
        let begin = records.iter().rposition(|r| matches!(r.event, Event::Begin { .. }))?;
        let Event::Begin { plan } = &records[begin].event else { return None };
        let mut state = Self {
            plan: (**plan).clone(),
            entered: Vec::new(),
            done: Vec::new(),
            back: None,
            interrupted: false,
            stuck: None,
            ended: None,
            at: records[begin].at,
        };
        records[begin + 1..].iter().for_each(|record| state.take(record));
        Some(state)
    }

    fn take(&mut self, record: &Record) {
        self.at = record.at;
        match &record.event {
            Event::Begin { .. } => {}
            Event::Enter { step } => self.entered.push(*step),
            Event::Done { step } => self.done.push(*step),
            // The first one says why; who goes on with a walk back has another reason to.
            Event::Back { reason, interrupted } if self.back.is_none() => {
                (self.back, self.interrupted) = (Some(reason.clone()), *interrupted);
            }
            Event::Back { .. } => {}
            Event::Undone { step } => {
                self.entered.retain(|s| s != step);
                self.stuck = None;
            }
            Event::Stuck { step, reason } => self.stuck = Some((*step, reason.clone())),
            Event::End { done } => self.ended = Some(*done),
        }
    }

    /// Which way recovery goes: forward once it was verified, else back.
    pub fn way(&self) -> Way {
        match self {
            Self { ended: Some(_), .. } => Way::Nowhere,
            Self { back: Some(_), .. } => Way::Back,
            _ if self.done.contains(&Step::Verify) => Way::Forward,
            _ => Way::Back,
        }
    }
}

/// What operations that ended well have left on the node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InForce {
    /// The adoption that was not given back.
    pub adoption: Option<Plan>,
    /// The change of the kubelet's settings that came last, if it has left some.
    pub settings: Option<Plan>,
}

impl InForce {
    /// Of a journal.
    pub fn of(records: &[Record]) -> Self {
        let mut current: Option<&Plan> = None;
        let mut force = Self::default();
        for record in records {
            match (&record.event, current) {
                (Event::Begin { plan }, _) => current = Some(plan),
                // A return has the node given back as soon as it is committed, whatever is left to tidy up.
                (Event::Done { step: Step::Commit }, Some(plan)) => force.take(plan),
                _ => {}
            }
        }
        force
    }

    fn take(&mut self, plan: &Plan) {
        match plan.direction {
            Direction::Adopt => self.adoption = Some(plan.clone()),
            Direction::Return => *self = Self::default(),
            Direction::Configure => {
                let some = plan.settings.as_ref().is_some_and(|settings| !settings.is_empty());
                self.settings = some.then(|| plan.clone());
            }
        }
    }

    /// What a journal has to keep of them: their plans, the older one first.
    pub fn plans(self) -> impl Iterator<Item = Plan> {
        self.adoption.into_iter().chain(self.settings)
    }

    /// All files of others as they were left.
    pub fn files(&self) -> Vec<FileChange> {
        self.adoption.iter().chain(&self.settings).flat_map(|plan| plan.files.clone()).collect()
    }

    /// The adoption with all that is to be taken back with it.
    pub fn to_give_back(&self) -> Option<Plan> {
        let adoption = self.adoption.clone()?;
        // What was there before was a file of settings too.
        let settings = self.settings.iter().flat_map(|plan| plan.files.iter().filter(|change| change.after.is_some()));
        let settings = settings.map(|change| FileChange { before: None, ..change.clone() });
        Some(Plan { files: adoption.files.iter().cloned().chain(settings).collect(), ..adoption })
    }
}

#[cfg(test)]
mod tests;
