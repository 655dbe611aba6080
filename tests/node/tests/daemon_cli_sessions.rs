//! exec, attach, wait and run of the command line: streams, terminals, detach keys and exit codes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

use crate::daemon::cli::{command, on_terminal, on_terminal_after, run, try_run, with_input};
use crate::daemon::{Node, eventually, pod, shell};
use std::io::Read as _;
use std::process::Stdio;

#[tokio::test(flavor = "multi_thread")]
async fn exec_takes_what_docker_users_type() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let web = pod(&node, "web");
    let id = cri.run(&web).await;
    cri.launch(&id, &shell(&node, "app", "sleep 1000"), &web).await;
    assert_eq!(run(&node, &["exec", "web", "id", "-u"]), "0");
    assert_eq!(
        run(&node, &["exec", "-u", "web", "web/app", "id"]),
        "uid=1000(web) gid=1000(web) groups=1000(web),2000(extra),2001(more)"
    );
    assert_eq!(run(&node, &["exec", "-u", "7:8", "web", "sh", "-c", "id -u; id -g"]), "7\n8");
    assert_eq!(run(&node, &["exec", "-w", "/home/web", "web", "sh", "-c", "pwd"]), "/home/web");
    let env = run(&node, &["exec", "-e", "A=x=y", "-e", "FROM_IMAGE=no", "web", "env"]);
    assert!(env.contains("A=x=y") && env.contains("FROM_IMAGE=no") && !env.contains("FROM_IMAGE=yes"), "{env}");
    let file = node.base().join("env").display().to_string();
    std::fs::write(&file, "# both\nA=1\nB=2\n").unwrap();
    let both = run(&node, &["exec", "--env-file", &file, "-e", "A=3", "web", "sh", "-c", "echo $A$B"]);
    assert_eq!(both, "32");
    assert_eq!(with_input(&node, &["exec", "-i", "web", "cat"], b"over there").out, "over there");
    let codes = [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)];
    for (script, code) in codes {
        assert_eq!(try_run(&node, &["exec", "web", "sh", "-c", script]).code, code, "{script}");
    }
    assert_eq!(try_run(&node, &["exec", "web", "/etc/passwd"]).code, 126);
    assert_eq!(try_run(&node, &["exec", "web", "/nowhere"]).code, 127);
    let both = try_run(&node, &["exec", "web", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((both.out.as_str(), both.err.as_str()), ("out\n", "err\n"));
    assert_eq!(run(&node, &["exec", "-d", "web", "sh", "-c", "echo done > /tmp/detached"]), "");
    eventually("the detached command has ended", async || {
        (try_run(&node, &["exec", "web", "cat", "/tmp/detached"]).out == "done\n").then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_left_by_its_keys() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let web = pod(&node, "web");
    let id = cri.run(&web).await;
    cri.launch(&id, &shell(&node, "app", "sleep 1000"), &web).await;
    let tty = on_terminal(&node, &["exec", "-it", "web", "sh", "-c", "test -t 0 && echo a terminal"], b"\n");
    assert!(tty.out.contains("a terminal") && tty.code == 0, "{tty:?}");
    let script = "trap 'echo hup > /tmp/hup' HUP; echo ready; until test -e /tmp/go; do sleep 0.1; done; \
        echo went on > /tmp/left";
    let left = on_terminal_after(&node, &["exec", "-it", "web", "sh", "-c", script], "ready", b"\x10\x11");
    assert!(left.out.contains("detached") && left.code == 0, "{left:?}");
    run(&node, &["exec", "web", "touch", "/tmp/go"]);
    eventually("the command went on", async || {
        (try_run(&node, &["exec", "web", "cat", "/tmp/left"]).out == "went on\n").then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_wait_and_their_codes() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let job = pod(&node, "job");
    let id = cri.run(&job).await;
    let script =
        "until test -e /tmp/go; do echo tick; sleep 0.1; done; read line; echo got $line; echo bad >&2; exit 5";
    let mut config = shell(&node, "app", script);
    (config.stdin, config.stdin_once) = (true, true);
    cri.launch(&id, &config, &job).await;
    let waiting = command(&node, &["wait", "job"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut looker = command(&node, &["attach", "--no-stdin", "job"]).stdout(Stdio::piped()).spawn().unwrap();
    // It looks on from here.
    let mut tick = [0; 5];
    looker.stdout.as_mut().unwrap().read_exact(&mut tick).unwrap();
    assert_eq!(&tick, b"tick\n");
    run(&node, &["exec", "job", "touch", "/tmp/go"]);
    let said = with_input(&node, &["attach", "job/app"], b"a line\n");
    let words = said.out.trim_start_matches("tick\n");
    assert_eq!((words, said.err.as_str(), said.code), ("got a line\n", "bad\n", 5));
    let waited = waiting.wait_with_output().unwrap();
    assert_eq!((waited.stdout.as_slice(), waited.status.code()), (b"5\n".as_slice(), Some(0)));
    let looked = looker.wait_with_output().unwrap();
    let seen = String::from_utf8_lossy(&looked.stdout);
    assert_eq!((seen.trim_start_matches("tick\n"), looked.status.code()), ("got a line\n", Some(5)));
    assert_eq!(try_run(&node, &["wait", "--exit-code", "job"]).code, 5);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_run_as_docker_runs_it() {
    let node = Node::with_tools().await;
    let tools = node.tools();
    let said = try_run(&node, &["run", "--rm", &tools, "sh", "-c", "echo out; echo err >&2; exit 4"]);
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("out\n", "err\n", 4));
    assert_eq!(run(&node, &["pods", "-a", "-q"]), "", "--rm leaves nothing");
    let echoed = with_input(&node, &["run", "-i", "--rm", &tools, "cat"], b"through");
    assert_eq!((echoed.out.as_str(), echoed.code), ("through", 0), "{echoed:?}");
    assert_eq!(try_run(&node, &["run", "--rm", &tools, "/nowhere"]).code, 127);
    assert_eq!(try_run(&node, &["run", "--rm", &tools, "/etc/passwd"]).code, 126);
    assert_eq!(run(&node, &["pods", "-a", "-q"]), "", "nor does a start that fails");
    let line = [
        "run",
        "--rm",
        "-e",
        "A=$x",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "-u",
        "7:8",
        "-w",
        "/tmp",
        &tools,
        "sh",
        "-c",
        "echo $A; id -u; pwd",
    ];
    assert_eq!(run(&node, &line), "$x\n7\n/tmp");
    // One that ends as soon as it was started, however the two clients of the monitor come to it.
    for _ in 0..10 {
        let tty = on_terminal(&node, &["run", "-it", "--rm", &tools, "sh", "-c", "test -t 1 && echo first"], b"\n");
        assert!(tty.out.contains("first") && tty.code == 0, "nothing is missed: {tty:?}");
        assert_eq!(run(&node, &["run", "--rm", &tools, "echo", "first"]), "first");
    }
    run(&node, &["run", "-d", "--name", "web", "-l", "tier=x", &tools, "/web", "sleep"]);
    assert_eq!(run(&node, &["ps", "-o", "name"]), "default/web/web");
    assert_eq!(run(&node, &["pods", "--format", "{{.Label \"tier\"}}"]), "x");
    let kept = try_run(&node, &["run", "--name", "kept", &tools, "echo", "kept"]);
    assert_eq!((kept.out.as_str(), kept.code), ("kept\n", 0));
    assert_eq!(run(&node, &["logs", "kept"]), "kept");
    assert_eq!(run(&node, &["pods", "-f", "status=notready", "--format", "{{.Name}}"]), "kept");
    node.finish().await;
}
