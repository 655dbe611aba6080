//! A second try for tests on a real kernel, guest or cluster: alone, told by name, and only for a few. A busy machine can make one of
//! several hundred late; what is broken fails twice. Whoever reads a name in the list of second tries mends that test.
//!
//! Must not: be used where nothing but the code decides (unit tests), or for a leak that nothing else explains.
use super::{Count, result_line};
use crate::Result;

/// So many tests of a tier may need a second try. More are no accident.
pub const MOST: usize = 3;
/// The case of a suite that counts what is left over.
const LEFT_OVER: &str = "nothing_is_left_over";
/// The case of a suite that makes what its other cases need.
const BEGINNING: &str = "the_node_starts";
/// What `xtask/guest/boot` says has failed when a guest died, with whatever it was to run.
const GUEST: &str = "the_guest_lives";
/// So much is kept of what a failed test said, in lines and in bytes of each.
const WORDS: (usize, usize) = (12, 600);

/// What test programs said of themselves.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How many.
    pub count: Count,
    /// Those that failed, as they are named at the end.
    pub failed: Vec<String>,
    /// The first words of those that panicked.
    pub words: Vec<String>,
}

/// Which tests are to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// As the first time.
    All,
    /// These alone.
    Named(&'a [String]),
}

/// Whether a test that fails is tried again, and with which others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Nothing but the code decides.
    Never,
    /// By itself.
    Alone,
    /// Each test needs those before it.
    Whole,
}

impl Outcome {
    /// What to try again when so many second tries are left; nothing where that would hide something.
    pub fn second<'a>(&'a self, left: usize, again: Again) -> Option<Choice<'a>> {
        let named = !self.failed.is_empty() && self.failed.len() == self.count.failed;
        let leaked = self.failed == [LEFT_OVER];
        if again == Again::Never || !named || leaked || self.failed.len() > left {
            return None;
        }
        let of_all = |name: &String| [LEFT_OVER, BEGINNING, GUEST].contains(&name.as_str());
        let whole = again == Again::Whole || self.failed.iter().any(of_all);
        Some(if whole { Choice::All } else { Choice::Named(&self.failed) })
    }

    /// The count after a second try, and who passed it.
    pub fn mended(&self, second: &Self) -> (Count, Vec<String>) {
        let complete = second.failed.len() == second.count.failed;
        let passed = self.failed.iter().filter(|name| !second.failed.contains(name));
        let passed: Vec<String> = passed.cloned().collect();
        // New failures, or a try that ran fewer tests than it was to: then nothing is better than it was.
        let honest = complete
            && second.failed.iter().all(|name| self.failed.contains(name))
            && second.count.passed >= passed.len();
        if !honest {
            return (self.count, Vec::new());
        }
        if second.failed.is_empty() && second.count.passed > self.count.passed + self.count.failed {
            // The first one did not come to all of its tests: its guest died, or the next ones needed the one that failed.
            return (second.count, passed);
        }
        let count = Count { passed: self.count.passed + passed.len(), failed: self.count.failed - passed.len() };
        (count, passed)
    }
}

/// Reads an outcome off what Rust's test programs print, line by line.
#[derive(Debug, Default)]
pub struct Reader {
    outcome: Outcome,
    closings: usize,
    /// Names since the last word `failures:`; the first such part of a program has what its tests wrote, the second one the names.
    listed: Option<Vec<String>>,
    /// Whether a panic's words go on.
    speaks: bool,
}

impl Reader {
    /// Takes a line.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        self.heard(line);
        if line == "failures:" {
            self.listed = Some(Vec::new());
        } else if let Some(count) = result_line(line) {
            self.outcome.count.add(count);
            self.closings += 1;
            self.outcome.failed.extend(self.listed.take().unwrap_or_default());
        } else if let (Some(listed), Some(name)) = (&mut self.listed, line.strip_prefix("    "))
            && !name.is_empty()
            && !name.contains(char::is_whitespace)
        {
            listed.push(name.to_owned());
        }
    }

    /// Keeps how a panic begins: where, and what it says, before the functions that it came through.
    fn heard(&mut self, line: &str) {
        let ends = ["stack backtrace:", "note: ", "test ", "-- "].iter().any(|word| line.starts_with(word));
        self.speaks = line.contains("panicked at ") || self.speaks && !ends && !line.is_empty();
        let words = &mut self.outcome.words;
        if self.speaks && words.len() < WORDS.0 {
            words.push(line.chars().take(WORDS.1).collect());
        }
    }

    /// What was read, when the programs have ended so. One that ends badly without saying why is an error, as is no program at all.
    pub fn end(self, ended: Result) -> Result<Outcome> {
        match ended {
            Ok(()) if self.closings == 0 => Err("ran no test".into()),
            Err(e) if self.outcome.count.failed == 0 => Err(e),
            _ => Ok(self.outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: usize, failed: &[&str]) -> Outcome {
        let failed: Vec<String> = failed.iter().map(|name| (*name).to_owned()).collect();
        Outcome { count: Count { passed, failed: failed.len() }, failed, words: Vec::new() }
    }

    #[test]
    fn names_are_read_from_the_closing_list() {
        let text = "running 3 tests\ntest a ... ok\ntest m::b ... FAILED\n\nfailures:\n\n---- m::b stdout ----\n    word\nno\n\n\
                    failures:\n    m::b\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\r";
        let mut reader = Reader::default();
        text.split('\n').for_each(|line| reader.line(line));
        assert_eq!(reader.end(Err("101".into())), Ok(outcome(1, &["m::b"])));
    }

    #[test]
    fn a_second_try_is_for_few_and_never_for_a_leak() {
        let one = outcome(5, &["a"]);
        assert_eq!(one.second(MOST, Again::Alone), Some(Choice::Named(&one.failed)));
        assert_eq!(one.second(MOST, Again::Whole), Some(Choice::All));
        assert_eq!(one.second(MOST, Again::Never), None);
        assert_eq!(one.second(0, Again::Alone), None);
        assert_eq!(outcome(5, &["a", "b", "c", "d"]).second(MOST, Again::Alone), None);
        assert_eq!(outcome(5, &[LEFT_OVER]).second(MOST, Again::Alone), None);
        assert_eq!(outcome(5, &["a", LEFT_OVER]).second(MOST, Again::Alone), Some(Choice::All));
        assert_eq!(outcome(5, &[]).second(MOST, Again::Alone), None);
        // An ignored test has no name in the list.
        assert_eq!(
            Outcome { count: Count { passed: 1, failed: 2 }, ..outcome(0, &["a"]) }.second(MOST, Again::Alone),
            None
        );
    }

    #[test]
    fn only_what_passed_the_second_time_is_mended() {
        let first = outcome(5, &["a", "b"]);
        assert_eq!(first.mended(&outcome(2, &[])), (Count { passed: 7, failed: 0 }, vec!["a".into(), "b".into()]));
        assert_eq!(first.mended(&outcome(1, &["b"])), (Count { passed: 6, failed: 1 }, vec!["a".into()]));
        assert_eq!(first.mended(&outcome(0, &[])), (first.count, Vec::new()), "it ran nothing");
        assert_eq!(first.mended(&outcome(7, &["c"])), (first.count, Vec::new()), "another one failed");
        let died = outcome(3, &[GUEST]);
        assert_eq!(died.second(MOST, Again::Alone), Some(Choice::All));
        assert_eq!(died.mended(&outcome(9, &[])), (Count { passed: 9, failed: 0 }, vec![GUEST.into()]));
        let broken_off = outcome(3, &["a"]);
        assert_eq!(broken_off.mended(&outcome(12, &[])), (Count { passed: 12, failed: 0 }, vec!["a".into()]));
        assert_eq!(broken_off.mended(&outcome(11, &["b"])), (broken_off.count, Vec::new()), "another one failed");
    }

    #[test]
    fn what_a_failed_test_says_is_kept_and_the_way_to_it_is_not() {
        let text = "thread 'main' (7) panicked at a.rs:1:2:\nwaited in vain\nlast seen: x\nstack backtrace:\n   0: f\n\
                    test a ... FAILED\nother";
        let mut reader = Reader::default();
        text.lines().for_each(|line| reader.line(line));
        assert_eq!(reader.outcome.words, ["thread 'main' (7) panicked at a.rs:1:2:", "waited in vain", "last seen: x"]);
    }
}
