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
const QUESTIONS: [&str; 7] = [
    // A rule that joins series of the operator's own labels.
    "max(berth:operator_nodes:leader{state=\"selected\"})",
    "sum(berth_operator_leader{job=\"operator\"}) == 1",
    "berth_agent_node_healthy{job=\"agent\"} == 1",
    // The agent hands on what the daemon has to say.
    "sum(berth_pods{job=\"agent\",state=\"ready\"})",
    "sum(berth_pods{job=\"daemon\",state=\"ready\"})",
    "sum(kubelet_running_pods{job=\"kubelet\"})",
    // The kubelet's own calls of the runtime's API.
    "sum(kubelet_runtime_operations_total{job=\"kubelet\"})",
];

/// Panels that may be empty on a node that is well, and why.
const EMPTY: [(&str, &str); 10] = [
    ("Addresses", "the network is CNI's: it has no pool"),
    ("Addresses free", "the network is CNI's: it has no pool"),
    ("CRI calls that failed", "none need have failed"),
    ("Daemons that started anew in an hour", "none did"),
    ("Nodes with most failed calls", "none need have failed"),
    ("Passes that failed", "none need have failed"),
    ("Watches begun again", "none need have ended"),
    ("Time of pulls", "all images may have been there"),
    ("Time of pulls (half, 95 %)", "all images may have been there"),
    ("Network operations (95 %)", "a kind has series once it was used"),
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
        rules_are_well(site);
        panels_have_series(site);
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
    let rules = dir.join("rules.yml");
    std::fs::write(&rules, rendered_rules(site)).unwrap();
    let global = json!({"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"});
    let config = json!({"global": global, "rule_files": [rules], "scrape_configs": configs});
    std::fs::write(dir.join("prometheus.yml"), config.to_string()).unwrap();
    let recipe = Recipe::new("prometheus", programs::path_from_env("BERTH_PROMETHEUS").join("prometheus"))
        .flag("config.file", dir.join("prometheus.yml").display())
        .flag("storage.tsdb.path", dir.join("data").display())
        .flag("web.listen-address", ADDRESS);
    Service::start(site.space(), recipe)
}

/// The answer to a question, once it is as it should be.
fn number(site: &Site, question: &str, good: impl Fn(f64) -> bool) -> f64 {
    site.wait(question, || {
        let answer = asked(site, question)?;
        let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse().ok());
        value.filter(|value| good(*value)).ok_or_else(|| answer.to_string())
    })
}

/// What Prometheus answers. Errors: it does not, or not with 200.
fn asked(site: &Site, question: &str) -> Result<Value, String> {
    let encoded: String = question.bytes().map(|b| format!("%{b:02x}")).collect();
    http::json(site.space(), ADDRESS, &format!("/api/v1/query?query={encoded}")).map_err(|e| e.to_string())
}

/// The chart's rules as it renders them: `spec` of its PrometheusRule is a file of rules.
fn rendered_rules(site: &Site) -> String {
    let show = ["--show-only", "templates/monitoring/prometheusrule.yaml"];
    let chart = chain::chart();
    // Of a cluster that it does not ask; a Helm that was built without its version's own default says 1.20.
    let template =
        ["template", "berth", "--kube-version=1.37.2", &chart, "--set", "metrics.prometheusRule.enabled=true"];
    let text = site.helm(&[&template[..], &show].concat());
    let (_, spec) = text.split_once("\nspec:\n").expect("a PrometheusRule");
    spec.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect()
}

/// Every rule has been evaluated on these series without an error.
fn rules_are_well(site: &Site) {
    site.wait("all rules are evaluated", || {
        let answer = http::json(site.space(), ADDRESS, "/api/v1/rules").map_err(|e| e.to_string())?;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<&str> = groups.iter().filter_map(|group| group["name"].as_str()).collect();
        names.sort_unstable();
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let bad: Vec<String> = rules.filter(|rule| rule["health"] != "ok").map(Value::to_string).collect();
        let all = names == ["berth-fleet", "berth-leader", "berth-node"];
        if all && bad.is_empty() { Ok(()) } else { Err(format!("{names:?}: {bad:?}")) }
    });
}

/// Every query of the dashboards is answered, and has series but for [`EMPTY`].
fn panels_have_series(site: &Site) {
    let mut queries = Vec::new();
    for name in ["berth-fleet", "berth-node"] {
        let path = format!("{}/files/dashboards/{name}.json", chain::chart());
        let board: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for panel in board["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().unwrap();
                let text = text.replace("$__rate_interval", "1m").replace("$instance", ".+");
                queries.push((panel["title"].as_str().unwrap().to_owned(), text));
            }
        }
    }
    site.wait("the panels of the dashboards have series", || {
        let empty = queries.iter().filter_map(|(title, query)| match asked(site, query) {
            Err(refused) => Some(format!("{title}: {query}: {refused}")),
            Ok(answer) if answer["data"]["result"].as_array().is_some_and(|series| !series.is_empty()) => None,
            Ok(_) => (!EMPTY.iter().any(|(name, _)| name == title)).then(|| format!("{title}: {query}: no series")),
        });
        let empty: Vec<String> = empty.collect();
        if empty.is_empty() { Ok(()) } else { Err(empty.join("\n")) }
    });
}
