//! What the two runtimes take for the same pods: memory and processor time of daemons and of all that they keep running.
//!
//! Must not: count what is the pods' own, the kubelet's or the control plane's.
use super::{Both, streaming};
use berth_cluster_tests::cgroups;
use berth_cluster_tests::cluster::{Cluster, pod};
use berth_cluster_tests::images;
use berth_cluster_tests::processes::{self, Process};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Pods on each side, unless BERTH_COSTS_PODS says otherwise.
const PODS: usize = 10;
/// The process that containerd keeps in each pod; its time is the pod's.
const PAUSE: &str = "pause";
const IDLE: Duration = Duration::from_secs(15);

struct Costs {
    /// Until all pods were ready.
    starting: Duration,
    /// Processor time of that.
    starts: Duration,
    /// Processor time while nothing happened but a kubelet's questions, for each second.
    idle: Duration,
    /// Processes and KiB (PSS) by name.
    memory: BTreeMap<String, (usize, u64)>,
}

impl Costs {
    fn total_kib(&self) -> u64 {
        self.memory.values().map(|(_, kib)| kib).sum()
    }
}

/// The control groups of the runtime's own processes; none of them is in another one.
fn groups(cluster: &Cluster) -> Vec<String> {
    let own = |process: &Process| own_role(process).is_some();
    let of = processes::of(cluster.space()).into_iter().filter(own).filter_map(|process| group(&process));
    let mut groups: Vec<String> = of.collect();
    groups.push(format!("{}/runtime", cluster.space().group()));
    groups.sort();
    groups.dedup();
    let all = groups.clone();
    groups.retain(|name| !all.iter().any(|other| other != name && Path::new(name).starts_with(other)));
    groups
}

/// Where the processor time of a process is counted; `None` once it has ended.
fn group(process: &Process) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).ok()?;
    let counts = |names: &str| names.is_empty() || names.split(',').any(|name| name == "cpuacct");
    let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    // v1's controller, which comes first where a machine has both.
    lines.find(|(names, _)| counts(names)).map(|(_, path)| path.trim_start_matches('/').to_owned())
}

/// Processor time of the runtime's own control groups so far: its helper programs, ended ones too, are in it.
pub fn processor(cluster: &Cluster) -> Duration {
    let groups = groups(cluster);
    let spent = |name: &String| {
        let directories = cgroups::directories(name);
        if directories.iter().any(|dir| dir.join("cpuacct.usage").exists()) {
            return Duration::from_nanos(cgroups::read(&directories, "cpuacct.usage").parse().unwrap());
        }
        let text = cgroups::read(&directories, "cpu.stat");
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        Duration::from_micros(line.parse().unwrap())
    };
    groups.iter().map(spent).sum()
}

/// What a process of the runtime is called here; `None` for one that is not its.
fn role(process: &Process) -> Option<String> {
    let words: Vec<&str> = process.words.iter().map(String::as_str).collect();
    match words[..] {
        ["berth", command, ..] => Some(format!("berth {command}")),
        ["berth-monitor" | "containerd" | "containerd-shim-runc-v2", ..] => Some(words[0].to_owned()),
        // The command of the image that stands for pause.
        ["web", "sleep"] => Some(PAUSE.into()),
        _ => None,
    }
}

/// The same of the runtime's own programs alone.
pub fn own_role(process: &Process) -> Option<String> {
    role(process).filter(|role| role != PAUSE)
}

fn measure(cluster: &Cluster, pods: usize) -> Costs {
    let namespace = cluster.namespace("costs");
    let names: Vec<String> = (0..pods).map(|n| format!("idle{n}")).collect();
    let spec = json!({"terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": images::BUSYBOX, "command": ["sleep", "3600"]}]});
    // The image is pulled and everything has been used once.
    namespace.pod("first", &spec);
    println!("     {}: control groups {:?}", cluster.runtime().kind(), groups(cluster));
    let (before, began) = (processor(cluster), Instant::now());
    let list: Vec<_> = names.iter().map(|name| pod(name, &spec)).collect();
    namespace.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": list}));
    names.iter().for_each(|name| drop(namespace.ready(name)));
    let (starting, ready) = (began.elapsed(), processor(cluster));
    std::thread::sleep(IDLE);
    let idle = (processor(cluster) - ready) / u32::try_from(IDLE.as_secs()).unwrap();
    let mut memory: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    for process in processes::of(cluster.space()) {
        if let (Some(role), Some(kib)) = (role(&process), process.memory().map(|m| m.share)) {
            let entry = memory.entry(role).or_default();
            *entry = (entry.0 + 1, entry.1 + kib);
        }
    }
    Costs { starting, starts: ready - before, idle, memory }
}

/// The figures of both, and that Berth's are not the larger ones.
pub fn costs(both: &Both) {
    let pods = std::env::var("BERTH_COSTS_PODS").map_or(PODS, |text| text.parse().unwrap());
    let build = if Path::new(&berth_cluster_tests::programs::berth("berth"))
        .components()
        .any(|part| part.as_os_str() == "quickstart")
    {
        "release"
    } else {
        "debug"
    };
    // One after the other: each has the machine for itself.
    let (berth, containerd) = (measure(&both.berth, pods), measure(&both.containerd, pods));
    let (ours, theirs) = (streaming::measure(&both.berth), streaming::measure(&both.containerd));
    println!("     {pods} pods, and one that was there before; Berth is a {build} build");
    for (name, costs) in [("berth", &berth), ("containerd", &containerd)] {
        println!(
            "     {name}: ready after {:.1} s for {:.2} s of CPU; idle {:.1} ms of CPU a second; {:.1} MiB (PSS) in all",
            costs.starting.as_secs_f64(),
            costs.starts.as_secs_f64(),
            costs.idle.as_secs_f64() * 1000.0,
            mib(costs.total_kib())
        );
        for (role, (count, kib)) in &costs.memory {
            println!("       {count:3} {role:26} {:8.2} MiB", mib(*kib));
        }
    }
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let told = |moved: &streaming::Moved| {
            format!("{:.2} s of CPU a GiB, took {:.1} s", moved.processor.as_secs_f64(), moved.took.as_secs_f64())
        };
        println!("     {:28} berth {}; containerd {}", ours.name, told(ours), told(theirs));
    }
    let monitors = berth.memory.get("berth-monitor").copied().unwrap_or_default();
    let shims = containerd.memory.get("containerd-shim-runc-v2").copied().unwrap_or_default();
    assert!(monitors.0 > pods && shims.0 > pods, "one for each pod: {monitors:?}, {shims:?}");
    assert!(berth.total_kib() < containerd.total_kib(), "memory");
    assert!(berth.starts < containerd.starts, "processor time of the starts");
}

fn mib(kib: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let kib = kib as f64;
    kib / 1024.0
}
