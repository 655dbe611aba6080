//! The lists of the command line: filters, templates, documents, colours; in a pipe and under a terminal.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

use crate::daemon::cli::{command, on_terminal, refused, run, try_run};
use crate::daemon::{Node, images, pod, shell};
use serde_json::Value;
use std::process::Stdio;

async fn two_pods() -> (Node, String, String) {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let (web, db) = (pod(&node, "web"), pod(&node, "db"));
    let (web_id, db_id) = (cri.run(&web).await, cri.run(&db).await);
    let a = cri.launch(&web_id, &shell(&node, "a", "sleep 1000"), &web).await;
    let b = cri.launch(&db_id, &shell(&node, "b", "exit 3"), &db).await;
    cri.exited(&b).await;
    (node, a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_formatted() {
    let (node, a, b) = two_pods().await;
    assert_eq!(run(&node, &["ps", "-q"]), a);
    assert_eq!(run(&node, &["ps", "-a", "-q", "-f", "pod=db"]), b);
    assert_eq!(run(&node, &["ps", "-q", "-f", "status=exited", "-f", "exited=3"]), b);
    assert_eq!(run(&node, &["ps", "-q", "-f", "label=container=a"]), a);
    assert_eq!(run(&node, &["ps", "-l", "-q"]), b);
    assert_eq!(run(&node, &["ps", "-a", "-q", "-f", "name!=a"]), b);
    assert_eq!(run(&node, &["ps", "-o", "name"]), "default/web/a");
    let format = "{{.Pod}}/{{.Names}} {{.State}} {{upper .Namespace}} {{.Label \"app\"}}";
    assert_eq!(run(&node, &["ps", "--format", format]), "web/a Running DEFAULT web");
    let table = run(&node, &["ps", "-a", "--format", r"table {{.Names}}\t{{.ExitCode}}"]);
    assert_eq!(table.lines().next().unwrap(), "CONTAINER   EXIT CODE", "{table}");
    let line: Value = serde_json::from_str(&run(&node, &["ps", "--format", "json", "--no-trunc"])).unwrap();
    assert_eq!((line["ID"].as_str().unwrap(), line["Command"].as_str().unwrap()), (a.as_str(), "sh -c sleep 1000"));
    let list: Value = serde_json::from_str(&run(&node, &["ps", "-a", "-o", "json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    assert_eq!(list[0]["pod"]["name"], "db");
    assert!(list[1]["pid"].as_u64().unwrap() > 1 && list[0].get("pid").is_none());

    let pods = run(&node, &["pods", "-o", "wide"]);
    assert!(pods.lines().next().unwrap().contains("IPS") && pods.contains("1/1") && pods.contains("0/1"), "{pods}");
    assert_eq!(
        run(&node, &["pods", "-f", "name=web", "--format", "{{.Namespace}}/{{.Name}} {{.State}}"]),
        "default/web Ready"
    );
    let pods: Value = serde_json::from_str(&run(&node, &["pods", "-o", "json"])).unwrap();
    assert_eq!(pods[1]["containers"][0]["id"], a.as_str());
    let images = run(&node, &["images", "--format", "{{.Tag}} {{.User}}"]);
    assert_eq!(images.split(' ').next().unwrap(), "v1");
    let ids = run(&node, &["images", "-q", "--no-trunc"]);
    assert!(ids.starts_with("sha256:") && run(&node, &["images", "-aq", "--no-trunc"]) == ids, "{ids}");
    assert_eq!(run(&node, &["pods", "-n", "1", "-q", "--no-trunc"]), run(&node, &["pods", "-l", "-q"]));
    assert_eq!(run(&node, &["ps", "--filter", "pod=web", "--quiet"]), run(&node, &["ps", "-q"]));

    let pid = run(&node, &["inspect", "--format", "{{.container.life.Running.pid}}", "web/a"]);
    assert!(pid.parse::<u32>().unwrap() > 1);
    assert_eq!(run(&node, &["inspect", "-f", "{{.kind}}", "web", "web/a"]), "pod\ncontainer");
    assert_eq!(run(&node, &["inspect", "--type", "container", "-f", "{{.Kind}}", "web"]), "container");
    assert_eq!(run(&node, &["info", "--format", "{{.podsReady}} {{.containersRunning}}"]), "2 1");
    assert!(run(&node, &["version", "-f", "{{.Server.Cri}}"]).starts_with('v'));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_filtered_as_docker_does_it() {
    let node = Node::new().await;
    let image = |name: &str, year: u32, stage: &str| {
        let built = images::web(name, "v1").label("stage", stage).created(&format!("{year}-05-01T00:00:00Z"));
        node.registry().push_image(&built).unwrap();
        node.registry().reference(&format!("{name}:v1"))
    };
    let (old, middle, new) =
        (image("team/old", 2020, "test"), image("team/middle", 2022, "live"), image("team/new", 2024, "test"));
    for reference in [&old, &middle, &new] {
        run(&node, &["pull", "-q", reference]);
    }
    let id = run(&node, &["inspect", "-f", "{{.image.id}}", &new]);
    let listed = |filters: &[&str]| {
        let mut args = vec!["images", "--format", "{{.Repository}}"];
        filters.iter().for_each(|filter| args.extend(["-f", filter]));
        let out = run(&node, &args);
        out.lines().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (before, since) = (format!("before={middle}"), format!("since={middle}"));
    for (filters, wanted) in [
        (&[][..], &["middle", "new", "old"][..]),
        (&["label=stage"], &["middle", "new", "old"]),
        (&["label=stage=test"], &["new", "old"]),
        (&["label=stage=test", "label=none"], &[]),
        (&["label!=stage=test"], &["middle"]),
        (&[&before], &["old"]),
        (&[&since], &["new"]),
        (&[&since, "label=stage=live"], &[]),
        (&[&format!("since={old}"), &format!("before={id}")], &["middle"]),
        (&["reference=*/team/*:v[0-9]"], &["middle", "new", "old"]),
        (&["reference=*/team/?e?"], &["new"]),
        (&["reference=team/*"], &[]),
        (&["reference=team/o", "reference=team/n"], &["new", "old"]),
        (&["dangling=true"], &[]),
        (&["dangling=false", "reference=old"], &["old"]),
    ] {
        assert_eq!(listed(filters), wanted, "{filters:?}");
    }
    let (said, code) = refused(&node, &["images", "-f", "since=no/such:1"]);
    assert!(said.contains("--filter since: there is no image \"no/such:1\"") && code == 1, "{said}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_variants_the_one_that_is_asked_for_is_pulled() {
    let node = Node::new().await;
    let host = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let variant = |variant: Option<&str>| {
        let built = images::web("variants", "").label("variant", variant.unwrap_or("none"));
        built.platform("linux", host, variant)
    };
    let several = [variant(None), variant(Some("v9")), variant(Some("v12"))];
    node.registry().push_index("variants", "v1", &several).unwrap();
    let reference = node.registry().reference("variants:v1");
    let pulled = |platform: &str| {
        let mut args = vec!["pull", "-q", &reference];
        if !platform.is_empty() {
            args.extend(["--platform", platform]);
        }
        let id = run(&node, &args);
        run(&node, &["inspect", "-f", "{{.image.config.labels.variant}}", &id])
    };
    assert_eq!(pulled(""), "none");
    assert_eq!(pulled(&format!("linux/{host}/v10")), "v9");
    assert_eq!(pulled(&format!("{host}/v12")), "v12");
    let archive = node.base().join("variants.tar").display().to_string();
    run(&node, &["save", "-o", &archive, &reference]);
    let (said, code) = refused(&node, &["pull", "--platform", "linux/s390x", &reference]);
    assert!(said.contains("programs for it do not run here") && code == 1, "{said}");
    let (said, _) = refused(&node, &["load", "--platform", "linux/s390x", "-i", &archive]);
    assert!(said.contains("programs for it do not run here"), "{said}");
    run(&node, &["load", "-q", "--platform", &format!("linux/{host}/v12"), "-i", &archive]);
    std::fs::write(&archive, b"\xfd7zXZ\0 and so on").unwrap();
    let (said, _) = refused(&node, &["load", "-i", &archive]);
    assert!(said.contains("xz -dc FILE | berth load"), "{said}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_come_on_a_terminal_and_nothing_is_told_twice() {
    let (node, ..) = two_pods().await;
    let colour = "\u{1b}[";
    assert!(!run(&node, &["ps"]).contains(colour));
    assert!(run(&node, &["--color", "always", "ps"]).contains(colour));
    assert!(on_terminal(&node, &["ps"], b"").out.contains(colour));
    assert!(!on_terminal(&node, &["--color=never", "ps"], b"").out.contains(colour));
    let plain = command(&node, &["ps"]).env("NO_COLOR", "1").output().unwrap();
    assert!(!String::from_utf8_lossy(&plain.stdout).contains(colour));
    // Nobody reads: it ends as a program that SIGPIPE ends, without a word.
    let mut child = command(&node, &["ps"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(141), b"".as_slice()));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_on_a_terminal_has_bars() {
    let node = Node::new().await;
    let piped = try_run(&node, &["pull", &node.tools()]);
    assert_eq!(piped.code, 0, "{piped:?}");
    assert!(piped.err.contains(": resolving") && !piped.err.contains('\u{1b}'), "{piped:?}");
    let bars = on_terminal(&node, &["pull", &node.web()], b"");
    assert_eq!(bars.code, 0, "{bars:?}");
    // Lines are drawn over (cursor up, clear line), and a layer's bar is full in the end.
    assert!(bars.out.contains("\u{1b}[") && bars.out.contains("[====") && bars.out.contains("sha256:"), "{bars:?}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_lists_are_refused_in_a_sentence() {
    let (node, _, _) = two_pods().await;
    let table: &[(&[&str], &str, i32)] = &[
        (&["ps", "-f", "nmae=x"], "no key \"nmae\"; did you mean name?", 1),
        (&["ps", "-f", "name"], "must be KEY=VALUE; the keys are name, id", 1),
        (&["ps", "--format", "{{.Nmaes}}"], "no field Nmaes; did you mean Names?", 1),
        (&["ps", "--format", "{{.ID"], "--format: an action is not closed", 1),
        (&["ps", "-q", "-o", "json"], "cannot be used with", 2),
        (&["ps", "-n", "x"], "invalid value 'x'", 2),
        (&["pods", "-f", "status="], "its value is empty", 1),
        (&["pss"], "'ps'", 2),
        (&["inspect", "wbe"], "wbe", 1),
        (&["stop", "wbe"], "did you mean \"web\"?", 1),
        (&["exec", "wbe", "true"], "did you mean \"web\"?", 125),
        (&["exec", "web"], "required arguments were not provided", 2),
        (&["exec", "-w", "srv", "web", "true"], "must be an absolute path", 125),
        (&["exec", "-e", "=x", "web", "true"], "with a NAME", 125),
        (&["exec", "--detach-keys", "ctrl-1", "web", "true"], "is no key", 125),
        (&["exec", "db", "true"], "does not run: Exited", 125),
        (&["exec", "-u", "nobody-there", "web", "true"], "nobody-there", 125),
        (&["attach", "db"], "does not run: Exited", 125),
        (&["attach", "wbe"], "did you mean \"web\"?", 125),
        (&["wait", "wbe"], "did you mean \"web\"?", 125),
        (&["restart", "wbe"], "did you mean \"web\"?", 1),
        (&["kill", "-s", "NOPE", "web"], "\"NOPE\" is not a signal", 1),
        (&["kill", "db"], "no container that could be meant: each does not run", 1),
        (&["update", "web"], "nothing to change; give --memory", 1),
        (&["update", "-m", "x", "web"], "is not a size; write it as 64m", 2),
        (&["logs", "--since", "yesterday", "web"], "is no moment; write 90s", 2),
        (&["logs", "--previous", "web"], "has no attempt before 0", 1),
        (&["logs", "-n", "x", "web"], "is not a number of lines", 2),
        (&["events", "-f", "typ=x"], "did you mean type?", 1),
        (&["top", "db"], "has no container that runs", 1),
        (&["cp", "a", "b"], "one of the two must be CONTAINER:PATH", 1),
        (&["cp", "web:/etc", "db:/etc"], "go by way of a pipe", 1),
        (&["cp", "db:/etc", "."], "does not run (Exited (3))", 1),
        (&["cp", "web:/nowhere", "."], "web:/nowhere: no such file", 1),
        (&["port-forward", "web", "x"], "must be [[ADDRESS:]LOCAL:]REMOTE", 1),
        (&["run"], "required arguments were not provided", 2),
        (&["run", "-p", "x", "web:1"], "--publish \"x\": must be", 125),
        (&["run", "--pull", "Never", "localhost/none:1"], "is not on this node", 125),
        (&["--color", "blue", "ps"], "[possible values: auto, always, never]", 2),
    ];
    let mut wrong = Vec::new();
    for (args, sentence, code) in table {
        let (said, ended) = refused(&node, args);
        if !said.contains(sentence) || ended != *code {
            wrong.push(format!("berth {args:?}: not {sentence:?} and {code}, but {ended}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    node.finish().await;
}
