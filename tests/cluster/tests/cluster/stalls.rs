//! Clients of exec and port-forward that stop reading: nobody else is held up, what is under way does not pile up, and a command whose
//! client is then killed ends where its runtime hears of that.
use super::workloads::{script, shell};
use berth_cluster_tests::cluster::Cluster;
use berth_cluster_tests::images;
use berth_cluster_tests::kubectl::{Running, Transport};
use berth_cluster_tests::processes::{self, Process};
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::wait::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What the process that moves the streams may hold, in KiB: two executions and two forwards at a standstill, each with what
/// two flow-control windows and a few buffers take.
const MEMORY_LIMIT_KIB: u64 = 96 << 10;
/// How long the others' calls may take while streams stand still.
const OTHERS_LIMIT: Duration = Duration::from_secs(30);
const STANDSTILL: Duration = Duration::from_secs(3);
/// How long the command of a client that is gone may run on: SIGHUP comes at once and SIGKILL five seconds later; the rest is for API server
/// and kubelet to close one connection after the other, on a machine that is busy with other cases.
const ENDS_LIMIT: Duration = Duration::from_secs(60);
/// What is said over each transport, so that the commands can be told apart.
const SAID: [(Transport, &str); 2] = [(Transport::WebSocket, "WEBSOCKET"), (Transport::Spdy, "SPDY")];

fn stop(client: &Running) {
    kill(Pid::from_raw(i32::try_from(client.child.id()).unwrap()), Signal::SIGSTOP).unwrap();
}

/// Whoever moves the streams: a process of its own, or the daemon.
fn mover(cluster: &Cluster) -> Process {
    let daemon = cluster.runtime().pid();
    let is_mover = |process: &Process| match cluster.runtime().kind() {
        Kind::Berth => process.words.get(1).is_some_and(|word| word == "streaming"),
        Kind::Containerd => process.pid == daemon,
    };
    let found: Vec<Process> = processes::of(cluster.space()).into_iter().filter(is_mover).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// The local end of a forward to this port.
fn forward(cluster: &Cluster, client: &mut Running, port: u16) -> TcpStream {
    let line = client.read_until(&format!(" -> {port}\n"));
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    cluster.space().connect(address).unwrap()
}

pub fn stalled(cluster: &Cluster) {
    let namespace = cluster.namespace("stalled");
    namespace.pod("main", &script("echo started; sleep 3600"));
    let mut web = script("true");
    web["containers"] = json!([{"name": "web", "image": images::WEB}, shell("flood", "nc -lk -p 81 -e yes FLOOD")]);
    namespace.pod("web", &web);
    let kubectl = &namespace.kubectl;
    let (mut clients, mut sockets) = (Vec::new(), Vec::new());
    for (transport, word) in SAID {
        let kubectl = kubectl.over(transport);
        let mut exec = kubectl.spawn(&["exec", "main", "--", "yes", word]);
        exec.read_until(&format!("{word}\n"));
        let mut forwarded = kubectl.spawn(&["port-forward", "pod/web", ":81"]);
        sockets.push(forward(cluster, &mut forwarded, 81));
        clients.extend([exec, forwarded]);
    }
    // The floods run into whatever room there is.
    std::thread::sleep(STANDSTILL);
    clients.iter().for_each(stop);
    let mover = mover(cluster);
    std::thread::sleep(STANDSTILL);
    let first = mover.memory().unwrap().share;

    let began = Instant::now();
    for (transport, _) in SAID {
        let kubectl = kubectl.over(transport);
        assert_eq!(kubectl.run(&["exec", "main", "--", "echo", "fine"]), "fine\n");
        assert_eq!(kubectl.run(&["exec", "main", "--", "seq", "200000"]).len(), 1_288_895);
        let mut forwarded = kubectl.spawn(&["port-forward", "pod/web", ":80"]);
        let line = forwarded.read_until(" -> 80\n");
        let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
        assert_eq!(berth_cluster_tests::http::get(cluster.space(), address, "/").unwrap().0, 200);
    }
    let others = began.elapsed();
    assert!(others < OTHERS_LIMIT, "others took {others:?}");
    std::thread::sleep(STANDSTILL);
    let second = mover.memory().unwrap().share;
    println!(
        "     {first} KiB, then {second} KiB while four streams stand still; others took {:.1} s",
        others.as_secs_f64()
    );
    assert!(first.max(second) < MEMORY_LIMIT_KIB, "{first} KiB, then {second} KiB");

    for (_, word) in SAID {
        let commands = processes::running(cluster.space(), &["yes", word]);
        assert_eq!(commands.len(), 1, "a client that stands still is no reason to end its command: {word}");
    }
    // SIGKILL: nothing is closed in order.
    drop(clients);
    drop(sockets);
    ended_without_client(cluster);
}

/// Over SPDY the connection that breaks is the runtime's own. Over WebSocket somebody before it reads on, and containerd does not end a
/// command for that on either way (docs/kubectl-differences.md).
fn ended_without_client(cluster: &Cluster) {
    if cluster.runtime().kind() != Kind::Berth {
        return;
    }
    let what = "the command ends whose client over SPDY was killed while it stood still";
    wait_for(cluster, what, ENDS_LIMIT, || {
        let left = processes::running(cluster.space(), &["yes", "SPDY"]);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} runs on")) }
    });
}
