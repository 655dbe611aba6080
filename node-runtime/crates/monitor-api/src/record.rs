//! Exit records: what a monitor leaves on tmpfs for each task that ended, so that an exit code survives both the daemon and the
//! monitor. Frozen and versioned like [`crate::frame`]; `docs/formats/exit-record.md` describes it for people.
use crate::codec::DecodeError;
use crate::frame::{Exit, TaskKind};
use std::fmt::Write;

/// Name of the directory of exit records below a pod's runtime directory. A record's file is named after its task.
pub const DIRECTORY: &str = "exits";
/// Longest record in bytes.
pub const MAX_RECORD: usize = 4096;
const MAGIC: &str = "berth-exit-record";
const VERSION: &str = "1";

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRecord {
    /// What the task was.
    pub kind: TaskKind,
    /// Process id that its main process had; 0 if init never named one.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

fn kind_name(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Sandbox => "sandbox",
        TaskKind::Container => "container",
        TaskKind::Exec => "exec",
    }
}

impl ExitRecord {
    /// The file's text.
    pub fn encode(&self) -> String {
        let Self { kind, pid, exit } = self;
        let mut text = format!("{MAGIC} {VERSION}\nkind {}\npid {pid}\ncode {}\n", kind_name(*kind), exit.code);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "signaled {}\nstart_failed {}\noom_kills {}\nfinished_at {}\n",
            u8::from(exit.signaled),
            u8::from(exit.start_failed),
            exit.oom_kills,
            exit.finished_at
        );
        text
    }

    /// Reads a file's text. Lines with unknown words are passed over, so that later versions can add some.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_RECORD {
            return Err(DecodeError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::BadText)?;
        if !text.ends_with('\n') {
            return Err(DecodeError::Truncated);
        }
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(word, _)| *word == name).map(|(_, value)| value).ok_or(DecodeError::Truncated)
        };
        if field(MAGIC)? != VERSION {
            return Err(DecodeError::BadValue);
        }
        let kind = match field("kind")? {
            "sandbox" => TaskKind::Sandbox,
            "container" => TaskKind::Container,
            "exec" => TaskKind::Exec,
            _ => return Err(DecodeError::BadValue),
        };
        let exit = Exit {
            code: number(field("code")?)?,
            signaled: flag(field("signaled")?)?,
            start_failed: flag(field("start_failed")?)?,
            oom_kills: number(field("oom_kills")?)?,
            finished_at: number(field("finished_at")?)?,
        };
        Ok(Self { kind, pid: number(field("pid")?)?, exit })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, DecodeError> {
    text.parse().map_err(|_| DecodeError::BadValue)
}

fn flag(text: &str) -> Result<bool, DecodeError> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(DecodeError::BadValue),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "berth-exit-record 1\nkind container\npid 42\ncode 137\nsignaled 1\nstart_failed 0\noom_kills 2\n\
        finished_at 1700000000000000000\n";

    #[test]
    fn version_one_is_frozen() {
        let exit = Exit {
            code: 137,
            signaled: true,
            start_failed: false,
            oom_kills: 2,
            finished_at: 1_700_000_000_000_000_000,
        };
        let record = ExitRecord { kind: TaskKind::Container, pid: 42, exit };
        assert_eq!(record.encode(), TEXT);
        assert_eq!(ExitRecord::decode(TEXT.as_bytes()), Ok(record));
        assert_eq!(ExitRecord::decode(format!("{TEXT}later word\n").as_bytes()), Ok(record));
    }

    #[test]
    fn torn_and_foreign_files_are_refused() {
        for cut in 0..TEXT.len() {
            assert!(ExitRecord::decode(&TEXT.as_bytes()[..cut]).is_err(), "{cut} bytes were taken for a record");
        }
        assert_eq!(ExitRecord::decode(TEXT.replace("record 1", "record 2").as_bytes()), Err(DecodeError::BadValue));
        assert_eq!(ExitRecord::decode(TEXT.replace("137", "9999999999").as_bytes()), Err(DecodeError::BadValue));
        assert_eq!(ExitRecord::decode(&vec![b'\n'; MAX_RECORD + 1]), Err(DecodeError::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = ExitRecord::decode(&bytes);
        }
    }
}
