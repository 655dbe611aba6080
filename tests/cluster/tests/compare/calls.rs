//! The calls that are compared, each with the name that stands in the page of differences. Must not: wait for anything; the pods are at rest.
use berth_cluster_tests::http;
use berth_cluster_tests::kubectl::{Kubectl, Transport};
use std::fs;
use std::io::{Read, Write};

/// One call: what it answers is compared.
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// Calls kubectl.
    pub run: fn(&Kubectl<'_>) -> String,
}

/// All.
pub const ALL: &[Call] = &[
    Call {
        name: "get-pods",
        run: |k| {
            answer(
                k,
                &[
                    "get",
                    "pods",
                    "-o",
                    "custom-columns=NAME:.metadata.name,PHASE:.status.phase,\
        READY:.status.containerStatuses[0].ready,RESTARTS:.status.containerStatuses[0].restartCount,QOS:.status.qosClass",
                ],
            )
        },
    },
    Call {
        name: "ended",
        run: |k| {
            answer(
                k,
                &[
                    "get",
                    "pods",
                    "-o",
                    "custom-columns=NAME:.metadata.name,\
        CODE:.status.containerStatuses[0].state.terminated.exitCode,SIGNAL:.status.containerStatuses[0].state.terminated.signal,\
        REASON:.status.containerStatuses[0].state.terminated.reason",
                ],
            )
        },
    },
    Call {
        name: "waiting",
        run: |k| {
            answer(
                k,
                &[
                    "get",
                    "pods",
                    "-o",
                    "custom-columns=NAME:.metadata.name,\
        REASON:.status.containerStatuses[0].state.waiting.reason",
                ],
            )
        },
    },
    Call { name: "termination-message", run: |k| message(k, "failing") },
    Call { name: "message-no-program", run: |k| message(k, "no-program") },
    Call { name: "message-no-image", run: |k| message(k, "no-image") },
    Call { name: "message-no-registry", run: |k| message(k, "no-registry") },
    Call { name: "message-no-user", run: |k| message(k, "no-user") },
    Call { name: "message-no-profile", run: |k| message(k, "no-profile") },
    Call {
        name: "container-status",
        run: |k| {
            answer(
                k,
                &[
                    "get",
                    "pod",
                    "web",
                    "-o",
                    "jsonpath={.status.containerStatuses[0].image}\
        {'\\n'}{.status.containerStatuses[0].imageID}{'\\n'}{.status.containerStatuses[0].user}{'\\n'}\
        {.status.containerStatuses[0].resources}{'\\n'}{.status.containerStatuses[0].allocatedResources}",
                ],
            )
        },
    },
    Call {
        name: "node-info",
        run: |k| answer(k, &["get", "node", "node", "-o", "jsonpath={.status.nodeInfo.containerRuntimeVersion}"]),
    },
    Call {
        name: "node-features",
        run: |k| {
            answer(k, &["get", "node", "node", "-o", "jsonpath={.status.features}{'\\n'}{.status.runtimeHandlers}"])
        },
    },
    Call { name: "logs", run: |k| answer(k, &["logs", "talker"]) },
    Call { name: "logs-tail", run: |k| answer(k, &["logs", "talker", "--tail=1"]) },
    Call { name: "inside", run: |k| answer(k, &["logs", "look"]) },
    Call { name: "inside-strict", run: |k| answer(k, &["logs", "look-strict"]) },
    Call { name: "inside-privileged", run: |k| answer(k, &["logs", "look-privileged"]) },
    Call {
        name: "exec",
        run: |k| answer(k, &["exec", "sleeper", "--", "sh", "-c", "echo out; echo err >&2; pwd; id; exit 7"]),
    },
    Call {
        name: "exec-spdy",
        run: |k| {
            answer(&k.over(Transport::Spdy), &["exec", "sleeper", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])
        },
    },
    Call { name: "exec-environment", run: |k| answer(k, &["exec", "sleeper", "--", "sh", "-c", "env | sort"]) },
    Call {
        name: "exec-status",
        run: |k| {
            answer(
                k,
                &[
                    "exec",
                    "sleeper",
                    "--",
                    "grep",
                    "-E",
                    "^(Cap|NoNewPrivs|Seccomp:|Umask|Groups)",
                    "/proc/self/status",
                ],
            )
        },
    },
    Call { name: "exec-no-program", run: |k| answer(k, &["exec", "sleeper", "--", "/no/such/program"]) },
    Call { name: "exec-no-permission", run: |k| answer(k, &["exec", "sleeper", "--", "/etc/passwd"]) },
    Call { name: "exec-ended", run: |k| answer(k, &["exec", "talker", "--", "true"]) },
    Call { name: "exec-killed", run: |k| answer(k, &["exec", "sleeper", "--", "sh", "-c", "kill -KILL $$"]) },
    Call {
        name: "exec-stdin",
        run: |k| {
            let ran = k.try_with(&["exec", "-i", "sleeper", "--", "cat"], b"one\ntwo");
            told(&ran)
        },
    },
    Call {
        name: "exec-terminal",
        run: |k| answer(k, &["exec", "-t", "sleeper", "--", "sh", "-c", "test -t 1 && echo terminal; echo $TERM"]),
    },
    Call { name: "attach-ended", run: |k| answer(k, &["attach", "talker"]) },
    Call { name: "port-forward", run: |k| forward(k, "80") },
    Call { name: "port-forward-closed", run: |k| forward(k, "81") },
    Call { name: "copy", run: copy },
];

fn answer(kubectl: &Kubectl<'_>, args: &[&str]) -> String {
    told(&kubectl.try_run(args))
}

fn told(ran: &berth_cluster_tests::kubectl::Ran) -> String {
    format!("code {}\n{}\n{}", ran.code, ran.text(), ran.err)
}

/// The message of the container's state, waiting or terminated.
fn message(kubectl: &Kubectl<'_>, pod: &str) -> String {
    let state = "{.status.containerStatuses[0].state";
    let path = format!("jsonpath={state}.waiting.message}}{state}.terminated.message}}");
    let text = answer(kubectl, &["get", "pod", pod, "-o", &path]);
    // Between two attempts a pull says only that it waits, with the cause behind it.
    match text.split_once("Back-off pulling image") {
        Some((before, rest)) => format!("{before}{}", rest.split_once("\": ").map_or(rest, |(_, cause)| cause)),
        None => text,
    }
}

/// One page through a forward, and what kubectl says of it.
fn forward(kubectl: &Kubectl<'_>, port: &str) -> String {
    let mut forward = kubectl.spawn(&["port-forward", "pod/web", &format!(":{port}")]);
    let line = forward.read_until(&format!(" -> {port}\n"));
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    let page = http::get(kubectl.space(), address, "/").map_err(|e| e.kind());
    std::thread::sleep(std::time::Duration::from_millis(300));
    let _ = forward.child.kill();
    let mut err = String::new();
    forward.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let own = address.rsplit_once(':').unwrap().1;
    format!("{page:?}\n{}", err.replace(own, "PORT"))
}

fn copy(kubectl: &Kubectl<'_>) -> String {
    let dir = kubectl.space().base().join("compare-copy");
    fs::create_dir_all(&dir).unwrap();
    fs::File::create(dir.join("there")).unwrap().write_all(&vec![b'x'; 1 << 20]).unwrap();
    let there = answer(kubectl, &["cp", &dir.join("there").display().to_string(), "sleeper:/tmp/file"]);
    let back = answer(kubectl, &["cp", "sleeper:/tmp/file", &dir.join("back").display().to_string()]);
    format!("{there}{back}{:?}", fs::read(dir.join("back")).map(|bytes| bytes.len()))
}
