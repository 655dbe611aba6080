//! Records and the database on file systems without a free block or inode: what is replaced or removed needs neither, what is new is refused
//! and tears nothing. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use berth_store::{Database, ImageChanges, Records};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Records that are replaced, and images that are removed.
const OBJECTS: usize = 20;
/// How often each record is replaced with nothing free.
const ROUNDS: usize = 50;

fn host(args: &[&str]) {
    assert!(Command::new(args[0]).args(&args[1..]).status().unwrap().success(), "{args:?}");
}

/// A small file system that goes with its test.
struct Small(PathBuf);

impl Small {
    fn tmpfs(directory: &Path) -> Self {
        let at = directory.join("disk");
        std::fs::create_dir(&at).unwrap();
        host(&["mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=400", "berth-test", at.to_str().unwrap()]);
        Self(at)
    }

    fn ext4(directory: &Path) -> Self {
        let (image, at) = (directory.join("image"), directory.join("disk"));
        std::fs::create_dir(&at).unwrap();
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        host(&["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "400", image.to_str().unwrap()]);
        host(&["mount", "-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Self(at)
    }

    /// Takes every block and every inode.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        for size in [1 << 20, 64 << 10, 4096, 1] {
            let piece = vec![1; size];
            while file.write_all(&piece).is_ok() {}
        }
        let _ = file.sync_all();
        let mut inodes = 0;
        while File::create(self.0.join(format!("inode{inodes}"))).is_ok() {
            inodes += 1;
            assert!(inodes < 1000, "the file system has no end");
        }
        assert!(std::fs::write(self.0.join("probe"), "x").is_err());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        host(&["umount", self.0.to_str().unwrap()]);
    }
}

fn put(name: String, bytes: usize) -> ImageChanges {
    ImageChanges { put_images: vec![(name, vec![7; bytes])], ..ImageChanges::default() }
}

fn replaced_and_removed_without_space(disk: &Small) {
    let file = disk.0.join("berth.redb");
    let database = Database::open(&file).unwrap();
    let records: Records<String> = Records::open(disk.0.join("pods"), "pod", 1).unwrap().with_spares();
    for n in 0..OBJECTS {
        records.write(&format!("p{n}"), &"a".repeat(3000)).unwrap();
        database.change_images(&put(format!("i{n}"), 20_000)).unwrap();
    }
    disk.fill();
    for round in 0..ROUNDS {
        for n in 0..OBJECTS {
            let text = format!("{round}{}", "b".repeat(3000));
            records.write(&format!("p{n}"), &text).unwrap_or_else(|e| panic!("round {round}, record {n}: {e}"));
        }
    }
    assert!(records.write("fresh", &"x".to_owned()).is_err());
    for n in 0..OBJECTS {
        let changes = ImageChanges { remove_images: vec![format!("i{n}")], ..ImageChanges::default() };
        database.change_images(&changes).unwrap_or_else(|e| panic!("removal {n}: {e}"));
    }
    assert!(database.change_images(&put("large".to_owned(), 40 << 20)).is_err(), "there is no room for 40 MiB");
    database.lease_put("after", b"x").unwrap_or_else(|e| panic!("after a failure: {e}"));
    assert!(database.images_all().unwrap().is_empty());

    // Another start finds all of it.
    drop(database);
    let database = Database::open(&file).unwrap();
    assert!(database.images_all().unwrap().is_empty());
    assert_eq!(database.lease_all().unwrap().len(), 1);
    let loaded = records.load().unwrap();
    assert!(loaded.unreadable.is_empty(), "{:?}", loaded.unreadable);
    assert_eq!(loaded.records.len(), OBJECTS);
    let last = format!("{}b", ROUNDS - 1);
    assert!(loaded.records.iter().all(|(_, text)| text.starts_with(&last)));
}

#[test]
fn a_full_tmpfs() {
    let directory = tempfile::tempdir().unwrap();
    replaced_and_removed_without_space(&Small::tmpfs(directory.path()));
}

#[test]
fn a_full_ext4() {
    let directory = tempfile::tempdir().unwrap();
    replaced_and_removed_without_space(&Small::ext4(directory.path()));
}
