//! A client that is killed in the middle of its stream: what becomes of the command in the container, and what the runtime keeps of it.
//!
//! Must not: end the command before it was seen what it does by itself; count what the kubelet or the API server holds.
use super::costs::own_role;
use berth_cluster_tests::cluster::{Cluster, Namespace};
use berth_cluster_tests::images;
use berth_cluster_tests::kubectl::{Kubectl, Transport};
use berth_cluster_tests::processes::{self, Process};
use berth_cluster_tests::space::NodeSpace;
use nix::sys::signal::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

const POD: &str = "main";
/// The stream flows before its client is killed.
const FLOW: Duration = Duration::from_secs(1);
/// For the command to end by itself: Berth kills five seconds after SIGHUP what has not ended by then.
const WATCHED: Duration = Duration::from_secs(15);
/// In which a command that writes takes processor time.
const PACE: Duration = Duration::from_secs(3);
/// For the runtime to let go of a command that has ended. Connections to a registry close by themselves within it.
const RELEASED: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(200);

/// Transports, and whether the runtime alone decides that the command ends: over WebSocket the kubelet or the API server stands between it and the
/// client, and may go on reading (docs/kubectl-differences.md).
pub const WAYS: [(Transport, bool); 2] = [(Transport::WebSocket, false), (Transport::Spdy, true)];

/// What became of the command.
pub struct Fate {
    /// It ended without anybody's help.
    pub ended: bool,
    /// What it did, in words.
    does: String,
    /// What is left of its session after its end.
    pub left: Vec<String>,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command {}; after its end are left: {:?}", self.does, self.left)
    }
}

/// The pod that the commands run in.
pub fn pod(cluster: &Cluster) -> Namespace<'_> {
    let namespace = cluster.namespace("vanished");
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": images::BUSYBOX, "command": ["sleep", "3600"]}]});
    namespace.pod(POD, &spec);
    namespace
}

/// Starts a command that writes without end, kills its client, and looks.
pub fn client_is_killed(kubectl: &Kubectl<'_>, transport: Transport) -> Fate {
    let word = &format!("{transport:?}");
    let (kubectl, space) = (kubectl.over(transport), kubectl.space());
    let commands = || processes::running(space, &["yes", word]);
    // What stays open for every session after the first is there before anything is counted.
    kubectl.run(&["exec", POD, "--", "true"]);
    let before = Held::at_rest(space);

    let mut client = kubectl.spawn(&["exec", POD, "--", "yes", word]);
    client.read_until(&format!("{word}\n"));
    let mut output = client.child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()).unwrap());
    std::thread::sleep(FLOW);
    assert_eq!(commands().len(), 1, "the command runs: {:?}", processes::of(space));
    // SIGKILL.
    drop(client);
    println!("       {} bytes had come", reader.join().unwrap());

    let began = Instant::now();
    let ended = within(WATCHED, || commands().is_empty());
    let does = if ended { format!("ends after {:.1} s", began.elapsed().as_secs_f64()) } else { goes_on(&commands()) };
    commands().iter().for_each(|command| command.signal(Signal::SIGKILL));

    let mut left = Vec::new();
    within(RELEASED, || {
        left = before.left(space);
        left.extend(commands().iter().map(|command| format!("the process {:?}", command.words)));
        left.is_empty()
    });
    Fate { ended, does, left }
}

/// What a command does that has not ended.
fn goes_on(commands: &[Process]) -> String {
    let ticks = || commands.iter().filter_map(Process::ticks).sum::<u64>();
    let before = ticks();
    std::thread::sleep(PACE);
    if ticks() > before { "runs on, and writes" } else { "runs on, and stands still" }.to_owned()
}

/// Looks until it is so. Whether it was in time.
fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// The runtime's own processes, each with its role and how many descriptors it has open.
#[derive(Debug, PartialEq, Eq)]
struct Held(BTreeMap<i32, (String, usize)>);

impl Held {
    fn now(space: &NodeSpace) -> Self {
        let one = |process: Process| Some((process.pid, (own_role(&process)?, process.descriptors()?)));
        Self(processes::of(space).into_iter().filter_map(one).collect())
    }

    /// When nothing has changed for a second.
    fn at_rest(space: &NodeSpace) -> Self {
        let (mut held, mut same) = (Self::now(space), 0);
        let rests = within(RELEASED, || {
            let now = Self::now(space);
            same = if now == held { same + 1 } else { 0 };
            held = now;
            same >= 5
        });
        assert!(rests, "the runtime does not come to rest: {held:?}");
        held
    }

    /// Processes that were not there then, and processes that have more descriptors.
    fn left(&self, space: &NodeSpace) -> Vec<String> {
        let now = Self::now(space).0.into_iter();
        let more = now.filter_map(|(pid, (role, count))| match self.0.get(&pid) {
            None => Some(format!("a process {role}")),
            Some((_, before)) if count > *before => Some(format!("descriptors of {role}")),
            Some(_) => None,
        });
        more.collect()
    }
}
