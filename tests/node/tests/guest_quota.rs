//! Writable layers as projects of an ext4 with project quota: limited by the kernel, counted by it, and without one refused. In the
//! guest, whose kernel has the quota format.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, noise};
use berth_images::RootfsPlan;
use berth_model::{ContainerId, ErrorKind};
use berth_test_registry::{ImageBuilder, Layer};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn host(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system on a loop device that ends with its test.
struct Disk(PathBuf);

impl Disk {
    fn mount(directory: &Path, mkfs: &[&str], options: &str) -> Self {
        let (image, at) = (directory.join("disk.img"), directory.join("disk"));
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        host(mkfs[0], &[&mkfs[1..], &[image.to_str().unwrap()]].concat());
        std::fs::create_dir(&at).unwrap();
        host("mount", &["-o", &format!("loop,{options}"), image.to_str().unwrap(), at.to_str().unwrap()]);
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A collection in the background may still have it open.
        for _ in 0..100 {
            if Command::new("umount").arg(&self.0).output().unwrap().status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} stays mounted", self.0.display());
    }
}

const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"];
const XFS: &[&str] = &["mkfs.xfs", "-q", "-f"];

/// Writes as a container does: on ext4 hard limits are not for who has CAP_SYS_RESOURCE (`ignore_hardlimit` in fs/quota/dquot.c).
fn fill(upper: &Path, bytes: usize) -> Result<(), String> {
    std::fs::create_dir_all(upper.join("deep/er")).unwrap();
    let output = Command::new("setpriv")
        .args(["--bounding-set=-sys_resource", "--", "dd", "if=/dev/urandom", "bs=65536", "conv=fsync"])
        .arg(format!("count={}", bytes >> 16))
        .arg(format!("of={}", upper.join("deep/er/file").display()))
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

async fn limited_and_counted(mkfs: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::mount(directory.path(), mkfs, "prjquota");
    let root = disk.0.join("images");
    {
        let mut bench = Bench::at(directory, root, |config| config.limits.min_free = 0).await;
        bench.images.check_writable_limit(Some(1 << 20)).unwrap();
        let image = ImageBuilder::new("app", "v1").layer(Layer::new().file("f", 0o644, noise(100_000)));
        let image = bench.push_and_pull(&image, "app:v1").await;
        let (small, large) = (ContainerId::from_random([1; 32]), ContainerId::from_random([2; 32]));
        let plan = |limit| RootfsPlan { limit, ..RootfsPlan::new(image.id.clone()) };
        let limited = bench.images.prepare_rootfs(&small, plan(Some(4 << 20))).await.unwrap();
        let free = bench.images.prepare_rootfs(&large, plan(None)).await.unwrap();
        fill(&limited.upper, 2 << 20).unwrap();
        let error = fill(&limited.upper, 8 << 20).unwrap_err();
        assert!(error.contains("No space left") || error.contains("quota exceeded"), "{error}");
        fill(&free.upper, 16 << 20).unwrap();
        let usage = async |id| bench.images.rootfs_usage(id, Duration::ZERO).await.unwrap().usage;
        let (one, other) = (usage(&small).await, usage(&large).await);
        assert!(one.bytes > 3 << 20 && one.bytes <= 4 << 20, "{one:?}");
        assert!(other.bytes >= 16 << 20 && other.bytes < 17 << 20, "{other:?}");
        assert!(other.inodes >= 4 && other.inodes < 10, "{other:?}");
        // Another start knows whose is whose, and what goes is no longer counted.
        bench.reopen();
        let again = bench.images.rootfs_usage(&large, Duration::ZERO).await.unwrap().usage;
        assert_eq!(again, other);
        bench.images.remove_rootfs(&small).await.unwrap();
        bench.images.remove_rootfs(&large).await.unwrap();
        bench.images.collect().await.unwrap();
        let next = bench.images.prepare_rootfs(&small, plan(None)).await.unwrap();
        fill(&next.upper, 8 << 20).unwrap();
        bench.images.remove_rootfs(&small).await.unwrap();
        bench.images.collect().await.unwrap();
    }
    drop(disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_ext4_limits_and_counts_writable_layers() {
    limited_and_counted(EXT4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_xfs_limits_and_counts_writable_layers() {
    limited_and_counted(XFS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_a_limit_that_nothing_enforces_is_refused() {
    nothing_enforces(&["mkfs.ext4", "-q", "-F"], "rw", false).await;
}

/// The kernel counts for each project and lets everybody write on: setting a limit succeeds there.
#[tokio::test(flavor = "multi_thread")]
async fn guest_ext4_that_only_counts_enforces_no_limit() {
    nothing_enforces(EXT4, "rw", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_xfs_that_only_counts_enforces_no_limit() {
    nothing_enforces(XFS, "pqnoenforce", true).await;
}

/// Two stores on one file system, one of them opened again: each container's number is its own.
#[tokio::test(flavor = "multi_thread")]
async fn guest_project_numbers_are_nobody_elses() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::mount(directory.path(), EXT4, "prjquota");
    {
        let store = async |name: &str| {
            let root = disk.0.join(name).join("images");
            Bench::at(tempfile::tempdir().unwrap(), root, |config| config.limits.min_free = 0).await
        };
        let (mut one, other) = (store("one").await, store("other").await);
        let image = ImageBuilder::new("app", "v1").layer(Layer::new().file("f", 0o644, "f"));
        let id = one.push_and_pull(&image, "app:v1").await.id.clone();
        other.push_and_pull(&image, "app:v1").await;
        let owner = |n: u8| ContainerId::from_random([n; 32]);
        let plan = |limit| RootfsPlan { limit, ..RootfsPlan::new(id.clone()) };
        let usage =
            async |bench: &Bench, n| bench.images.rootfs_usage(&owner(n), Duration::ZERO).await.unwrap().usage.bytes;
        for n in 1..6 {
            let limited = one.images.prepare_rootfs(&owner(n), plan(Some(4 << 20))).await.unwrap();
            let free = other.images.prepare_rootfs(&owner(n), plan(None)).await.unwrap();
            fill(&free.upper, 8 << 20).expect("the other store's limit is not this one's");
            fill(&limited.upper, 2 << 20).expect("what the other store has written counts here");
            fill(&limited.upper, 8 << 20).expect_err("its own limit holds");
            assert!(usage(&one, n).await <= 4 << 20 && (8 << 20..9 << 20).contains(&usage(&other, n).await));
        }
        // What a removed layer has open still belongs to its number: the next start gives it to nobody.
        let removed = one.images.prepare_rootfs(&owner(9), plan(None)).await.unwrap();
        fill(&removed.upper, 8 << 20).unwrap();
        let _open = std::fs::File::open(removed.upper.join("deep/er/file")).unwrap();
        for n in (1..6).chain([9]) {
            one.images.remove_rootfs(&owner(n)).await.unwrap();
        }
        one.images.collect().await.unwrap();
        one.reopen();
        for n in 11..18 {
            one.images.prepare_rootfs(&owner(n), plan(Some(4 << 20))).await.unwrap();
            assert!(usage(&one, n).await < 1 << 20, "container {n} pays for a removed one");
        }
    }
    drop(disk);
}

async fn nothing_enforces(mkfs: &[&str], options: &str, counts: bool) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::mount(directory.path(), mkfs, options);
    let root = disk.0.join("images");
    {
        let bench = Bench::at(directory, root, |config| config.limits.min_free = 0).await;
        bench.images.check_writable_limit(None).unwrap();
        let told = bench.images.check_writable_limit(Some(1 << 20)).unwrap_err();
        assert!(told.message().contains("prjquota"), "{told}");
        let image = ImageBuilder::new("app", "v1").layer(Layer::new().file("f", 0o644, "f"));
        let image = bench.push_and_pull(&image, "app:v1").await;
        let owner = ContainerId::from_random([1; 32]);
        let plan = RootfsPlan { limit: Some(1 << 20), ..RootfsPlan::new(image.id.clone()) };
        let error = bench.images.prepare_rootfs(&owner, plan).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.message().contains("writableLayerLimit") && error.message().contains("prjquota"), "{error}");
        assert!(bench.images.rootfs_owners().is_empty());
        let free = bench.images.prepare_rootfs(&owner, RootfsPlan::new(image.id.clone())).await.unwrap();
        fill(&free.upper, 8 << 20).unwrap();
        let usage = bench.images.rootfs_usage(&owner, Duration::ZERO).await.unwrap().usage;
        assert!((8 << 20..9 << 20).contains(&usage.bytes), "{usage:?}");
        // The work directory is in the kernel's count, not in a walk of the upper one.
        assert_eq!(usage.inodes > 4, counts, "{usage:?}");
    }
    drop(disk);
}
