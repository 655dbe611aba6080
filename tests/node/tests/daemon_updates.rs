//! In-place resize (KEP-1287) as a kubelet does it: the pod is told, its cgroup is the kubelet's; containers change all at once or
//! not at all, and the daemon's restart forgets nothing.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::client::{Answer, refused};
use crate::daemon::{Cri, Node, container, eventually, pod, requests, shell};
use berth_proto::cri::*;
use serde_json::Value;
use tonic::Code;

const MIB: i64 = 1 << 20;

async fn update_pod(cri: &Cri, pod: &str, cpu: i64, memory: i64) -> Answer<()> {
    let resources = LinuxContainerResources { cpu_shares: cpu, memory_limit_in_bytes: memory, ..Default::default() };
    let request =
        UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod.into(), resources: Some(resources), overhead: None };
    cri.runtime().update_pod_sandbox_resources(request).await.map(drop)
}

async fn told(cri: &Cri, pod: &str) -> Value {
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let info = cri.runtime().pod_sandbox_status(request).await.unwrap().into_inner().info;
    serde_json::from_str::<Value>(&info["info"]).unwrap()["record"]["resized"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_resources_are_taken_note_of() {
    let mut node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "grows");
    let id = cri.run(&sandbox).await;
    let app = cri.launch(&id, &container(&node, "app", &["sleep", "1000"]), &sandbox).await;
    assert_eq!(told(&cri, &id).await, Value::Null);
    update_pod(&cri, &id, 512, 64 * MIB).await.unwrap();
    update_pod(&cri, &id, 512, 64 * MIB).await.unwrap();
    let record = told(&cri, &id).await;
    assert_eq!(record["resources"]["memory_limit"], 64 * MIB);
    assert_eq!(record["resources"]["cpu_shares"], 512);
    let applied = cri.status(&app).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!(applied.memory_limit_in_bytes, 0, "nothing of it is the container's");
    // The same request still names the same sandbox: a kubelet that asks again finds it.
    assert_eq!(cri.run(&sandbox).await, id);
    node.kill_and_start().await;
    let cri = node.cri();
    assert_eq!(told(&cri, &id).await, record, "the restart forgot it");
    update_pod(&cri, &id, 256, 32 * MIB).await.unwrap();
    assert_eq!(told(&cri, &id).await["resources"]["memory_limit"], 32 * MIB);
    refused(update_pod(&cri, &"0".repeat(64), 2, 0).await, Code::NotFound, &["pod"]);
    refused(update_pod(&cri, &id, -1, 0).await, Code::InvalidArgument, &["resources.cpu_shares"]);
    node.finish().await;
}

async fn update(cri: &Cri, container: &str, linux: LinuxContainerResources) -> Answer<()> {
    let request =
        UpdateContainerResourcesRequest { container_id: container.into(), linux: Some(linux), ..Default::default() };
    cri.runtime().update_container_resources(request).await.map(drop)
}

async fn reported(cri: &Cri, container: &str) -> LinuxContainerResources {
    cri.status(container).await.unwrap().resources.unwrap().linux.unwrap()
}

/// What the kernel has for the container, as the metrics say it: memory, CPU quota and shares.
async fn in_force(cri: &Cri, container: &str) -> (u64, u64, u64) {
    let all = cri.runtime().list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.unwrap().into_inner();
    let containers = all.pod_metrics.iter().flat_map(|p| &p.container_metrics);
    let metrics = &containers.into_iter().find(|c| c.container_id == container).unwrap().metrics;
    let value = |name: &str| metrics.iter().find(|m| m.name == name).map_or(0, |m| m.value.unwrap().value);
    (value("container_spec_memory_limit_bytes"), value("container_spec_cpu_quota"), value("container_spec_cpu_shares"))
}

fn memory(limit: i64) -> LinuxContainerResources {
    LinuxContainerResources { memory_limit_in_bytes: limit, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_resized_before_it_starts_and_while_it_runs() {
    let mut node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "pod");
    let id = cri.run(&sandbox).await;
    let script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=40 2>/dev/null; sleep 1000";
    let mut config = shell(&node, "app", script);
    *requests::resources(&mut config) = LinuxContainerResources {
        memory_limit_in_bytes: 32 * MIB,
        memory_swap_limit_in_bytes: 32 * MIB,
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        ..Default::default()
    };
    let app = cri.create(&id, &config, &sandbox).await;
    // With the first limit the start would run out of memory.
    update(&cri, &app, memory(96 * MIB)).await.unwrap();
    let said = reported(&cri, &app).await;
    assert_eq!((said.memory_limit_in_bytes, said.memory_swap_limit_in_bytes), (96 * MIB, 96 * MIB));
    cri.try_start(&app).await.unwrap();
    assert_eq!(in_force(&cri, &app).await, (96 << 20, 50_000, 512));
    eventually("the container holds 40 MiB", async || {
        let request = ContainerStatsRequest { container_id: app.clone() };
        let stats = cri.runtime().container_stats(request).await.unwrap().into_inner().stats.unwrap();
        (stats.memory?.working_set_bytes?.value > 40 << 20).then_some(())
    })
    .await;

    // Memory below what it holds, and a quota beside it: neither is in force afterwards.
    let both = LinuxContainerResources { cpu_quota: 20_000, ..memory(16 * MIB) };
    refused(update(&cri, &app, both).await, Code::FailedPrecondition, &["in use"]);
    assert_eq!(in_force(&cri, &app).await, (96 << 20, 50_000, 512));
    let said = reported(&cri, &app).await;
    assert_eq!((said.memory_limit_in_bytes, said.cpu_quota), (96 * MIB, 50_000));
    assert_eq!(cri.status(&app).await.unwrap().state(), ContainerState::ContainerRunning, "and nothing was killed");

    let grown = LinuxContainerResources { memory_swap_limit_in_bytes: 128 * MIB, ..memory(128 * MIB) };
    update(&cri, &app, grown).await.unwrap();
    update(&cri, &app, LinuxContainerResources { cpu_shares: 1024, cpu_quota: 80_000, ..Default::default() })
        .await
        .unwrap();
    assert_eq!(in_force(&cri, &app).await, (128 << 20, 80_000, 1024));
    node.kill_and_start().await;
    let cri = node.cri();
    let said = reported(&cri, &app).await;
    assert_eq!((said.memory_limit_in_bytes, said.cpu_quota, said.cpu_shares), (128 * MIB, 80_000, 1024));
    assert_eq!(said.cpu_period, 100_000, "what was never said again stays");
    cri.try_stop(&app, 0).await.unwrap();
    refused(update(&cri, &app, memory(64 * MIB)).await, Code::FailedPrecondition, &["ended"]);
    node.finish().await;
}
