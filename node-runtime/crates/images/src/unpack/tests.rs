//! Layers through the whole way, from compressed chunks to a directory. None of these needs root.
use super::*;
use crate::config::{LayerLimits, Limits};
use berth_model::{Digest, Error, ErrorKind, Result};
use berth_test_registry::{BuiltLayer, Compression, Entry, Layer};
use bytes::Bytes;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

struct Bench {
    /// Holds the layer's directory and nothing else, so that what leaves it is seen.
    around: tempfile::TempDir,
    limits: LayerLimits,
}

impl Bench {
    fn new() -> Self {
        Self {
            around: tempfile::tempdir().unwrap(),
            limits: LayerLimits::from(&Limits { min_free: 0, ..Limits::default() }),
        }
    }

    fn root(&self) -> PathBuf {
        self.around.path().join("fs")
    }

    fn run(&self, layer: &BuiltLayer) -> Result<Unpacked> {
        let chunks: Vec<_> = layer.blob.chunks(7000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
        self.run_chunks(layer, chunks)
    }

    fn run_chunks(&self, layer: &BuiltLayer, chunks: Vec<Result<Bytes>>) -> Result<Unpacked> {
        self.attempt(layer, chunks).map_err(|failed| failed.error)
    }

    fn attempt(&self, layer: &BuiltLayer, chunks: Vec<Result<Bytes>>) -> Result<Unpacked, Failed> {
        std::fs::create_dir(self.root()).unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let feeder = std::thread::spawn(move || chunks.into_iter().all(|c| sender.blocking_send(c).is_ok()));
        let result = unpack(self.job(layer), receiver);
        feeder.join().unwrap();
        let around: Vec<_> = std::fs::read_dir(self.around.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(around, ["fs"], "something left the layer's directory");
        result
    }

    fn job(&self, layer: &BuiltLayer) -> Job {
        Job {
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: layer.diff_id.clone(),
            target: self.root(),
            blob: None,
            limits: self.limits.clone(),
            image_bytes: Default::default(),
        }
    }
}

fn built(layer: Layer) -> BuiltLayer {
    layer.build().unwrap()
}

fn refusal(layer: Layer) -> Error {
    Bench::new().run(&built(layer)).unwrap_err()
}

fn is_whiteout(path: &Path) -> bool {
    let meta = std::fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    let fd = std::fs::File::open(path).unwrap();
    let name = if rustix::process::geteuid().is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
    let mut value = [0; 8];
    rustix::fs::fgetxattr(fd.as_fd(), name, &mut value).is_ok_and(|n| &value[..n] == b"y")
}

#[test]
fn every_compression_gives_the_same_tree() {
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let layer = Layer::with_compression(compression)
            .entry(Entry::dir("bin").mode(0o750).mtime(1000))
            .entry(Entry::file("bin/su", "x".repeat(300_000)).mode(0o4755).mtime(2000))
            .entry(Entry::symlink("bin/link", "su"))
            .entry(Entry::hard_link("bin/hard", "bin/su"))
            .entry(Entry::fifo("pipe").mode(0o622))
            .entry(Entry::file("./deep/er/file", "1"));
        let bench = Bench::new();
        let unpacked = bench.run(&built(layer)).unwrap();
        let at = |name: &str| std::fs::symlink_metadata(bench.root().join(name)).unwrap();
        assert_eq!((at("bin").mode() & 0o7777, at("bin").mtime()), (0o750, 1000), "{compression:?}");
        assert_eq!((at("bin/su").mode() & 0o7777, at("bin/su").mtime(), at("bin/su").len()), (0o4755, 2000, 300_000));
        assert_eq!(at("bin/su").ino(), at("bin/hard").ino());
        assert_eq!(std::fs::read_link(bench.root().join("bin/link")).unwrap(), Path::new("su"));
        assert!(at("pipe").file_type().is_fifo() && at("pipe").mode() & 0o777 == 0o622);
        let implied: Vec<_> = unpacked.implied.iter().map(LayerPath::shown).collect();
        assert_eq!(implied, [r#""""#, r#""deep""#, r#""deep/er""#]);
        // root, bin, su, link, pipe, file; the two implied directories and the second name are not counted.
        assert_eq!(unpacked.usage.inodes, 6);
    }
}

#[test]
fn whiteouts_become_overlayfs_own() {
    let layer = Layer::new()
        .entry(Entry::whiteout("gone"))
        .entry(Entry::dir("opaque"))
        .entry(Entry::opaque("opaque"))
        .entry(Entry::file("opaque/new", "n"))
        .entry(Entry::whiteout("became/dir"))
        .entry(Entry::dir("became/dir"))
        .entry(Entry::dir("was"))
        .entry(Entry::file("was/kept", ""))
        .entry(Entry::whiteout("was"))
        .entry(Entry::whiteout("below"))
        .entry(Entry::file("below/x", ""))
        .entry(Entry::whiteout("file"))
        .entry(Entry::file("file", "again"))
        .entry(Entry::file(".wh..wh.plnk/1", ""));
    let bench = Bench::new();
    bench.run(&built(layer)).unwrap();
    let at = |name: &str| bench.root().join(name);
    assert!(is_whiteout(&at("gone")));
    for opaque in ["opaque", "became/dir", "was", "below"] {
        assert!(is_opaque(&at(opaque)), "{opaque}");
    }
    assert!(at("was/kept").exists() && at("below/x").exists() && !is_opaque(&at("became")));
    assert_eq!(std::fs::read(at("file")).unwrap(), b"again");
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let layer = Layer::new()
        .entry(Entry::file("a", "first"))
        .entry(Entry::file("a", "second"))
        .entry(Entry::dir("b"))
        .entry(Entry::file("b/x", ""))
        .entry(Entry::file("b", "now a file"))
        .entry(Entry::symlink("c", "/nowhere"))
        .entry(Entry::dir("c"))
        .entry(Entry::file("c/y", ""))
        .entry(Entry::dir("c").mode(0o700));
    let bench = Bench::new();
    bench.run(&built(layer)).unwrap();
    assert_eq!(std::fs::read(bench.root().join("a")).unwrap(), b"second");
    assert_eq!(std::fs::read(bench.root().join("b")).unwrap(), b"now a file");
    assert!(bench.root().join("c/y").exists());
    assert_eq!(bench.root().join("c").metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn nothing_leaves_the_layer() {
    let up = "../".repeat(20);
    let links = Layer::new()
        .entry(Entry::symlink("abs", "/tmp"))
        .entry(Entry::symlink("rel", format!("{up}tmp")))
        .entry(Entry::file("abs/berth-escape-1", "x"))
        .entry(Entry::file("rel/berth-escape-2", "x"))
        .entry(Entry::file("/absolute", "x"));
    let bench = Bench::new();
    bench.run(&built(links)).unwrap();
    for name in ["tmp/berth-escape-1", "tmp/berth-escape-2", "absolute"] {
        assert!(bench.root().join(name).exists(), "{name}");
    }
    assert!(!Path::new("/tmp/berth-escape-1").exists() && !Path::new("/tmp/berth-escape-2").exists());
    // A link as the last component is replaced, never followed.
    let over = Layer::new().entry(Entry::symlink("f", "../outside")).entry(Entry::file("f", "mine"));
    let bench = Bench::new();
    bench.run(&built(over)).unwrap();
    assert!(bench.root().join("f").symlink_metadata().unwrap().is_file());
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let long = "n".repeat(256);
    let cases = [
        (Entry::file("../up", "x"), "leads upwards"),
        (Entry::file("a/../../up", "x"), "leads upwards"),
        (Entry::char_device("dev/null", 1, 3), "\"dev/null\": is a character device"),
        (Entry::block_device("sda", 8, 0), "\"sda\": is a block device"),
        (Entry::char_device("whiteout", 0, 0), "character device"),
        (Entry::hard_link("l", "/etc/passwd"), "no file of this layer"),
        (Entry::hard_link("l", "../../etc/passwd"), "leads upwards"),
        (Entry::hard_link("l", "."), "no file of this layer"),
        (Entry::hard_link("l", "l"), "no file of this layer"),
        (Entry::symlink("l", ""), "link target"),
        (Entry::file(long.as_str(), ""), "longer than 255"),
        (Entry::file("d/".repeat(300) + "f", ""), "deeper than 256"),
        (Entry::file(".wh...", ""), "whiteout of nothing"),
        (Entry::file("x", "").xattr("trusted.overlay.redirect", "/etc"), "overlayfs would obey"),
        (Entry::dir("x").xattr("user.overlay.metacopy", ""), "overlayfs would obey"),
        (Entry::file("", "root"), "not a directory"),
        (Entry::new("x", berth_test_registry::Kind::Raw(b'Z', vec![])), "has type 'Z'"),
    ];
    for (entry, problem) in cases {
        let what = format!("{entry:?}");
        let error = refusal(Layer::new().entry(entry));
        assert!(error.message().contains(problem), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{what}");
    }
    let below_file = refusal(Layer::new().entry(Entry::file("f", "")).entry(Entry::file("f/x", "")));
    assert!(below_file.message().contains("is used as a directory"), "{below_file}");
}

#[test]
fn attributes_pass_by_the_list() {
    let layer = Layer::new().entry(
        Entry::file("x", "")
            .xattr("user.note", "kept\nbinary")
            .xattr("security.selinux", "dropped")
            .xattr("trusted.x", "dropped"),
    );
    let bench = Bench::new();
    bench.run(&built(layer)).unwrap();
    let file = std::fs::File::open(bench.root().join("x")).unwrap();
    let mut value = [0; 64];
    let length = rustix::fs::fgetxattr(file.as_fd(), "user.note", &mut value).unwrap();
    assert_eq!(&value[..length], b"kept\nbinary");
    assert!(rustix::fs::fgetxattr(file.as_fd(), "trusted.x", &mut value).is_err());
}

#[test]
fn limits_stop_bombs() {
    let bomb = built(Layer::new().entry(Entry::zeros("zeros", 8 << 20)));
    let mut bench = Bench::new();
    bench.limits.max_bytes = 1 << 20;
    let error = bench.run(&bomb).unwrap_err();
    assert!(error.message().contains("max_uncompressed_layer"), "{error}");
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    let mut bench = Bench::new();
    (bench.limits.max_ratio, bench.limits.ratio_from) = (20, 1 << 20);
    assert!(bench.run(&bomb).unwrap_err().message().contains("max_ratio"));
    let mut bench = Bench::new();
    bench.limits.max_image_bytes = 1 << 20;
    assert!(bench.run(&bomb).unwrap_err().message().contains("max_uncompressed_image"));
    let mut bench = Bench::new();
    bench.limits.max_entries = 10;
    let many = built(Layer::new().entries((0..20).map(|n| Entry::file(format!("f{n}"), ""))));
    assert!(bench.run(&many).unwrap_err().message().contains("max_entries"));
    let mut bench = Bench::new();
    bench.limits.min_free = u64::MAX;
    assert!(bench.run(&many).unwrap_err().message().contains("min_free"));
}

#[test]
fn altered_and_torn_blobs_are_told_as_such() {
    let good = built(Layer::new().entry(Entry::file("x", "y".repeat(100_000))));
    let mut flipped = good.blob.to_vec();
    flipped[good.blob.len() / 2] ^= 1;
    let mismatch = Bench::new().run_chunks(&good, vec![Ok(flipped.into())]).unwrap_err();
    assert!(mismatch.message().contains("digest"), "{mismatch}");
    let torn = Bench::new().run_chunks(&good, vec![Ok(good.blob.slice(..100))]).unwrap_err();
    assert!(torn.message().contains("ends after 100 of"), "{torn}");
    let long =
        Bench::new().run_chunks(&good, vec![Ok(good.blob.clone()), Ok(Bytes::from_static(b"more"))]).unwrap_err();
    assert!(long.message().contains("longer than"), "{long}");
    let failed = Error::new(ErrorKind::Unknown, "RegistryUnavailable: gone");
    let passed = Bench::new().run_chunks(&good, vec![Ok(good.blob.slice(..100)), Err(failed.clone())]).unwrap_err();
    assert_eq!(passed, failed);
    let wrong_diff = BuiltLayer { diff_id: Digest::from_bytes([1; 32]), ..good.clone() };
    assert!(Bench::new().run(&wrong_diff).unwrap_err().message().contains("uncompressed digest"));
    let rubbish = built(Layer::raw(vec![b'r'; 5000], "application/vnd.oci.image.layer.v1.tar"));
    assert!(Bench::new().run(&rubbish).unwrap_err().message().contains("tar archive"));
}

#[test]
fn chunks_of_any_size_and_several_gzip_members_are_one_stream() {
    let good = built(Layer::new().entry(Entry::file("x", "y".repeat(1000))));
    let tiny: Vec<_> = good.blob.chunks(1).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    Bench::new().run_chunks(&good, tiny).unwrap();
    let plain = built(Layer::with_compression(Compression::Plain).entry(Entry::file("x", "y".repeat(1000))));
    let (head, tail) = plain.blob.split_at(700);
    let compress = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let members = [compress(head), compress(tail)].concat();
    let layer = built(Layer::raw(members, "application/vnd.oci.image.layer.v1.tar+gzip").diff_id(plain.diff_id));
    let bench = Bench::new();
    bench.run(&layer).unwrap();
    assert_eq!(std::fs::read(bench.root().join("x")).unwrap().len(), 1000);
}

#[test]
fn implied_directories_look_like_those_below() {
    let below = Bench::new();
    below
        .run(&built(
            Layer::new()
                .entry(Entry::dir("").mode(0o711))
                .entry(Entry::dir("d").mode(0o1777).mtime(500).xattr("user.a", "b")),
        ))
        .unwrap();
    let above = Bench::new();
    let unpacked =
        above.run(&built(Layer::new().entry(Entry::file("d/e/f", "")).entry(Entry::dir("own").mode(0o700)))).unwrap();
    let open = |path: PathBuf| rustix::fd::OwnedFd::from(std::fs::File::open(path).unwrap());
    let keep_owner = rustix::process::geteuid().is_root();
    inherit(open(above.root()).as_fd(), &unpacked.implied, &[open(below.root())], keep_owner).unwrap();
    let mode = |name: &str| above.root().join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!([mode(""), mode("d"), mode("d/e"), mode("own")], [0o711, 0o1777, 0o755, 0o700]);
    assert_eq!(above.root().join("d").metadata().unwrap().mtime(), 500);
    let mut value = [0; 8];
    let directory = open(above.root().join("d"));
    assert_eq!(rustix::fs::fgetxattr(directory.as_fd(), "user.a", &mut value), Ok(1));
}

#[test]
fn bytes_of_another_digest_are_the_senders_fault_and_bad_archives_are_not() {
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let layer = built(Layer::with_compression(compression).file("f", 0o644, vec![b'f'; 100_000]));
        for at in [0, 5, layer.blob.len() / 2, layer.blob.len() - 1] {
            let mut bytes = layer.blob.to_vec();
            bytes[at] ^= 0x55;
            let bench = Bench::new();
            let chunks = bytes.chunks(7000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let failed = bench.attempt(&layer, chunks).unwrap_err();
            assert!(failed.altered && failed.error.message().contains("altered"), "{compression:?} {at}: {failed:?}");
        }
    }
    // The publisher's own nonsense comes from every site.
    let bad = built(Layer::with_compression(Compression::Plain).entry(Entry::file("f", "f")));
    let bad = BuiltLayer { diff_id: berth_test_registry::sha256(b"other"), ..bad };
    let chunks = vec![Ok(Bytes::copy_from_slice(&bad.blob))];
    assert!(!Bench::new().attempt(&bad, chunks).unwrap_err().altered);
    let text = vec![7; 4096];
    let bad = BuiltLayer { digest: berth_test_registry::sha256(&text), size: 4096, blob: text.clone().into(), ..bad };
    assert!(!Bench::new().attempt(&bad, vec![Ok(text.into())]).unwrap_err().altered);
    // What is not there is nobody's lie.
    let layer = built(Layer::with_compression(Compression::Gzip).file("f", 0o644, vec![b'f'; 100_000]));
    let half = Bytes::copy_from_slice(&layer.blob[..layer.blob.len() / 2]);
    assert!(!Bench::new().attempt(&layer, vec![Ok(half)]).unwrap_err().altered);
}
