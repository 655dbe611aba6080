//! cp and port-forward of the command line, completions and manual pages.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.
use crate::daemon;
use crate::daemon::cli::{command, run, try_run, with_input};
use crate::daemon::{Node, host, page, pod, shell};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[tokio::test(flavor = "multi_thread")]
async fn files_go_both_ways_and_never_astray() {
    let node = Node::with_tools().await;
    run(&node, &["run", "-d", "--name", "box", &node.tools(), "/web", "sleep"]);
    let dir = node.base().join("files");
    std::fs::create_dir_all(dir.join("conf/sub")).unwrap();
    std::fs::write(dir.join("conf/sub/a"), "hello").unwrap();
    std::os::unix::fs::symlink("sub/a", dir.join("conf/link")).unwrap();
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let exec = |script: &str| run(&node, &["exec", "box", "sh", "-c", script]);
    run(&node, &["cp", &at("conf"), "box:/etc"]);
    assert_eq!(exec("cat /etc/conf/link; stat -c %u:%g /etc/conf/sub/a"), "hello0:0");
    run(&node, &["cp", &format!("{}/.", at("conf")), "box:/home"]);
    assert_eq!(exec("cat /home/sub/a"), "hello");
    run(&node, &["cp", "box:/etc/conf/sub/a", &at("out")]);
    assert_eq!(std::fs::read_to_string(at("out")).unwrap(), "hello");
    run(&node, &["cp", "box/box:/etc/conf", &at("tree")]);
    assert_eq!(std::fs::read_link(at("tree/link")).unwrap().to_str(), Some("sub/a"));
    // Streams, with an image that has tar as little as any.
    let tar = command(&node, &["cp", "box:/etc/conf", "-"]).output().unwrap().stdout;
    std::fs::write(at("x.tar"), &tar).unwrap();
    assert!(host("tar", &["tf", &at("x.tar")]).contains("conf/sub/a"));
    let said = with_input(&node, &["cp", "-", "box:/root"], &tar);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(exec("cat /root/conf/link"), "hello");
    // A link of the container leads to where it leads inside, and never to the node.
    std::fs::write(at("secret"), "of the node").unwrap();
    exec(&format!(
        "ln -s {} /root/abs; ln -s ../../../../../etc/passwd /root/up; mkdir -p /root/d; ln -s /etc /root/d/etc",
        at("secret")
    ));
    let (said, _) = daemon::cli::refused(&node, &["cp", "-L", "box:/root/abs", &at("stolen")]);
    assert!(said.contains("no such file"), "{said}");
    run(&node, &["cp", "-L", "box:/root/up", &at("passwd")]);
    assert!(std::fs::read_to_string(at("passwd")).unwrap().contains("low:x:1001"), "the container's own");
    // A tree with a link in the way of a directory is not written through it, on neither side.
    std::fs::create_dir_all(at("evil/etc")).unwrap();
    std::fs::write(at("evil/etc/planted"), "x").unwrap();
    let (said, _) = daemon::cli::refused(&node, &["cp", &format!("{}/.", at("evil")), "box:/root/d"]);
    assert!(said.contains("in the way"), "{said}");
    assert_eq!(exec("test -e /etc/planted || echo safe"), "safe");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_node_leads_into_the_pod() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let web = pod(&node, "web");
    let id = cri.run(&web).await;
    let mut config = shell(&node, "web", "");
    config.command = vec!["/web".into()];
    cri.launch(&id, &config, &web).await;
    let mut forward = command(&node, &["port-forward", "web", ":80"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line
        .strip_prefix("Forwarding from ")
        .and_then(|l| l.strip_suffix(" -> 80"))
        .unwrap_or_else(|| panic!("{line}"));
    let body = daemon::eventually("the pod answers", async || page(address, "/").await.filter(|b| !b.is_empty())).await;
    assert!(body.contains("Hello") || !body.is_empty(), "{body}");
    let pid = i32::try_from(forward.id()).unwrap();
    daemon::signal(pid, nix::sys::signal::Signal::SIGINT);
    assert!(forward.wait().unwrap().success());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_completed_and_commands_have_pages() {
    let node = Node::with_tools().await;
    run(&node, &["run", "-d", "--name", "box", &node.tools(), "/web", "sleep"]);
    let root = node.root().to_string_lossy().into_owned();
    let complete = |words: &[&str]| run(&node, &[&["__complete", "--", "--root", root.as_str()], words].concat());
    assert_eq!(complete(&["exec", "b"]), "box\tpod in default\nbox/box\tcontainer, running");
    assert!(complete(&["run", "-it", ""]).contains("tools:v1\timage"));
    assert_eq!(complete(&["pul"]).split('\t').next(), Some("pull"));
    assert_eq!(complete(&["run", "-f", ""]), ":files");
    let script = run(&node, &["completion", "bash"]);
    std::fs::write(node.base().join("completion"), script).unwrap();
    let bin = berth_node_tests::programs();
    let line = format!(
        "PATH={}:$PATH; source {}; COMP_LINE='berth --root {root} exec b'; COMP_POINT=${{#COMP_LINE}};          COMP_WORDS=(berth --root {root} exec b); COMP_CWORD=4; _berth; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        bin.display(),
        node.base().join("completion").display()
    );
    assert_eq!(host("bash", &["-c", &line]), "box\nbox/box\n");
    let man = node.base().join("man1");
    run(&node, &["man", &man.to_string_lossy()]);
    for name in ["berth.1", "berth-ps.1", "berth-run.1", "berth-cp.1"] {
        assert!(std::fs::read_to_string(man.join(name)).unwrap().starts_with(".TH \"BERTH"), "{name}");
    }
    let help = try_run(&node, &["run", "--help"]);
    assert!(help.out.contains("Examples:") && help.code == 0);
    node.finish().await;
}
