//! A program that a monitor executes, sealed against change.
use berth_model::{Error, Result, ResultExt};
use berth_sys::memfd;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Largest program that is copied.
const MAX_PROGRAM: u64 = 64 * 1024 * 1024;

/// A program in a sealed memory file. Copies share it.
#[derive(Debug, Clone)]
pub struct Program(Arc<OwnedFd>);

impl Program {
    /// Reads a program into a sealed memory file, so that it stays what it is whatever happens to the file, or to it through
    /// `/proc/PID/exe`. Blocks.
    pub fn load(path: &Path) -> Result<Self> {
        let at = || format!("program {}", path.display());
        let file = File::open(path).context(at)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let size = file.metadata().context(at)?.len();
        if size > MAX_PROGRAM {
            return Err(Error::internal(format!("{} has {size} bytes, the limit is {MAX_PROGRAM}", at())));
        }
        memfd::sealed_program(&name, &mut file.take(MAX_PROGRAM)).map(|fd| Self(Arc::new(fd))).context(at)
    }

    /// What was read, byte for byte. Blocks.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let file = File::from(self.0.try_clone().context(|| "program in memory")?);
        let size = file.metadata().context(|| "program in memory")?.len();
        let mut bytes = vec![0; usize::try_from(size.min(MAX_PROGRAM)).unwrap_or_default()];
        // By position: the descriptor is shared.
        file.read_exact_at(&mut bytes, 0).context(|| "program in memory")?;
        Ok(bytes)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
