//! Files kept for a full disk: a record that exists can be replaced when there is neither a block nor an inode to be had.
//!
//! Owns: the spare files, `<records>.spare/<n>` beside the records' directory, each with its blocks allocated. One takes the place of the
//! new version, and the old version's file becomes the spare: what is used up comes back by itself. Must not: serve new objects;
//! those wait for space.
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Files kept: as many records can be under way at once.
const COUNT: usize = 8;
/// Bytes of each: records of pods with some dozen containers fit.
const SIZE: u64 = 64 << 10;

/// The spare files of one directory of records.
#[derive(Debug)]
pub(crate) struct Spares {
    directory: PathBuf,
    whole: AtomicBool,
    /// Held while a file is chosen or made.
    choosing: Mutex<()>,
}

impl Spares {
    /// Those beside this directory of records. What is missing is made as soon as there is space.
    pub fn beside(records: &Path) -> Self {
        let spares = Self {
            directory: records.with_extension("spare"),
            whole: AtomicBool::new(false),
            choosing: Mutex::default(),
        };
        spares.fill();
        spares
    }

    /// Makes what is missing, if there is space.
    pub fn fill(&self) {
        if self.whole.load(Ordering::Relaxed) {
            return;
        }
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = std::fs::create_dir_all(&self.directory)
            .and_then(|()| (0..COUNT).try_for_each(|n| allocated(&self.directory.join(n.to_string()))));
        self.whole.store(whole.is_ok(), Ordering::Relaxed);
    }

    /// Replaces `name` in `directory` with `bytes` by way of `temporary`, without asking the file system for anything. Errors: there is
    /// no spare file left, or `bytes` are more than it holds.
    pub fn replace(&self, directory: &OwnedFd, names: (&str, &str), bytes: &[u8], sync: bool) -> Result<()> {
        let (temporary, name) = names;
        if bytes.len() as u64 > SIZE {
            return Err(Errno::NOSPC.into());
        }
        let number = self.take(directory, temporary, bytes.len() as u64)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(directory, temporary, flags, Mode::empty())?);
        std::io::Write::write_all(&mut file, bytes)?;
        file.set_len(bytes.len() as u64)?;
        if sync {
            file.sync_data()?;
        }
        fs::renameat_with(directory, temporary, directory, name, RenameFlags::EXCHANGE)?;
        // The former version is the next spare; whether it has all of its blocks is looked at when there is space.
        fs::renameat(directory, temporary, fs::CWD, self.directory.join(number.to_string()))?;
        self.whole.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Moves the smallest file that has blocks enough.
    fn take(&self, directory: &OwnedFd, temporary: &str, bytes: u64) -> Result<usize> {
        let _choosing = self.choosing.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = fs::unlinkat(directory, temporary, AtFlags::empty());
        let place = |number: usize| self.directory.join(number.to_string());
        let blocks = |number: usize| std::fs::metadata(place(number)).map_or(0, |m| m.blocks() * 512);
        let fitting = (0..COUNT).map(|number| (blocks(number), number)).filter(|(room, _)| *room >= bytes);
        let (_, number) = fitting.min().ok_or(Errno::NOSPC)?;
        fs::renameat(fs::CWD, place(number), directory, temporary)?;
        // At once: whatever fails from here on, this one is missing.
        self.whole.store(false, Ordering::Relaxed);
        Ok(number)
    }
}

/// Makes a file of [`SIZE`] allocated bytes, or gives one that exists all of its blocks.
fn allocated(path: &Path) -> Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    match fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, SIZE) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let at_hand = std::io::Write::write_all(&mut &file, &vec![0; usize::try_from(SIZE).unwrap_or(0)]);
            at_hand.and_then(|()| file.sync_data())
        }
        Err(e) => Err(Error::from(e)),
        Ok(()) => Ok(()),
    }
}
