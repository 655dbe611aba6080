//! A real kubelet as nodes have it: a service of systemd, the systemd cgroup driver, cgroup v2, static pods on Berth. What it
//! says of its pods is compared with what the kernel and systemd say. Runs in the guest tier.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Cri, host};
use crate::guest::machine::slices;
use crate::guest::pods::{container_id, ended, ip, is_ready, main, pod, restarts, status, uid};
use crate::guest::{Machine, http};
use berth_proto::cri::ContainerState;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// A uid with dashes, which are to be underscores in a slice's name.
const UID: &str = "0b2bd1c6-38e3-4c57-8a4e-000000000001";

/// Every second, until so many have failed. Patient: one that only waits on a slow machine is no failure.
fn probe(mut asks: Value, failures: u32) -> Value {
    asks["periodSeconds"] = 1.into();
    asks["timeoutSeconds"] = 60.into();
    asks["failureThreshold"] = failures.into();
    asks
}

/// Serves on port 80; lives as long as its file is there.
fn web(machine: &Machine) -> Value {
    let mut web = pod(machine, "web", &["sh", "-c", "touch /tmp/alive; exec /web"]);
    web["metadata"]["uid"] = UID.into();
    let container = main(&mut web);
    container["resources"] =
        json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}});
    container["startupProbe"] = probe(json!({"httpGet": {"path": "/healthz", "port": 80}}), 100);
    container["readinessProbe"] = probe(json!({"httpGet": {"path": "/healthz", "port": 80}}), 3);
    container["livenessProbe"] = probe(json!({"exec": {"command": ["test", "-e", "/tmp/alive"]}}), 1);
    web
}

/// Its child takes more memory than it may; with `memory.oom.group` the whole container goes.
fn greedy(machine: &Machine) -> Value {
    let mut greedy = pod(machine, "greedy", &["sh", "-c", "/web alloc 64; echo survived; sleep 1000"]);
    greedy["spec"]["restartPolicy"] = "Never".into();
    main(&mut greedy)["resources"] = json!({"limits": {"memory": "24Mi"}});
    greedy
}

/// Ends well, with a message.
fn job(machine: &Machine) -> Value {
    let mut job = pod(machine, "job", &["sh", "-c", "echo done > /dev/termination-log; exit 0"]);
    job["spec"]["restartPolicy"] = "OnFailure".into();
    job
}

/// A file of the container's control group.
fn limit(group: &str, file: &str) -> String {
    std::fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}")).unwrap().trim().to_owned()
}

/// The v2 group of a process.
fn group(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.trim().strip_prefix("0::").unwrap().to_owned()
}

/// Where the kubelet looks for the container: its slices, and a scope from whose name it takes the id.
async fn is_where_the_kubelet_looks(cri: &Cri, web: &Value) -> String {
    let id = container_id(web);
    let group = group(cri.pid(&id).await);
    let slice = format!("kubepods-burstable-pod{}.slice", uid(web).replace('-', "_"));
    let above = format!("/kubepods.slice/kubepods-burstable.slice/{slice}/");
    let scope = group.strip_prefix(&above).unwrap_or_else(|| panic!("{group} is not below {above}"));
    let name = scope.strip_suffix(".scope").unwrap_or_else(|| panic!("{scope} is not a scope"));
    assert_eq!(name.rsplit_once('-').unwrap().1, id, "cAdvisor takes what follows the last dash");
    assert_eq!(host("systemctl", &["show", "--value", "-p", "ActiveState", scope]).trim(), "active");
    assert_eq!(limit(&group, "memory.max"), (128 * MIB).to_string());
    assert_eq!(limit(&group, "cpu.max"), "50000 100000");
    assert_eq!(limit(&group, "memory.oom.group"), "1");
    group
}

/// Changes limits as an in-place resize does (static pods have none of their own); kernel and systemd agree on the result.
async fn resize(machine: &Machine, web: &Value, group: &str) {
    let id = container_id(web);
    crictl(
        machine,
        &["update", "--memory", &(96 * MIB).to_string(), "--cpu-quota", "25000", "--cpu-period", "100000", &id],
    );
    assert_eq!(limit(group, "memory.max"), (96 * MIB).to_string());
    assert_eq!(limit(group, "cpu.max"), "25000 100000");
    let scope = group.rsplit_once('/').unwrap().1;
    let property = |name| host("systemctl", &["show", "--value", "-p", name, scope]).trim().to_owned();
    assert_eq!(property("MemoryMax"), (96 * MIB).to_string());
    assert_eq!(property("CPUQuotaPerSecUSec"), "250ms");
    // A reload of systemd writes its own properties again.
    host("systemctl", &["daemon-reload"]);
    assert_eq!(
        (limit(group, "memory.max"), limit(group, "cpu.max")),
        ((96 * MIB).to_string(), "25000 100000".to_owned())
    );
}

fn crictl(machine: &Machine, args: &[&str]) -> String {
    let endpoint = format!("unix://{}", machine.socket().display());
    let program = berth_node_tests::path_from_env("BERTH_CRICTL");
    let mut all = vec!["--timeout=30s", "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint];
    all.extend(args);
    host(program.to_str().unwrap(), &all)
}

/// What is left of a pod on the node, by the parts of its names.
fn traces(words: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = slices().iter().map(|dir| dir.display().to_string()).collect();
    found.extend(std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned));
    found.extend(
        host("systemctl", &["list-units", "--all", "--plain", "--no-legend", "*.scope", "*.slice"])
            .lines()
            .map(str::to_owned),
    );
    found.retain(|line| words.iter().any(|word| line.contains(word)));
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_kubelet_runs_static_pods() {
    let machine = Machine::start().await;
    for pod in [web(&machine), greedy(&machine), job(&machine)] {
        machine.apply(&pod);
    }
    let cri = machine.cri().await;

    let ready = machine.pod("web", "it is ready by its HTTP probe", is_ready).await;
    assert_eq!(http::get(&format!("{}:80", ip(&ready)), "/healthz").await.as_deref().map(str::trim), Some("ok"));
    let group = is_where_the_kubelet_looks(&cri, &ready).await;
    let said = crictl(&machine, &["exec", "--sync", &container_id(&ready), "/web", "echo", "from", "inside"]);
    assert_eq!(said.trim(), "from inside");
    // As a session of streams, too.
    let said = crictl(&machine, &["exec", &container_id(&ready), "/web", "echo", "in", "a", "session"]);
    assert_eq!(said.trim(), "in a session");
    resize(&machine, &ready, &group).await;

    let over = machine.pod("greedy", "it runs out of memory", |p| ended(p).is_some()).await;
    assert_eq!(ended(&over), Some((137, "OOMKilled")));
    assert_eq!(over["status"]["phase"], "Failed");
    let done = machine.pod("job", "it ends", |p| p["status"]["phase"] == "Succeeded").await;
    assert_eq!(ended(&done), Some((0, "Completed")));
    assert_eq!(status(&done)["state"]["terminated"]["message"], "done\n");

    // The exec probe fails, and the container is started again.
    cri.sh(&container_id(&ready), "rm /tmp/alive").await;
    let again = machine.pod("web", "its liveness probe restarts it", |p| restarts(p) == 1 && is_ready(p)).await;
    assert_ne!(container_id(&again), container_id(&ready));
    assert_eq!(status(&again)["lastState"]["terminated"]["containerID"], status(&ready)["containerID"]);
    is_where_the_kubelet_looks(&cri, &again).await;

    machine.withdraw("web");
    let (underscores, id) = (UID.replace('-', "_"), container_id(&again));
    machine
        .eventually("nothing of the pod is left on the node", async || {
            traces(&[UID, &underscores, &id]).is_empty().then_some(())
        })
        .await;
    machine.finish().await;
}

/// What only an API server can ask of a kubelet: sessions by way of its own `/exec`, in both protocols, and limits that it changes in
/// place. kubectl asks; kernel and systemd are asked for the result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_kubelet_execs_and_resizes_for_an_api_server() {
    let machine = Machine::start_in_cluster().await;
    let plane = machine.plane();
    plane.has_node(&machine).await;
    let resources = |cpu: &str, memory: &str| {
        let limits = json!({"cpu": cpu, "memory": memory});
        json!({"requests": limits, "limits": limits})
    };
    let mut asked = pod(&machine, "asked", &["/web"]);
    main(&mut asked)["resources"] = resources("200m", "64Mi");
    plane.create(asked);
    let running = plane.pod(&machine, "asked", "it runs", is_ready).await;
    let id = container_id(&running);

    let input = vec![b'x'; 1 << 20];
    for websocket in [true, false] {
        let script = "wc -c; echo problem >&2; exit 7";
        let ran = plane.exec(websocket, &["-i", "asked", "--", "sh", "-c", script], &input);
        let (output, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!((ran.status.code(), output.trim()), (Some(7), "1048576"), "{error}\n{}", machine.logs());
        assert!(error.contains("problem\n") && error.contains("exit code 7"), "{error}");
    }

    let group = group(machine.cri().await.pid(&id).await);
    let (slice, scope) = group.rsplit_once('/').unwrap();
    let property = |name| host("systemctl", &["show", "--value", "-p", name, scope]).trim().to_owned();
    for (cpu, memory, quota, told, bytes) in
        [("500m", "96Mi", "50000 100000", "500ms", 96 * MIB), ("100m", "48Mi", "10000 100000", "100ms", 48 * MIB)]
    {
        let patch = json!({"spec": {"containers": [{"name": "main", "resources": resources(cpu, memory)}]}});
        plane.kubectl(&["patch", "pod", "asked", "--subresource", "resize", "--patch", &patch.to_string()]);
        let wanted = json!({"cpu": cpu, "memory": memory});
        let resized = |pod: &Value| status(pod)["resources"]["limits"] == wanted;
        let pod = plane.pod(&machine, "asked", "it is resized", resized).await;
        assert_eq!((container_id(&pod), restarts(&pod)), (id.clone(), 0), "in place");
        assert_eq!((limit(&group, "memory.max"), limit(&group, "cpu.max")), (bytes.to_string(), quota.to_owned()));
        assert_eq!((property("MemoryMax"), property("CPUQuotaPerSecUSec")), (bytes.to_string(), told.to_owned()));
        assert_eq!(limit(slice, "memory.max"), bytes.to_string(), "the pod's slice, which is the kubelet's to change");
    }
    plane.kubectl(&["delete", "pod", "asked", "--wait=false"]);
    machine.finish().await;
}

/// Serves, under both kinds of probes; of the guaranteed class.
fn steady(machine: &Machine) -> Value {
    let mut steady = pod(machine, "steady", &["/web"]);
    let container = main(&mut steady);
    // A whole processor: the probes' own work is on this account too, and must not keep the requests waiting.
    let all = json!({"cpu": "1", "memory": "64Mi"});
    container["resources"] = json!({"requests": all, "limits": all});
    container["readinessProbe"] = probe(json!({"httpGet": {"path": "/healthz", "port": 80}}), 3);
    container["livenessProbe"] = probe(json!({"exec": {"command": ["/web", "echo"]}}), 3);
    steady
}

/// Counts aloud, without end.
fn chatty(machine: &Machine) -> Value {
    pod(machine, "chatty", &["sh", "-c", "n=0; while :; do echo $n; n=$((n+1)); sleep 0.05; done"])
}

/// Asks the pod without pause until it is told to stop; counts the answers that did not come.
struct Load {
    task: tokio::task::JoinHandle<()>,
    asked: Arc<AtomicU32>,
    failed: Arc<AtomicU32>,
}

impl Load {
    fn on(address: String) -> Self {
        let (asked, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (all, bad) = (asked.clone(), failed.clone());
        let task = tokio::spawn(async move {
            loop {
                all.fetch_add(1, Ordering::Relaxed);
                if http::get(&address, "/healthz").await.is_none() {
                    bad.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { task, asked, failed }
    }

    fn end(self) -> (u32, u32) {
        self.task.abort();
        (self.asked.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// Everything of a pod that a restart of either program must leave as it is.
async fn identity(cri: &Cri, pod: &Value) -> (String, i32, i64, Value, Value, String) {
    let id = container_id(pod);
    let pid = cri.pid(&id).await;
    let started = status(pod)["state"]["running"]["startedAt"].clone();
    (id, pid, restarts(pod), started, pod["status"]["podIP"].clone(), group(pid))
}

/// Lines of the pod's log: consecutive numbers, none twice, none missing.
fn counted(machine: &Machine, pod: &Value) -> usize {
    let dir = machine.base().join(format!("pod-logs/default_chatty-node1_{}/main", uid(pod)));
    let files: Vec<PathBuf> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "one start, one log: {files:?}");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    // The last line may be under way.
    let lines: Vec<&str> = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).collect();
    for (n, line) in lines.iter().enumerate() {
        assert!(line.ends_with(&format!(" stdout F {n}")), "the log has a gap: line {n} is {line:?}");
    }
    lines.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_kubelet_and_berth_restart_under_load() {
    let machine = Machine::start().await;
    for pod in [steady(&machine), chatty(&machine)] {
        machine.apply(&pod);
    }
    let steady = machine.pod("steady", "it is ready", is_ready).await;
    let chatty = machine.pod("chatty", "it is ready", is_ready).await;
    let cri = machine.cri().await;
    let before = (identity(&cri, &steady).await, identity(&cri, &chatty).await);
    let load = Load::on(format!("{}:80", ip(&steady)));

    // A pod comes while the daemon goes: it is started once, by whichever daemon is there.
    machine.apply(&pod(&machine, "late", &["/web", "sleep"]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    machine.systemctl(&["restart", "berth.service"]);
    machine.pod("late", "it runs after the daemon's restart", is_ready).await;
    // The out-of-memory killer's way; systemd starts the daemon again.
    machine.systemctl(&["kill", "--signal=SIGKILL", "--kill-whom=main", "berth.service"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    machine.cri().await;
    machine.systemctl(&["restart", "kubelet.service"]);
    machine.healthy().await;
    // A few rounds of probes by the new kubelet.
    tokio::time::sleep(Duration::from_secs(4)).await;

    let steady = machine.pod("steady", "it is ready after all that", is_ready).await;
    let chatty = machine.pod("chatty", "it is ready after all that", is_ready).await;
    let cri = machine.cri().await;
    let lines = counted(&machine, &chatty);
    let (asked, failed) = load.end();
    println!("{asked} requests, {failed} failed; {lines} lines");
    assert!(asked > 50 && failed == 0, "{failed} of {asked} requests failed");
    assert_eq!((identity(&cri, &steady).await, identity(&cri, &chatty).await), before);
    let names: Vec<String> = cri.pods().await.into_iter().map(|p| p.metadata.unwrap().name).collect();
    assert_eq!(names.iter().filter(|n| n.starts_with("late-")).count(), 1, "{names:?}");
    // One that was made, and whose start was turned away because the daemon had just ended, is made again by the kubelet.
    let mut begun = cri.containers().await;
    begun.retain(|container| container.state != ContainerState::ContainerCreated as i32);
    assert_eq!(begun.len(), 3, "none was started twice: {begun:?}");
    machine.finish().await;
}
