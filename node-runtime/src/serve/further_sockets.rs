//! Further paths at which the CRI answers (`spec.runtime.sockets.cri`): whether they are free, binding them, and taking them away again.
//! Format of what is kept of them: docs/formats/further-sockets.md.
//!
//! Must not: be bound or removed without the root's lock (`lock`); remove what Berth has not made, but for a dead socket at a wanted path.
use crate::atomic_file;
use crate::layout::Layout;
use crate::node_files::exact;
use anyhow::{Context, Result, bail};
use berth_model::{Error, ErrorKind};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind as Io};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

const FIELD: &str = "spec.runtime.sockets.cri";
const KIND: &str = "FurtherSockets";
const VERSION: u32 = 1;
/// Longest record in bytes: a few paths.
const MAX_RECORD: u64 = 64 << 10;
/// Connections that wait to be accepted: as many as at the daemon's own sockets, where tokio chooses.
const BACKLOG: i32 = 1024;

/// Refuses paths at which somebody else answers, or where something other than a socket lies. Errors: `FailedPrecondition` naming the field.
pub(super) fn check(layout: &Layout, paths: &[String]) -> berth_model::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    // One that cannot be read makes no socket ours; the next start tells of it.
    let own = Kept::open(layout).map(|kept| kept.record.sockets).unwrap_or_default();
    for (i, path) in paths.iter().enumerate() {
        let path = Path::new(path);
        if !own.iter().any(|made| made.is_at(path)) {
            let refused = |problem| Error::new(ErrorKind::FailedPrecondition, format!("{FIELD}[{i}]: {problem}"));
            is_dead(path).map_err(refused)?;
        }
    }
    Ok(())
}

/// Binds these, after what a daemon before has left is gone: clients that connect wait until they are served.
/// Errors: the field; what was bound until then, [`close`] removes.
pub(super) fn bind(layout: &Layout, paths: &[String]) -> Result<Vec<UnixListenerStream>> {
    let mut kept = Kept::open(layout).unwrap_or_else(|e| {
        tracing::error!(error = %format!("{e:#}"), "sockets that a daemon before has made at further paths stay");
        Kept::new(layout)
    });
    kept.remove_sockets();
    kept.remove_directories(paths);
    kept.write()?;
    let mut listeners = Vec::new();
    for (i, path) in paths.iter().enumerate() {
        let draft = format!(".{}-{i}.sock", layout.name());
        listeners.push(kept.bind(Path::new(path), &draft).with_context(|| format!("{FIELD}[{i}]"))?);
    }
    Ok(listeners)
}

/// Removes the sockets. The directories made for them stay: a container that has one mounted finds the next daemon's socket there.
pub(super) fn close(layout: &Layout) {
    remove(layout, Kept::remove_sockets);
}

/// Removes the directories, too, where nothing else lies in them: for a node without pods.
pub(super) fn sweep(layout: &Layout) {
    remove(layout, |kept| kept.remove_directories(&[]));
}

fn remove(layout: &Layout, part: impl FnOnce(&mut Kept)) {
    let removed = Kept::open(layout).and_then(|mut kept| {
        part(&mut kept);
        kept.write()
    });
    if let Err(e) = removed {
        tracing::warn!(error = %format!("{e:#}"), "further sockets of the CRI stay");
    }
}

/// What Berth has made for further paths.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    kind: String,
    version: u32,
    sockets: Vec<Made>,
    /// Directories that were missing.
    directories: Vec<PathBuf>,
}

/// A socket, recorded before it is there.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    path: PathBuf,
    /// Where it is bound before it takes its place.
    draft: PathBuf,
    /// Known once it is bound, and recorded before it takes its place.
    identity: Option<Identity>,
}

/// Tells a socket from another one that somebody has put in its place. An inode's number is given anew on some file systems; a socket's time
/// of modification is that of its making.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Identity {
    /// Of a socket at this path itself, not behind a link.
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::symlink_metadata(path).ok().filter(|meta| meta.file_type().is_socket())?;
        let (device, inode) = (meta.dev(), meta.ino());
        Some(Self { device, inode, seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() })
    }
}

impl Made {
    fn is_at(&self, path: &Path) -> bool {
        self.identity.is_some() && Identity::of(path) == self.identity
    }

    fn remove(&self) -> io::Result<()> {
        // Nobody but us has a name like this one.
        if Identity::of(&self.draft).is_some() {
            remove_file(&self.draft)?;
        }
        if self.is_at(&self.path) {
            remove_file(&self.path)?;
        }
        Ok(())
    }
}

/// The record, and where it is kept.
struct Kept {
    file: PathBuf,
    record: Record,
}

impl Kept {
    fn new(layout: &Layout) -> Self {
        let record = Record { kind: KIND.to_owned(), version: VERSION, sockets: Vec::new(), directories: Vec::new() };
        Self { file: layout.run.join("further-sockets.json"), record }
    }

    /// Nothing is recorded where there is no file. Errors: one that cannot be read, or is of a newer version.
    fn open(layout: &Layout) -> Result<Self> {
        let mut kept = Self::new(layout);
        let shown = kept.file.display().to_string();
        let text = match exact(&kept.file, MAX_RECORD) {
            Err(e) if e.kind() == Io::NotFound => return Ok(kept),
            other => other.context(shown.clone())?,
        };
        let record: Record = serde_json::from_str(&text).context(shown.clone())?;
        if record.kind != KIND || record.version > VERSION {
            let Record { kind, version, .. } = record;
            bail!("{shown}: is {kind} of version {version}, this daemon reads {KIND} up to {VERSION}");
        }
        kept.record = record;
        Ok(kept)
    }

    fn write(&self) -> Result<()> {
        let shown = || self.file.display().to_string();
        if self.record.sockets.is_empty() && self.record.directories.is_empty() {
            return remove_file(&self.file).with_context(shown);
        }
        let bytes = serde_json::to_vec(&self.record).with_context(shown)?;
        atomic_file::replace(&self.file, &bytes, 0o600).with_context(shown)
    }

    /// One that cannot be removed stays recorded for the next time.
    fn remove_sockets(&mut self) {
        self.record.sockets.retain(|made| match made.remove() {
            Ok(()) => false,
            Err(e) => {
                tracing::warn!(socket = %made.path.display(), error = %e, "a socket stays");
                true
            }
        });
    }

    /// Those in which none of these paths lies. What somebody else has put something into is his from now on.
    fn remove_directories(&mut self, wanted: &[String]) {
        let is_wanted = |directory: &Path| wanted.iter().any(|path| Path::new(path).starts_with(directory));
        let (stay, mut go): (Vec<_>, Vec<_>) =
            self.record.directories.drain(..).partition(|directory| is_wanted(directory.as_path()));
        // The innermost first.
        go.sort_by_key(|directory| std::cmp::Reverse(directory.components().count()));
        for directory in go {
            let _ = fs::remove_dir(directory);
        }
        self.record.directories = stay;
    }

    /// Binds one under another name and moves it to its place, where nobody's file is replaced.
    fn bind(&mut self, path: &Path, draft: &str) -> Result<UnixListenerStream> {
        let is_dead = is_dead(path).map_err(anyhow::Error::msg)?;
        let directory = path.parent().with_context(|| format!("{} is no path of a socket", path.display()))?;
        let at = directory.join(draft);
        self.directory(directory)?;
        self.record.sockets.push(Made { path: path.to_owned(), draft: at.clone(), identity: None });
        self.write()?;
        let listener = listen(directory, draft).with_context(|| format!("socket {}", at.display()))?;
        if let Some(made) = self.record.sockets.last_mut() {
            made.identity = Identity::of(&at);
        }
        self.write()?;
        if is_dead {
            remove_file(path).with_context(|| format!("dead socket {}", path.display()))?;
        }
        rustix::fs::renameat_with(CWD, &at, CWD, path, RenameFlags::NOREPLACE)
            .with_context(|| format!("socket {}", path.display()))?;
        Ok(UnixListenerStream::new(listener))
    }

    /// Makes a directory with those above it, for everybody to enter as directories of /run are.
    fn directory(&mut self, directory: &Path) -> Result<()> {
        let mut missing: Vec<&Path> = directory.ancestors().take_while(|above| !above.exists()).collect();
        missing.reverse();
        self.record.directories.extend(missing.iter().map(|directory| directory.to_path_buf()));
        self.write()?;
        for directory in missing {
            fs::create_dir(directory)
                .and_then(|()| fs::set_permissions(directory, PermissionsExt::from_mode(0o755)))
                .with_context(|| format!("directory {}", directory.display()))?;
        }
        Ok(())
    }
}

/// A socket of this name that listens, for root alone from the first moment on: the kernel gives its file the mode of the socket itself
/// (`unix_bind_bsd` of net/unix/af_unix.c). By way of the directory's descriptor: with the name the path may be longer than `sun_path` is.
fn listen(directory: &Path, name: &str) -> Result<UnixListener> {
    let place = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let socket = socket()?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let at = format!("/proc/self/fd/{}/{name}", place.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(at.as_str())?)?;
    // What a umask has taken away.
    fs::set_permissions(&at, PermissionsExt::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from_std(socket.into())?)
}

fn socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether a socket lies there that nobody listens at; `false` where nothing lies. Errors: what is in the way, with the remedy.
fn is_dead(path: &Path) -> Result<bool, String> {
    let shown = path.display();
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == Io::NotFound => return Ok(false),
        other => other.map_err(|e| format!("{shown}: {e}; mend it, or take the path out of {FIELD}"))?,
    };
    if !meta.file_type().is_socket() {
        return Err(format!("{shown} is there and is no socket; remove it, or take the path out of {FIELD}"));
    }
    match answers(path) {
        Ok(false) => Ok(true),
        Ok(true) => Err(format!("another program answers at {shown}; stop it, or take the path out of {FIELD}")),
        Err(e) => {
            Err(format!("whether somebody answers at {shown} cannot be told ({e}); take the path out of {FIELD}"))
        }
    }
}

/// Whether somebody listens. A full queue, and a socket of another type, have somebody too; neither is waited for.
fn answers(path: &Path) -> rustix::io::Result<bool> {
    match rustix::net::connect(socket()?, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes a file that may be gone already.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == Io::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener as Foreign, UnixStream};

    struct Place {
        layout: Layout,
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(Some(&dir.path().join("root"))).unwrap();
            fs::create_dir(&layout.run).unwrap();
            Self { layout, dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn wish(&self, names: &[&str]) -> Vec<String> {
            names.iter().map(|name| self.path(name).display().to_string()).collect()
        }

        /// What [`check`] and [`bind`] both say.
        fn refused(&self, name: &str) -> String {
            let wish = self.wish(&[name]);
            let checked = check(&self.layout, &wish).unwrap_err().message().to_owned();
            let bound = format!("{:#}", bind(&self.layout, &wish).unwrap_err());
            assert_eq!(checked, bound);
            close(&self.layout);
            checked
        }

        fn is_recorded(&self) -> bool {
            self.layout.run.join("further-sockets.json").exists()
        }
    }

    #[tokio::test]
    async fn sockets_are_for_root_alone_and_go_with_their_directories() {
        let place = Place::new();
        let wish = place.wish(&["a/b/one.sock", "two.sock"]);
        let listeners = bind(&place.layout, &wish).unwrap();
        assert_eq!(listeners.len(), 2);
        for path in &wish {
            UnixStream::connect(path).unwrap();
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600);
        }
        let directory = place.path("a/b");
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no draft stays");
        check(&place.layout, &wish).unwrap();
        close(&place.layout);
        assert!(!place.path("a/b/one.sock").exists() && !place.path("two.sock").exists() && directory.exists());
        sweep(&place.layout);
        assert!(!place.path("a").exists() && !place.is_recorded());
    }

    #[tokio::test]
    async fn the_next_start_removes_what_it_does_not_want_and_keeps_directories_that_it_wants() {
        let place = Place::new();
        drop(bind(&place.layout, &place.wish(&["a/one.sock", "b/two.sock", "c/three.sock"])).unwrap());
        // As by a restart of a program that has that path.
        fs::remove_file(place.path("b/two.sock")).unwrap();
        let foreign = Foreign::bind(place.path("b/two.sock")).unwrap();
        let kept = fs::metadata(place.path("c")).unwrap().ino();
        let listeners = bind(&place.layout, &place.wish(&["c/four.sock"])).unwrap();
        assert!(!place.path("a").exists(), "the directory goes with its socket");
        UnixStream::connect(place.path("b/two.sock")).unwrap();
        assert!(!place.path("c/three.sock").exists());
        UnixStream::connect(place.path("c/four.sock")).unwrap();
        assert_eq!(fs::metadata(place.path("c")).unwrap().ino(), kept, "whoever has it mounted sees the new socket");
        drop((foreign, listeners));
        close(&place.layout);
        sweep(&place.layout);
        assert!(!place.path("c").exists() && !place.is_recorded());
    }

    #[tokio::test]
    async fn what_is_somebody_elses_is_refused_and_untouched() {
        let place = Place::new();
        let foreign = Foreign::bind(place.path("living.sock")).unwrap();
        let told = place.refused("living.sock");
        assert!(told.starts_with("spec.runtime.sockets.cri[0]: another program answers at"), "{told}");
        assert!(told.contains("take the path out of spec.runtime.sockets.cri"), "{told}");
        UnixStream::connect(place.path("living.sock")).unwrap();
        fs::write(place.path("file"), "mine").unwrap();
        assert!(place.refused("file").contains("is there and is no socket"));
        assert_eq!(fs::read_to_string(place.path("file")).unwrap(), "mine");
        assert!(place.refused("file/below.sock").contains("mend it"));
        drop(foreign);
        std::os::unix::fs::symlink(place.path("living.sock"), place.path("link")).unwrap();
        assert!(place.refused("link").contains("is no socket"), "a dead one behind a link is not ours to replace");
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_the_longest_path_bound() {
        let place = Place::new();
        drop(Foreign::bind(place.path("dead.sock")).unwrap());
        let room = 107 - place.path("").as_os_str().len();
        let long = "l".repeat(room);
        let wish = place.wish(&["dead.sock", &long]);
        assert_eq!(wish[1].len(), 107);
        let _listeners = bind(&place.layout, &wish).unwrap();
        for path in &wish {
            UnixStream::connect(path).unwrap();
        }
    }

    #[tokio::test]
    async fn what_a_killed_daemon_was_making_goes_and_a_newer_record_is_left() {
        let place = Place::new();
        let draft = place.path(".draft.sock");
        drop(Foreign::bind(&draft).unwrap());
        let path = place.path("never.sock");
        let foreign = Foreign::bind(&path).unwrap();
        let mut kept = Kept::new(&place.layout);
        kept.record.sockets.push(Made { path: path.clone(), draft: draft.clone(), identity: None });
        kept.write().unwrap();
        assert_eq!(bind(&place.layout, &[]).unwrap().len(), 0);
        assert!(!draft.exists() && !place.is_recorded());
        UnixStream::connect(&path).unwrap();
        drop(foreign);
        kept.record.version = 7;
        kept.write().unwrap();
        let told = format!("{:#}", Kept::open(&place.layout).err().unwrap());
        assert!(told.contains("version 7"), "{told}");
        close(&place.layout);
        assert!(place.is_recorded());
    }
}
