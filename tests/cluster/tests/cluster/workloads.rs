//! Workloads that controllers make, and what is done to running pods: Deployments, Services, resize, drain.
use berth_cluster_tests::cluster::{Cluster, Namespace, has_condition};
use berth_cluster_tests::space::NODE_ADDRESS;
use berth_cluster_tests::standalone::container;
use berth_cluster_tests::{cgroups, http, images, kubelet};
use serde_json::{Value, json};

/// One container of busybox that runs a script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": images::BUSYBOX, "command": ["sh", "-c", script]})
}

/// A pod of such a container, which ends when it is told to, or at once.
pub fn script(script: &str) -> Value {
    json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [shell("main", script)]})
}

/// What a pod says that runs a script to its end; the script must succeed.
pub fn output_of(namespace: &Namespace<'_>, name: &str, spec: &Value) -> String {
    namespace.kubectl.apply(&berth_cluster_tests::cluster::pod(name, spec));
    let phase = |pod: &Value| pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
    let pod = namespace.wait("pod", name, "has ended", |pod| ["Succeeded", "Failed"].contains(&&*phase(pod)));
    let log = namespace.kubectl.run(&["logs", name]);
    assert_eq!(phase(&pod), "Succeeded", "{log}\n{}", pod["status"]);
    log
}

/// Two web servers with limits and three probes.
fn web(replicas: u32) -> Value {
    let probe = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 2, "containers": [{
                    "name": "web", "image": images::WEB, "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "20m"}, "limits": {"memory": "64Mi", "cpu": "200m"}},
                    "startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe,
                }]},
            },
        },
    })
}

fn wait_available(namespace: &Namespace<'_>, replicas: u32) {
    let what = format!("{replicas} replicas are available");
    namespace.wait("deployment", "web", &what, |d| d["status"]["availableReplicas"] == replicas);
}

/// A Deployment becomes available, grows, and its pods have addresses of their own.
pub fn deployment(cluster: &Cluster) {
    let namespace = cluster.namespace("deployment");
    namespace.kubectl.apply(&web(2));
    wait_available(&namespace, 2);
    namespace.kubectl.run(&["scale", "deployment", "web", "--replicas=3"]);
    wait_available(&namespace, 3);
    let pods = namespace.kubectl.json(&["get", "pods", "-l", "app=web"]);
    let mut addresses: Vec<&str> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["status"]["podIP"].as_str().unwrap()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "{addresses:?}");
}

/// A Service by its ClusterIP from a pod, by its port of the node, and from the very pod that is behind it.
pub fn services(cluster: &Cluster) {
    let namespace = cluster.namespace("services");
    namespace.kubectl.apply(&web(2));
    let service = |name: &str, app: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "selector": {"app": app}, "ports": [{"port": 8000, "targetPort": 80}]}})
    };
    namespace.kubectl.apply(&service("web", "web"));
    namespace.kubectl.apply(&service("self", "self"));
    wait_available(&namespace, 2);
    let web = namespace.kubectl.json(&["get", "service", "web"]);
    let address = web["spec"]["clusterIP"].as_str().unwrap();
    // kube-proxy refuses connections until it has heard of the endpoints; from then on each call is answered.
    let client = format!(
        "for i in $(seq 40); do wget -T 2 -qO /dev/null http://{address}:8000/ 2>/dev/null && break; sleep 1; done
        for i in 1 2 3 4 5 6 7 8; do wget -T 5 -qO- http://{address}:8000/ || exit 1; done"
    );
    let answers = output_of(&namespace, "client", &script(&client));
    assert_eq!(answers.matches("Hello").count(), 8, "{answers}");

    let port = web["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let answer = http::get(cluster.space(), &format!("{NODE_ADDRESS}:{port}"), "/").unwrap();
    assert_eq!(answer.0, 200, "{answer:?}");

    let own = namespace.kubectl.json(&["get", "service", "self"]);
    let own = own["spec"]["clusterIP"].as_str().unwrap();
    let script_text = format!(
        "mkdir /www; echo myself > /www/index.html; httpd -p 80 -h /www
        for i in $(seq 40); do wget -T 2 -qO- http://{own}:8000/ 2>/dev/null && exit 0; sleep 1; done; exit 1"
    );
    assert_eq!(output_of(&namespace, "self", &script(&script_text)), "myself\n");
}

/// CPU and memory grow and shrink in place, without a restart, down to the kernel.
pub fn resize(cluster: &Cluster) {
    let namespace = cluster.namespace("resize");
    let resources = |cpu: &str, memory: &str| {
        let limits = json!({"cpu": cpu, "memory": memory});
        json!({"requests": limits, "limits": limits})
    };
    let mut spec = script("sleep 3600");
    spec["containers"][0]["resources"] = resources("100m", "64Mi");
    let pod = namespace.pod("main", &spec);
    let id = container(&pod, "main")["containerID"].as_str().unwrap().split_once("://").unwrap().1.to_owned();
    for (cpu, memory, quota, bytes) in [("200m", "96Mi", "20000", 96u64 << 20), ("50m", "48Mi", "5000", 48 << 20)] {
        let patch = json!({"spec": {"containers": [{"name": "main", "resources": resources(cpu, memory)}]}});
        namespace.kubectl.run(&["patch", "pod", "main", "--subresource", "resize", "--patch", &patch.to_string()]);
        let pod = namespace.wait("pod", "main", "resized", |pod| {
            let limits = &container(pod, "main")["resources"]["limits"];
            limits["cpu"] == cpu && limits["memory"] == memory && !has_condition(pod, "PodResizeInProgress")
        });
        assert_eq!(container(&pod, "main")["restartCount"], 0);
        let groups = cgroups::find(cluster.space().group(), &id);
        assert_eq!(cgroups::read(&groups, "cpu.cfs_quota_us"), quota);
        assert_eq!(cgroups::read(&groups, "memory.limit_in_bytes"), bytes.to_string());
    }
}

/// All pods leave the node, new ones wait, and come when it is open again.
pub fn drain(cluster: &Cluster) {
    let namespace = cluster.namespace("drain");
    namespace.kubectl.apply(&web(2));
    wait_available(&namespace, 2);
    let drained = ["drain", kubelet::NODE_NAME, "--force", "--delete-emptydir-data", "--timeout=80s"];
    namespace.kubectl.run(&drained);
    let pods = namespace.kubectl.json(&["get", "pods"]);
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["status"]["phase"], "Pending", "{pod}");
    }
    namespace.kubectl.run(&["uncordon", kubelet::NODE_NAME]);
    wait_available(&namespace, 2);
}
