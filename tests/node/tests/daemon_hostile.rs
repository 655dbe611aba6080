//! Containers and images that mean harm.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::{log_text, within};
use crate::daemon::requests::{bind, int64, security};
use crate::daemon::{Node, container, eventually, pod, shell};
use berth_node_tests::programs;
use berth_proto::cri::Mount;
use berth_test_registry::{Compression, Entry, Kind, Layer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `tools` with one more layer on top.
fn spoiled(node: &Node, name: &str, entries: Vec<Entry>) -> String {
    let image = daemon::images::tools(name, "v1").layer(Layer::with_compression(Compression::Plain).entries(entries));
    node.registry().push_image(&image).unwrap();
    node.registry().reference(&format!("{name}:v1"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_bomb_ends_at_the_limit_and_can_be_stopped() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let id = cri.launch(&pod, &container(&node, "bomb", &["/web", "fork-bomb", "1000"]), &sandbox).await;
    let log = cri.status(&id).await.unwrap().log_path;
    let said = eventually("the bomb says how far it came", async || {
        let text = log_text(&log);
        text.contains("processes").then_some(text)
    })
    .await;
    let started: u32 = said.split(' ').nth(1).unwrap().parse().unwrap();
    assert!((150..200).contains(&started), "{said}");
    // Others are not touched.
    let other = cri.launch(&pod, &container(&node, "other", &["/web", "sleep"]), &sandbox).await;
    assert_eq!(cri.sh(&other, "echo fine").await, "fine");
    within(Duration::from_secs(20), "the stop", cri.try_stop(&id, 0)).await.unwrap();
    assert_eq!(cri.status(&id).await.unwrap().exit_code, 137);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_descriptor_of_the_host_gets_in() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let (_, log) = cri.to_the_end(&node, container(&node, "fds", &["/web", "fds"])).await;
    let numbers: Vec<&str> = log.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{log}");
    let sandbox = pod(&node, "exec");
    let pod = cri.run(&sandbox).await;
    let id = cri.launch(&pod, &container(&node, "c", &["/web", "sleep"]), &sandbox).await;
    let ended = cri.try_exec(&id, &["/web", "fds"], 10).await.unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    let numbers: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{text}");
    // A working directory behind a descriptor of whoever made the container (CVE-2024-21626).
    std::fs::write(node.base().join("secret"), "secret").unwrap();
    let path = format!("../../../../../../../..{}", node.base().join("secret").display());
    for number in 3..24 {
        let mut config = shell(&node, &format!("fd-{number}"), &format!("cat {path}; cat /proc/self/cwd/{path}; true"));
        config.working_dir = format!("/proc/self/fd/{number}");
        let Ok(id) = cri.try_create(&pod, &config, &sandbox).await else { continue };
        if cri.try_start(&id).await.is_ok() {
            let status = cri.exited(&id).await;
            assert!(
                !log_text(&status.log_path).contains("secret\n")
                    && !log_text(&status.log_path).contains("secretsecret")
            );
        }
        cri.try_remove(&id).await.unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_init_program_cannot_be_overwritten() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let init = programs().join("berth-init");
    let before = std::fs::read(&init).unwrap();
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    // Whatever enters the container is written to while it is there (CVE-2019-5736).
    let script = "while true; do for p in /proc/[0-9]*; do echo x > $p/exe; done 2>/dev/null; done";
    let id = cri.launch(&pod, &shell(&node, "attacker", script), &sandbox).await;
    for _ in 0..15 {
        assert_eq!(cri.sh(&id, "echo in").await, "in");
    }
    // The container's own program is init's.
    let image = spoiled(&node, "selfexe", vec![Entry::symlink("bin/evil", "/proc/self/exe")]);
    cri.pull(&image).await;
    for command in ["/proc/self/exe", "/bin/evil"] {
        let mut config = container(&node, &format!("c{}", command.len()), &[command]);
        config.image.as_mut().unwrap().image = image.clone();
        let own = cri.create(&pod, &config, &sandbox).await;
        if cri.try_start(&own).await.is_ok() {
            assert_ne!(cri.exited(&own).await.exit_code, 0, "{command}");
        }
        let _ = cri.try_exec(&id, &[command], 5).await;
    }
    assert!(std::fs::read(&init).unwrap() == before, "the program on disk");
    let fresh = cri.launch(&pod, &container(&node, "fresh", &["/web", "sleep"]), &sandbox).await;
    assert_eq!(cri.sh(&fresh, "echo fine").await, "fine");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_under_mount_targets_lead_nowhere_outside() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let outside = node.base().join("outside");
    std::fs::create_dir_all(outside.join("inner")).unwrap();
    std::fs::write(outside.join("inner/mark"), "untouched").unwrap();
    let hostile = node.base().join("hostile");
    std::fs::create_dir(&hostile).unwrap();
    let up = format!("../../../../../../../../../../..{}", outside.display());
    let image = spoiled(
        &node,
        "links",
        vec![Entry::symlink("data", up.clone()), Entry::symlink("abs", outside.display().to_string())],
    );
    cri.pull(&image).await;
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    for target in ["/data/inner", "/abs/inner", "/data", "/abs"] {
        let mut config = shell(&node, &format!("c{}", target.replace('/', "-")), "exec sleep 1000");
        config.image.as_mut().unwrap().image = image.clone();
        config.mounts = vec![bind(&hostile, target)];
        let id = cri.create(&pod, &config, &sandbox).await;
        let _ = cri.try_start(&id).await;
    }
    nothing_mounted(&node);

    // A directory and a link change places all the time in a volume, and a mount goes below it (CVE-2021-30465).
    let volume = node.base().join("volume");
    std::fs::create_dir_all(volume.join("spot/inner")).unwrap();
    std::os::unix::fs::symlink(&up, volume.join("link")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, volume) = (stop.clone(), volume.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let (one, two) = (volume.join("spot"), volume.join("link"));
                rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    &one,
                    rustix::fs::CWD,
                    &two,
                    rustix::fs::RenameFlags::EXCHANGE,
                )
                .unwrap();
            }
        })
    };
    let mut started = 0;
    for number in 0..12 {
        let mut config = shell(&node, &format!("race-{number}"), "exec sleep 1000");
        config.mounts = vec![bind(&volume, "/volume"), Mount { ..bind(&hostile, "/volume/spot/inner") }];
        let id = cri.create(&pod, &config, &sandbox).await;
        started += u32::from(cri.try_start(&id).await.is_ok());
        nothing_mounted(&node);
        cri.try_remove(&id).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    println!("{started} of 12 started");
    assert_eq!(std::fs::read_to_string(outside.join("inner/mark")).unwrap(), "untouched");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was made outside");
    node.finish().await;
}

#[track_caller]
fn nothing_mounted(node: &Node) {
    let outside = node.base().join("outside").display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.lines().any(|line| line.split(' ').nth(4).unwrap().starts_with(&outside)), "{mounts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn false_account_files_and_a_false_proc_stop_the_start_at_most() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    let big = format!("{}\nweb:x:1000:1000::/:/bin/sh\n", "x".repeat(8 << 20));
    let cases: Vec<(&str, Vec<Entry>)> = vec![
        ("fifo", vec![Entry::new("etc/passwd", Kind::Fifo)]),
        ("link-out", vec![Entry::symlink("etc/passwd", "../../../../../../../etc/passwd")]),
        ("link-zero", vec![Entry::symlink("etc/passwd", "/dev/zero")]),
        ("link-proc", vec![Entry::symlink("etc/passwd", "/proc/self/fd/0")]),
        ("huge", vec![Entry::file("etc/passwd", big)]),
        ("directory", vec![Entry::file("etc/.wh.passwd", ""), Entry::dir("etc/passwd")]),
        ("false-proc", vec![Entry::symlink("proc", "/tmp")]),
        ("false-sys", vec![Entry::symlink("sys", "../../../../tmp")]),
    ];
    for (name, entries) in cases {
        let image = spoiled(&node, &format!("accounts-{name}"), entries);
        cri.pull(&image).await;
        let mut config = shell(&node, name, "cat /proc/self/status; exec sleep 1000");
        config.image.as_mut().unwrap().image = image;
        security(&mut config).run_as_username = "web".into();
        let created = within(Duration::from_secs(15), name, cri.try_create(&pod, &config, &sandbox)).await;
        let Ok(id) = created else { continue };
        let started = within(Duration::from_secs(15), name, cri.try_start(&id)).await;
        if name.starts_with("false") {
            // Mounted where they belong or not at all: never elsewhere.
            assert!(started.is_err(), "{name}");
        } else if started.is_ok() {
            panic!("{name}: whoever it runs as, it is not `web`: {:?}", cri.status(&id).await.unwrap().user);
        }
        within(Duration::from_secs(15), name, cri.try_remove(&id)).await.unwrap();
    }
    // A name that says 0 is the image's own word, and a number needs no file at all.
    let image =
        spoiled(&node, "accounts-none", vec![Entry::file("etc/.wh.passwd", ""), Entry::file("etc/.wh.group", "")]);
    cri.pull(&image).await;
    let mut config = container(&node, "number", &["/web", "sleep"]);
    config.image.as_mut().unwrap().image = image;
    security(&mut config).run_as_user = int64(4242);
    let id = cri.launch(&pod, &config, &sandbox).await;
    assert_eq!(daemon::proc_status(cri.pid(&id).await, "Uid"), "4242 4242 4242 4242");
    node.finish().await;
}
