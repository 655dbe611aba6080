//! What a real Prometheus sees of operator, agent, daemon and kubelet. Owns: its configuration and its questions. Must not: know the form of
//! an answer to a scrape; Prometheus does.
use crate::chain::{self, DAEMON_METRICS};
use crate::site::{NAMESPACE, Site};
use berth_cluster_tests::service::{Recipe, Service};
use berth_cluster_tests::{http, kubelet, programs};
use serde_json::{Value, json};
use std::time::Duration;

const ADDRESS: &str = "127.0.0.1:9090";
const STOP_GRACE: Duration = Duration::from_secs(30);
/// A question for each part, whose answer is one number above zero.
const QUESTIONS: [&str; 6] = [
    "sum(berth_operator_leader{job=\"operator\"}) == 1",
    "berth_agent_node_healthy{job=\"agent\"} == 1",
    // The agent hands on what the daemon has to say.
    "sum(berth_pods{job=\"agent\",state=\"ready\"})",
    "sum(berth_pods{job=\"daemon\",state=\"ready\"})",
    "sum(kubelet_running_pods{job=\"kubelet\"})",
    // The kubelet's own calls of the runtime's API.
    "sum(kubelet_runtime_operations_total{job=\"kubelet\"})",
];

/// All targets are up, and each part has its figures.
pub fn are_scraped(site: &Site) {
    chain::is_taken_over(site);
    let jobs = [
        ("operator", pods(site, "operator", 8080)),
        ("agent", pods(site, "agent", 9464)),
        ("daemon", vec![DAEMON_METRICS.to_owned()]),
        ("kubelet", vec![kubelet::READ_ONLY.to_owned()]),
    ];
    site.timed("a Prometheus has scraped all parts", || {
        let prometheus = start(site, &jobs);
        for (job, targets) in &jobs {
            let up = number(site, &format!("sum(up{{job=\"{job}\"}})"), |up| up >= targets.len() as f64);
            assert!((up - targets.len() as f64).abs() < 0.5, "{job}: {up} of {targets:?} are up");
        }
        for question in QUESTIONS {
            number(site, question, |value| value > 0.0);
        }
        prometheus.stop(STOP_GRACE);
    });
}

/// Where the pods of a part serve their figures.
fn pods(site: &Site, component: &str, port: u16) -> Vec<String> {
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    let list = site.kubectl(NAMESPACE).json(&["get", "pods", &selector]);
    let address = |pod: &Value| format!("{}:{port}", pod["status"]["podIP"].as_str().unwrap());
    let found: Vec<String> = list["items"].as_array().unwrap().iter().map(address).collect();
    assert!(!found.is_empty(), "no pods of {component}");
    found
}

fn start(site: &Site, jobs: &[(&str, Vec<String>)]) -> Service {
    let dir = site.base().join("prometheus");
    std::fs::create_dir_all(&dir).unwrap();
    let job =
        |(name, targets): &(&str, Vec<String>)| json!({"job_name": name, "static_configs": [{"targets": targets}]});
    let configs: Vec<Value> = jobs.iter().map(job).collect();
    // JSON is YAML.
    let config = json!({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": configs});
    std::fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
    let recipe = Recipe::new("prometheus", programs::path_from_env("BERTH_PROMETHEUS").join("prometheus"))
        .flag("config.file", dir.join("prometheus.yml").display())
        .flag("storage.tsdb.path", dir.join("data").display())
        .flag("web.listen-address", ADDRESS);
    Service::start(site.space(), recipe)
}

/// The answer to a question, once it is as it should be.
fn number(site: &Site, question: &str, good: impl Fn(f64) -> bool) -> f64 {
    let encoded: String = question.bytes().map(|b| format!("%{b:02x}")).collect();
    site.wait(question, || {
        let answer = http::json(site.space(), ADDRESS, &format!("/api/v1/query?query={encoded}"));
        let answer = answer.map_err(|e| e.to_string())?;
        let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse().ok());
        value.filter(|value| good(*value)).ok_or_else(|| answer.to_string())
    })
}
