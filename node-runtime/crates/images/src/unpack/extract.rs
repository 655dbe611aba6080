//! Writes the members of one layer into one directory, without its parents.
//!
//! Owns: what each member becomes on disk. Must not: know where the bytes come from, or how the layer is named.
use super::archive::{Archive, Kind, Member, stream_error};
use super::attributes::Attributes;
use super::path::{LayerPath, Root, io, open_below, open_name, shown};
use super::whiteout::{self, Name};
use crate::config::LayerLimits;
use crate::refused;
use crate::tree::{self, DiskUsage};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// How often the space left on the disk is looked at, in bytes written.
const SPACE_CHECK_EVERY: u64 = 32 << 20;
/// Allocation unit assumed for the size of what was unpacked; asking each file would cost more than it tells.
const BLOCK: u64 = 4096;

/// What came out of an archive.
#[derive(Debug)]
pub struct Extracted {
    /// Blocks and inodes, by the sizes of the files.
    pub usage: DiskUsage,
    /// Directories whose attributes must come from the layers below, parents first.
    pub implied: Vec<LayerPath>,
}

/// Unpacks an archive into an existing, empty directory. The caller removes the directory when this fails.
pub fn extract<R: BufRead>(input: R, directory: &Path, limits: &LayerLimits) -> Result<Extracted> {
    let mut layer = Layer {
        root: Root::open(directory)?,
        directory,
        directories: BTreeMap::new(),
        keep_owner: rustix::process::geteuid().is_root(),
        limits,
        usage: DiskUsage { bytes: BLOCK, inodes: 1 },
        next_check: 0,
        written: 0,
    };
    layer.check_space(0)?;
    let mut archive = Archive::new(input);
    while let Some(member) = archive.next_member()? {
        layer.add(&member, &mut archive)?;
    }
    archive.drain().map_err(stream_error)?;
    layer.finish()
}

struct Layer<'a> {
    root: Root,
    directory: &'a Path,
    /// Attributes of directories, applied last: what is made inside would change their times.
    directories: BTreeMap<LayerPath, Attributes>,
    keep_owner: bool,
    limits: &'a LayerLimits,
    usage: DiskUsage,
    next_check: u64,
    written: u64,
}

impl Layer<'_> {
    fn add<R: BufRead>(&mut self, member: &Member, archive: &mut Archive<R>) -> Result<()> {
        self.usage.inodes += 1;
        if self.usage.inodes > self.limits.max_entries {
            let max = self.limits.max_entries;
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!("layer has more than {max} entries (max_entries)"),
            ));
        }
        let path = LayerPath::parse(&member.path)?;
        self.place(member, &path, archive).map_err(|e| match e.message().contains(&path.shown()) {
            true => e,
            false => e.context(format!("layer path {}", path.shown())),
        })
    }

    fn place<R: BufRead>(&mut self, member: &Member, path: &LayerPath, archive: &mut Archive<R>) -> Result<()> {
        let Some((parent, name)) = path.split() else {
            if member.kind != Kind::Directory {
                return Err(refused("layer root", "is not a directory in the archive"));
            }
            self.directories.insert(path.clone(), Attributes::of(member, path)?);
            return Ok(());
        };
        let parent_fd = self.root.directory(&parent)?;
        match whiteout::classify(name)? {
            Name::Ignored => return Ok(()),
            Name::Opaque => return whiteout::make_opaque(parent_fd.as_fd()),
            Name::Whiteout(hidden) => return self.hide(&parent_fd, hidden),
            Name::Plain => {}
        }
        let attributes = Attributes::of(member, path)?;
        match member.kind {
            Kind::Directory => self.make_directory(&parent_fd, name, path, attributes),
            Kind::File => self.write_file(&parent_fd, name, &attributes, archive),
            Kind::Symlink => self.make_symlink(&parent_fd, name, &member.link, &attributes),
            Kind::HardLink => self.make_hard_link(&parent_fd, name, &member.link),
            Kind::Fifo => {
                self.make(&parent_fd, name, |dir, name| fs::mknodat(dir, name, FileType::Fifo, attributes.mode(), 0))?;
                // mknod(2) applies the umask, so the mode is set again; the name is ours and no link.
                fs::chmodat(&parent_fd, name, attributes.mode(), AtFlags::empty()).map_err(io)?;
                attributes.apply_to_name(parent_fd.as_fd(), name, self.keep_owner)
            }
            Kind::CharDevice | Kind::BlockDevice => {
                let kind = if member.kind == Kind::CharDevice { "character" } else { "block" };
                let problem = format!("is a {kind} device, which images may not bring");
                Err(refused(format!("layer path {}", path.shown()), problem))
            }
        }
    }

    /// A whiteout. What this layer itself has under the name stays; a directory then hides only what is below it.
    fn hide(&mut self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<()> {
        match whiteout::make_whiteout(parent.as_fd(), name) {
            Err(Errno::EXIST) if file_type(parent.as_fd(), name)? == Some(FileType::Directory) => {
                whiteout::make_opaque(open_name(parent.as_fd(), name)?.as_fd())
            }
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(io(e)),
        }
    }

    fn make_directory(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &[u8],
        path: &LayerPath,
        attributes: Attributes,
    ) -> Result<()> {
        match fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => match file_type(parent.as_fd(), name)? {
                Some(FileType::Directory) => {}
                found => {
                    fs::unlinkat(parent, name, AtFlags::empty()).map_err(io)?;
                    fs::mkdirat(parent, name, Mode::RWXU).map_err(io)?;
                    if found == Some(FileType::CharacterDevice) {
                        // A whiteout of this layer: the new directory must not merge with the hidden one.
                        whiteout::make_opaque(open_name(parent.as_fd(), name)?.as_fd())?;
                    }
                }
            },
            Err(e) => return Err(io(e)),
        }
        self.usage.bytes += BLOCK;
        self.root.explicit(path);
        self.directories.insert(path.clone(), attributes);
        Ok(())
    }

    fn write_file<R: BufRead>(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &[u8],
        attributes: &Attributes,
        archive: &mut Archive<R>,
    ) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.make(parent, name, |dir, name| fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = std::fs::File::from(file);
        let mut size = 0;
        loop {
            let step = archive.data().map_err(stream_error)?;
            if step.is_empty() {
                break;
            }
            file.write_all(step)?;
            let length = step.len();
            archive.consume(length);
            size += length as u64;
            self.check_space(length as u64)?;
        }
        self.usage.bytes += size.next_multiple_of(BLOCK);
        attributes.apply(file.as_fd(), self.keep_owner)
    }

    fn make_symlink(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &[u8],
        target: &[u8],
        attributes: &Attributes,
    ) -> Result<()> {
        if target.is_empty() || target.len() >= super::archive::MAX_PATH || target.contains(&0) {
            return Err(refused(
                "link target",
                format!("{} is empty, too long, or contains a zero byte", shown(target)),
            ));
        }
        self.make(parent, name, |dir, name| fs::symlinkat(target, dir, name))?;
        attributes.apply_to_name(parent.as_fd(), name, self.keep_owner)
    }

    fn make_hard_link(&mut self, parent: &Rc<OwnedFd>, name: &[u8], target: &[u8]) -> Result<()> {
        let target = LayerPath::parse(target).map_err(|e| e.context("hard link target"))?;
        let missing = || refused("hard link target", format!("{} is no file of this layer", target.shown()));
        let (above, target_name) = target.split().ok_or_else(missing)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let above = open_below(self.root.fd(), &above, flags).map_err(|_| missing())?;
        // Only what an archive can bring may be named twice: never a directory, never a whiteout.
        match file_type(above.as_fd(), target_name)? {
            Some(FileType::RegularFile | FileType::Symlink | FileType::Fifo) => {}
            _ => return Err(missing()),
        }
        if same_name(above.as_fd(), target_name, parent.as_fd(), name)? {
            return Err(refused("hard link target", format!("{} is the link itself", target.shown())));
        }
        self.make(parent, name, |dir, name| fs::linkat(&above, target_name, dir, name, AtFlags::empty()))?;
        // A further name takes no inode.
        self.usage.inodes -= 1;
        Ok(())
    }

    /// Makes something under a name; what an earlier member left there gives way.
    fn make<T>(
        &mut self,
        parent: &Rc<OwnedFd>,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make(parent.as_fd(), name) {
            Err(Errno::EXIST) => {
                self.clear(parent, name)?;
                make(parent.as_fd(), name).map_err(io)
            }
            other => other.map_err(io),
        }
    }

    fn clear(&mut self, parent: &Rc<OwnedFd>, name: &[u8]) -> Result<()> {
        match fs::unlinkat(&**parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                self.root.forget();
                tree::remove_below(parent.as_fd(), name)
            }
            Err(e) => Err(io(e)),
        }
    }

    /// Leaves room on the disk for those who must write to go on.
    fn check_space(&mut self, bytes: u64) -> Result<()> {
        self.written += bytes;
        if self.limits.min_free == 0 || self.written < self.next_check {
            return Ok(());
        }
        self.next_check = self.written + SPACE_CHECK_EVERY;
        let stat = fs::fstatvfs(self.root.fd()).map_err(io)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < self.limits.min_free {
            let (min, place) = (self.limits.min_free, self.directory.display());
            return Err(Error::new(
                ErrorKind::ResourceExhausted,
                format!(
                    "disk of {place} has {free} bytes free, less than the {min} that are kept (min_free): remove images or enlarge it"
                ),
            ));
        }
        Ok(())
    }

    fn finish(self) -> Result<Extracted> {
        // Deepest first: a restrictive mode must not shut us out when we are not root.
        for (path, attributes) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match open_below(self.root.fd(), path, flags) {
                Ok(fd) => attributes.apply(fd.as_fd(), self.keep_owner).map_err(|e| e.context(path.shown()))?,
                // Something else took its place later in the archive.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(io(e)).context(|| path.shown()),
            }
        }
        let Self { mut root, directories, usage, .. } = self;
        for path in directories.keys() {
            root.explicit(path);
        }
        Ok(Extracted { usage, implied: root.into_implied() })
    }
}

/// Whether two names are the same directory entry.
fn same_name(a: BorrowedFd<'_>, a_name: &[u8], b: BorrowedFd<'_>, b_name: &[u8]) -> Result<bool> {
    let (a, b) = (fs::fstat(a).map_err(io)?, fs::fstat(b).map_err(io)?);
    Ok(a_name == b_name && (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// What a name is; `None` when it does not exist. A character device is always a whiteout here.
fn file_type(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<FileType>> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(io(e)),
    }
}
