//! Reading the node's files, /proc and those that others name: with a limit, and nothing that would be waited for.
//!
//! Owns: that. Must not: judge what it reads.
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most that is read of a file.
pub const MAX_FILE: u64 = 1 << 20;

/// A file's text, if it can be read.
pub fn text(path: impl AsRef<Path>) -> Option<String> {
    contents(path, MAX_FILE).ok()
}

/// A file's text, with what is no text replaced. Errors: as [`bytes`].
pub fn contents(path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path, limit)?).into_owned())
}

/// A file's text. Errors: as [`bytes`]; what is no text.
pub fn exact(path: impl AsRef<Path>, limit: u64) -> io::Result<String> {
    String::from_utf8(bytes(path, limit)?).map_err(|_| io::Error::other("is no text"))
}

/// What is in a file. Others name some of these files: a device or a pipe would be waited for, or have no end. Errors: those of the
/// system; what is no regular file, or larger than `limit`.
pub fn bytes(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    let regular = |meta: std::fs::Metadata| {
        if meta.is_file() { Ok(()) } else { Err(io::Error::other("is no regular file")) }
    };
    // Before it is opened, since opening a device may do something by itself; and again on what was opened.
    regular(std::fs::metadata(path)?)?;
    let file = File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    regular(file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Process ids, those of other namespaces left out as /proc does.
pub fn processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, pipe) = (dir.path().join("file"), dir.path().join("pipe"));
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(contents(&file, 5).unwrap(), "12345");
        assert!(contents(&file, 4).unwrap_err().to_string().contains("larger than 4 bytes"));
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, pipe.as_path(), kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for other in [pipe.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert!(contents(other, 4).unwrap_err().to_string().contains("no regular file"), "{}", other.display());
        }
        assert!(text("/proc/self/stat").is_some() && text(dir.path().join("gone")).is_none());
    }
}
