//! Images as volumes (KEP-4639), the paths that an image declares as `VOLUME`, and options of mounts.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::refused;
use crate::daemon::requests::{bind, pod_security};
use crate::daemon::{Cri, Node, eventually, images, pod, shell};
use berth_proto::cri::*;
use berth_test_registry::{Entry, ImageBuilder, Layer};
use std::os::unix::fs::MetadataExt;
use tonic::Code;

const MAPPED: u32 = 2_100_000;

/// Two layers: the upper one changes a file, removes one, and empties a directory.
fn model() -> ImageBuilder {
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let low = Layer::new()
        .dir("etc")
        .file("etc/conf", 0o644, "low")
        .file("etc/gone", 0o644, "low")
        .dir("cache")
        .file("cache/old", 0o644, "low")
        .dir("bin")
        .file("bin/busybox", 0o755, busybox)
        .entry(Entry::file("owned", "x").owner(1000, 1000).mode(0o640))
        .entry(Entry::symlink("link", "/etc"));
    let top = Layer::new()
        .file("etc/conf", 0o644, "top")
        .entry(Entry::whiteout("etc/gone"))
        .entry(Entry::opaque("cache"))
        .file("cache/new", 0o644, "top");
    ImageBuilder::new("model", "v1").layer(low).layer(top)
}

async fn pull(node: &Node, image: &ImageBuilder, name: &str) -> String {
    node.registry().push_image(image).unwrap();
    node.cri().pull(&node.registry().reference(name)).await
}

fn image_mount(image: &str, written: &str, target: &str, sub_path: &str) -> Mount {
    Mount {
        container_path: target.into(),
        readonly: true,
        image: Some(ImageSpec { image: image.into(), user_specified_image: written.into(), ..Default::default() }),
        image_sub_path: sub_path.into(),
        ..Default::default()
    }
}

fn mapped(config: &mut PodSandboxConfig) {
    let mapping = IdMapping { host_id: MAPPED, container_id: 0, length: 65_536 };
    pod_security(config).namespace_options.as_mut().unwrap().userns_options =
        Some(UserNamespace { mode: NamespaceMode::Pod as i32, uids: vec![mapping], gids: vec![mapping] });
}

/// What every kind of pod must see of the image at /model.
async fn sees_the_model(cri: &Cri, id: &str) {
    assert_eq!(
        cri.sh(id, "cat /model/etc/conf; echo; ls /model/etc /model/cache").await,
        "top\n/model/cache:\nnew\n\n/model/etc:\nconf"
    );
    assert_eq!(cri.sh(id, "stat -c '%u:%g %a' /model/owned /model/etc").await, "1000:1000 640\n0:0 755");
    assert_eq!(cri.sh(id, "/model/bin/busybox echo runs").await, "runs", "programs of a volume may run");
    for script in ["touch /model/x", "echo x >/model/etc/conf", "rm /model/owned", "touch /part/x"] {
        let (code, said) = cri.code(id, script).await;
        assert!(code != 0 && said.contains("Read-only file system"), "{script}: {said}");
    }
    assert_eq!(cri.sh(id, "ls /part; cat /one").await, "conf\ntop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_a_volume() {
    let mut node = Node::with_tools().await;
    let cri = node.cri();
    let image = pull(&node, &model(), "model:v1").await;
    let written = node.registry().reference("model:v1");
    let mounts_before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut containers = Vec::new();
    for (name, user_namespace) in [("plain", false), ("mapped", true)] {
        let mut sandbox = pod(&node, name);
        if user_namespace {
            mapped(&mut sandbox);
        }
        let pod = cri.run(&sandbox).await;
        let mut config = shell(&node, name, "exec sleep 1000");
        config.mounts = vec![
            image_mount(&image, &written, "/model", ""),
            image_mount(&written, "", "/part", "link"),
            image_mount(&image, "", "/one", "etc/conf"),
        ];
        let id = cri.launch(&pod, &config, &sandbox).await;
        sees_the_model(&cri, &id).await;
        containers.push(id);
    }
    let ours = |text: &str| {
        text.lines().filter(|l| l.contains(&*node.root().to_string_lossy()) && l.contains("overlay")).count()
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!((ours(&mounts_before), ours(&mounts)), (0, 0), "the node has none of the overlays");

    // The status says what it is, by the id that the pull gave, and what was asked for.
    let status = cri.status(&containers[0]).await.unwrap();
    let told: Vec<_> = status.mounts.iter().map(|m| m.image.clone().unwrap()).collect();
    assert!(told.iter().all(|i| i.image_ref == image), "{told:?}");
    assert_eq!((&told[0].image, &told[0].user_specified_image, &told[1].image), (&image, &written, &written));
    assert_eq!(status.mounts[2].image_sub_path, "etc/conf");

    // Removing the image takes its names away, not what containers use; a new daemon knows of both.
    let request = RemoveImageRequest { image: Some(ImageSpec { image: image.clone(), ..Default::default() }) };
    cri.images().remove_image(request).await.unwrap();
    assert_eq!(cri.image(&image).await, None);
    node.kill_and_start().await;
    let cri = node.cri();
    for id in &containers {
        sees_the_model(&cri, id).await;
        assert_eq!(cri.status(id).await.unwrap().mounts[0].image.as_ref().unwrap().image_ref, image);
    }
    let snapshots = || std::fs::read_dir(node.root().join("lib/images/snapshots")).unwrap().count();
    let held = snapshots();
    for id in &containers {
        cri.try_remove(id).await.unwrap();
    }
    eventually("the layers of the removed image are collected", async || (snapshots() == held - 2).then_some(())).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_volumes_that_cannot_be_are_refused() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let image = pull(&node, &model(), "model:v1").await;
    let host = node.registry().host();
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    let good = || image_mount(&image, "", "/model", "");
    let cases = [
        (Mount { readonly: false, ..good() }, Code::InvalidArgument, "readonly"),
        (Mount { host_path: "/tmp".into(), ..good() }, Code::InvalidArgument, "host_path"),
        (Mount { image_sub_path: "not-existing".into(), ..good() }, Code::FailedPrecondition, "not-existing"),
        (Mount { image_sub_path: "etc/gone".into(), ..good() }, Code::FailedPrecondition, "does not exist"),
        (Mount { image_sub_path: "cache/../../etc".into(), ..good() }, Code::InvalidArgument, ".."),
        (Mount { image_sub_path: "/etc".into(), ..good() }, Code::InvalidArgument, "relative"),
        (image_mount(&format!("{host}/none:v1"), "", "/model", ""), Code::NotFound, "pull it first"),
    ];
    for (mount, code, word) in cases {
        let mut config = shell(&node, "refused", "true");
        config.mounts = vec![mount];
        let answer = cri.try_create(&pod, &config, &sandbox).await;
        let said = answer.as_ref().unwrap_err().message().to_owned();
        assert!(said.starts_with("ImageVolumeMountFailed: "), "{said}");
        refused(answer, code, &[word, "/model"]);
    }
    // The policy's word holds for volumes too, also when it came after the pull.
    let policy = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata:\n  name: no-models\nspec:\n  mode: Enforce\n  registries:\n    \
         deny: [\"{host}/model\"]\n"
    );
    node.document("60-models.yaml", &policy);
    eventually("the policy is in force", async || {
        node.info().await.documents.iter().any(|d| d.contains("no-models")).then_some(())
    })
    .await;
    let mut config = shell(&node, "denied", "true");
    config.mounts = vec![good()];
    let answer = cri.try_create(&pod, &config, &sandbox).await;
    assert!(answer.as_ref().unwrap_err().message().starts_with("SignatureValidationFailed: "), "{answer:?}");
    refused(answer, Code::Unknown, &["no-models"]);
    cri.create(&pod, &shell(&node, "without", "true"), &sandbox).await;
    node.finish().await;
}

fn with_volumes(paths: &[&str]) -> ImageBuilder {
    let layer = Layer::new()
        .dir("data")
        .entry(Entry::dir("data/state").owner(1000, 2000).mode(0o2770))
        .entry(Entry::file("data/state/seed", "from the image").owner(1000, 2000).mode(0o600))
        .entry(Entry::file("data/removed", "x"))
        .entry(Entry::symlink("data/link", "state/seed"))
        .entry(Entry::symlink("alias", "/data/state"));
    let top = Layer::new().entry(Entry::whiteout("data/removed"));
    let image = images::tools("volumes", "v1").layer(layer).layer(top);
    paths.iter().fold(image, |image, path| image.volume(path))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_of_an_image_are_directories_of_their_own() {
    let mut node = Node::new().await;
    let cri = node.cri();
    let image =
        pull(&node, &with_volumes(&["/data", "/data/state", "/new/deep", "/mine", "alias"]), "volumes:v1").await;
    let mine = node.base().join("mine");
    std::fs::create_dir(&mine).unwrap();
    std::fs::write(mine.join("kept"), "x").unwrap();
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let mut ids = Vec::new();
    for (name, user_namespace) in [("plain", false), ("mapped", true)] {
        let mut sandbox = pod(&node, name);
        if user_namespace {
            mapped(&mut sandbox);
        }
        let pod = cri.run(&sandbox).await;
        let mut config = shell(&node, name, "exec sleep 1000");
        config.image = Some(ImageSpec { image: image.clone(), ..Default::default() });
        config.mounts = vec![bind(&mine, "/mine")];
        daemon::requests::security(&mut config).readonly_rootfs = true;
        let id = cri.launch(&pod, &config, &sandbox).await;
        // Content, owners and modes of the image; writable although the root is not.
        assert_eq!(
            cri.sh(&id, "cat /data/state/seed; echo; ls /data; ls /mine").await,
            "from the image\nlink\nstate\nkept"
        );
        assert_eq!(
            cri.sh(&id, "stat -c '%u:%g %a' /data /data/state /data/state/seed").await,
            "0:0 755\n1000:2000 2770\n1000:2000 600"
        );
        cri.sh(
            &id,
            "echo own >/data/own; echo deep >/data/state/deep; echo new >/new/deep/file; chown 1000 /new/deep/file",
        )
        .await;
        assert_eq!(cri.sh(&id, "stat -c %u /data/own /new/deep/file").await, "0\n1000");
        assert_eq!(cri.code(&id, "touch /elsewhere").await.0, 1, "the root is read-only");
        ids.push((pod, id));
    }
    // Each container has its own, below its root file system's directory, and nothing of it is mounted on the node but the
    // pods' namespaces and shared memory.
    let roots = node.root().join("lib/images/rootfs");
    let own = |id: &str| roots.join(id).join("volumes");
    for (_, id) in &ids {
        assert_eq!(std::fs::read_to_string(own(id).join("0/own")).unwrap(), "own\n");
        assert!(!own(id).join("0/state/deep").exists(), "the inner volume is another directory");
        assert_eq!(own(id).join("1").metadata().unwrap().uid(), 1000, "ids are the image's; the mount shifts them");
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/volumes/"), "{before} mounts before: {mounts}");
    node.kill_and_start().await;
    let cri = node.cri();
    assert_eq!(cri.sh(&ids[1].1, "cat /data/own").await, "own", "still there for a new daemon");
    // A new attempt begins with the image's content; the former one's directory is gone with it.
    let (pod_id, id) = &ids[0];
    let sandbox = pod(&node, "plain");
    cri.try_remove(id).await.unwrap();
    assert!(!own(id).exists());
    let mut again = shell(&node, "plain", "ls /data; exec sleep 1000");
    again.image = Some(ImageSpec { image, ..Default::default() });
    again.metadata.as_mut().unwrap().attempt = 1;
    let next = cri.launch(pod_id, &again, &sandbox).await;
    assert_eq!(cri.sh(&next, "ls /data").await, "link\nstate");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_of_an_image_that_cannot_be_are_refused_before_anything_is_made() {
    let node = Node::new().await;
    let cri = node.cri();
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    let many: Vec<String> = (0..65).map(|n| format!("/v{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let cases: [(&[&str], &str); 5] = [
        (&["/../../etc"], ".."),
        (&["/proc/sys"], "kernel"),
        (&["/"], "root"),
        (&["/data/state/seed"], "is a file in the image"),
        (&many, "limit of 64"),
    ];
    for (paths, word) in cases {
        let image = pull(&node, &with_volumes(paths), "volumes:v1").await;
        let mut config = shell(&node, "refused", "true");
        config.image = Some(ImageSpec { image, ..Default::default() });
        refused(cri.try_create(&pod, &config, &sandbox).await, Code::FailedPrecondition, &[word]);
        node.nothing_but(&[&pod], &[]);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_of_mounts_are_applied() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let request = StatusRequest { verbose: false };
    let features = cri.runtime().status(request).await.unwrap().into_inner().features.unwrap();
    assert!(features.mount_options);
    let source = node.base().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::copy("/bin/busybox", source.join("busybox")).unwrap();
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    let mut config = shell(&node, "options", "exec sleep 1000");
    let options = |list: &[&str]| list.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>();
    let image = pull(&node, &model(), "model:v1").await;
    config.mounts = vec![
        bind(&source, "/free"),
        Mount { mount_options: options(&["nosuid", "noexec"]), ..bind(&source, "/bound") },
        Mount { mount_options: options(&["noexec"]), ..image_mount(&image, "", "/model", "") },
    ];
    let id = cri.launch(&pod, &config, &sandbox).await;
    assert_eq!(cri.sh(&id, "/free/busybox echo runs").await, "runs");
    for program in ["/bound/busybox", "/model/bin/busybox"] {
        let (code, said) = cri.code(&id, &format!("{program} echo runs")).await;
        assert!(code == 126 && said.contains("ermission denied"), "{program}: {said}");
    }
    let line = cri.sh(&id, "grep ' /bound ' /proc/self/mountinfo").await;
    assert!(line.contains("nosuid") && line.contains("noexec") && !line.contains("nodev"), "{line}");
    cri.sh(&id, "touch /bound/writable").await;
    assert_eq!(cri.status(&id).await.unwrap().mounts[1].mount_options, ["noexec", "nosuid"]);
    let mut unknown = shell(&node, "unknown", "true");
    unknown.mounts = vec![Mount { mount_options: options(&["noexec", "exec,suid"]), ..bind(&source, "/bound") }];
    let answer = cri.try_create(&pod, &unknown, &sandbox).await;
    refused(answer, Code::InvalidArgument, &["config.mounts[0].mount_options", "exec,suid"]);
    node.finish().await;
}
