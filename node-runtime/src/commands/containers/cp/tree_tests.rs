//! Copies of trees: what a source brings and where it lands, with the tricks that an archive could try.
use super::super::place::{Place, Root};
use super::super::{archive, walk};
use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

fn place(root: &Path, path: &str) -> Place {
    Place { root: Root::open(root).unwrap(), path: path.into(), what: path.into() }
}

fn copy(root: &Path, from: &str, to: &str) -> Result<Count> {
    let source = place(root, from).source(false)?;
    let target = place(root, to);
    let (base, top) = target.target(&source)?;
    let mut sink = Writer::new(base, Owner::Caller, to.into());
    walk::walk(&source, &top, &mut sink)?;
    sink.finish()
}

fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: path.into(), kind, mode: 0o644, uid: 0, gid: 0, modified: 7, size: 1 }
}

#[test]
fn trees_are_copied_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("a/sub")).unwrap();
    fs::write(root.join("a/sub/f"), "hello").unwrap();
    fs::set_permissions(root.join("a/sub/f"), PermissionsExt::from_mode(0o4750)).unwrap();
    fs::set_permissions(root.join("a/sub"), PermissionsExt::from_mode(0o555)).unwrap();
    symlink("/nowhere", root.join("a/link")).unwrap();
    fs::create_dir(root.join("there")).unwrap();
    assert_eq!(copy(root, "a", "new").unwrap().files, 2);
    assert_eq!(fs::read_to_string(root.join("new/sub/f")).unwrap(), "hello");
    assert_eq!(fs::metadata(root.join("new/sub/f")).unwrap().permissions().mode() & 0o7777, 0o4750);
    assert_eq!(fs::metadata(root.join("new/sub")).unwrap().permissions().mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(root.join("new/link")).unwrap(), Path::new("/nowhere"));
    copy(root, "a", "there").unwrap();
    assert!(root.join("there/a/sub/f").exists());
    copy(root, "a/.", "there").unwrap();
    assert!(root.join("there/sub/f").exists());
    fs::write(root.join("g"), "longer than before").unwrap();
    fs::write(root.join("h"), "x").unwrap();
    copy(root, "h", "g").unwrap();
    assert_eq!(fs::read_to_string(root.join("g")).unwrap(), "x");
    for writable in ["a/sub", "new/sub", "there/sub", "there/a/sub"] {
        fs::set_permissions(root.join(writable), PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_is_copied_leads_nothing_astray() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "whole").unwrap();
    let base = || place(dir.path(), "in").directory().unwrap();
    let mut sink = Writer::new(base(), Owner::Caller, "in".into());
    sink.put(&entry("l", Kind::Link(outside.clone())), &mut std::io::empty()).unwrap();
    let through = sink.put(&entry("l/victim", Kind::File), &mut "bad".as_bytes()).unwrap_err().to_string();
    assert!(through.contains("in the way"), "{through}");
    sink.put(&entry("v", Kind::Link(outside.join("victim"))), &mut std::io::empty()).unwrap();
    sink.put(&entry("v", Kind::File), &mut "new".as_bytes()).unwrap();
    for path in ["../x", "/x", "a/../../x"] {
        assert!(sink.put(&entry(path, Kind::File), &mut "bad".as_bytes()).is_err(), "{path}");
    }
    assert!(sink.put(&entry("l", Kind::Directory), &mut std::io::empty()).is_err());
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "whole");
    assert_eq!(fs::read_to_string(inside.join("v")).unwrap(), "new", "the link itself is replaced");
}

#[test]
fn a_stream_comes_back_as_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("a/sub")).unwrap();
    fs::write(root.join("a/sub/f"), "hello").unwrap();
    fs::write(root.join("a").join("n".repeat(200)), "long").unwrap();
    symlink("sub/f", root.join("a/link")).unwrap();
    let ids = super::super::ids::Ids::of(std::process::id()).unwrap();
    let mut bytes = Vec::new();
    let source = place(root, "a").source(false).unwrap();
    let mut out = archive::Writer::new(&mut bytes, ids);
    walk::walk(&source, &source.name, &mut out).unwrap();
    assert_eq!(out.finish().unwrap().files, 3);
    fs::create_dir(root.join("b")).unwrap();
    let mut sink = Writer::new(place(root, "b").directory().unwrap(), Owner::Caller, "b".into());
    archive::read(bytes.as_slice(), &mut sink).unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read_to_string(root.join("b/a/link")).unwrap(), "hello");
    assert_eq!(fs::read_to_string(root.join("b/a").join("n".repeat(200))).unwrap(), "long");
    let mut sink = Writer::new(place(root, "b").directory().unwrap(), Owner::Caller, "b".into());
    assert!(archive::read("no tar at all, but long enough to be read".repeat(40).as_bytes(), &mut sink).is_err());
}
