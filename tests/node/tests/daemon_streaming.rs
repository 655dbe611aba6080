//! Exec, attach and port-forward by the real crictl, over both transports, with daemons that are killed and clients that vanish.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::{Node, crictl, eventually, host, is_alive, page, pod, shell};
use berth_proto::cri::{ExecRequest, PortForwardRequest};
use berth_sys::pty;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use tonic::Code;

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// A node with a container that runs this script, has a stdin, and is in a pod of its own.
async fn node_with(script: &str) -> (Node, String, String) {
    let node = Node::with_tools().await;
    let (pod, container) = launch(&node, "subject", script, |_| ()).await;
    (node, pod, container)
}

async fn launch(
    node: &Node,
    name: &str,
    script: &str,
    change: impl FnOnce(&mut berth_proto::cri::ContainerConfig),
) -> (String, String) {
    let sandbox = pod(node, name);
    let pod = node.cri().run(&sandbox).await;
    let mut config = shell(node, name, script);
    change(&mut config);
    let container = node.cri().launch(&pod, &config, &sandbox).await;
    (pod, container)
}

fn piped(node: &Node, args: &[&str]) -> Child {
    let mut command = crictl::command(node, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a client without blocking the runtime, and for at most a minute.
async fn end_of(child: Child) -> crictl::Ran {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    crictl::ended(tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("crictl does not end").unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_tells_streams_and_codes() {
    let (node, _, container) = node_with("sleep 1000").await;
    for transport in TRANSPORTS {
        let exec = |args: &[&str]| crictl::try_run(&node, &[&["exec", "-r", transport, &container], args].concat());
        let ran = exec(&["sh", "-c", "echo out; echo err >&2"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "out\n"), "{ran:?}");
        assert!(ran.err.lines().any(|line| line == "err"), "{ran:?}");
        let ran = exec(&["sh", "-c", "echo out; exit 3"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), "out\n"));
        assert!(ran.err.contains("command terminated with exit code 3"), "{ran:?}");
        let ran = exec(&["sh", "-c", "kill -9 $$"]);
        assert!(ran.err.contains("command terminated with exit code 137"), "{ran:?}");
        let ran = exec(&["/no/such/program"]);
        assert!(ran.code != Some(0) && ran.err.contains("/no/such/program"), "{ran:?}");
        let ran = exec(&["sh", "-c", "head -c 20000000 /dev/zero"]);
        assert_eq!((ran.code, ran.out.len()), (Some(0), 20_000_000));
        // A child in the background holds the pipes, and nobody waits for it.
        let ran = exec(&["sh", "-c", "sleep 5 & echo done"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "done\n"));
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_through_stdin() {
    let (node, _, container) = node_with("sleep 1000").await;
    let path = node.base().join("noise");
    let mut noise = vec![0; 50_000_000];
    File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    std::fs::write(&path, &noise).unwrap();
    let expected = host("sha256sum", &[path.to_str().unwrap()]);
    for transport in TRANSPORTS {
        let args = ["exec", "-i", "-r", transport, &container, "/bin/busybox", "sha256sum"];
        let mut command = crictl::command(&node, &args);
        let child = command.stdin(File::open(&path).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran = end_of(child.spawn().unwrap()).await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ran.out.split_whitespace().next(), expected.split_whitespace().next(), "{transport}");
    }
    std::fs::remove_file(&path).unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_the_client_s_size() {
    let (node, _, container) = node_with("sleep 1000").await;
    for transport in TRANSPORTS {
        let (master, slave) = pty::open(Path::new("/dev/ptmx")).unwrap();
        pty::set_size(master.as_fd(), 33, 111).unwrap();
        let script = "/bin/busybox stty size; read word; echo got $word; exit 5";
        let mut command = crictl::command(&node, &["exec", "-it", "-r", transport, &container, "sh", "-c", script]);
        command.stdin(slave.try_clone().unwrap()).stdout(slave).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // The last copies of the client's end must be the client's.
        drop(command);
        let mut terminal = File::from(master);
        let mut typist = terminal.try_clone().unwrap();
        let heard = tokio::task::spawn_blocking(move || {
            let (mut heard, mut chunk) = (Vec::new(), [0; 1024]);
            // EIO is the end.
            while let Ok(n @ 1..) = terminal.read(&mut chunk) {
                heard.extend_from_slice(&chunk[..n]);
                if heard.ends_with(b"33 111\r\n") {
                    typist.write_all(b"hello\r").unwrap();
                }
            }
            String::from_utf8(heard).unwrap()
        });
        let ran = end_of(child).await;
        assert!(ran.err.contains("command terminated with exit code 5"), "{ran:?}");
        let heard = heard.await.unwrap();
        assert!(heard.starts_with("33 111\r\n") && heard.contains("got hello\r\n"), "{transport}: {heard:?}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attach_shows_output_until_the_end() {
    let node = Node::with_tools().await;
    for transport in TRANSPORTS {
        let script = "read word; echo got $word; echo bad >&2; cat > /dev/null; echo end; exit 4";
        let (_, container) = launch(&node, transport, script, |config| {
            (config.stdin, config.stdin_once) = (true, true);
        })
        .await;
        let mut child = piped(&node, &["attach", "-i", "-r", transport, &container]);
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        stdin.write_all(b"hello\n").unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "got hello\n");
        // The end of the client's stdin is the end of a stdin that is open once; then the container ends.
        drop(stdin);
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let ran = end_of(child).await;
        assert_eq!((ran.code, rest.as_str()), (Some(0), "end\n"), "{ran:?}");
        assert!(ran.err.contains("bad"), "{ran:?}");
        assert_eq!(node.cri().exited(&container).await.exit_code, 4);
    }
    let (_, container) = launch(&node, "stays", "while true; do echo tick; sleep 0.05; done", |_| ()).await;
    let mut child = piped(&node, &["attach", &container]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let pid = node.cri().pid(&container).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(is_alive(pid), "a client that goes leaves the container alone");
    node.finish().await;
}

/// Waits until somebody listens on the port in the container (proc_pid_net(5)): a client that was refused once forwards no more.
async fn listens(node: &Node, container: &str, port: u16) {
    let (pid, local) = (node.cri().pid(container).await, format!(":{port:04X}"));
    eventually("somebody listens", async || {
        let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap());
        let listening = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|at| at.ends_with(&local)) && fields.get(3) == Some(&"0A")
        };
        tables.iter().flat_map(|table| table.lines()).any(listening).then_some(())
    })
    .await;
}

/// Starts to forward; gives the address on this side.
fn forward(node: &Node, pod: &str, transport: &str, port: u16) -> (Child, String) {
    let mut child = piped(node, &["port-forward", "-r", transport, pod, &format!(":{port}")]);
    let mut line = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut line).unwrap();
    let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("crictl says {line:?}")).to_owned();
    // It goes on to write there.
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (child, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_are_forwarded_to_localhost() {
    let node = Node::with_tools().await;
    let sandbox = pod(&node, "web");
    let web = node.cri().run(&sandbox).await;
    let container = node.cri().launch(&web, &daemon::container(&node, "web", &["/web"]), &sandbox).await;
    listens(&node, &container, 80).await;
    for transport in TRANSPORTS {
        let (mut child, address) = forward(&node, &web, transport, 80);
        let hello =
            eventually("the page comes", async || page(&address, "/").await.filter(|text| !text.is_empty())).await;
        assert_eq!(hello, "Hello from web, a pod run by Berth.\n");
        let pages = (0..50).map(|_| {
            let address = address.clone();
            tokio::spawn(async move { page(&address, "/").await })
        });
        for page in pages.collect::<Vec<_>>() {
            assert_eq!(page.await.unwrap().as_deref(), Some(hello.as_str()), "{transport}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // A port that nobody listens on.
        let (child, address) = forward(&node, &web, transport, 81);
        let _ = page(&address, "/").await;
        let ran = end_of(child).await;
        assert!(ran.err.contains("error forwarding port 81 to pod") && ran.err.contains("refused"), "{ran:?}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_the_daemon() {
    let mut node = Node::with_tools().await;
    // It says again and again that it waits, so that whoever is attached is seen to be.
    let script = "while sleep 0.1; do echo waiting; done & /web > /dev/null & read word; echo got $word; exit 4";
    let (pod_id, container) = launch(&node, "web", script, |config| {
        (config.stdin, config.stdin_once) = (true, true);
    })
    .await;
    let script = "echo ready; read word; echo got $word; exit 7";
    let mut sessions = Vec::new();
    for transport in TRANSPORTS {
        let mut child = piped(&node, &["exec", "-i", "-r", transport, &container, "sh", "-c", script]);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        sessions.push((child, lines));
    }
    let mut attached = piped(&node, &["attach", "-i", &container]);
    listens(&node, &container, 80).await;
    let (mut forwarding, address) = forward(&node, &pod_id, "spdy", 80);
    eventually("the page comes", async || page(&address, "/").await.filter(|text| !text.is_empty())).await;
    let mut heard = BufReader::new(attached.stdout.take().unwrap());
    let mut line = String::new();
    heard.read_line(&mut line).unwrap();
    assert_eq!(line, "waiting\n");

    node.kill();
    assert!(page(&address, "/").await.unwrap().contains("Hello"), "a forwarded port goes on without the daemon");
    node.start().await;
    for (mut child, mut lines) in sessions {
        child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let ran = end_of(child).await;
        assert_eq!(rest, "got hello\n");
        assert!(ran.err.contains("command terminated with exit code 7"), "{ran:?}");
    }
    // The new daemon has a streaming process of its own.
    let ran = crictl::try_run(&node, &["exec", &container, "sh", "-c", "exit 9"]);
    assert!(ran.err.contains("exit code 9"), "{ran:?}");
    forwarding.kill().unwrap();
    forwarding.wait().unwrap();
    attached.stdin.take().unwrap().write_all(b"again\n").unwrap();
    let mut rest = String::new();
    heard.read_to_string(&mut rest).unwrap();
    let ran = end_of(attached).await;
    assert!(ran.code == Some(0) && rest.lines().any(|line| line == "got again"), "{ran:?}: {rest}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_client_vanishes_ends() {
    let (node, _, container) = node_with("sleep 1000").await;
    let before = node.cri().sh(&container, "ls -d /proc/[0-9]* | wc -l").await;
    for (transport, script) in
        [("spdy", "echo $$; exec sleep 500"), ("websocket", "trap '' HUP; echo $$; while true; do sleep 0.2; done")]
    {
        let mut child = piped(&node, &["exec", "-i", "-r", transport, &container, "sh", "-c", script]);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().to_owned();
        assert_eq!(node.cri().code(&container, &format!("kill -0 {pid}")).await.0, 0);
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the command ends", async || {
            (node.cri().code(&container, &format!("kill -0 {pid}")).await.0 != 0).then_some(())
        })
        .await;
    }
    eventually("nothing of them is left", async || {
        (node.cri().sh(&container, "ls -d /proc/[0-9]* | wc -l").await == before).then_some(())
    })
    .await;
    node.finish().await;
}

/// Commands that write without end, and clients that are killed, half of them after they have stopped reading: each command ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_with_their_clients() {
    let (node, _, container) = node_with("sleep 1000").await;
    let before = node.cri().sh(&container, "ls -d /proc/[0-9]* | wc -l").await;
    // Ends by SIGPIPE or SIGHUP; or ignores both, as a program may.
    let scripts = ["exec /bin/busybox yes FLOOD", "trap '' HUP PIPE; while true; do echo FLOOD; done 2>/dev/null"];
    let mut clients = Vec::new();
    for n in 0..40 {
        let (transport, script) = (TRANSPORTS[n % 2], scripts[n / 2 % 2]);
        let mut args = vec!["exec", "-r", transport];
        args.extend([&[][..], &["-i"], &["-it"]][n / 4 % 3]);
        let mut command = crictl::command(&node, &[&args[..], &[&container, "sh", "-c", script]].concat());
        command.stderr(Stdio::null());
        let (child, output): (Child, Box<dyn Read + Send>) = if args.contains(&"-it") {
            let (master, slave) = pty::open(Path::new("/dev/ptmx")).unwrap();
            command.stdin(slave.try_clone().unwrap()).stdout(slave);
            (command.spawn().unwrap(), Box::new(File::from(master)))
        } else {
            // This end of its input stays open.
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let output = child.stdout.take().unwrap();
            (child, Box::new(output))
        };
        drop(command);
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), "FLOOD", "{args:?}");
        // Half of them go on to read.
        let held = if n < 20 {
            std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            None
        } else {
            Some(output)
        };
        clients.push((child, held));
    }
    // Long enough for all room between the two to be full.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (child, _) in &mut clients {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let began = std::time::Instant::now();
    eventually("every command ends", async || {
        (node.cri().sh(&container, "ls -d /proc/[0-9]* | wc -l").await == before).then_some(())
    })
    .await;
    println!("all have ended {:.1} s after their clients", began.elapsed().as_secs_f64());
    drop(clients);
    node.finish().await;
}

/// The status of a request for a session.
async fn status(url: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8(head[9..].to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_few_short_lived_and_for_one_use() {
    let (node, pod, container) = node_with("sleep 1000").await;
    let mut runtime = node.cri().runtime();
    let exec = ExecRequest { container_id: container, cmd: vec!["true".into()], stdout: true, ..Default::default() };
    let first = runtime.exec(exec.clone()).await.unwrap().into_inner().url;
    let used = runtime.port_forward(PortForwardRequest { pod_sandbox_id: pod, port: vec![] }).await;
    let used = used.unwrap().into_inner().url;
    assert_eq!(status(&used.replace("/portforward/", "/unknown/")).await, "404");
    assert_eq!(status(&used).await, "101");
    assert_eq!(status(&used).await, "404", "a token is used once");
    let mut taken = 1;
    let refused = loop {
        match runtime.exec(exec.clone()).await {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!((990..=1000).contains(&taken), "{taken}");
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(status(&first).await, "404", "a token that nobody came for expires");
    runtime.exec(exec).await.unwrap();
    node.finish().await;
}
