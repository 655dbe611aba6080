//! Volumes and logs.
use super::lifecycle::shell;
use berth_cluster_tests::standalone::{Standalone, container};
use berth_cluster_tests::{http, images, kubelet};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Command;

/// emptyDir (disk and memory), hostPath, read-only mounts, sub-paths, and a group that owns a volume.
pub fn volumes(node: &Standalone) {
    let dir = node.space().base().join("host-data");
    std::fs::create_dir_all(dir.join("inner")).unwrap();
    std::fs::write(dir.join("inner/greeting"), "hello").unwrap();
    let script = "exec 2>&1 > /dev/termination-log
        cat /sub/greeting; echo
        echo x > /ro/file 2>/dev/null && echo written || echo refused
        echo from the pod > /rw/answer
        stat -f -c %T /memory
        id -G; stat -c %g /disk; echo x > /disk/file && stat -c '%u %g' /disk/file";
    let mut main = shell("main", script);
    main["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 1000});
    main["volumeMounts"] = json!([
        {"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"},
        {"name": "host", "mountPath": "/ro", "readOnly": true}, {"name": "answers", "mountPath": "/rw"},
        {"name": "host", "mountPath": "/sub", "subPath": "inner"},
    ]);
    let answers = node.space().base().join("answers");
    std::fs::create_dir_all(&answers).unwrap();
    std::os::unix::fs::chown(&answers, Some(1000), Some(1000)).unwrap();
    node.add(
        "volumes",
        &json!({
            "restartPolicy": "Never", "securityContext": {"fsGroup": 4321}, "containers": [main],
            "volumes": [
                {"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
                {"name": "host", "hostPath": {"path": dir, "type": "Directory"}},
                {"name": "answers", "hostPath": {"path": answers}},
            ],
        }),
    );
    let state = node.wait_ended("volumes", "main");
    assert_eq!(state["exitCode"], 0, "{state}");
    assert_eq!(state["message"], "hello\nrefused\ntmpfs\n1000 4321\n4321\n1000 4321\n");
    assert_eq!(std::fs::read_to_string(answers.join("answer")).unwrap(), "from the pod\n");
}

/// Images as volumes (KEP-4639): whole and below a sub-path, read-only, pulled by the kubelet; and a sub-path that is not there.
pub fn image_volumes(node: &Standalone) {
    let script = "exec 2>&1 > /dev/termination-log
        test -x /whole/web && echo program
        head -n 1 /etc-of-image/passwd
        touch /whole/new 2>/dev/null && echo written || echo refused
        grep -c ' /whole ' /proc/self/mountinfo";
    let mount = |sub: &str| json!([{"name": "web", "mountPath": "/whole"}, {"name": "tools", "mountPath": "/etc-of-image", "subPath": sub}]);
    let volumes = json!([
        {"name": "web", "image": {"reference": images::WEB, "pullPolicy": "Always"}},
        {"name": "tools", "image": {"reference": images::BUSYBOX}},
    ]);
    let mut main = shell("main", script);
    main["volumeMounts"] = mount("etc");
    node.add("images", &json!({"restartPolicy": "Never", "containers": [main], "volumes": volumes}));
    let state = node.wait_ended("images", "main");
    assert_eq!(state["exitCode"], 0, "{state}");
    assert_eq!(state["message"], "program\nroot:x:0:0:root:/root:/bin/sh\nrefused\n1\n");
    let mut lost = shell("main", "true");
    lost["volumeMounts"] = mount("not/there");
    node.add("images-lost", &json!({"restartPolicy": "Never", "containers": [lost], "volumes": volumes}));
    let waiting = |pod: &Value| container(pod, "main")["state"]["waiting"].clone();
    let pod = node.wait_pod("images-lost", "refused", |pod| {
        waiting(pod)["message"].as_str().is_some_and(|m| m.contains("not/there"))
    });
    assert_eq!(waiting(&pod)["reason"], "CreateContainerError", "{}", waiting(&pod));
    // By the words that the message begins with, the kubelet knows what kind of failure it is.
    let (_, metrics) = http::get(node.space(), kubelet::READ_ONLY, "/metrics").unwrap();
    let counted = metrics.lines().find_map(|line| line.strip_prefix("kubelet_image_volume_mounted_errors_total "));
    assert!(counted.is_some_and(|count| count.parse::<f64>().unwrap() >= 1.0), "{counted:?}");
    ["images", "images-lost"].iter().for_each(|name| node.remove(name));
}

/// The kubelet moves full logs away and compresses them; no line is lost, doubled or out of order.
pub fn log_rotation(node: &Standalone) {
    const LINES: u32 = 3000;
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo \"line $i\"; [ $((i % 300)) = 0 ] && sleep 1; done; sleep 3600";
    node.add("writer", &json!({"containers": [shell("main", script)]}));
    let pod = node.wait_ready("writer");
    let uid = pod["metadata"]["annotations"]["kubernetes.io/config.hash"].as_str().unwrap();
    let dir = node.space().pod_logs().join(format!("default_writer-node_{uid}/main"));
    // A file that is moved or compressed while it is read is there twice, or not at all: the next look sees it whole.
    node.wait("all lines are in the logs, over several files, once and in order", || {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for entry in std::fs::read_dir(&dir).map_err(|e| e.to_string())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, read_log(&entry.path()));
        }
        let compressed = files.keys().filter(|name| name.ends_with(".gz")).count();
        // `0.log` is the newest; rotated ones carry their time and sort by it.
        let (newest, older): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| *name == "0.log");
        let text: String = older.iter().chain(&newest).map(|(_, text)| text.as_str()).collect();
        let number = |line: &str| line.rsplit_once("line ").and_then(|(_, number)| number.parse::<u32>().ok());
        let numbers: Vec<_> = text.lines().map(number).collect();
        let first = numbers.iter().zip(1..).find(|(found, n)| **found != Some(*n));
        let whole = first.is_none() && numbers.len() == LINES as usize;
        let told =
            || format!("{} lines, the first that is another one {first:?}, over {:?}", numbers.len(), files.keys());
        if whole && compressed >= 1 && files.len() >= 3 { Ok(()) } else { Err(told()) }
    });
    node.remove("writer");
}

fn read_log(path: &std::path::Path) -> String {
    if path.extension().is_some_and(|e| e == "gz") {
        let output = Command::new("gzip").arg("-dc").arg(path).output().unwrap();
        return String::from_utf8_lossy(&output.stdout).into_owned();
    }
    std::fs::read_to_string(path).unwrap_or_default()
}
