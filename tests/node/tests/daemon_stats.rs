//! What a kubelet reads of pods and containers: stats and metrics, against what the pods really do.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::{Cri, Node, container, eventually, page, pod, requests, shell};
use berth_proto::cri::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

async fn pod_stats(cri: &Cri, pod: &str) -> PodSandboxStats {
    let request = PodSandboxStatsRequest { pod_sandbox_id: pod.into() };
    cri.runtime().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap()
}

async fn list(cri: &Cri, filter: Option<PodSandboxStatsFilter>) -> Vec<PodSandboxStats> {
    let request = ListPodSandboxStatsRequest { filter };
    cri.runtime().list_pod_sandbox_stats(request).await.unwrap().into_inner().stats
}

fn linux(stats: &PodSandboxStats) -> &LinuxPodSandboxStats {
    stats.linux.as_ref().unwrap()
}

fn value(value: Option<UInt64Value>) -> u64 {
    value.expect("a value that is there").value
}

fn cpu(stats: &LinuxPodSandboxStats) -> u64 {
    value(stats.cpu.as_ref().unwrap().usage_core_nano_seconds)
}

fn working_set(stats: &LinuxPodSandboxStats) -> u64 {
    value(stats.memory.as_ref().unwrap().working_set_bytes)
}

fn of<'a>(stats: &'a LinuxPodSandboxStats, container: &str) -> &'a ContainerStats {
    let found = stats.containers.iter().find(|c| c.attributes.as_ref().unwrap().id == container);
    found.unwrap_or_else(|| panic!("no {container} in {stats:#?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readings_show_what_a_pod_does() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let mut sandbox = pod(&node, "worker");
    sandbox.annotations.insert("note".into(), "kept".into());
    let id = cri.run(&sandbox).await;
    let mut loops = shell(&node, "loops", "while :; do :; done");
    *requests::resources(&mut loops) =
        LinuxContainerResources { cpu_period: 100_000, cpu_quota: 30_000, ..Default::default() };
    let loops = cri.launch(&id, &loops, &sandbox).await;
    let holds =
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=40 && dd if=/dev/zero of=/written bs=1M count=3 && sleep 1000";
    let holds = cri.launch(&id, &shell(&node, "holds", holds), &sandbox).await;
    let web = cri.launch(&id, &container(&node, "web", &["/web"]), &sandbox).await;
    let ip = cri.pod_status(&id).await.unwrap().network.unwrap().ip;
    eventually("the web server answers", async || page(&format!("{ip}:80"), "/").await).await;

    let first = pod_stats(&cri, &id).await;
    let attributes = first.attributes.as_ref().unwrap();
    assert_eq!((attributes.id.as_str(), &attributes.metadata), (id.as_str(), &sandbox.metadata));
    assert_eq!((&attributes.labels, &attributes.annotations), (&sandbox.labels, &sandbox.annotations));
    assert_timestamps(linux(&first));
    for _ in 0..20 {
        page(&format!("{ip}:80"), "/").await.unwrap();
    }
    let (before, name) = (linux(&first), "the loop, the memory and the file show");
    let now = eventually(name, async || {
        let stats = pod_stats(&cri, &id).await;
        let now = linux(&stats);
        let layer = of(now, &holds).writable_layer.as_ref()?;
        let shows = cpu(now) > cpu(before) + 300_000_000
            && value(of(now, &loops).cpu.as_ref()?.usage_core_nano_seconds) > 300_000_000
            && working_set(now) > 40 << 20
            && value(of(now, &holds).memory.as_ref()?.working_set_bytes) > 40 << 20
            && value(layer.used_bytes) >= 3 << 20;
        shows.then_some(stats)
    })
    .await;
    let now = linux(&now);
    let cores = value(now.cpu.as_ref().unwrap().usage_nano_cores);
    assert!((10_000_000..2_000_000_000).contains(&cores), "the loop may use 0.3 cores: {cores}");
    assert!(value(of(now, &web).memory.as_ref().unwrap().working_set_bytes) < 40 << 20, "the web server holds nothing");
    let layer = of(now, &holds).writable_layer.as_ref().unwrap();
    assert!(Path::new(&layer.fs_id.as_ref().unwrap().mountpoint).is_dir(), "{layer:?}");
    assert!(value(layer.inodes_used) >= 1 && value(layer.used_bytes) < 4 << 20, "{layer:?}");
    assert_eq!(now.containers.len(), 3);
    assert!(value(now.process.as_ref().unwrap().process_count) >= 3, "{:?}", now.process);
    traffic_shows(before, now);
    node.finish().await;
}

fn traffic_shows(before: &LinuxPodSandboxStats, now: &LinuxPodSandboxStats) {
    let interface = |stats: &LinuxPodSandboxStats| stats.network.clone().unwrap().default_interface.unwrap();
    let (before, now) = (interface(before), interface(now));
    assert_eq!(now.name, "eth0");
    // Twenty requests of more than a hundred bytes, and answers.
    assert!(value(now.rx_bytes) > value(before.rx_bytes) + 2000, "{before:?} {now:?}");
    assert!(value(now.tx_bytes) > value(before.tx_bytes) + 2000, "{before:?} {now:?}");
    assert_eq!((value(now.rx_errors), value(now.tx_errors)), (0, 0));
}

fn assert_timestamps(stats: &LinuxPodSandboxStats) {
    let stamps = [
        stats.cpu.as_ref().unwrap().timestamp,
        stats.memory.as_ref().unwrap().timestamp,
        stats.process.as_ref().unwrap().timestamp,
        stats.network.as_ref().map_or(1, |n| n.timestamp),
        stats.io.as_ref().map_or(1, |i| i.timestamp),
    ];
    assert!(stamps.iter().all(|s| *s > 0), "{stamps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_in_which_nothing_runs_answer_too() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let empty = cri.run(&pod(&node, "empty")).await;
    let stats = pod_stats(&cri, &empty).await;
    assert_timestamps(linux(&stats));
    assert_eq!((cpu(linux(&stats)), working_set(linux(&stats)), linux(&stats).containers.len()), (0, 0, 0));
    let network = linux(&stats).network.as_ref().expect("the network is there before the first container");
    assert_eq!(network.default_interface.as_ref().unwrap().name, "eth0");

    let mut sandbox = pod(&node, "host");
    requests::pod_security(&mut sandbox).namespace_options.as_mut().unwrap().network = NamespaceMode::Node as i32;
    let on_node = cri.run(&sandbox).await;
    let container = cri.launch(&on_node, &container(&node, "sleeps", &["sleep", "1000"]), &sandbox).await;
    let stats = pod_stats(&cri, &on_node).await;
    assert_eq!(linux(&stats).network, None, "the node's network is not the pod's");
    assert_eq!(linux(&stats).containers.len(), 1);
    cri.try_stop(&container, 0).await.unwrap();
    assert_eq!(linux(&pod_stats(&cri, &on_node).await).containers.len(), 0);

    cri.try_stop_pod(&empty).await.unwrap();
    let stopped = pod_stats(&cri, &empty).await;
    assert_eq!(stopped.attributes.as_ref().unwrap().id, empty);
    assert_eq!(linux(&stopped).network, None);
    let listed: Vec<String> = list(&cri, None).await.into_iter().map(|s| s.attributes.unwrap().id).collect();
    assert_eq!(listed, [on_node], "stopped pods are not in the list");
    let gone = PodSandboxStatsRequest { pod_sandbox_id: "0".repeat(64) };
    daemon::client::refused(cri.runtime().pod_sandbox_stats(gone).await, tonic::Code::NotFound, &["pod"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_filtered_and_survive_a_broken_pod() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let (one, two) = (pod(&node, "one"), pod(&node, "two"));
    let (first, second) = (cri.run(&one).await, cri.run(&two).await);
    let sleeps = cri.launch(&first, &container(&node, "sleeps", &["sleep", "1000"]), &one).await;
    let ids = |stats: Vec<PodSandboxStats>| -> BTreeSet<String> {
        stats.into_iter().map(|s| s.attributes.unwrap().id).collect()
    };
    let by_id = |id: &str| Some(PodSandboxStatsFilter { id: id.into(), ..Default::default() });
    let by_label = |value: &str| {
        let label_selector = [("app".to_owned(), value.to_owned())].into();
        Some(PodSandboxStatsFilter { label_selector, ..Default::default() })
    };
    assert_eq!(ids(list(&cri, None).await), [first.clone(), second.clone()].into());
    assert_eq!(ids(list(&cri, by_id(&first)).await), [first.clone()].into());
    assert_eq!(ids(list(&cri, by_label("two")).await), [second.clone()].into());
    assert_eq!(ids(list(&cri, by_label("three")).await), [].into());
    let both = PodSandboxStatsFilter { id: first.clone(), ..by_label("two").unwrap() };
    assert_eq!(ids(list(&cri, Some(both)).await), [].into(), "all that is said must hold");

    // Somebody takes away the network namespace's file and the group of a container.
    let netns = node.root().join("run/pods").join(&first).join("ns/net");
    daemon::host("umount", &[netns.to_str().unwrap()]);
    let broken = list(&cri, None).await;
    assert_eq!(broken.len(), 2);
    for stats in &broken {
        let is_first = stats.attributes.as_ref().unwrap().id == first;
        assert_eq!(linux(stats).network.is_none(), is_first, "{stats:?}");
    }
    cri.try_stop(&sleeps, 0).await.unwrap();
    assert_eq!(list(&cri, None).await.len(), 2);
    node.finish().await;
}

/// What critest 1.37 wants described, without what it excuses (pkg/validate/pod.go), and those of it that need a value.
const MANDATORY: &[&str] = &[
    "cpu_cfs_periods_total",
    "cpu_cfs_throttled_periods_total",
    "cpu_cfs_throttled_seconds_total",
    "cpu_system_seconds_total",
    "cpu_usage_seconds_total",
    "cpu_user_seconds_total",
    "file_descriptors",
    "fs_inodes_free",
    "fs_inodes_total",
    "fs_limit_bytes",
    "fs_usage_bytes",
    "last_seen",
    "memory_cache",
    "memory_failcnt",
    "memory_failures_total",
    "memory_kernel_usage",
    "memory_mapped_file",
    "memory_max_usage_bytes",
    "memory_rss",
    "memory_swap",
    "memory_usage_bytes",
    "memory_working_set_bytes",
    "network_receive_bytes_total",
    "network_receive_errors_total",
    "network_receive_packets_dropped_total",
    "network_receive_packets_total",
    "network_transmit_bytes_total",
    "network_transmit_errors_total",
    "network_transmit_packets_dropped_total",
    "network_transmit_packets_total",
    "oom_events_total",
    "processes",
    "sockets",
    "spec_cpu_period",
    "spec_cpu_shares",
    "spec_memory_limit_bytes",
    "spec_memory_swap_limit_bytes",
    "start_time_seconds",
    "threads",
    "threads_max",
];
const WITHOUT_VALUE: &[&str] =
    &["blkio_device_usage_total", "fs_reads_bytes_total", "fs_reads_total", "fs_writes_bytes_total", "fs_writes_total"];

/// The samples of one subject by name and labels, as a kubelet would show them.
fn labelled(metrics: &[Metric], keys: &BTreeMap<String, Vec<String>>) -> Vec<(String, BTreeMap<String, String>, u64)> {
    let one = |m: &Metric| {
        let keys = keys.get(&m.name).unwrap_or_else(|| panic!("{} is not described", m.name));
        assert_eq!(keys.len(), m.label_values.len(), "{}", m.name);
        let labels = keys.iter().cloned().zip(m.label_values.iter().cloned()).collect();
        (m.name.clone(), labels, m.value.unwrap().value)
    };
    let samples: Vec<_> = metrics.iter().map(one).collect();
    let unique: BTreeSet<_> = samples.iter().map(|(name, labels, _)| (name, labels)).collect();
    assert_eq!(unique.len(), samples.len(), "a sample comes twice");
    samples
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_described_metric_has_labelled_samples() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "measured");
    let id = cri.run(&sandbox).await;
    let mut config = shell(&node, "app", "exec 5</etc/passwd; while :; do sleep 0.1; done");
    let limits = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 1024,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    };
    *requests::resources(&mut config) = limits;
    config.image.as_mut().unwrap().user_specified_image = "registry.example/app:v1".into();
    let app = cri.launch(&id, &config, &sandbox).await;
    let descriptors = cri.runtime().list_metric_descriptors(ListMetricDescriptorsRequest {}).await.unwrap();
    let descriptors = descriptors.into_inner().descriptors;
    assert!(descriptors.iter().all(|d| !d.help.is_empty() && !d.label_keys.is_empty()));
    let keys: BTreeMap<String, Vec<String>> = descriptors.into_iter().map(|d| (d.name, d.label_keys)).collect();
    for name in MANDATORY.iter().chain(WITHOUT_VALUE) {
        assert!(keys.contains_key(&format!("container_{name}")), "{name} is not described");
    }
    let all = cri.runtime().list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.unwrap().into_inner();
    let [of_pod] = &all.pod_metrics[..] else { panic!("{all:?}") };
    assert_eq!(of_pod.pod_sandbox_id, id);
    let [of_app] = &of_pod.container_metrics[..] else { panic!("{all:?}") };
    assert_eq!(of_app.container_id, app);
    let (pod_samples, app_samples) = (labelled(&of_pod.metrics, &keys), labelled(&of_app.metrics, &keys));
    for name in MANDATORY {
        let name = format!("container_{name}");
        assert!(pod_samples.iter().chain(&app_samples).any(|(n, ..)| *n == name), "{name} has no sample");
    }
    let is_pods = |labels: &BTreeMap<String, String>| labels["namespace"] == "default" && labels["pod"] == "measured";
    for (name, labels, _) in &app_samples {
        let own = labels["container"] == "app" && labels["name"] == app && labels["id"].contains(&app);
        assert!(is_pods(labels) && own && labels["image"] == "registry.example/app:v1", "{name} {labels:?}");
    }
    for (name, labels, _) in &pod_samples {
        assert!(is_pods(labels) && labels["container"].is_empty() && labels["image"].is_empty(), "{name} {labels:?}");
    }
    let get = |name: &str| app_samples.iter().find(|(n, ..)| n.trim_start_matches("container_") == name).unwrap().2;
    assert_eq!((get("spec_cpu_quota"), get("spec_cpu_period"), get("spec_cpu_shares")), (20_000, 100_000, 1024));
    assert_eq!((get("spec_memory_limit_bytes"), get("threads_max")), (64 << 20, 200));
    assert!((1..=2).contains(&get("processes")), "the shell, and its sleep: {}", get("processes"));
    assert!(get("file_descriptors") >= 4, "{}", get("file_descriptors"));
    assert!(get("start_time_seconds").abs_diff(get("last_seen")) < 60);
    kinds_are_right(of_app);
    node.finish().await;
}

fn kinds_are_right(metrics: &ContainerMetrics) {
    for metric in &metrics.metrics {
        let counts = metric.name.ends_with("_total") && !metric.name.ends_with("inodes_total");
        let counts = counts || metric.name == "container_memory_failcnt";
        assert_eq!(metric.metric_type() == MetricType::Counter, counts, "{}", metric.name);
        assert_eq!(metric.timestamp, 0, "{} was read for this answer", metric.name);
    }
}

macro_rules! drain {
    ($stream:expr, $field:ident) => {{
        let mut stream = $stream.await.unwrap().into_inner();
        let mut items = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            assert!(!message.$field.is_empty(), "a message without items");
            items.extend(message.$field);
        }
        items
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streamed_lists_are_the_unary_lists() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let (one, two) = (pod(&node, "one"), pod(&node, "two"));
    let (first, second) = (cri.run(&one).await, cri.run(&two).await);
    for (id, sandbox) in [(&first, &one), (&second, &two)] {
        cri.launch(id, &container(&node, "sleeps", &["sleep", "1000"]), sandbox).await;
    }
    cri.create(&first, &container(&node, "waits", &["sleep", "1000"]), &one).await;
    let mut runtime = cri.runtime();
    let pods = drain!(runtime.stream_pod_sandboxes(StreamPodSandboxesRequest::default()), pod_sandboxes);
    assert_eq!(pods, cri.pods().await);
    let containers = drain!(runtime.stream_containers(StreamContainersRequest::default()), containers);
    assert_eq!(containers, cri.containers().await);
    assert_eq!(containers.len(), 3);
    let images = drain!(cri.images().stream_images(StreamImagesRequest::default()), images);
    assert_eq!(images, cri.images().list_images(ListImagesRequest::default()).await.unwrap().into_inner().images);

    let filter = Some(ContainerFilter { pod_sandbox_id: first.clone(), ..Default::default() });
    let of_first = drain!(runtime.stream_containers(StreamContainersRequest { filter: filter.clone() }), containers);
    let unary = runtime.list_containers(ListContainersRequest { filter }).await.unwrap().into_inner().containers;
    assert_eq!((of_first.len(), of_first), (2, unary));
    let filter = Some(PodSandboxFilter { id: second.clone(), ..Default::default() });
    let found = drain!(runtime.stream_pod_sandboxes(StreamPodSandboxesRequest { filter }), pod_sandboxes);
    assert_eq!(found.iter().map(|p| &p.id).collect::<Vec<_>>(), [&second]);

    let stats = drain!(runtime.stream_container_stats(StreamContainerStatsRequest::default()), container_stats);
    let unary = runtime.list_container_stats(ListContainerStatsRequest::default()).await.unwrap().into_inner().stats;
    let attributes = |stats: Vec<ContainerStats>| stats.into_iter().map(|s| s.attributes).collect::<Vec<_>>();
    assert_eq!(attributes(stats), attributes(unary));
    let stats = drain!(runtime.stream_pod_sandbox_stats(StreamPodSandboxStatsRequest::default()), pod_sandbox_stats);
    let attributes = |stats: Vec<PodSandboxStats>| stats.into_iter().map(|s| s.attributes).collect::<Vec<_>>();
    assert_eq!(attributes(stats), attributes(list(&cri, None).await));
    let metrics = drain!(runtime.stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest {}), pod_sandbox_metrics);
    let unary = runtime.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.unwrap().into_inner();
    let names = |metrics: Vec<PodSandboxMetrics>| -> Vec<(String, BTreeSet<String>)> {
        metrics.into_iter().map(|m| (m.pod_sandbox_id, m.metrics.into_iter().map(|m| m.name).collect())).collect()
    };
    assert_eq!(names(metrics), names(unary.pod_metrics));

    // A client that goes away after the first message: the daemon is none the worse.
    drop(runtime.stream_containers(StreamContainersRequest::default()).await.unwrap());
    daemon::client::within(Duration::from_secs(30), "the next list", cri.pods()).await;
    node.finish().await;
}
