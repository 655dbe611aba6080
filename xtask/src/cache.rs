//! The cache of what is slow to build: `${BERTH_CACHE:-$HOME/.cache/berth}/<what>/<hash of its inputs>`.
//! An entry is made beside its place and renamed into it, so that it is there whole or not at all. Who finds that another
//! process makes it waits for that one. Everything works with an empty cache, only slower.
use crate::Result;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Hash of an entry's inputs. FNV-1a: names change with content, nobody is to be fooled.
#[derive(Debug, Clone)]
pub struct Key(u128);

impl Default for Key {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Key {
    /// The key of these bytes too. The length goes in, so that no two lists of inputs run together.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes.iter().chain(&(bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
        self
    }

    /// The key of this file's content too.
    pub fn with_file(self, path: &Path) -> Result<Self> {
        Ok(self.with(&fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?))
    }
}

/// The cache's directory.
pub fn dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("BERTH_CACHE") {
        return dir.into();
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    Path::new(&home).join(".cache/berth")
}

/// The directory of the entry; `fill` makes it, given an empty directory, if it is not there yet.
/// Entries of other inputs stay: two checkouts, or two branches, may take turns.
pub fn entry(what: &str, key: &Key, fill: impl FnOnce(&Path) -> Result) -> Result<PathBuf> {
    entry_in(&dir().join(what), key, fill)
}

fn entry_in(parent: &Path, key: &Key, fill: impl FnOnce(&Path) -> Result) -> Result<PathBuf> {
    let place = parent.join(format!("{:032x}", key.0));
    if place.is_dir() {
        return Ok(place);
    }
    let at = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    let _makes = lock_in(parent, &format!("{:032x}", key.0))?;
    if place.is_dir() {
        return Ok(place);
    }
    let part = parent.join(format!(".part-{}", std::process::id()));
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part).map_err(|e| at(&part, e))?;
    if let Err(e) = fill(&part) {
        let _ = fs::remove_dir_all(&part);
        return Err(e);
    }
    if let Err(e) = fs::rename(&part, &place) {
        let _ = fs::remove_dir_all(&part);
        return Err(at(&place, e));
    }
    Ok(place)
}

/// Waits until no other process, and nobody else in this one, has what bears this name. Given back when it is dropped.
pub fn lock(name: &str) -> Result<File> {
    lock_in(&dir(), name)
}

fn lock_in(parent: &Path, name: &str) -> Result<File> {
    let path = parent.join(format!(".lock-{name}"));
    let made =
        fs::create_dir_all(parent).and_then(|()| File::create(&path)).and_then(|file| file.lock().map(|()| file));
    made.map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_inputs_apart() {
        let key = |parts: &[&str]| parts.iter().fold(Key::default(), |k, p| k.with(p.as_bytes())).0;
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&[""]), key(&[]));
    }

    #[test]
    fn an_entry_is_whole_or_absent_and_made_once() {
        let parent = std::env::temp_dir().join(format!("berth-xtask-cache-{}", std::process::id()));
        let key = Key::default().with(b"inputs");
        let failed = entry_in(&parent, &key, |dir| {
            fs::write(dir.join("half"), "").unwrap();
            Err("no luck".into())
        });
        assert_eq!(failed.unwrap_err(), "no luck");
        let left = || fs::read_dir(&parent).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(left(), 0, "a failed filling left something");
        let fill = |dir: &Path| fs::write(dir.join("file"), "x").map_err(|e| e.to_string());
        let place = entry_in(&parent, &key, fill).unwrap();
        assert!(place.join("file").is_file());
        assert_eq!(entry_in(&parent, &key, |_| Err("made twice".into())).unwrap(), place);
        fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn who_comes_second_waits_for_the_first() {
        let parent = std::env::temp_dir().join(format!("berth-xtask-cache-two-{}", std::process::id()));
        let key = Key::default().with(b"inputs");
        let made = std::sync::atomic::AtomicUsize::new(0);
        let fill = |_: &Path| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| entry_in(&parent, &key, fill).unwrap())).collect();
            threads.into_iter().for_each(|thread| assert!(thread.join().unwrap().is_dir()));
        });
        assert_eq!(made.into_inner(), 1);
        fs::remove_dir_all(&parent).unwrap();
    }
}
