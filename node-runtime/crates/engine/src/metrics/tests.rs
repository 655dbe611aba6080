//! What is scraped: bounds of labels, and names that follow the conventions.
use super::*;
use berth_model::{ByteSource, Leak, PullPhase};
use berth_settings::load;
use std::collections::BTreeSet;

fn settings(hosts: &[&str]) -> Settings {
    let dir = std::env::temp_dir().join(format!("berth-metrics-{}-{}", std::process::id(), hosts.len()));
    std::fs::create_dir_all(&dir).unwrap();
    let registries: String = hosts.iter().map(|h| format!("  - host: {h}\n")).collect();
    let head = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: node}\nspec:\n  registries:\n";
    std::fs::write(dir.join("a.yaml"), format!("{head}{registries}")).unwrap();
    let settings = load(&dir, &dir.join("accepted.json")).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    settings
}

fn values(metrics: &Metrics, family: &str, label: &str) -> BTreeSet<String> {
    let all = metrics.registry().gather();
    let family = all.iter().find(|f| f.name() == family).unwrap_or_else(|| panic!("no {family}"));
    let labels = family.get_metric().iter().flat_map(|m| m.get_label().iter().filter(|l| l.name() == label));
    labels.map(|l| l.value().to_owned()).collect()
}

#[test]
fn ten_thousand_registries_make_one_series() {
    let metrics = Metrics::new().unwrap();
    metrics.follow(&settings(&["registry.example:5000", "docker.io"]));
    let series = |metrics: &Metrics| metrics.registry().gather().iter().map(|f| f.get_metric().len()).sum::<usize>();
    let mut before = 0;
    for n in 0..10_000 {
        let registry = format!("r{n}.example");
        metrics.pull("error", &registry, Duration::from_millis(1));
        let took = Duration::from_millis(1);
        metrics.tell(Observation::PullPhase { registry: &registry, phase: PullPhase::Fetch, took });
        let operation = NetworkOperation::Attach;
        metrics.tell(Observation::Network { cni: true, operation, took, ok: false });
        if n == 100 {
            before = series(&metrics);
        }
    }
    metrics.pull("ok", "docker.io", Duration::from_millis(1));
    assert_eq!(series(&metrics), before + 2, "one of them by result, one of its time");
    assert_eq!(
        values(&metrics, "berth_registry_pulls_total", "registry").into_iter().collect::<Vec<_>>(),
        ["docker.io", "other"]
    );
    assert_eq!(
        values(&metrics, "berth_network_operations_total", "kind").into_iter().collect::<Vec<_>>(),
        ["builtin", "cni"]
    );
}

#[test]
fn many_configured_registries_are_bounded_too() {
    let metrics = Metrics::new().unwrap();
    for round in 0..5 {
        let hosts: Vec<String> = (0..100).map(|n| format!("h{round}-{n}.example")).collect();
        metrics.follow(&settings(&hosts.iter().map(String::as_str).collect::<Vec<_>>()));
        for host in &hosts {
            metrics.pull("ok", host, Duration::ZERO);
        }
    }
    assert!(values(&metrics, "berth_registry_pulls_total", "registry").len() <= 65);
}

#[test]
fn what_parts_tell_is_counted() {
    let metrics = Metrics::new().unwrap();
    let observer = metrics.observer();
    observer.tell(Observation::PullBytes { source: ByteSource::Mirror, bytes: 7 });
    observer.tell(Observation::Leaked { what: Leak::Lease, count: 2 });
    let took = Duration::from_millis(2);
    observer.tell(Observation::Collected { snapshots: 1, blobs: 3, bytes: 99, took, ok: true });
    let all = metrics.registry().gather();
    let value = |family: &str, labels: &[&str]| {
        let family = all.iter().find(|f| f.name() == family).unwrap_or_else(|| panic!("no {family}"));
        let found =
            family.get_metric().iter().find(|m| m.get_label().iter().map(|l| l.value()).eq(labels.iter().copied()));
        found.unwrap_or_else(|| panic!("no {labels:?}")).get_counter().get_value()
    };
    assert_eq!(value("berth_pull_bytes_total", &["mirror"]), 7.0);
    assert_eq!(value("berth_leaks_total", &["lease"]), 2.0);
    assert_eq!(value("berth_gc_removed_total", &["blob"]), 3.0);
    assert_eq!(value("berth_gc_reclaimed_bytes_total", &[]), 99.0);
    assert_eq!(value("berth_gc_runs_total", &["ok"]), 1.0);
}

/// Makes one series of each family that begins without any: what has none is not scraped.
fn touch(metrics: &Metrics) {
    let took = Duration::from_millis(1);
    metrics.phase("run", "network", took);
    metrics.pods.with_label_values(&["ready"]);
    metrics.containers.with_label_values(&["running"]);
    metrics.pull("ok", "docker.io", took);
    metrics.node().set(&Now { pools: vec![("ipv4", 2, 1)], ..Now::default() });
    let seen: BTreeSet<String> = metrics.registry().gather().iter().map(|f| f.name().to_owned()).collect();
    let begin_empty = [
        "berth_phase_seconds",
        "berth_pods",
        "berth_containers",
        "berth_pull_seconds",
        "berth_address_pool_size",
        "berth_address_pool_used",
        "berth_monitor_calls_total",
        "berth_monitor_call_failures_total",
    ];
    for name in begin_empty {
        assert!(seen.contains(name), "{name} in {seen:?}");
    }
}

/// Naming conventions of Prometheus that `promtool check metrics` looks at, and that every family says what it is.
#[test]
fn names_follow_the_conventions() {
    let metrics = Metrics::new().unwrap();
    touch(&metrics);
    for family in metrics.registry().gather() {
        let (name, counter) = (family.name(), family.get_field_type() == prometheus::proto::MetricType::COUNTER);
        assert_eq!(counter, name.ends_with("_total"), "{name}");
        assert!(name.starts_with("berth_") && family.help().ends_with('.'), "{name}: {}", family.help());
        for unit in ["_milliseconds", "_ms", "_micros", "_kilobytes", "_mb"] {
            assert!(!name.contains(unit), "{name} is not in base units");
        }
    }
}
