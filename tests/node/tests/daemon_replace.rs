//! A daemon takes over from another one, of the next version and of the former one: containers, log lines, exit codes and open exec
//! sessions stay. The next version is a build with the feature `next-version`: higher versions of the pod record, the monitor's protocol
//! and the contract with init.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::log_text;
use crate::daemon::crictl::Session;
use crate::daemon::requests::bind;
use crate::daemon::{Cri, Node, crictl, eventually, is_alive, pod, shell};
use berth_node_tests::{next_programs, programs};
use berth_test_registry::{Fault, When};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Writes numbered lines until the file `/share/stop` is there.
const CHATTY: &str = "i=0; while [ ! -e /share/stop ]; do n=0; while [ $n -lt 50 ]; do echo line-$i; i=$((i+1)); n=$((n+1)); done; \
                      /bin/busybox usleep 20000; done; exit 7";
/// Ends when the file `/share/go` is there.
const SHORT: &str = "while [ ! -e /share/go ]; do /bin/busybox usleep 20000; done; exit 42";

struct Scene {
    node: Node,
    share: PathBuf,
    chatty: String,
    short: String,
    log: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let node = Node::with_tools().await;
        let share = node.base().join("share");
        fs::create_dir(&share).unwrap();
        let sandbox = pod(&node, "subject");
        let id = node.cri().run(&sandbox).await;
        let mut ids = Vec::new();
        for (name, script) in [("chatty", CHATTY), ("short", SHORT)] {
            let mut config = shell(&node, name, script);
            config.mounts.push(bind(&share, "/share"));
            ids.push(node.cri().launch(&id, &config, &sandbox).await);
        }
        let log = node.base().join("logs/subject/chatty.log");
        let [chatty, short] = ids.try_into().unwrap();
        Self { node, share, chatty, short, log }
    }

    fn lines(&self) -> Vec<String> {
        log_text(self.log.to_str().unwrap()).lines().map(str::to_owned).collect()
    }

    /// Replaces the daemon by another build's: killed, or told to end. `between` runs while there is none.
    async fn replace(&mut self, by: PathBuf, killed: bool, between: impl AsyncFnOnce(&Self)) {
        if killed {
            self.node.kill();
        } else {
            assert!(self.node.terminate().await.success());
        }
        between(self).await;
        self.node.use_programs(by);
        self.node.start().await;
    }
}

fn session(node: &Node, container: &str, transport: &str) -> Session {
    Session::start(crictl::command(node, &["exec", "-i", "-r", transport]), container)
}

fn record(node: &Node) -> PathBuf {
    let pods: Vec<_> = fs::read_dir(node.root().join("lib/pods")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(pods.len(), 1, "{pods:?}");
    pods[0].join("record.json")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_and_a_downgrade_lose_nothing() {
    let mut scene = Scene::new().await;
    let cri = scene.node.cri();
    let before = (cri.pid(&scene.chatty).await, cri.monitor_pid(&cri.pods().await[0].id).await);
    let mut sessions: Vec<Session> =
        ["spdy", "websocket"].iter().map(|t| session(&scene.node, &scene.chatty, t)).collect();
    sessions.iter_mut().for_each(|s| s.say("before"));
    assert!(fs::read_to_string(record(&scene.node)).unwrap().contains("\"version\":1,"));

    scene
        .replace(next_programs(), false, async |scene| {
            fs::write(scene.share.join("go"), "").unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        })
        .await;
    let cri = scene.node.cri();
    let ended = cri.exited(&scene.short).await;
    assert_eq!(ended.exit_code, 42, "the exit code of a container that ended while no daemon ran");
    let record = fs::read_to_string(record(&scene.node)).unwrap();
    assert!(record.contains("\"version\":2,\"readable_by\":1,"), "the builds do not differ: {}", &record[..80]);
    sessions.iter_mut().for_each(|s| s.say("upgraded"));
    // The new daemon's init, handed to the older monitor.
    assert_eq!(cri.sh(&scene.chatty, "echo alive").await, "alive");
    let sandbox = pod(&scene.node, "newer");
    let newer = cri.run(&sandbox).await;
    let young = cri.launch(&newer, &shell(&scene.node, "young", "sleep 1000"), &sandbox).await;
    let mut late = session(&scene.node, &young, "websocket");
    late.say("before");

    // Back: the older daemon finds a newer monitor and newer records. This time without a farewell.
    scene.replace(programs(), true, async |_| {}).await;
    let cri = scene.node.cri();
    assert_eq!(cri.sh(&young, "echo alive").await, "alive");
    assert_eq!(cri.sh(&scene.chatty, "echo alive").await, "alive");
    assert_eq!(cri.status(&scene.short).await.unwrap().exit_code, 42);
    late.say("downgraded");
    late.end();
    for mut session in sessions {
        session.say("downgraded");
        session.end();
    }
    let after = (cri.pid(&scene.chatty).await, is_alive(before.1));
    assert_eq!(after, (before.0, true), "the container's process and its monitor are the same");

    fs::write(scene.share.join("stop"), "").unwrap();
    assert_eq!(cri.exited(&scene.chatty).await.exit_code, 7);
    let lines = scene.lines();
    assert!(lines.len() > 500, "{} lines", lines.len());
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line-{number}"));
    }
    scene.node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_much_newer_build_makes_one_pod_unknown() {
    let mut scene = Scene::new().await;
    let cri = scene.node.cri();
    let (pid, monitor) = (cri.pid(&scene.chatty).await, cri.monitor_pid(&cri.pods().await[0].id).await);
    let path = record(&scene.node);
    let id = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let mut kept = String::new();
    assert!(scene.node.terminate().await.success());
    kept.push_str(&fs::read_to_string(&path).unwrap());
    let newer = kept.replacen("\"version\":1,\"readable_by\":1,", "\"version\":9,\"readable_by\":8,", 1);
    assert_ne!(newer, kept);
    fs::write(&path, newer).unwrap();
    scene.node.start().await;

    assert_eq!(scene.node.cri().pods().await, []);
    let unknown = scene.node.info().await.unknown_pods;
    assert!(unknown.len() == 1 && unknown[0].starts_with(&id) && unknown[0].contains("version 9"), "{unknown:?}");
    // Others are served, and nothing of the unknown pod is touched, nor is its address given away.
    let sandbox = pod(&scene.node, "other");
    let other = scene.node.cri().run(&sandbox).await;
    assert!(is_alive(pid) && is_alive(monitor), "the unknown pod's processes live");
    let address = scene.node.cri().pod_status(&other).await.unwrap().network.unwrap().ip;
    scene.node.cri().try_remove_pod(&other).await.unwrap();

    assert!(scene.node.terminate().await.success());
    fs::write(&path, kept).unwrap();
    scene.node.start().await;
    let cri = scene.node.cri();
    let pods = cri.pods().await;
    assert_eq!(
        pods.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(),
        [id.as_str()],
        "the build that knows it finds it"
    );
    assert_ne!(cri.pod_status(&id).await.unwrap().network.unwrap().ip, address);
    assert_eq!(cri.sh(&scene.chatty, "echo alive").await, "alive");
    scene.node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_init_of_another_build_is_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["berth", "berth-monitor"] {
        fs::copy(programs().join(name), dir.path().join(name)).unwrap();
    }
    fs::copy(next_programs().join("berth-init"), dir.path().join("berth-init")).unwrap();
    let output =
        Command::new(dir.path().join("berth")).arg("--root").arg(dir.path().join("root")).arg("serve").output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("-next+") && said.contains("of one build"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_while_the_first_runs() {
    let node = Node::new().await;
    let output = Command::new(next_programs().join("berth")).arg("--root").arg(node.root()).arg("serve").output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("another daemon"), "{said}");
    let holder = format!("(process {})", node.pid());
    assert!(said.contains(&holder) && said.contains("`berth serve --replace`"), "{said}");
    assert!(node.cri().version().await.is_ok());
    node.finish().await;
}

/// `berth serve --replace`: the second one asks, the first one ends, both ways between two builds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_runs_hands_over_to_the_next() {
    let mut scene = Scene::new().await;
    let cri = scene.node.cri();
    let before = (cri.pid(&scene.chatty).await, scene.node.pid());
    let mut session = session(&scene.node, &scene.chatty, "websocket");
    session.say("before");
    scene.node.use_programs(next_programs());
    assert!(scene.node.take_over().await.success(), "{}", scene.node.log_tail());
    assert!(!is_alive(before.1) && scene.node.pid() != before.1);
    assert!(fs::read_to_string(scene.node.log()).unwrap().contains("has handed over"), "{}", scene.node.log_tail());
    session.say("upgraded");
    fs::write(scene.share.join("go"), "").unwrap();
    let cri = scene.node.cri();
    assert_eq!(cri.exited(&scene.short).await.exit_code, 42);
    let record = fs::read_to_string(record(&scene.node)).unwrap();
    assert!(record.contains("\"version\":2,\"readable_by\":1,"), "the next build serves");
    scene.node.use_programs(programs());
    assert!(scene.node.take_over().await.success(), "{}", scene.node.log_tail());
    session.say("downgraded");
    session.end();
    let cri = scene.node.cri();
    assert_eq!(cri.pid(&scene.chatty).await, before.0, "the container's process is the same");
    fs::write(scene.share.join("stop"), "").unwrap();
    assert_eq!(cri.exited(&scene.chatty).await.exit_code, 7);
    let lines = scene.lines();
    assert!(lines.len() > 500, "{} lines", lines.len());
    lines.iter().enumerate().for_each(|(number, line)| assert_eq!(*line, format!("line-{number}")));
    // Nobody runs: it is an ordinary start.
    assert!(scene.node.terminate().await.success());
    scene.node.start().await;
    scene.node.finish().await;
}

/// Whoever would start the former daemon again is named, with what replaces it there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_somebody_keeps_is_not_replaced() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    let berth = || Command::new(programs().join("berth"));
    let mut keeper = berth().arg("--root").arg(&root).arg("supervise").stdin(Stdio::null()).spawn().unwrap();
    let answers = || berth().arg("--root").arg(&root).args(["info", "-o", "json"]).output().unwrap().status.success();
    eventually("the daemon answers", async || answers().then_some(())).await;
    let output = berth().arg("--root").arg(&root).args(["serve", "--replace"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let remedy = format!("kill -HUP {}", keeper.id());
    assert!(!output.status.success() && said.contains("berth supervise") && said.contains(&remedy), "{said}");
    assert!(answers(), "it runs on");
    daemon::signal(i32::try_from(keeper.id()).unwrap(), nix::sys::signal::Signal::SIGTERM);
    assert!(keeper.wait().unwrap().success());
}

/// The gap as a client sees it that asks all the time: from the last answer of the one to the first of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_clients_waiting_for_moments_only() {
    let mut scene = Scene::new().await;
    let socket = scene.node.socket();
    let over = Arc::new(AtomicBool::new(false));
    let told = over.clone();
    let asking = tokio::spawn(async move {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while !told.load(Ordering::Relaxed) {
            if let Ok(cri) = Cri::connect(&socket).await
                && cri.version().await.is_ok()
            {
                longest = last.elapsed().max(longest);
                last = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        longest
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    scene.replace(next_programs(), false, async |_| {}).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    over.store(true, Ordering::Relaxed);
    let gap = asking.await.unwrap();
    println!("no answer for {gap:?}");
    assert!(gap < Duration::from_secs(10), "no answer for {gap:?}");
    eventually("the pod is back", async || (!scene.node.cri().pods().await.is_empty()).then_some(())).await;
    scene.node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_under_way_can_be_asked_for_again() {
    let mut node = Node::with_tools().await;
    let (cri, web) = (node.cri(), node.web());
    let reference = web.clone();
    // A layer that takes its time, and a daemon that goes while it comes.
    let (layers, slow) = (When::path("/blobs/"), Fault::Delay { per_chunk: Duration::from_millis(200), chunk: 1024 });
    node.registry().clear_requests();
    node.registry().inject(layers.clone(), slow);
    let pulling = tokio::spawn(async move { cri.try_pull(&reference, "default").await });
    eventually("blobs are on their way", async || (node.registry().count(&layers) > 1).then_some(())).await;
    assert!(!pulling.is_finished());
    node.kill();
    node.registry().clear_faults();
    node.use_programs(next_programs());
    node.start().await;
    pulling.await.unwrap().expect_err("it was cut off");
    node.cri().pull(&web).await;
    assert!(node.cri().image(&web).await.is_some());
    node.finish().await;
}
