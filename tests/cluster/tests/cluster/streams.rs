//! exec, attach, port-forward, cp and debug, each over WebSocket and over SPDY.
use super::workloads::{script, shell};
use berth_cluster_tests::cluster::{Cluster, Namespace};
use berth_cluster_tests::images;
use berth_cluster_tests::kubectl::{Kubectl, Transport};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

/// What exec reads in megabytes.
const STDIN_MIB: usize = 8;
/// What cp copies in megabytes.
const FILE_MIB: usize = 20;
const CONNECTIONS: usize = 10;

const BOTH: [(Transport, &str); 2] = [(Transport::WebSocket, "websocket"), (Transport::Spdy, "spdy")];

/// Bytes in which a lost, doubled or moved block shows.
fn bytes(mib: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut words = Vec::with_capacity(mib << 20);
    while words.len() < mib << 20 {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words.extend_from_slice(&state.to_le_bytes());
    }
    words
}

fn sleeper(namespace: &Namespace<'_>) {
    namespace.pod("main", &script("echo started; sleep 3600"));
}

fn each(namespace: &Namespace<'_>, body: impl Fn(&Kubectl<'_>, &str)) {
    for (transport, name) in BOTH {
        body(&namespace.kubectl.over(transport), name);
    }
}

/// Output, errors and exit codes; megabytes through stdin.
pub fn exec(cluster: &Cluster) {
    let namespace = cluster.namespace("exec");
    sleeper(&namespace);
    let input = bytes(STDIN_MIB);
    let digest = berth_test_registry::sha256(&input);
    let digest = digest.as_str().split_once(':').unwrap().1;
    each(&namespace, |kubectl, name| {
        let ran = kubectl.try_run(&["exec", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((ran.code, ran.text().as_str()), (7, "out\n"), "{name}: {ran:?}");
        assert!(ran.err.starts_with("err\n"), "{name}: {}", ran.err);
        let ran = kubectl.try_with(&["exec", "-i", "main", "--", "sha256sum"], &input);
        assert_eq!((ran.code, ran.text()), (0, format!("{digest}  -\n")), "{name}: {}", ran.err);
        let ran = kubectl.try_run(&["exec", "main", "--", "seq", "200000"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.err);
        assert_eq!(ran.out.len(), 1_288_895, "{name}: seq 200000");
        let ran = kubectl.try_run(&["exec", "main", "--", "/no/such/program"]);
        assert_ne!(ran.code, 0, "{name}");
        assert!(ran.err.contains("/no/such/program"), "{name}: {}", ran.err);
        let ran = kubectl.try_run(&["exec", "main", "-c", "other", "--", "true"]);
        assert!(ran.code != 0 && ran.err.contains("other"), "{name}: {ran:?}");
    });
}

/// A terminal: it is one, it has the size of the user's, and its exit code comes back.
pub fn terminal(cluster: &Cluster) {
    let namespace = cluster.namespace("terminal");
    sleeper(&namespace);
    each(&namespace, |kubectl, name| {
        // The size comes by a stream of its own, some moments later.
        let inner = "test -t 0 && test -t 1 && for i in $(seq 100); do \
            size=$(stty size); echo $size; test \"$size\" = '33 77' && break; sleep 0.3; done; exit 5";
        let command = kubectl.command(&["exec", "-it", "main", "--", "sh", "-c", inner]);
        let (out, code) = on_a_terminal(&command);
        assert!(out.contains("33 77"), "{name}: {out}");
        assert_eq!(code, 5, "{name}: {out}");
    });
}

/// Runs the command under script(1), which gives it a terminal of 33 rows and 77 columns.
fn on_a_terminal(command: &std::process::Command) -> (String, i32) {
    let quote = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    let line = format!("stty rows 33 cols 77; exec {}", words.join(" "));
    let mut wrapped = std::process::Command::new("script");
    wrapped.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = wrapped.output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code().unwrap_or(-1))
}

/// What is typed reaches the container, and what it says comes back; it sees the end of its input.
pub fn attach(cluster: &Cluster) {
    let namespace = cluster.namespace("attach");
    for (transport, name) in BOTH {
        let mut spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [shell("main", "while read line; do echo heard $line; done; echo end")]});
        spec["containers"][0]["stdin"] = true.into();
        spec["containers"][0]["stdinOnce"] = true.into();
        namespace.pod(name, &spec);
        let mut attached = namespace.kubectl.over(transport).spawn(&["attach", "-i", name]);
        let mut stdin = attached.child.stdin.take().unwrap();
        stdin.write_all(b"hello\n").unwrap();
        attached.read_until("heard hello\n");
        stdin.write_all(b"again\n").unwrap();
        attached.read_until("heard again\n");
        drop(stdin);
        attached.read_until("end\n");
        assert!(attached.child.wait().unwrap().success(), "{name}");
        namespace.wait("pod", name, "has ended", |pod| pod["status"]["phase"] == "Succeeded");
        assert_eq!(namespace.kubectl.run(&["logs", name]), "heard hello\nheard again\nend\n");
    }
}

/// Ten connections at once through one forward, and a port where nobody listens.
pub fn port_forward(cluster: &Cluster) {
    let namespace = cluster.namespace("port-forward");
    namespace.pod("web", &json!({"containers": [{"name": "web", "image": images::WEB}]}));
    each(&namespace, |kubectl, name| {
        let mut forward = kubectl.spawn(&["port-forward", "pod/web", ":80"]);
        let line = forward.read_until(" -> 80\n");
        let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap().to_owned();
        let answers = std::thread::scope(|scope| {
            let get = || berth_cluster_tests::http::get(cluster.space(), &address, "/");
            let running: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(get)).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for answer in answers {
            assert_eq!(answer.unwrap_or_else(|e| panic!("{name}: {e}")).0, 200, "{name}");
        }
        let mut forward = kubectl.spawn(&["port-forward", "pod/web", ":81"]);
        let line = forward.read_until(" -> 81\n");
        let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
        let answer = berth_cluster_tests::http::get(cluster.space(), address, "/");
        assert!(answer.is_err(), "{name}: nobody listens: {answer:?}");
        let mut err = String::new();
        let _ = forward.child.kill();
        forward.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(err.contains("refused"), "{name}: {err}");
    });
}

/// A large file there and back is the same file.
pub fn copy(cluster: &Cluster) {
    let namespace = cluster.namespace("copy");
    sleeper(&namespace);
    let dir = cluster.space().base().join("copies");
    fs::create_dir_all(&dir).unwrap();
    let content = bytes(FILE_MIB);
    fs::write(dir.join("there"), &content).unwrap();
    each(&namespace, |kubectl, name| {
        let (there, back) = (dir.join("there"), dir.join(format!("back-{name}")));
        kubectl.run(&["cp", &there.display().to_string(), &format!("main:/tmp/{name}")]);
        kubectl.run(&["cp", &format!("main:/tmp/{name}"), &back.display().to_string()]);
        assert!(fs::read(&back).unwrap() == content, "{name}: the file that came back is another one");
    });
}

/// An ephemeral container sees the processes of the one that it looks at.
pub fn debug(cluster: &Cluster) {
    let namespace = cluster.namespace("debug");
    sleeper(&namespace);
    each(&namespace, |kubectl, name| {
        let image = format!("--image={}", images::BUSYBOX);
        let container = format!("--container={name}");
        let args = ["debug", "main", &image, "--target=main", &container, "--attach=false", "--"];
        kubectl.run(
            &[&args[..], &["sh", "-c", "ps | grep -v grep | grep 'sleep 3600' && echo seen; sleep 3600"]].concat(),
        );
        namespace.cluster.wait("the ephemeral container has looked", || {
            let log = kubectl.try_run(&["logs", "main", "-c", name]).text();
            if log.contains("seen") { Ok(()) } else { Err(log) }
        });
        let ran = kubectl.try_run(&["exec", "main", "-c", name, "--", "cat", "/proc/1/cmdline"]);
        assert!(ran.text().replace('\0', " ").contains("sleep 3600"), "{name}: {ran:?}");
    });
}
