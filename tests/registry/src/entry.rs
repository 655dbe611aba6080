//! One member of a layer: a file, directory, link, device or anything hostile.
//!
//! Owns: what an entry says. Must not: check it. Paths with `..`, absolute paths and links out of the root are written as
//! given, because tests of extraction need exactly those.

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A regular file of so many zero bytes, made while the layer is compressed: a bomb costs no memory.
    Zeros(u64),
    /// A directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(String),
    /// A hard link to this path of the layer.
    HardLink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Any other tar type flag, with a body.
    Raw(u8, Vec<u8>),
}

/// One member of a layer's tar stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    pub(crate) declared_size: Option<u64>,
}

impl Entry {
    /// An entry of any kind, mode 0644 (0755 for directories), owned by root, dated 2024-01-01.
    pub fn new(path: impl AsRef<[u8]>, kind: Kind) -> Self {
        let mode = if kind == Kind::Dir { 0o755 } else { 0o644 };
        Self {
            path: path.as_ref().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_704_067_200,
            xattrs: Vec::new(),
            declared_size: None,
        }
    }

    /// A regular file, mode 0644.
    pub fn file(path: impl AsRef<[u8]>, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Kind::File(bytes.into()))
    }

    /// A directory, mode 0755.
    pub fn dir(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Dir)
    }

    /// A symbolic link.
    pub fn symlink(path: impl AsRef<[u8]>, target: impl Into<String>) -> Self {
        Self::new(path, Kind::Symlink(target.into())).mode(0o777)
    }

    /// A hard link.
    pub fn hard_link(path: impl AsRef<[u8]>, target: impl Into<String>) -> Self {
        Self::new(path, Kind::HardLink(target.into()))
    }

    /// A file of zeros of this size, for bombs.
    pub fn zeros(path: impl AsRef<[u8]>, size: u64) -> Self {
        Self::new(path, Kind::Zeros(size))
    }

    /// A character device.
    pub fn char_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::CharDevice { major, minor })
    }

    /// A block device.
    pub fn block_device(path: impl AsRef<[u8]>, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::BlockDevice { major, minor })
    }

    /// A named pipe.
    pub fn fifo(path: impl AsRef<[u8]>) -> Self {
        Self::new(path, Kind::Fifo)
    }

    /// A whiteout: `dir/name` of the layers below disappears (OCI image spec, `layer.md`).
    pub fn whiteout(path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').map_or(("", path), |(d, n)| (d, n));
        let slash = if dir.is_empty() { "" } else { "/" };
        Self::file(format!("{dir}{slash}.wh.{name}"), Vec::new())
    }

    /// An opaque whiteout: everything in `dir` of the layers below disappears.
    pub fn opaque(dir: &str) -> Self {
        let slash = if dir.is_empty() { "" } else { "/" };
        Self::file(format!("{dir}{slash}.wh..wh..opq"), Vec::new())
    }

    /// Sets permission bits, set-uid and sticky bits included.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Sets the owner.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Sets the modification time in seconds since 1970.
    #[must_use]
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = seconds;
        self
    }

    /// Adds an extended attribute (PAX record `SCHILY.xattr.<name>`).
    #[must_use]
    pub fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.xattrs.push((name.to_owned(), value.into()));
        self
    }

    /// Writes this size into the header whatever the body is: the archive is torn or lies.
    #[must_use]
    pub fn declared_size(mut self, size: u64) -> Self {
        self.declared_size = Some(size);
        self
    }
}
