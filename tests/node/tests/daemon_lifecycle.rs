//! A pod's whole life by the real crictl, which nobody wrote for this daemon.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, crictl, eventually, page};
use serde_json::{Value, json};

fn pod_file(node: &Node, name: &str, labels: &Value) -> String {
    let logs = node.base().join("logs").join(name);
    std::fs::create_dir_all(&logs).unwrap();
    let config = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "attempt": 0},
        "hostname": name, "log_directory": logs, "labels": labels, "linux": {},
    });
    crictl::file(node, &format!("{name}.json"), &config).display().to_string()
}

fn container_file(node: &Node, name: &str, command: &[&str], labels: &Value) -> String {
    let config = json!({
        "metadata": {"name": name, "attempt": 0},
        "image": {"image": node.tools()},
        "command": command, "log_path": format!("{name}.log"), "labels": labels,
        "linux": {"resources": {"memory_limit_in_bytes": 128 << 20, "cpu_period": 100_000, "cpu_quota": 50_000}},
    });
    crictl::file(node, &format!("{name}.json"), &config).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_drives_a_pod_through_its_life() {
    let node = Node::new().await;
    assert!(crictl::run(&node, &["version"]).contains("RuntimeName:  berth"));
    let info = crictl::json(&node, &["info"]);
    let conditions = info["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|c| c["status"] == true) && conditions.len() >= 2, "{info}");

    crictl::run(&node, &["pull", &node.tools()]);
    let images = crictl::json(&node, &["images", "-o", "json"]);
    assert_eq!(images["images"][0]["repoTags"], json!([node.tools()]));

    let (pod_json, web_json) = (
        pod_file(&node, "web", &json!({"tier": "front"})),
        container_file(&node, "serve", &["/web"], &json!({"c": "1"})),
    );
    let pod = crictl::run(&node, &["runp", &pod_json]);
    let container = crictl::run(&node, &["create", &pod, &web_json, &pod_json]);
    assert_eq!(crictl::run(&node, &["ps", "-q", "--state", "Created"]), container);
    crictl::run(&node, &["start", &container]);
    assert_eq!(crictl::run(&node, &["ps", "-q"]), container);

    let inspected = crictl::json(&node, &["inspect", &container]);
    assert_eq!(inspected["status"]["state"], "CONTAINER_RUNNING");
    let pid = inspected["info"]["pid"].as_i64().unwrap();
    let program = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(program, b"/web\0");
    let ip = crictl::json(&node, &["inspectp", &pod])["status"]["network"]["ip"].as_str().unwrap().to_owned();
    let hello = eventually("the web server answers", async || page(&format!("{ip}:80"), "/").await).await;
    assert_eq!(hello, "Hello from web, a pod run by Berth.\n");

    exec_tells_output_and_code(&node, &container);
    assert!(crictl::run(&node, &["logs", &container]).contains("listening on"));
    let stats = crictl::json(&node, &["stats", "-o", "json", &container]);
    let memory: u64 = stats["stats"][0]["memory"]["workingSetBytes"]["value"].as_str().unwrap().parse().unwrap();
    assert!(memory > 10_000 && memory < 128 << 20, "{stats}");
    crictl::run(&node, &["update", "--memory", "67108864", &container]);
    let inspected = crictl::json(&node, &["inspect", &container]);
    assert_eq!(inspected["status"]["resources"]["linux"]["memoryLimitInBytes"], "67108864");

    crictl::run(&node, &["stop", "--timeout", "10", &container]);
    let ended = crictl::json(&node, &["inspect", &container]);
    assert_eq!((&ended["status"]["state"], &ended["status"]["exitCode"]), (&json!("CONTAINER_EXITED"), &json!(0)));
    assert_eq!(ended["status"]["reason"], "Completed");
    crictl::run(&node, &["rm", &container]);
    crictl::run(&node, &["stopp", &pod]);
    assert_eq!(crictl::run(&node, &["pods", "-q", "--state", "NotReady"]), pod);
    crictl::run(&node, &["rmp", &pod]);
    assert_eq!(crictl::run(&node, &["pods", "-q"]), "");
    crictl::run(&node, &["rmi", &node.tools()]);
    assert_eq!(crictl::run(&node, &["images", "-q"]), "");
    node.finish().await;
}

#[track_caller]
fn exec_tells_output_and_code(node: &Node, container: &str) {
    let exec = |args: &[&str]| crictl::try_run(node, &[&["exec", "--sync", container], args].concat());
    let ran = exec(&["sh", "-c", "echo to stdout; echo to stderr >&2"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "to stdout\n\nto stderr\n\n"));
    let ran = exec(&["sh", "-c", "exit 3"]);
    assert!(ran.code != Some(0) && ran.err.contains('3'), "{ran:?}");
    let ran = exec(&["/no/such/program"]);
    assert!(ran.code != Some(0) && ran.err.contains("/no/such/program"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crictl_filters_lists() {
    let node = Node::with_tools().await;
    let mut pods = Vec::new();
    for (name, tier) in [("one", "front"), ("two", "back")] {
        let pod_json = pod_file(&node, name, &json!({"tier": tier}));
        let pod = crictl::run(&node, &["runp", &pod_json]);
        let file = container_file(&node, &format!("c-{name}"), &["/web", "sleep"], &json!({"of": name}));
        let container = crictl::run(&node, &["create", &pod, &file, &pod_json]);
        crictl::run(&node, &["start", &container]);
        pods.push((pod, container));
    }
    let [(one, c_one), (two, c_two)] = &pods[..] else { panic!("two pods") };
    let list = |args: &[&str]| {
        let mut ids: Vec<String> = crictl::run(&node, args).lines().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    assert_eq!(list(&["pods", "-q", "--label", "tier=front"]), [one.as_str()]);
    assert_eq!(list(&["pods", "-q", "--label", "tier=none"]), Vec::<String>::new());
    assert_eq!(list(&["pods", "-q", "--id", &two[..12]]), [two.as_str()]);
    assert_eq!(list(&["pods", "-q", "--state", "Ready"]).len(), 2);
    assert_eq!(list(&["pods", "-q", "--name", "two"]), [two.as_str()]);
    assert_eq!(list(&["ps", "-q", "--label", "of=two"]), [c_two.as_str()]);
    assert_eq!(list(&["ps", "-q", "--pod", &one[..13]]), [c_one.as_str()]);
    assert_eq!(list(&["ps", "-q", "--id", &c_two[..13]]), [c_two.as_str()]);
    crictl::run(&node, &["stop", "--timeout", "0", c_one]);
    assert_eq!(list(&["ps", "-q"]), [c_two.as_str()], "ps shows what runs");
    assert_eq!(list(&["ps", "-a", "-q", "--state", "Exited"]), [c_one.as_str()]);
    crictl::run(&node, &["stopp", one]);
    assert_eq!(list(&["pods", "-q", "--state", "NotReady"]), [one.as_str()]);
    node.finish().await;
}
