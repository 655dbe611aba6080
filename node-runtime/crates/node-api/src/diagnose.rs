//! Diagnose: what only the daemon knows of its own troubles.
use berth_engine::{CniReport, ContainerFilter, Engine, PodFilter};
use berth_model::PodId;
use berth_proto::node as wire;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>) -> wire::DiagnoseResponse {
    let conditions = engine.status().await.conditions.into_iter().map(|c| wire::NodeCondition {
        kind: c.kind.to_owned(),
        ok: c.ok,
        reason: c.reason.to_owned(),
        message: c.message,
    });
    let troubles = engine.troubles().into_iter().map(|t| wire::Trouble {
        kind: t.kind.as_str().to_owned(),
        at: t.at,
        object: t.object,
        error: format!("{:?}", t.error),
        message: t.message,
    });
    let pools = engine.address_pools().into_iter().map(|(family, size, used)| wire::AddressPool {
        family: family.to_owned(),
        size,
        used,
    });
    let paths = engine.paths();
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let containers = engine.containers(&ContainerFilter::default());
    let logs = containers.iter().filter_map(|c| {
        let pod = &c.pod_record.config.metadata;
        let container = format!("{}/{}/{}", pod.namespace, pod.name, c.record.config.metadata.name);
        Some(wire::ContainerLog { container, path: path(c.record.log_path.as_deref()?) })
    });
    let monitors: HashMap<u32, u32> = engine.monitors().into_iter().map(|(v, n)| (v.into(), count(n))).collect();
    // Pods of a newer build live too, although this one cannot read their records.
    let pods = engine.pods(&PodFilter::default()).into_iter().map(|p| p.id.to_string());
    wire::DiagnoseResponse {
        conditions: conditions.collect(),
        pending_settings: engine.pending_settings(),
        troubles: troubles.collect(),
        address_pools: pools.collect(),
        monitors,
        pod_ids: pods.chain(engine.unknown_pods().into_keys()).collect(),
        logs: logs.collect(),
        cgroups: containers.iter().map(|c| c.record.cgroup.dir().to_owned()).collect(),
        run_directory: path(&paths.pod_base()),
        record_directory: path(&paths.records()),
        firewalls: engine.firewalls().iter().map(ToString::to_string).collect(),
        cni: engine.cni_report().map(cni),
    }
}

fn cni(report: CniReport) -> wire::CniState {
    let trouble =
        |pod: &PodId, problem: String, failures| wire::CniTrouble { pod_id: pod.to_string(), problem, failures };
    wire::CniState {
        pending: report.pending.into_iter().map(|p| trouble(&p.pod, p.problem, p.failures)).collect(),
        broken: report.broken.into_iter().map(|(pod, problem)| trouble(&pod, problem, 0)).collect(),
        refused: report.refused,
        unused: report.unused,
        file: report.file.map(|file| file.display().to_string()).unwrap_or_default(),
    }
}

fn count(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
