//! The cases. Each leaves the node as it found it: on containerd.
use crate::node::{Node, told};
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::standalone::LIMIT;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is not allowed or not known changes nothing, and says what to do.
pub fn refusals(node: &Node) {
    // Another case may have had this node before.
    let phase = node.status()["phase"].clone();
    let before = node.files();
    let words = node.start_words();
    let without =
        |out: &str| -> Vec<&str> { words.iter().map(String::as_str).filter(|w| !w.starts_with(out)).collect() };
    for (words, remedy) in [
        (without("--without-grant"), "--grant ID"),
        (without("--kubelet-st"), "--kubelet-stop COMMAND"),
        ([without("--without-grant"), vec!["--grant=g", "--grant-expires=1000"]].concat(), "has expired"),
    ] {
        let output = node.adopt(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains(remedy), "{remedy}: {}", told(&output));
    }
    let output = node.adopt(&[without("-o"), vec!["--dry-run"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    for words in
        ["kubelet.d/99-berth.conf is made", "stop-kubelet", "default/web-node", "PodAndContainerStatsFromCRI: true"]
    {
        assert!(told(&output).contains(words), "{words}: {}", told(&output));
    }
    assert_eq!(node.status()["phase"], phase);
    node.is_untouched(&before);
}

/// The whole way, and back.
fn there_and_back(node: &Node) {
    let before = node.files();
    let taken = node.take_over();
    assert_eq!((taken["phase"].as_str(), taken["profile"].as_str()), (Some("adopted"), Some("command")), "{taken}");
    node.is_on(Kind::Berth);
    for file in taken["files"].as_array().unwrap() {
        assert!(file["now"] == file["after"] && file["now"] != file["before"], "{file}");
    }
    let again = node.adopt(&node.start_words().iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    assert!(told(&again).contains("was taken over already"), "{}", told(&again));
    let back = node.give_back();
    assert_eq!(back["phase"], "returned", "{back}");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

pub fn there_and_back_by_a_drop_in(node: &Node) {
    there_and_back(node);
}

/// A kubelet that knows no drop-ins has its configuration file changed.
pub fn there_and_back_by_the_file(node: &Node) {
    fs::remove_dir(node.base().join("kubelet.d")).unwrap();
    node.start_kubelet(false);
    node.is_on(Kind::Containerd);
    there_and_back(node);
    node.start_kubelet(true);
    node.is_on(Kind::Containerd);
}

/// SIGKILL at these steps: the dead-man timer walks back.
fn killed_at(node: &Node, steps: &[&str]) {
    let words = node.start_words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let before = node.files();
    for step in steps {
        node.killed_at(&words, &format!("adopt/{step}/leave"));
        assert_eq!(node.settled(), "not-adopted", "killed in {step}");
        assert_eq!(node.status()["interrupted"], true, "killed in {step}, which says nothing of the adoption");
        node.is_on(Kind::Containerd);
        node.is_untouched(&before);
    }
}

pub fn killed_before_the_kubelet_is_touched(node: &Node) {
    killed_at(node, &["arm", "stage", "daemon", "images", "canary"]);
}

pub fn killed_when_the_kubelet_is_stopped(node: &Node) {
    killed_at(node, &["stop-kubelet", "clear-pods"]);
}

pub fn killed_after_the_switch(node: &Node) {
    killed_at(node, &["switch", "start-kubelet"]);
}

/// Killed right before the proof is recorded it walks back, right after it is finished.
pub fn killed_when_it_is_proven(node: &Node) {
    killed_at(node, &["verify"]);
    let before = node.files();
    let words = node.start_words();
    node.killed_at(&words.iter().map(String::as_str).collect::<Vec<_>>(), "adopt/commit/enter");
    assert_eq!(node.settled(), "adopted");
    node.is_on(Kind::Berth);
    node.give_back();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// The dead-man timer dies first, while no kubelet runs that an agent could reach the host by: the daemon's supervisor has another one go on.
pub fn killed_with_its_dead_man(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let (mut child, hold) =
        node.held_at(&words.iter().map(String::as_str).collect::<Vec<_>>(), "adopt/clear-pods/leave");
    node.kill("deadman");
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(hold).unwrap();
    assert_eq!(node.settled(), "not-adopted");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// The same on the way back: before the commit the node stays on Berth, after it it is given back.
pub fn killed_on_the_way_back(node: &Node) {
    let before = node.files();
    node.take_over();
    let words = ["return", "--without-grant"];
    node.killed_at(&words, "return/switch/leave");
    assert_eq!(node.settled(), "adopted");
    node.is_on(Kind::Berth);
    node.killed_at(&words, "return/stop-daemon/leave");
    assert_eq!(node.settled(), "returned");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// Berth's daemon dies after the switch, for good: the adopter notices, and walks back by itself.
pub fn a_dead_daemon_walks_back(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let words: Vec<&str> =
        words.iter().map(|w| if w.starts_with("--deadline") { "--deadline=45s" } else { w.as_str() }).collect();
    let (mut child, hold) = node.held_at(&words, "adopt/start-kubelet/enter");
    node.kill_berth();
    fs::remove_file(hold).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "it failed, and walked back");
    let status = node.status();
    assert_eq!(status["phase"], "not-adopted", "{status}");
    assert!(status["reason"].as_str().unwrap().contains("verify"), "{status}");
    assert!(status["interrupted"].is_null(), "it did not come back: {status}");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// The same, but for a daemon that comes back: what was asked of it is asked again.
pub fn a_killed_daemon_is_waited_for(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let (mut child, hold) = node.held_at(&words.iter().map(String::as_str).collect::<Vec<_>>(), "adopt/canary/enter");
    let daemon = node.supervised()["daemon"].to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &daemon]).status().unwrap().success());
    // It takes the connection, and does not answer.
    signal("-STOP");
    fs::remove_file(hold).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    signal("-KILL");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(node.status()["phase"], "adopted");
    node.is_on(Kind::Berth);
    node.give_back();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// Somebody thinks better of it. The adopter walks back by itself, and whoever asked it waits for that.
pub fn abandoned(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let (mut child, hold) = node.held_at(&words.iter().map(String::as_str).collect::<Vec<_>>(), "adopt/canary/leave");
    let held = node.adopt(&["recover"]).output().unwrap();
    assert!(told(&held).contains("another operation is under way"), "{}", told(&held));
    let mut abandon =
        node.adopt(&["abandon", "-o=json"]).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(abandon.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), format!("process {} is asked to walk back", child.id()));
    fs::remove_file(hold).unwrap();
    let output = abandon.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains("it was asked to end (SIGINT)"), "{}", told(&output));
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(node.settled(), "not-adopted");
    assert!(node.status()["interrupted"].is_null(), "that is what a person wanted");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
    let nothing = node.adopt(&["abandon"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(1), "{}", told(&nothing));
}

/// The adopter is asked to end, or dies, while the command that stops the kubelet runs, which has not ended it yet. What the command would
/// still do must not reach the kubelet that runs afterwards.
pub fn cut_off_in_the_stop_command(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let begun = node.base().join("stop.begun");
    for signal in ["-TERM", "-KILL"] {
        node.stop_after(&format!("touch {}; sleep 4", begun.display()));
        let (mut child, hold) = node.held_at(&words, "adopt/canary/leave");
        fs::remove_file(hold).unwrap();
        node.wait("the stop command runs", LIMIT, || if begun.exists() { Ok(()) } else { Err("not yet".to_owned()) });
        // The way back stops it without that delay.
        node.stop_after("");
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let code = child.wait().unwrap().code();
        assert_eq!(code, (signal == "-TERM").then_some(3));
        assert_eq!(node.settled(), "not-adopted", "{signal}");
        assert_eq!(node.status()["interrupted"], true, "{signal}");
        fs::remove_file(&begun).unwrap();
        std::thread::sleep(Duration::from_secs(5));
        node.is_on(Kind::Containerd);
        node.is_untouched(&before);
    }
}

/// The journal's disk is full when the kubelet has been stopped, with nothing left of what was put aside for that. The way back needs none.
pub fn a_full_disk_walks_back(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let place = node.root().join("lib/adopt");
    let (shown, filler) = (place.display().to_string(), place.join("filler").display().to_string());
    fs::create_dir_all(&place).unwrap();
    assert!(node.tool("mount", &["-t", "tmpfs", "-o", "size=2m", "tmpfs", &shown]));
    // Before anything: there is no room to begin.
    let fill = format!("of={filler}");
    assert!(!node.tool("dd", &["if=/dev/zero", &fill, "bs=4k", "status=none"]));
    let refused = node.adopt(&words).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(told(&refused).contains("No space left"), "{}", told(&refused));
    node.is_on(Kind::Containerd);
    assert!(node.tool("rm", &[&filler]));

    // The journal has a page, which it fills but for some bytes, with the help of a grant's name.
    let grant = |length: usize| -> Vec<String> {
        let words = words.iter().filter(|word| **word != "--without-grant").map(|word| (*word).to_owned());
        words.chain([format!("--grant={}", "g".repeat(length)), "--grant-expires=4000000000".to_owned()]).collect()
    };
    let journal = node.inside(&place.join("journal"));
    node.killed_at(&grant(1).iter().map(String::as_str).collect::<Vec<_>>(), "adopt/arm/leave");
    assert_eq!(node.settled(), "not-adopted");
    let text = fs::read_to_string(&journal).unwrap();
    let plan = text.lines().find(|line| line.contains("\"event\":\"begin\"")).unwrap().len() + 1;
    let line = |event: &str, step: &str| {
        format!("01234567 {{\"at\":1700000000000,\"event\":\"{event}\",\"step\":\"{step}\"}}\n").len()
    };
    let steps = ["arm", "stage", "daemon", "images", "canary", "stop-kubelet"];
    let until =
        steps.iter().map(|step| line("enter", step) + line("done", step)).sum::<usize>() + line("enter", "clear-pods");
    let length = text.len() + plan + until;
    let padded = grant(1 + (length + 20).next_multiple_of(4096) - (length + 20));
    let padded: Vec<&str> = padded.iter().map(String::as_str).collect();
    let (mut child, hold) = node.held_at(&padded, "adopt/clear-pods/leave");
    let left = 4096 - fs::metadata(&journal).unwrap().len() % 4096;
    assert!((10..40).contains(&left), "{left} bytes are left in the journal's last page");
    assert!(node.tool("rm", &["-f", &format!("{shown}/spare")]));
    assert!(!node.tool("dd", &["if=/dev/zero", &fill, "bs=4k", "status=none"]));
    assert!(!node.tool("dd", &["if=/dev/zero", &fill, "bs=1", "status=none", "oflag=append", "conv=notrunc"]));
    fs::remove_file(hold).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "it walked back");
    node.is_on(Kind::Containerd);
    assert!(node.tool("rm", &[&filler]));
    assert_eq!(node.settled(), "not-adopted");
    node.is_on(Kind::Containerd);
    assert!(node.tool("umount", &[&shown]));
    node.is_untouched(&before);
}

/// The node is switched off in the middle of it. Its init starts the supervisor, which walks back before there is a daemon, or finishes
/// what was proven; and ends itself, where no daemon is wanted.
pub fn switched_off(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let (mut child, hold) = node.held_at(&words.iter().map(String::as_str).collect::<Vec<_>>(), "adopt/switch/leave");
    assert!(node.files() != before, "files are switched");
    node.power_cut(&mut child);
    fs::remove_file(hold).unwrap();
    let boots = |phase: &str| {
        let mut supervisor = node.berth(&["supervise"]).spawn().unwrap();
        node.wait("the supervisor ends by itself", LIMIT, || match supervisor.try_wait().unwrap() {
            Some(status) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert_eq!(node.settled(), phase);
        node.is_on(Kind::Containerd);
        node.is_untouched(&before);
    };
    boots("not-adopted");
    node.take_over();
    node.is_on(Kind::Berth);
    let (mut child, hold) = node.held_at(&["return", "--without-grant"], "return/stop-daemon/enter");
    node.power_cut(&mut child);
    fs::remove_file(hold).unwrap();
    node.script("start-kubelet");
    boots("returned");
}

/// `current` names another version and the supervisor is told: containers, log lines and an open exec session with its exit code stay.
pub fn another_version(node: &Node) {
    let before = node.files();
    node.take_over();
    node.is_on(Kind::Berth);
    let opt = node.base().join("opt");
    let first = fs::read_link(opt.join("current")).unwrap();
    assert!(node.tool("cp", &["-a", opt.join(&first).to_str().unwrap(), opt.join("next").to_str().unwrap()]));
    let status = || node.supervised();
    let (container, process) = node.shell();
    let mut session = node.session(&container);
    let mut heard = BufReader::new(session.stdout.take().unwrap());
    let mut say = |word: &str| {
        writeln!(session.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        heard.read_line(&mut line).unwrap();
        assert_eq!(line, format!("heard-{word}\n"));
    };
    say("before");
    let lines = node.counted();
    let mut daemon = status();
    for version in ["next", first.to_str().unwrap()] {
        std::os::unix::fs::symlink(version, opt.join(".new")).unwrap();
        fs::rename(opt.join(".new"), opt.join("current")).unwrap();
        let supervisor = daemon["supervisor"].to_string();
        assert!(Command::new("kill").args(["-HUP", &supervisor]).status().unwrap().success());
        let now = node.wait("another daemon runs", LIMIT, || {
            let now = status();
            if now["daemon"].is_u64() && now["daemon"] != daemon["daemon"] { Ok(now) } else { Err(now.to_string()) }
        });
        node.wait("it is of that version", LIMIT, || {
            let program = fs::read_link(format!("/proc/{}/exe", now["daemon"])).unwrap();
            if program.starts_with(opt.join(version)) { Ok(()) } else { Err(program.display().to_string()) }
        });
        say(version);
        node.is_on(Kind::Berth);
        assert_eq!(node.shell(), (container.clone(), process.clone()), "after the switch to {version}");
        daemon = now;
    }
    say("end");
    let ended = session.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&ended.stderr).contains("exit code 3"), "{ended:?}");
    node.wait("the log goes on", LIMIT, || if node.counted() > lines { Ok(()) } else { Err("not yet".to_owned()) });
    node.give_back();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// Berth's daemon is dead for good, its pods live: the node can leave it all the same.
pub fn a_dead_daemon_is_left(node: &Node) {
    let before = node.files();
    node.take_over();
    node.is_on(Kind::Berth);
    node.kill_berth();
    let refused = node.adopt(&["return", "--without-grant"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(told(&refused).contains("--without-daemon"), "{}", told(&refused));
    let back = node.adopt(&["return", "--without-grant", "--without-daemon"]).output().unwrap();
    assert!(back.status.success(), "{}", told(&back));
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
    // The pods' records stay for the next daemon, which then holds their directories even where its case walks back.
    fs::remove_dir_all(node.root().join("lib/pods")).unwrap();
}

/// What others have written since stays, and the kubelet is on its old runtime all the same.
pub fn changed_by_others_since(node: &Node) {
    let before = node.files();
    let taken = node.take_over();
    let file = taken["files"][0]["path"].as_str().unwrap();
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, format!("# mine\n{text}")).unwrap();
    let back = node.give_back();
    assert!(back["notes"][0].as_str().unwrap().contains("was changed after the adoption"), "{back}");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// `berth supervise` starts a daemon that dies again, and takes over the one that a dead supervisor has left.
pub fn supervised(node: &Node) {
    let before = node.files();
    node.take_over();
    let status = || node.supervised();
    let kill = |pid: &serde_json::Value| {
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
    };
    let first = status();
    kill(&first["daemon"]);
    let second = node.wait("the daemon is started again", LIMIT, || {
        let now = status();
        if now["daemon"].is_u64() && now["daemon"] != first["daemon"] { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(second["ends"], 1, "{second}");
    node.is_on(Kind::Berth);

    // Its program is not there for a while, as in an exchange that takes long: the supervisor goes on.
    let (current, aside) = (node.base().join("opt/current"), node.base().join("opt/aside"));
    fs::rename(&current, &aside).unwrap();
    kill(&second["daemon"]);
    node.wait("the daemon cannot be started", LIMIT, || {
        let now = status();
        let how = now["lastEnd"].as_str().unwrap_or_default().to_owned();
        if how.contains("cannot be started") { Ok(()) } else { Err(now.to_string()) }
    });
    fs::rename(&aside, &current).unwrap();
    let second = node.wait("the daemon is started after all", LIMIT, || {
        let now = status();
        if now["daemon"].is_u64() { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(second["supervisor"], first["supervisor"], "{second}");
    node.is_on(Kind::Berth);

    // Its follower goes on, and has one of its own.
    // One that was killed is seen for a moment still, and a successor until its command line is another one.
    let follower = |but: &str| {
        node.wait("it has a follower", LIMIT, || {
            let found = node.processes("--follow");
            found.iter().find(|pid| *pid != but).cloned().ok_or(format!("{found:?}"))
        })
    };
    let first_follower = follower("");
    kill(&second["supervisor"]);
    let next = node.wait("the follower has the old daemon", LIMIT, || {
        let now = status();
        if now["supervisor"].as_u64() == first_follower.parse().ok() { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(next["daemon"], second["daemon"], "it runs on: {next}");
    let second_follower = follower(&first_follower);
    node.kill("--follow");
    follower(&second_follower);

    node.kill("supervise");
    node.wait("the daemon answers", LIMIT, || {
        let output = node.berth(&["info"]).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(told(&output)) }
    });
    let mut supervisor = node.berth(&["supervise"]).spawn().unwrap();
    let third = node.wait("the new supervisor has the old daemon", LIMIT, || {
        let now = status();
        if now["supervisor"] == supervisor.id() { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(third["daemon"], second["daemon"], "it runs on: {third}");
    node.give_back();
    assert!(supervisor.wait().unwrap().success());
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}
