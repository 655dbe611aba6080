//! A chart of one Deployment and one ConfigMap: installed, upgraded, rolled back, removed by the real helm.
use berth_cluster_tests::cluster::{Cluster, Namespace};
use berth_cluster_tests::{images, programs};
use std::fs;
use std::path::Path;

fn write_chart(dir: &Path) {
    fs::create_dir_all(dir.join("templates")).unwrap();
    fs::write(dir.join("Chart.yaml"), "apiVersion: v2\nname: greeter\nversion: 0.1.0\n").unwrap();
    fs::write(dir.join("values.yaml"), format!("replicas: 1\ngreeting: hello\nimage: {}\n", images::BUSYBOX)).unwrap();
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\ndata:\n  index.html: \"{{ .Values.greeting }}\"\n";
    fs::write(dir.join("templates/settings.yaml"), settings).unwrap();
    let deployment = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: greeter}}
  template:
    metadata:
      labels: {app: greeter}
      annotations: {settings: {{ .Values.greeting | sha256sum }}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: {{ .Values.image }}
          command: [httpd, -f, -p, "80", -h, /www]
          readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
          volumeMounts: [{name: www, mountPath: /www}]
      volumes:
        - name: www
          configMap: {name: {{ .Release.Name }}}
"#;
    fs::write(dir.join("templates/deployment.yaml"), deployment).unwrap();
}

fn helm(namespace: &Namespace<'_>, args: &[&str]) -> String {
    let space = namespace.cluster.space();
    let mut command = space.command("tools", programs::helm());
    command.arg("--kubeconfig").arg(namespace.kubectl.kubeconfig());
    command.args(["--namespace", namespace.kubectl.namespace()]).args(args);
    for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
        command.env(name, space.base().join("helm").join(dir));
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "helm {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Every step waits until the workload is as it should be.
pub fn release(cluster: &Cluster) {
    let namespace = cluster.namespace("helm");
    let chart = cluster.space().base().join("chart");
    write_chart(&chart);
    let chart = chart.display().to_string();
    let deployed = |replicas: u32, greeting: &str| {
        // Helm waits for the pods of the new template; those of the one before may be about to go.
        namespace.wait("deployment", "greet", "is so large", |d| d["status"]["availableReplicas"] == replicas);
        let settings = namespace.kubectl.json(&["get", "configmap", "greet"]);
        assert_eq!(settings["data"]["index.html"], greeting);
    };
    helm(&namespace, &["install", "greet", &chart, "--wait", "--timeout=90s"]);
    deployed(1, "hello");
    let more = ["--set", "replicas=2,greeting=goodbye", "--wait", "--timeout=90s"];
    helm(&namespace, &[&["upgrade", "greet", &chart], &more[..]].concat());
    deployed(2, "goodbye");
    helm(&namespace, &["rollback", "greet", "1", "--wait", "--timeout=90s"]);
    deployed(1, "hello");
    helm(&namespace, &["uninstall", "greet", "--wait", "--timeout=90s"]);
    namespace.cluster.wait("the pods are gone", || {
        let pods = namespace.kubectl.json(&["get", "pods"]);
        if pods["items"].as_array().unwrap().is_empty() { Ok(()) } else { Err(pods["items"].to_string()) }
    });
}
