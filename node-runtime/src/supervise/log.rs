//! The daemon's log: a file that it appends to by itself, so that it needs no supervisor to be able to write. One that is too long is copied
//! aside and emptied; the lines of that moment may be lost.
use crate::layout::Layout;
use anyhow::{Context, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

/// The file.
pub(super) struct Log {
    file: File,
    path: PathBuf,
    max: u64,
}

impl Log {
    /// Opens it, and makes it with its directory if it is not there.
    pub(super) fn open(layout: &Layout, path: Option<PathBuf>, max: u64) -> Result<Self> {
        let path = path.unwrap_or_else(|| {
            if layout.is_system() { "/var/log/berth/berth.log".into() } else { layout.root.join("log/berth.log") }
        });
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("directory {}", dir.display()))?;
        }
        let file =
            OpenOptions::new().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
        Ok(Self { file, path, max })
    }

    /// For standard output and standard error.
    pub(super) fn handles(&self) -> Result<(File, File)> {
        Ok((self.file.try_clone()?, self.file.try_clone()?))
    }

    /// A line of the supervisor's own. A full disk stops nothing.
    pub(super) fn say(&self, text: &str) {
        let _ = writeln!(&self.file, "berth supervise: {text}");
    }

    /// Puts aside what is too long.
    pub(super) fn keep_short(&self) {
        if self.file.metadata().is_ok_and(|meta| meta.len() > self.max) {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            // Without room for the copy, the log is emptied all the same.
            let _ = std::fs::copy(&self.path, aside);
            let _ = self.file.set_len(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside_and_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        let log = Log::open(&layout, None, 4096).unwrap();
        let (mut daemon, _) = log.handles().unwrap();
        daemon.write_all(&[b'x'; 5000]).unwrap();
        log.keep_short();
        log.say("on");
        let path = dir.path().join("log/berth.log");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "berth supervise: on\n");
        assert_eq!(std::fs::metadata(dir.path().join("log/berth.log.1")).unwrap().len(), 5000);
        log.keep_short();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 20);
    }
}
