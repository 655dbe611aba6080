//! Stats: one pass over the kernel's files for all running containers.
use berth_engine::{Engine, PodFilter};
use berth_model::Result;
use berth_proto::node as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>) -> Result<wire::StatsResponse> {
    let mut containers = Vec::new();
    for pod in engine.list_pod_stats(&PodFilter::default()).await? {
        let interfaces = pod.stats.network.unwrap_or_default();
        let (received, sent) = interfaces.iter().fold((0, 0), |(r, s), i| (r + i.rx_bytes, s + i.tx_bytes));
        for (view, stats) in pod.containers {
            let usage = stats.usage;
            let (cpu, memory) = (usage.cpu.unwrap_or_default(), usage.memory.unwrap_or_default());
            let (pids, io) = (usage.pids.unwrap_or_default(), usage.io.unwrap_or_default());
            containers.push(wire::ContainerReading {
                container_id: view.id.to_string(),
                pod_id: view.pod.to_string(),
                taken_at: usage.taken_at,
                cpu: cpu.total,
                throttled: cpu.throttled,
                memory: memory.working_set,
                memory_limit: memory.limit.unwrap_or_default(),
                pids: pids.current,
                pids_limit: pids.limit.unwrap_or_default(),
                read_bytes: io.read_bytes,
                write_bytes: io.write_bytes,
                received_bytes: received,
                sent_bytes: sent,
                oom_kills: memory.oom_kills,
                written_bytes: stats.writable_layer.map_or(0, |layer| layer.used_bytes),
            });
        }
    }
    Ok(wire::StatsResponse { containers })
}
