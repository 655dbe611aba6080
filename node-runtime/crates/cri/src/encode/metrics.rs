//! Samples and their descriptors.
use super::u64_value;
use berth_engine::PodSamples;
use berth_proto::cri as wire;
use berth_stats::metrics::{Kind, METRICS, Sample};

/// All series: the same list as long as the daemon lives, since the kubelet asks once.
pub(crate) fn descriptors() -> Vec<wire::MetricDescriptor> {
    let descriptor = |metric: &&berth_stats::metrics::Metric| wire::MetricDescriptor {
        name: metric.name.to_owned(),
        help: metric.help.to_owned(),
        label_keys: metric.label_keys().map(str::to_owned).collect(),
    };
    METRICS.iter().map(descriptor).collect()
}

/// A pod's samples.
pub(crate) fn pod_metrics(pod: &PodSamples) -> wire::PodSandboxMetrics {
    let container = |(id, samples): &(berth_model::ContainerId, Vec<Sample>)| wire::ContainerMetrics {
        container_id: id.to_string(),
        metrics: samples.iter().map(sample).collect(),
    };
    wire::PodSandboxMetrics {
        pod_sandbox_id: pod.pod.to_string(),
        metrics: pod.samples.iter().map(sample).collect(),
        container_metrics: pod.containers.iter().map(container).collect(),
    }
}

/// Timestamp 0 says that the value was read for this answer.
fn sample(sample: &Sample) -> wire::Metric {
    let kind = match sample.metric.kind {
        Kind::Counter => wire::MetricType::Counter,
        Kind::Gauge => wire::MetricType::Gauge,
    };
    wire::Metric {
        name: sample.metric.name.to_owned(),
        timestamp: 0,
        metric_type: kind as i32,
        label_values: sample.labels.clone(),
        value: u64_value(sample.value),
    }
}
