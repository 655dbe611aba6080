//! `SHA256SUMS` of a version: which programs it has, and their sums, as sha256sum(1) writes it.
//!
//! Must not: trust a name to be one of a file beside it.
use super::Problem;
use aws_lc_rs::digest;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Its name.
pub(super) const NAME: &str = "SHA256SUMS";
/// Longest list.
const MAX_BYTES: u64 = 16 << 10;
/// Most programs.
const MAX_PROGRAMS: usize = 32;
/// Longest program that is read.
pub(super) const MAX_PROGRAM: u64 = 1 << 30;
/// Without it there is nothing to stage for.
const PROGRAM: &str = "berth";

/// Programs and their sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest(BTreeMap<String, String>);

impl Manifest {
    /// Of a text. Errors: what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for line in text.lines() {
            let (sum, name) = line.split_once("  ").ok_or_else(|| format!("{line:?} is not SUM  NAME"))?;
            if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                return Err(format!("{sum:?} is no SHA-256 in lower-case hex digits"));
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(plain) || name == NAME {
                return Err(format!("{name:?} is no name of a program"));
            }
            if found.insert(name.to_owned(), sum.to_owned()).is_some() {
                return Err(format!("{name} is there twice"));
            }
            if found.len() > MAX_PROGRAMS {
                return Err(format!("has more than {MAX_PROGRAMS} programs"));
            }
        }
        if !found.contains_key(PROGRAM) {
            return Err(format!("does not name {PROGRAM}"));
        }
        Ok(Self(found))
    }

    /// That of a directory.
    pub(super) fn read(dir: &Path) -> Result<Self, Problem> {
        let path = dir.join(NAME);
        let mut text = String::new();
        let file = File::open(&path).map_err(|e| Problem::of(&path, &e))?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|e| Problem::of(&path, &e))?;
        Self::parse(&text).map_err(|why| Problem::Refused(format!("{}: {why}", path.display())))
    }

    /// As it is written.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn sum(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a directory has the same list, and what it names.
    pub(super) fn fits(&self, dir: &Path) -> bool {
        let same = Self::read(dir).is_ok_and(|theirs| theirs == *self);
        let hashed = |name: &str| File::open(dir.join(name)).and_then(|file| sum_of(file, |_| Ok(())));
        same && self.0.iter().all(|(name, sum)| hashed(name).is_ok_and(|found| found == *sum))
    }
}

/// Reads to the end, hands on what it reads, and gives the sum.
pub(super) fn sum_of(file: File, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<String> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut file = file.take(MAX_PROGRAM);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        context.update(bytes);
        each(bytes)?;
    }
    Ok(context.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect())
}
