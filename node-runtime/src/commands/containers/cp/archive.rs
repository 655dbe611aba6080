//! Tar streams out of a container and into one.
use super::Count;
use super::ids::Ids;
use super::walk::{Entry, Kind, Sink};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::path::PathBuf;

/// Writes a stream. Owners are those that the container sees.
pub struct Writer<W: Write> {
    tar: tar::Builder<W>,
    ids: Ids,
    count: Count,
}

impl<W: Write> Writer<W> {
    /// To this.
    pub fn new(to: W, ids: Ids) -> Self {
        Self { tar: tar::Builder::new(to), ids, count: Count::default() }
    }

    /// Writes the end.
    pub fn finish(mut self) -> Result<Count> {
        written(self.tar.finish())?;
        written(self.tar.get_mut().flush())?;
        Ok(self.count)
    }
}

/// A reader that goes away ends the program as it would end tar(1).
fn written<T>(done: std::io::Result<T>) -> Result<T> {
    match done {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(crate::commands::output::ReaderGone.into()),
        other => Ok(other?),
    }
}

impl<W: Write> Sink for Writer<W> {
    fn put(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        let (uid, gid) = self.ids.inside(entry.uid, entry.gid);
        header.set_mode(entry.mode);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(u64::try_from(entry.modified).unwrap_or(0));
        header.set_size(0);
        match &entry.kind {
            Kind::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                written(self.tar.append_data(&mut header, &entry.path, std::io::empty()))?;
                return Ok(());
            }
            Kind::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                written(self.tar.append_link(&mut header, &entry.path, target))?;
            }
            Kind::Fifo => {
                header.set_entry_type(tar::EntryType::Fifo);
                written(self.tar.append_data(&mut header, &entry.path, std::io::empty()))?;
            }
            Kind::File => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(entry.size);
                // A file that shrinks meanwhile is filled up: its size was told already.
                let data = data.take(entry.size).chain(std::io::repeat(0)).take(entry.size);
                written(self.tar.append_data(&mut header, &entry.path, data))?;
                self.count.bytes += entry.size;
            }
        }
        self.count.files += 1;
        Ok(())
    }
}

/// Reads a stream and hands on what is in it. A hard link becomes a second copy only where its file can be read again, which a
/// stream cannot: it is refused.
pub fn read(from: impl Read, sink: &mut dyn Sink) -> Result<()> {
    let mut archive = tar::Archive::new(from);
    for found in archive.entries().context("tar stream")? {
        let mut found = found.context("tar stream")?;
        let path = found.path().context("tar stream")?.into_owned();
        let header = found.header();
        let number = |value: std::io::Result<u64>| value.ok().and_then(|v| u32::try_from(v).ok()).unwrap_or(0);
        let mut entry = Entry {
            path: path.strip_prefix("/").map_or_else(|_| path.clone(), PathBuf::from),
            kind: Kind::File,
            mode: header.mode().unwrap_or(0o644) & 0o7777,
            uid: number(header.uid()),
            gid: number(header.gid()),
            modified: header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0),
            size: found.size(),
        };
        entry.kind = match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => Kind::File,
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Symlink => {
                let target = found.link_name().context("tar stream")?;
                Kind::Link(
                    target.with_context(|| format!("tar stream: {} has no target", path.display()))?.into_owned(),
                )
            }
            tar::EntryType::Fifo => Kind::Fifo,
            tar::EntryType::XGlobalHeader => continue,
            kind => bail!("tar stream: {} is of kind {kind:?}, which is not copied into a container", path.display()),
        };
        sink.put(&entry, &mut found)?;
    }
    Ok(())
}
