//! Where the image store is: below the daemon's root, or where `spec.runtime.storage.directory` wants it; and where it was before, for as
//! long as something is left there. Format: docs/formats/image-places.md.
//!
//! Owns: that record, and the mark in a directory that says whose store it is. Must not: touch a directory that has not the mark; know
//! what lies in a store.
use crate::atomic_file::replace;
use crate::layout::Layout;
use crate::node_files::exact;
use berth_model::{Error, ErrorKind, Result, ResultExt};
use berth_settings::Settings;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The field that decides.
const FIELD: &str = "spec.runtime.storage.directory";
/// The mark's name, in the store's directory.
const MARK: &str = ".berth-images.json";
/// Longest record and longest mark that are read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Where the store is, and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where it is.
    pub root: PathBuf,
    /// Where it was and may have something left, the latest first.
    pub former: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    kind: String,
    version: u32,
    /// That of now first.
    places: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    path: PathBuf,
    /// What its mark says; the place below the root needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    kind: String,
    version: u32,
    id: String,
}

/// Where the settings want the store.
pub fn wanted(layout: &Layout, settings: &Settings) -> PathBuf {
    settings.storage.directory.clone().unwrap_or_else(|| below_root(layout))
}

fn below_root(layout: &Layout) -> PathBuf {
    layout.lib.join("images")
}

fn record_file(layout: &Layout) -> PathBuf {
    layout.lib.join("image-places.json")
}

/// All directories that have, or may have, something of the store. For reports: a record that cannot be read is none.
pub fn known(layout: &Layout) -> Vec<PathBuf> {
    Record::read(layout).map_or_else(|_| vec![below_root(layout)], |r| r.places.into_iter().map(|p| p.path).collect())
}

/// Refuses settings whose directory the next start would refuse. Nothing is left changed. Errors: `FailedPrecondition`, naming the field.
pub fn check(layout: &Layout, settings: &Settings) -> Result<()> {
    let Some(directory) = &settings.storage.directory else { return Ok(()) };
    let record = Record::read(layout)?;
    match record.places.iter().find(|place| place.path == *directory) {
        Some(place) => place.verify(),
        None => claimable(layout, &record, directory),
    }
}

/// Has the store where the settings want it, for a daemon that starts. Errors: as [`check`], and those of the disk.
pub fn settle(layout: &Layout, settings: &Settings) -> Result<Places> {
    let wanted = wanted(layout, settings);
    let mut record = Record::read(layout)?;
    match record.places.iter().position(|place| place.path == wanted) {
        Some(0) => record.places[0].verify()?,
        Some(at) => {
            let place = record.places.remove(at);
            place.verify()?;
            record.places.insert(0, place);
            record.write(layout)?;
        }
        None => {
            let place = claim(layout, &record, &wanted)?;
            record.places.insert(0, place);
            record.write(layout)?;
        }
    }
    let there = |place: &Place| match place.verify() {
        Ok(()) => true,
        Err(e) => {
            tracing::warn!(error = %e, "what a former place of the image store has is out of reach");
            false
        }
    };
    let former = record.places[1..].iter().filter(|place| there(place)).map(|place| place.path.clone()).collect();
    Ok(Places { root: wanted, former })
}

/// Gives up the former places that the store does not use any more: what the store made there goes, and the mark. Takes its time.
pub fn give_up(layout: &Layout, places: &Places, used: &[PathBuf]) -> Result<()> {
    let mut record = Record::read(layout)?;
    for path in places.former.iter().filter(|path| !used.contains(path)) {
        berth_images::remove_place(path)?;
        let mark = std::fs::remove_file(path.join(MARK));
        mark.or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        // What somebody else has put there stays, and the directory with it.
        let _ = std::fs::remove_dir(path);
        record.places.retain(|place| place.path != *path);
        record.write(layout)?;
        tracing::info!(path = %path.display(), "a former place of the image store is empty and given up");
    }
    Ok(())
}

impl Record {
    fn read(layout: &Layout) -> Result<Self> {
        let path = record_file(layout);
        let Some(text) = text(&path)? else {
            let places = vec![Place { path: below_root(layout), id: None }];
            return Ok(Self { kind: "ImagePlaces".into(), version: 1, places });
        };
        let read = serde_json::from_str::<Self>(&text).ok();
        read.filter(|r| r.kind == "ImagePlaces" && r.version == 1 && !r.places.is_empty()).ok_or_else(|| {
            let problem = format!(
                "{} cannot be read, so nobody knows where images lie: put it back, or remove it, and images that lie elsewhere are pulled again",
                path.display()
            );
            Error::new(ErrorKind::FailedPrecondition, problem)
        })
    }

    fn write(&self, layout: &Layout) -> Result<()> {
        let path = record_file(layout);
        let bytes = serde_json::to_vec_pretty(self).map_err(|e| Error::internal(e.to_string()))?;
        replace(&path, &bytes, 0o600).context(|| path.display())
    }
}

impl Place {
    /// Whether what is at the place is the store that was made there: a disk may not be mounted, or be another one.
    fn verify(&self) -> Result<()> {
        let Some(id) = &self.id else { return Ok(()) };
        match mark(&self.path)? {
            Some(found) if found.id == *id => Ok(()),
            Some(_) => Err(refused(
                &self.path,
                "has the image store of another daemon: is it another disk? Mount the one that was there",
            )),
            None => Err(refused(&self.path, "has not the image store that was made there: mount its disk")),
        }
    }
}

/// Takes a directory for the store. The place below the root needs neither directory nor mark: the store makes it.
fn claim(layout: &Layout, record: &Record, directory: &Path) -> Result<Place> {
    if directory == below_root(layout) {
        return Ok(Place { path: directory.to_owned(), id: None });
    }
    claimable(layout, record, directory)?;
    match std::fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::from(e).context(directory.display()));
        }
        _ => {}
    }
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| Error::internal("no random bytes for the mark of an image store"))?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mark = Mark { kind: "ImagePlace".into(), version: 1, id: id.clone() };
    let bytes = serde_json::to_vec(&mark).map_err(|e| Error::internal(e.to_string()))?;
    replace(&directory.join(MARK), &bytes, 0o600).context(|| directory.display())?;
    Ok(Place { path: directory.to_owned(), id: Some(id) })
}

/// Whether a directory may become the store's: nobody else's, at a place of its own, on a file system that can do it.
fn claimable(layout: &Layout, record: &Record, directory: &Path) -> Result<()> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    let real = parent.canonicalize().map_err(|e| {
        let problem =
            format!("cannot be made, because of {}: {e}; mount the disk, or make that directory", parent.display());
        refused(directory, problem)
    })?;
    let own = [&layout.lib, &layout.run, &layout.etc].map(|own| own.canonicalize().unwrap_or_else(|_| own.clone()));
    let others = record.places.iter().filter(|place| place.id.is_some()).map(|place| place.path.clone());
    let real = real.join(directory.file_name().unwrap_or_default());
    if let Some(other) = own.into_iter().chain(others).find(|other| real.starts_with(other) || other.starts_with(&real))
    {
        return Err(refused(directory, format!("and {} lie within one another: name one beside it", other.display())));
    }
    let at = match std::fs::symlink_metadata(directory) {
        Ok(meta) if !meta.is_dir() => return Err(refused(directory, "is no directory")),
        Ok(_) => {
            let mut entries =
                std::fs::read_dir(directory).context(|| directory.display())?.filter_map(std::result::Result::ok);
            // A claim that was cut short leaves a mark and nothing else.
            if let Some(found) = entries.find(|e| e.file_name() != MARK && e.file_name() != "lost+found") {
                let problem = format!("is not empty (it has {}): name an empty or a new one", found.path().display());
                return Err(refused(directory, problem));
            }
            directory
        }
        Err(_) => parent,
    };
    stackable(at).map_err(|problem| refused(directory, problem))
}

/// Whether the kernel stacks an overlay whose writable layer is there: it is asked, with a mount that is attached nowhere.
fn stackable(directory: &Path) -> std::result::Result<(), String> {
    let probe = directory.join(format!(".berth-probe-{}", std::process::id()));
    let stacked = stack(&probe);
    let _ = std::fs::remove_dir_all(&probe);
    stacked
}

fn stack(probe: &Path) -> std::result::Result<(), String> {
    let make = |path: &Path| {
        std::fs::DirBuilder::new().mode(0o700).create(path).map_err(|e| format!("cannot be written: {e}"))
    };
    let layers = ["lower", "upper", "work"].map(|name| probe.join(name));
    make(probe)?;
    layers.iter().try_for_each(|layer| make(layer))?;
    let overlay = || {
        let overlay = berth_sys::mount::NewMount::open("overlay").map_err(|e| e.to_string())?;
        for (option, layer) in ["lowerdir", "upperdir", "workdir"].into_iter().zip(&layers) {
            overlay.set_path(option, layer).map_err(|e| e.to_string())?;
        }
        overlay.mount(0).map(drop).map_err(|e| e.to_string())
    };
    overlay().map_err(|e| {
        format!("is on a file system that cannot have containers' writable layers: {e}; name one on XFS or ext4")
    })
}

fn mark(directory: &Path) -> Result<Option<Mark>> {
    let Some(text) = text(&directory.join(MARK))? else { return Ok(None) };
    Ok(serde_json::from_str::<Mark>(&text).ok().filter(|mark| mark.kind == "ImagePlace"))
}

/// A file of ours; `None` where there is none.
fn text(path: &Path) -> Result<Option<String>> {
    match exact(path, MAX_BYTES) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        other => other.map(Some).context(|| path.display()),
    }
}

fn refused(directory: &Path, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, format!("{FIELD}: {} {problem}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(directory: Option<&Path>) -> Settings {
        let mut settings = berth_settings::from_texts(&[]).unwrap();
        // Directories of tests may lie where the rule forbids.
        settings.storage.directory = directory.map(Path::to_owned);
        settings
    }

    /// A place that was claimed before, without the kernel's leave, which needs root.
    fn claimed(layout: &Layout, directory: &Path, id: &str) {
        std::fs::create_dir_all(directory).unwrap();
        let mark = Mark { kind: "ImagePlace".into(), version: 1, id: "1".into() };
        std::fs::write(directory.join(MARK), serde_json::to_vec(&mark).unwrap()).unwrap();
        let mut record = Record::read(layout).unwrap();
        record.places.insert(0, Place { path: directory.to_owned(), id: Some(id.into()) });
        record.write(layout).unwrap();
    }

    fn root() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(&dir.path().join("root"))).unwrap();
        std::fs::create_dir_all(&layout.lib).unwrap();
        (dir, layout)
    }

    #[test]
    fn without_a_document_the_store_is_below_the_root() {
        let (_dir, layout) = root();
        let places = settle(&layout, &settings(None)).unwrap();
        assert_eq!(places, Places { root: layout.lib.join("images"), former: vec![] });
        assert!(!record_file(&layout).exists(), "nothing to record");
    }

    #[test]
    fn a_place_that_is_not_what_it_was_is_refused() {
        let (dir, layout) = root();
        let store = dir.path().join("store");
        claimed(&layout, &store, "1");
        let wish = settings(Some(&store));
        assert_eq!(settle(&layout, &wish).unwrap().former, [layout.lib.join("images")]);
        check(&layout, &wish).unwrap();
        std::fs::remove_file(store.join(MARK)).unwrap();
        for error in [settle(&layout, &wish).unwrap_err(), check(&layout, &wish).unwrap_err()] {
            assert!(error.message().contains(FIELD) && error.message().contains("mount its disk"), "{error}");
        }
        claimed(&layout, &store, "2");
        assert!(settle(&layout, &wish).unwrap_err().message().contains("another daemon"));
        // Back below the root the daemon starts, without what is out of reach.
        let back = settle(&layout, &settings(None)).unwrap();
        assert_eq!(back, Places { root: layout.lib.join("images"), former: vec![store.clone()] }, "the one of mark 1");
    }

    #[test]
    fn what_is_no_place_of_its_own_is_refused() {
        let (dir, layout) = root();
        let full = dir.path().join("full");
        std::fs::create_dir_all(&full).unwrap();
        std::fs::write(full.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&full, dir.path().join("link")).unwrap();
        claimed(&layout, &dir.path().join("store"), "1");
        let bad = [
            (full.clone(), "is not empty"),
            (dir.path().join("link"), "is no directory"),
            (full.join("file"), "is no directory"),
            (dir.path().join("none/store"), "none: No such file"),
            (layout.lib.join("images/more"), "cannot be made"),
            (layout.lib.join("more"), "lie within one another"),
            (dir.path().join("store/more"), "lie within one another"),
        ];
        for (directory, words) in bad {
            let error = check(&layout, &settings(Some(&directory))).unwrap_err();
            assert!(error.message().contains(words), "{}: {error}", directory.display());
        }
        assert_eq!(std::fs::read_to_string(full.join("file")).unwrap(), "x");
    }

    #[test]
    fn a_place_without_use_is_given_up_with_what_is_ours_alone() {
        let (dir, layout) = root();
        let store = dir.path().join("store");
        claimed(&layout, &store, "1");
        std::fs::create_dir_all(store.join("blobs/sha256")).unwrap();
        std::fs::write(store.join("note"), "x").unwrap();
        let places = settle(&layout, &settings(None)).unwrap();
        give_up(&layout, &places, &[places.root.clone(), store.clone()]).unwrap();
        assert!(store.join("blobs").exists(), "it is used");
        give_up(&layout, &places, std::slice::from_ref(&places.root)).unwrap();
        let left: Vec<_> = std::fs::read_dir(&store).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["note"]);
        assert_eq!(known(&layout), [layout.lib.join("images")]);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_told() {
        let (_dir, layout) = root();
        std::fs::write(record_file(&layout), "{").unwrap();
        assert!(settle(&layout, &settings(None)).unwrap_err().message().contains("image-places.json"));
    }
}
