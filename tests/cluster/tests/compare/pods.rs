//! The pods that the calls ask about: the same on both clusters. Must not: name a runtime.
use berth_cluster_tests::cluster::{Cluster, Namespace, pod};
use berth_cluster_tests::images;
use serde_json::{Value, json};

/// Their namespace.
const NAMESPACE: &str = "compare";

/// Prints what a program can see of its container, in a form without accidents.
const LOOK: &str = r#"
echo == user; id
echo == directory; pwd
echo == environment; env | sort
echo == names; hostname; cat /etc/hostname; grep -v '^#' /etc/hosts; cat /etc/resolv.conf
echo == status; grep -E '^(Cap|NoNewPrivs|Seccomp:|Umask|Uid|Gid|Groups)' /proc/self/status
echo == limits; ulimit -n; ulimit -u; ulimit -c
echo == oom; cat /proc/self/oom_score_adj
echo == mounts; awk '{for (i = 7; i <= NF; i++) if ($i == "-") {print $5, $6, $(i+1); break}}' /proc/self/mountinfo | sort
echo == devices; ls -ln /dev | sed 1d | tr -s ' ' | cut -d' ' -f1,3-6,9- | sort
echo == groups; sed 's/[0-9a-f-]\{30,\}/ID/g; s/berth-cl-[0-9a-f]*n[0-9]*/NODE/g' /proc/self/cgroup | sort
echo == masked; for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/scsi /sys/firmware /proc/acpi; do
  if test -d $f; then echo $f directory with $(ls $f | wc -l); elif test -c $f; then echo $f device; elif test -e $f; then echo $f file; else echo $f absent; fi; done
echo == writable; for f in /proc/sys/kernel/domainname /sys/fs/cgroup /proc/sysrq-trigger /etc/hosts /etc/resolv.conf /etc/hostname /dev/shm; do
  test -w $f && echo $f yes || echo $f no; done
echo == processes; ps | wc -l
"#;

fn shell(script: &str) -> Value {
    json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", script]}]})
}

fn with(mut spec: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut spec["containers"][0]);
    spec
}

/// Name, spec, and the phase or waiting reason in which it comes to rest.
fn all() -> Vec<(&'static str, Value, &'static str)> {
    let seccomp = json!({"type": "Localhost", "localhostProfile": "none.json"});
    let mut strict = json!({"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    strict["seccompProfile"] = json!({"type": "RuntimeDefault"});
    let fails = |image: &str| with(shell("true"), |c| c["image"] = image.into());
    vec![
        ("look", shell(LOOK), "Succeeded"),
        ("look-strict", with(shell(LOOK), |c| c["securityContext"] = strict), "Succeeded"),
        ("look-privileged", with(shell(LOOK), |c| c["securityContext"] = json!({"privileged": true})), "Succeeded"),
        ("sleeper", shell("echo started; sleep 3600"), "Running"),
        (
            "web",
            json!({"containers": [{"name": "main", "image": images::WEB}], "terminationGracePeriodSeconds": 1}),
            "Running",
        ),
        ("talker", shell("echo out; sleep 0.3; echo err >&2; sleep 0.3; printf 'no newline'"), "Succeeded"),
        ("failing", shell("echo last words > /dev/termination-log; exit 3"), "Failed"),
        ("killed", shell("kill -SEGV $$; sleep 1; kill -KILL $$; exit 9"), "Failed"),
        (
            "hungry",
            with(
                json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": images::WEB, "args": ["alloc", "200"]}]}),
                |c| c["resources"] = json!({"limits": {"memory": "32Mi"}}),
            ),
            "Failed",
        ),
        ("no-program", with(shell("true"), |c| c["command"] = json!(["/no/such/program"])), "Failed"),
        ("no-directory", with(shell("pwd"), |c| c["workingDir"] = "/made/for/it".into()), "Succeeded"),
        ("no-image", fails(images::MISSING), "ImagePullBackOff"),
        ("no-registry", fails("127.0.0.1:9/web:v1"), "ImagePullBackOff"),
        ("no-user", fails(images::UNKNOWN_USER), "CreateContainerError"),
        (
            "no-profile",
            with(shell("true"), |c| c["securityContext"] = json!({"seccompProfile": seccomp})),
            "CreateContainerError",
        ),
    ]
}

/// Makes them all, and waits until each has come to rest.
pub fn make(cluster: &Cluster) -> Namespace<'_> {
    let namespace = cluster.namespace(NAMESPACE);
    let pods = all();
    for (name, spec, _) in &pods {
        namespace.kubectl.apply(&pod(name, spec));
    }
    for (name, _, rest) in &pods {
        namespace.wait("pod", name, rest, |pod| {
            let status = &pod["status"];
            let waiting = status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default();
            let phase = status["phase"].as_str().unwrap_or_default();
            rest.split(" or ").any(|word| word == phase || word == waiting)
        });
    }
    namespace
}
