//! What the cluster hands to pods: configuration, secrets, facts about themselves, tokens.
use super::workloads::{output_of, script};
use berth_cluster_tests::cluster::Cluster;
use berth_cluster_tests::programs;
use serde_json::json;

/// ConfigMap, Secret and downward API, as volumes and as environment; a changed ConfigMap reaches a running pod.
pub fn volumes(cluster: &Cluster) {
    let namespace = cluster.namespace("config");
    let kubectl = &namespace.kubectl;
    kubectl.run(&["create", "configmap", "settings", "--from-literal=color=blue"]);
    kubectl.run(&["create", "secret", "generic", "password", "--from-literal=word=s3cret"]);
    let mut spec = script(
        "cat /settings/color; echo; cat /password/word; echo; stat -L -c '%a %u' /password/word; cat /facts/labels; echo
        cat /facts/cpu; echo; echo $COLOR $WORD $NODE; test \"$ADDRESS\" = \"$(hostname -i)\" && echo same
        until grep -q red /settings/color; do sleep 0.2; done; cat /settings/color; echo",
    );
    let main = &mut spec["containers"][0];
    main["resources"] = json!({"limits": {"cpu": "300m"}});
    main["env"] = json!([
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "password", "key": "word"}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]);
    main["volumeMounts"] = json!([
        {"name": "settings", "mountPath": "/settings"}, {"name": "password", "mountPath": "/password", "readOnly": true},
        {"name": "facts", "mountPath": "/facts"},
    ]);
    let cpu = json!({"containerName": "main", "resource": "limits.cpu", "divisor": "1m"});
    spec["volumes"] = json!([
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "password", "secret": {"secretName": "password", "defaultMode": 0o400}},
        {"name": "facts", "downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}, {"path": "cpu", "resourceFieldRef": cpu},
        ]}},
    ]);
    kubectl.apply(&berth_cluster_tests::cluster::pod("reader", &spec));
    namespace.wait("pod", "reader", "running", |pod| pod["status"]["phase"] == "Running");
    kubectl.run(&["patch", "configmap", "settings", "--patch", r#"{"data":{"color":"red"}}"#]);
    let log = output_of(&namespace, "reader", &spec);
    assert_eq!(log, "blue\ns3cret\n400 0\napp=\"reader\"\n300\nblue s3cret node\nsame\nred\n");
}

/// A pod's own token: kubectl in a pod, configured by nothing but what every pod gets, is known to the API server.
pub fn token(cluster: &Cluster) {
    let namespace = cluster.namespace("token");
    let mut spec = script(
        "/kubernetes/kubectl auth whoami -o jsonpath='{.status.userInfo.username}'; echo
        tr '.' '\n' < /bound/token | wc -l",
    );
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "kubernetes", "mountPath": "/kubernetes", "readOnly": true}, {"name": "bound", "mountPath": "/bound"},
    ]);
    let token = json!({"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 600}});
    let dir = programs::path_from_env("BERTH_KUBERNETES");
    spec["volumes"] = json!([
        {"name": "kubernetes", "hostPath": {"path": dir, "type": "Directory"}},
        {"name": "bound", "projected": {"sources": [token]}},
    ]);
    // A token has three parts, and so two dots and no newline at its end.
    assert_eq!(output_of(&namespace, "whoami", &spec), "system:serviceaccount:token:default\n2\n");
}
