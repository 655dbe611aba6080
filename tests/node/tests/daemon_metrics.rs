//! The figures as a monitoring system sees them: promtool has nothing to say, a real Prometheus scrapes them, and every query of the
//! dashboard asks for series and labels that exist.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, cli, container, eventually, images, is_alive, killed, page, pod};
use berth_node_tests::path_from_env;
use berth_proto::cri::PortMapping;
use berth_test_registry::{Options, Registry};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const DASHBOARD: &str = include_str!("../../../docs/dashboards/berth-node.json");

/// A node on which something of everything has happened.
async fn busy() -> Node {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "busy");
    let id = cri.run(&sandbox).await;
    let app = cri.launch(&id, &container(&node, "app", &["sleep", "1000"]), &sandbox).await;
    cri.sh(&app, "true").await;
    cri.try_pull(&node.registry().reference("no-such:v1"), "default").await.unwrap_err();
    cri.pull(&node.web()).await;
    node
}

async fn scraped(node: &Node) -> String {
    page(&node.info().await.metrics_address, "/metrics").await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_has_nothing_to_say() {
    let node = busy().await;
    let text = scraped(&node).await;
    let mut promtool = Command::new(path_from_env("BERTH_PROMETHEUS").join("promtool"));
    let pipes = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    // What happened is counted.
    for (series, least) in [
        ("berth_build_info{monitor_protocol=\"1\",version=\"0.1.0\"}", 1.0),
        ("berth_execs_total{kind=\"sync\",result=\"ok\"}", 1.0),
        ("berth_pull_layers_total{how=\"fetched\"}", 2.0),
        ("berth_pull_bytes_total{source=\"registry\"}", 1000.0),
        ("berth_pull_phase_seconds_count{phase=\"commit\",registry=\"other\"}", 2.0),
        ("berth_network_operations_total{kind=\"builtin\",operation=\"attach\",result=\"ok\"}", 1.0),
        ("berth_monitor_calls_total{call=\"spawn\"}", 3.0),
        ("berth_monitors{protocol=\"1\"}", 1.0),
        ("berth_address_pool_used{family=\"ipv4\"}", 1.0),
        ("berth_settings_documents", 1.0),
        ("berth_registry_pulls_total{registry=\"other\",result=\"error\"}", 1.0),
    ] {
        assert!(node.figure(series) >= least, "{series} is {}", node.figure(series));
    }
    // A second pull of what is there brings nothing.
    let fetched = node.figure("berth_pull_bytes_total{source=\"registry\"}");
    node.cri().pull(&node.tools()).await;
    assert_eq!(node.figure("berth_pull_bytes_total{source=\"registry\"}"), fetched);
    assert!(node.figure("berth_pull_bytes_total{source=\"present\"}") > 0.0);
    node.finish().await;
}

/// Every figure that counts what is rare, caused: a mirror that serves and one that fails, layers that are there, a collection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rare_is_counted() {
    let node = Node::new().await;
    let mirror = Registry::start(Options::default()).await.unwrap();
    mirror.push_image(&images::tools("tools", "v1")).unwrap();
    // A mirror is told by its URL, as the document has it.
    let (own, host) = (node.registry().host(), format!("http://{}", mirror.host()));
    node.document(
        "60-mirrors.yaml",
        &format!(
            "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: mirrors}}\nspec: {{registries: [{{host: '{own}', \
             mirrors: [{{url: 'http://127.0.0.1:1'}}, {{url: '{host}'}}]}}]}}\n"
        ),
    );
    eventually("the mirrors are in force", async || {
        node.info().await.documents.iter().any(|d| d.contains("mirrors")).then_some(())
    })
    .await;
    let cri = node.cri();
    cri.pull(&node.tools()).await;
    let request = |mirror: &str, phase: &str, outcome: &str| {
        format!(
            "berth_registry_requests_total{{mirror=\"{mirror}\",outcome=\"{outcome}\",phase=\"{phase}\",registry=\"{own}\"}}"
        )
    };
    assert!(node.figure(&request(&host, "blob", "ok")) >= 1.0);
    assert!(node.figure(&request(&host, "resolve", "ok")) >= 1.0);
    assert!(
        node.figure(&format!("berth_registry_mirror_pauses_total{{mirror=\"http://127.0.0.1:1\",registry=\"{own}\"}}"))
            >= 1.0
    );
    assert!(node.figure("berth_pull_bytes_total{source=\"mirror\"}") > 100_000.0);
    assert_eq!(node.figure("berth_pull_bytes_total{source=\"registry\"}"), 0.0);
    assert!(node.figure(&format!("berth_pull_phase_seconds_count{{phase=\"commit\",registry=\"{own}\"}}")) >= 1.0);
    assert_eq!(node.figure(&format!("berth_registry_pulls_total{{registry=\"{own}\",result=\"ok\"}}")), 1.0);
    assert_eq!(node.figure("berth_pull_layers_total{how=\"shared\"}"), 0.0);
    node.registry().push_image(&images::tools("tools", "same-layer").cmd(["/web", "other"])).unwrap();
    mirror.push_image(&images::tools("tools", "same-layer").cmd(["/web", "other"])).unwrap();
    let again = node.registry().reference("tools:same-layer");
    cri.pull(&again).await;
    assert_eq!(node.figure("berth_pull_layers_total{how=\"shared\"}"), 1.0);

    let runs = node.figure("berth_gc_runs_total{result=\"ok\"}");
    cri.pull(&node.web()).await;
    assert_eq!(cli::try_run(&node, &["rmi", &node.web()]).code, 0);
    eventually("a collection", async || {
        (node.figure("berth_gc_runs_total{result=\"ok\"}") > runs
            && node.figure("berth_gc_reclaimed_bytes_total") > 0.0)
            .then_some(())
    })
    .await;
    assert!(node.figure("berth_gc_removed_total{kind=\"snapshot\"}") >= 1.0);
    assert!(
        node.figure("berth_gc_removed_total{kind=\"blob\"}") >= 1.0 && node.figure("berth_gc_seconds_count") >= 1.0
    );
    node.finish().await;
}

/// What a reconciler finds without an owner, caused: a pod whose record is gone while no daemon runs. Nothing of it stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_owns_is_counted_and_removed() {
    // A host port's elements go with their lease, and are found alone only where that is lost too.
    const KINDS: [&str; 6] = ["monitor", "lease", "interface", "rootfs", "directory", "cgroup"];
    let mut node = Node::with_tools().await;
    let cri = node.cri();
    let kept_sandbox = pod(&node, "kept");
    let kept = cri.run(&kept_sandbox).await;
    let alive = cri.launch(&kept, &container(&node, "app", &["sleep", "1000"]), &kept_sandbox).await;
    let mut sandbox = pod(&node, "orphan");
    // A group of the kubelet's kind, which nothing but the lost record names.
    let linux = sandbox.linux.get_or_insert_default();
    linux.cgroup_parent = format!("/{}-orphans/pod1", node.name());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    sandbox.port_mappings.push(PortMapping { container_port: 80, host_port: i32::from(port), ..Default::default() });
    let id = cri.run(&sandbox).await;
    let app = cri.launch(&id, &container(&node, "app", &["sleep", "1000"]), &sandbox).await;
    let pid = cri.pid(&app).await;
    for kind in KINDS {
        assert_eq!(node.figure(&format!("berth_leaks_total{{kind=\"{kind}\"}}")), 0.0, "{kind}");
    }
    node.kill();
    std::fs::remove_dir_all(node.root().join("lib/pods").join(&id)).unwrap();
    node.start().await;
    for kind in KINDS {
        assert!(node.figure(&format!("berth_leaks_total{{kind=\"{kind}\"}}")) >= 1.0, "{kind}: {}", node.log_tail());
    }
    assert!(!is_alive(pid), "its program runs on");
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|e| e.unwrap().path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let group = hierarchy.join(format!("{}-orphans", node.name()));
        assert!(!group.exists(), "{} stays", group.display());
    }
    node.nothing_but(&[&kept], &[&alive]);
    sandbox.metadata.as_mut().unwrap().name = "next".to_owned();
    node.cri().run(&sandbox).await;
    assert!(is_alive(node.cri().pid(&alive).await), "another pod's container");
    node.finish().await;
}

/// The directories of a group, in every hierarchy that is mounted where it usually is.
fn group_dirs(group: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|e| e.unwrap().path());
    hierarchies
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .filter(|h| h.join("cgroup.procs").exists())
        .map(|h| h.join(group))
        .collect()
}

/// A group that the test makes below the daemon's parent, named like one of the daemon's; a program runs in it.
struct Foreign {
    dirs: Vec<PathBuf>,
    program: Child,
}

impl Foreign {
    fn new(parent: &str) -> Self {
        let dirs = group_dirs(&format!("{parent}/{}", "5a".repeat(32)));
        let program = Command::new("sleep").arg("1000").spawn().unwrap();
        for dir in &dirs {
            std::fs::create_dir(dir).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(list) = std::fs::read(dir.parent().unwrap().join(file)) {
                    std::fs::write(dir.join(file), list).unwrap();
                }
            }
            std::fs::write(dir.join("cgroup.procs"), program.id().to_string()).unwrap();
        }
        Self { dirs, program }
    }

    fn is_untouched(&mut self) -> bool {
        self.program.try_wait().unwrap().is_none() && self.dirs.iter().all(|dir| dir.exists())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        for dir in &self.dirs {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Pods whose record and monitor are both gone: nothing but the names of control groups tells of what runs. One is below the daemon's
/// own parent, one where a kubelet wanted it. What the daemon did not make is nobody's to kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lost_its_monitor_too_is_ended_by_its_group() {
    let mut node = Node::with_tools().await;
    let cri = node.cri();
    let kept_sandbox = pod(&node, "kept");
    let kept = cri.run(&kept_sandbox).await;
    let alive = cri.launch(&kept, &container(&node, "app", &["sleep", "1000"]), &kept_sandbox).await;
    let own = pod(&node, "own");
    let mut elsewhere = pod(&node, "elsewhere");
    elsewhere.linux.get_or_insert_default().cgroup_parent = format!("/{}-lost/pod1", node.name());
    let mut lost = Vec::new();
    for sandbox in [&own, &elsewhere] {
        let id = cri.run(sandbox).await;
        let app =
            cri.launch(&id, &container(&node, "app", &["sh", "-c", "setsid sleep 1000 & sleep 1000"]), sandbox).await;
        lost.push((id.clone(), cri.monitor_pid(&id).await, cri.pid(&app).await, app));
    }
    let mut foreign = Foreign::new(node.name());
    let groups = [format!("{}/{}", node.name(), lost[0].3), format!("{}-lost", node.name())];
    for group in &groups {
        assert!(group_dirs(group).iter().all(|dir| dir.exists()), "{group} is not where this test looks for it");
    }
    node.kill();
    for (id, monitor, program, _) in &lost {
        killed(*monitor).await;
        std::fs::remove_dir_all(node.root().join("lib/pods").join(id)).unwrap();
        assert!(is_alive(*program), "the program ended with its monitor, and this test shows nothing");
    }
    node.start().await;
    assert!(foreign.is_untouched(), "a group that the daemon did not make was touched");
    drop(foreign);
    for (_, _, program, _) in &lost {
        assert!(!is_alive(*program), "its program runs on: {}", node.log_tail());
    }
    for dir in groups.iter().flat_map(|group| group_dirs(group)) {
        assert!(!dir.exists(), "{} stays: {}", dir.display(), node.log_tail());
    }
    assert_eq!(node.figure("berth_leaks_total{kind=\"cgroup\"}"), 2.0, "{}", node.log_tail());
    node.nothing_but(&[&kept], &[&alive]);
    assert!(is_alive(node.cri().pid(&alive).await), "another pod's container");
    node.finish().await;
}

/// Names of series with the labels that they have, from a scrape.
fn exported(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let Some((series, _)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let known = all.entry(name.to_owned()).or_default();
        known.extend(labels.split("\",").filter_map(|l| Some(l.split_once('=')?.0.to_owned())));
    }
    all
}

/// The words of a query that stand outside of quotes, each with the character after it.
fn words(expr: &str) -> Vec<(String, char)> {
    let outside: String = expr.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    let (mut found, mut word) = (Vec::new(), String::new());
    for c in outside.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' || c == ':' {
            word.push(c);
        } else if !word.is_empty() {
            found.push((std::mem::take(&mut word), c));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_asks_for_what_is_there() {
    let node = busy().await;
    let exported = exported(&scraped(&node).await);
    let labels: BTreeSet<&str> = exported.values().flatten().map(String::as_str).chain(["instance", "job"]).collect();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            queries += 1;
            let mut of_query: BTreeSet<&str> = ["instance", "job", "le"].into();
            for (word, _) in words(expr).iter().filter(|(w, _)| w.starts_with("berth_") || w.starts_with("process_")) {
                let known =
                    exported.get(word).unwrap_or_else(|| panic!("{}: no series {word}: {expr}", panel["title"]));
                of_query.extend(known.iter().map(String::as_str));
            }
            // Whatever is compared or grouped by is a label of a series of the query.
            let grouped = expr.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
            let wanted = grouped.flat_map(|g| g.split(',').map(|l| l.trim().to_owned()));
            let matched = words(expr).into_iter().filter(|(_, next)| matches!(next, '=' | '!')).map(|(word, _)| word);
            for label in wanted.chain(matched) {
                assert!(
                    labels.contains(label.as_str()) && of_query.contains(label.as_str()),
                    "{}: no label {label}: {expr}",
                    panel["title"]
                );
            }
        }
    }
    assert!(queries >= 30, "{queries} queries");
    node.finish().await;
}

/// Ends a process, also when the test fails; then its log is shown.
struct Ended(Child, PathBuf);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.1).unwrap_or_default());
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_scrapes_and_answers_the_dashboard() {
    let node = busy().await;
    let target = node.info().await.metrics_address;
    let dir = node.base().join("prometheus");
    std::fs::create_dir(&dir).unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: berth\n  static_configs: [{{targets: [\"{target}\"]}}]\n"
    );
    std::fs::write(dir.join("prometheus.yml"), config).unwrap();
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = Command::new(path_from_env("BERTH_PROMETHEUS").join("prometheus"));
    command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.arg(format!("--web.listen-address={address}")).current_dir(&dir);
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let prometheus = Ended(child, dir.join("log"));
    let query = async |expr: &str| -> Option<Value> {
        let encoded: String = expr.bytes().map(|b| format!("%{b:02x}")).collect();
        let body = page(&address, &format!("/api/v1/query?query={encoded}")).await?;
        // Chunks of HTTP/1.1 have their length in lines of their own.
        let json: String = body.lines().filter(|l| l.starts_with(['{', '"', '[', ','])).collect();
        serde_json::from_str(&json).ok().filter(|v: &Value| v["status"] == "success")
    };
    eventually("a scrape", async || {
        let up = query("up{job=\"berth\"}").await?;
        (up["data"]["result"][0]["value"][1] == "1").then_some(())
    })
    .await;
    let pods = eventually("the pods are there", async || query("sum(berth_pods{state=\"ready\"})").await).await;
    assert_eq!(pods["data"]["result"][0]["value"][1], "1", "{pods}");
    // Prometheus' own parser takes every query of the dashboard.
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap().replace("$instance", ".+").replace("$__rate_interval", "1m");
            assert!(query(&expr).await.is_some(), "{}: {expr}", panel["title"]);
        }
    }
    drop(prometheus);
    node.finish().await;
}
