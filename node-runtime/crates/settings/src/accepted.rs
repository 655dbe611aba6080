//! The documents that were accepted last, kept beside the daemon's records: a node boots from them when what lies in its documents
//! directory cannot be read. Format: docs/formats/accepted-documents.md.
//!
//! Must not: judge documents; what is read from here goes the same way as what is read from the directory.
use berth_model::{Error, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const KIND: &str = "AcceptedDocuments";
const VERSION: u32 = 1;
/// Longest file: as many documents as a directory may hold, written as JSON strings.
const MAX_BYTES: u64 = 512 << 20;

/// Files' paths and texts, in the order in which they were read.
pub(crate) type Texts = Vec<(PathBuf, String)>;

#[derive(Serialize, Deserialize)]
struct Kept {
    kind: String,
    version: u32,
    /// Seconds since 1970.
    accepted_at: u64,
    files: Vec<KeptFile>,
}

#[derive(Serialize, Deserialize)]
struct KeptFile {
    path: PathBuf,
    text: String,
}

/// The file, and what is known to be in it.
pub(crate) struct Accepted {
    path: PathBuf,
    kept: Option<Texts>,
}

impl Accepted {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, kept: None }
    }

    /// What was kept, and when (seconds since 1970). `None` when nothing was. Errors: a file that cannot be read or is of a newer version.
    pub(crate) fn read(&self) -> Result<Option<(Texts, u64)>> {
        let file = match File::open(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.context(|| self.path.display())?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).context(|| self.path.display())?;
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| Error::invalid(self.path.display(), e))?;
        if kept.kind != KIND || kept.version > VERSION {
            let problem =
                format!("is {} of version {}, this daemon reads {KIND} up to {VERSION}", kept.kind, kept.version);
            return Err(Error::invalid(self.path.display(), problem));
        }
        Ok(Some((kept.files.into_iter().map(|f| (f.path, f.text)).collect(), kept.accepted_at)))
    }

    /// Keeps these, whole or not at all. What is kept already is not written again.
    pub(crate) fn keep(&mut self, texts: &Texts) -> Result<()> {
        if self.kept.is_none() {
            // Of the daemon before. What cannot be read is replaced.
            self.kept = self.read().ok().flatten().map(|(texts, _)| texts);
        }
        if self.kept.as_ref() == Some(texts) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let files = texts.iter().map(|(path, text)| KeptFile { path: path.clone(), text: text.clone() }).collect();
        let kept = Kept { kind: KIND.to_owned(), version: VERSION, accepted_at: now, files };
        let bytes = serde_json::to_vec(&kept).map_err(|e| Error::internal(e.to_string()))?;
        write_whole(&self.path, &bytes).context(|| self.path.display())?;
        self.kept = Some(texts.clone());
        Ok(())
    }
}

/// A reader finds the former text or this one, also after a power cut. For root only: documents may hold credentials.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    // A draft of a daemon that was killed may have other rights.
    let _ = fs::remove_file(&draft);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_is_found_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accepted.json");
        assert!(Accepted::new(path.clone()).read().unwrap().is_none());
        let texts = vec![(PathBuf::from("/etc/berth/a.yaml"), "a: \"ü\"\n".to_owned())];
        let mut accepted = Accepted::new(path.clone());
        accepted.keep(&texts).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Accepted::new(path.clone()).read().unwrap().unwrap().0, texts);
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        accepted.keep(&texts).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written, "not written again");
        let earlier = fs::read_to_string(&path).unwrap();
        let at = Accepted::new(path.clone()).read().unwrap().unwrap().1;
        let earlier = earlier.replace(&format!("\"accepted_at\":{at}"), "\"accepted_at\":1");
        fs::write(&path, earlier).unwrap();
        Accepted::new(path.clone()).keep(&texts).unwrap();
        assert_eq!(Accepted::new(path.clone()).read().unwrap().unwrap().1, 1, "nor by the next daemon");
        let newer = fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":7");
        fs::write(&path, newer).unwrap();
        let message = Accepted::new(path).read().unwrap_err().to_string();
        assert!(message.contains("version 7"), "{message}");
    }
}
