//! The monitor supervises: exits, failed starts, orphans, many tasks, a daemon that comes and goes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test may fail at any line.

use crate::monitor::*;
use berth_model::ErrorKind;
use berth_monitor_api::frame::TaskKind;
use berth_monitor_api::spec::{InitSpec, SandboxSpec};
use berth_oci::exits::read_exits;
use berth_oci::monitor::{Closed, Event, Monitor, SpawnRequest, TaskStdio};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_kept_until_forgotten() {
    let mut pod = Pod::start().await;
    for (id, script, code, signaled) in
        [("zero", "exit 0", 0, false), ("seven", "exit 7", 7, false), ("killed", "kill -9 $$", 137, true)]
    {
        let pid = pod.run(id, script).await;
        let exit = pod.exit_of(id).await;
        assert_eq!((exit.code, exit.signaled, exit.start_failed), (code, signaled, false), "{id}");
        let record = read_exits(pod.dir.path()).unwrap().records[id];
        assert_eq!((record.pid, record.exit), (pid, exit));
        assert_eq!(pod.task(id).await.exit, Some(exit));
    }
    pod.run("stays", "exec sleep 600").await;
    assert_eq!(pod.monitor.forget("stays").await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert_eq!(pod.monitor.shutdown().await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    pod.monitor.signal("stays", SIGTERM).await.unwrap();
    assert_eq!(pod.exit_of("stays").await.code, 128 + SIGTERM);
    assert_eq!(pod.monitor.signal("stays", SIGTERM).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert_eq!(pod.monitor.signal("nobody", SIGTERM).await.unwrap_err().kind(), ErrorKind::NotFound);
    pod.monitor.forget("stays").await.unwrap();
    assert!(!read_exits(pod.dir.path()).unwrap().records.contains_key("stays"));
    assert_eq!(pod.monitor.list().await.unwrap().len(), 3);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_starts_with_clean_signals_and_the_daemons_limits() {
    let mut pod = Pod::start().await;
    let log = log_file(&path_of(&pod, "log"));
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ulimit -Sn; ls /proc/$$/fd | tr '\\n' ' '";
    pod.run_logged("task", script, &log).await;
    assert_eq!(pod.exit_of("task").await.code, 0);
    let text = String::from_utf8(said(&records(&path_of(&pod, "log")), "stdout")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..2], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]);
    let limit = std::process::Command::new("sh").args(["-c", "ulimit -Sn"]).output().unwrap();
    assert_eq!(lines[2], String::from_utf8(limit.stdout).unwrap().trim());
    assert_eq!(lines[3].trim(), "0 1 2", "a descriptor has leaked");
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_starts_are_told_from_programs_that_fail() {
    let mut pod = Pod::start().await;
    let spec = program(&["true"], &["FIXTURE=fail"]);
    let mut start = pod.monitor.spawn(pod.request("fail", &spec)).await.unwrap();
    let error = start.next().await.unwrap_err();
    assert_eq!(error.message(), "start/mounts: the step was told to fail: Permission denied");
    let exit = pod.exit_of("fail").await;
    assert!(exit.start_failed && exit.code == 1);

    for (mood, signaled) in [("die", false), ("stranger", true), ("garbage", true)] {
        let spec = program(&["true"], &[&format!("FIXTURE={mood}")]);
        let mut start = pod.monitor.spawn(pod.request(mood, &spec)).await.unwrap();
        assert!(start.next().await.unwrap_err().message().contains("ended during set-up"), "{mood}");
        let exit = pod.exit_of(mood).await;
        assert!(exit.start_failed && exit.signaled == signaled, "{mood}: {exit:?}");
        assert_eq!(pod.task(mood).await.pid, 0);
    }
    let spec = InitSpec::Sandbox(SandboxSpec::default());
    let request = SpawnRequest { kind: TaskKind::Sandbox, ..pod.request("sandbox", &spec) };
    let mut start = pod.monitor.spawn(request).await.unwrap();
    assert_eq!(start.next().await.unwrap(), Event::Made { pid: None });
    assert_eq!(start.phases().0.len(), 1);
    let exit = pod.exit_of("sandbox").await;
    assert!(!exit.start_failed && exit.code == 0);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_start_goes_on_and_a_dropped_one_ends_its_child() {
    let mut pod = Pod::start().await;
    let spec = program(&["sleep", "600"], &["FIXTURE=pause"]);
    let mut start = pod.monitor.spawn(pod.request("paused", &spec)).await.unwrap();
    let Event::Paused { pid } = start.next().await.unwrap() else { panic!("not paused") };
    assert_eq!(pod.task("paused").await.pid, pid);
    start.continue_().await.unwrap();
    assert_eq!(go(&mut start).await, pid);

    let spec = program(&["sleep", "600"], &["FIXTURE=hang"]);
    let mut start = pod.monitor.spawn(pod.request("dropped", &spec)).await.unwrap();
    start.set_limit(Duration::from_millis(200));
    assert_eq!(start.next().await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    drop(start);
    let exit = pod.exit_of("dropped").await;
    assert_eq!((exit.code, exit.start_failed), (111, false));
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_gets_the_pidfd_of_the_task_it_joins() {
    let mut pod = Pod::start().await;
    let pid = pod.run("main", "exec sleep 600").await;
    let log = log_file(&path_of(&pod, "log"));
    let spec = shell("echo $TARGET_PID");
    let stdio = TaskStdio::Log { stdin: false };
    let request = SpawnRequest { stdio, log: Some(log.as_fd()), join: Some("main"), ..pod.request("exec", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    pod.exit_of("exec").await;
    assert_eq!(said(&records(&path_of(&pod, "log")), "stdout"), format!("{pid}\n").into_bytes());
    for (target, kind) in [("nobody", ErrorKind::NotFound), ("exec", ErrorKind::FailedPrecondition)] {
        let request = SpawnRequest { join: Some(target), ..pod.request("late", &spec) };
        assert_eq!(pod.monitor.spawn(request).await.unwrap_err().kind(), kind);
    }
    let request = pod.request("main", &spec);
    assert_eq!(pod.monitor.spawn(request).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_streams_are_the_programs_own() {
    let mut pod = Pod::start().await;
    let (stdin, mut write) = std::io::pipe().unwrap();
    let (mut out, stdout) = std::io::pipe().unwrap();
    let (mut err, stderr) = std::io::pipe().unwrap();
    let spec = shell("read line; echo out $line; echo err $line >&2");
    let stdio = TaskStdio::Passed([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    let start = Instant::now();
    let mut start_of_task = pod.monitor.spawn(SpawnRequest { stdio, ..pod.request("task", &spec) }).await.unwrap();
    println!("init was executed after {:?}", start.elapsed());
    go(&mut start_of_task).await;
    drop((stdin, stdout, stderr));
    write.write_all(b"words\n").unwrap();
    let (mut out_text, mut err_text) = (String::new(), String::new());
    // The ends come because neither the monitor nor init has kept a copy.
    out.read_to_string(&mut out_text).unwrap();
    err.read_to_string(&mut err_text).unwrap();
    assert_eq!((out_text.as_str(), err_text.as_str()), ("out words\n", "err words\n"));
    assert_eq!(pod.exit_of("task").await.code, 0);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_come_to_the_monitor_and_are_reaped() {
    let mut pod = Pod::start().await;
    pod.run("parent", "for i in 1 2 3 4 5; do (setsid sleep 600 &) ; done").await;
    pod.exit_of("parent").await;
    until("orphans are the monitor's children", || children(pod.process.pid).len() == 5);
    for orphan in children(pod.process.pid) {
        berth_sys::pidfd::signal(berth_sys::pidfd::open(orphan).unwrap().as_fd(), SIGKILL).unwrap();
    }
    until("all orphans are reaped", || children(pod.process.pid).is_empty());
    // A child that ends before anybody has heard its name keeps its status.
    for round in 0..20 {
        let id = format!("quick{round}");
        pod.run(&id, &format!("(setsid true &); exit {round}")).await;
        assert_eq!(pod.exit_of(&id).await.code, round);
    }
    until("no zombie is left", || children(pod.process.pid).is_empty());
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tasks_live_and_end() {
    let mut pod = Pod::start().await;
    let start = Instant::now();
    for n in 0..200 {
        let log = log_file(&path_of(&pod, &format!("log{n}")));
        pod.run_logged(&format!("task{n}"), &format!("echo {n}; exec sleep 600"), &log).await;
    }
    println!("200 tasks started one after the other in {:?}", start.elapsed());
    assert_eq!(pod.monitor.list().await.unwrap().iter().filter(|task| task.exit.is_none()).count(), 200);
    for n in 0..200 {
        pod.monitor.signal(&format!("task{n}"), SIGKILL).await.unwrap();
    }
    let mut ended: Vec<String> = Vec::new();
    for _ in 0..200 {
        let (id, exit) = next_exit(&mut pod.exits).await;
        assert_eq!(exit.code, 137);
        ended.push(id);
    }
    ended.sort();
    ended.dedup();
    assert_eq!(ended.len(), 200);
    assert_eq!(read_exits(pod.dir.path()).unwrap().records.len(), 200);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_goes_and_comes_and_nothing_is_lost() {
    let mut pod = Pod::start().await;
    let log = log_file(&path_of(&pod, "log"));
    pod.run_logged("runs", "while sleep 0.01; do echo tick; done", &log).await;
    pod.run("ends", "sleep 0.2; exit 5").await;
    // Its connection is cut in the middle of a start, too.
    let spec = program(&["sleep", "600"], &["FIXTURE=hang"]);
    let start = pod.monitor.spawn(pod.request("starting", &spec)).await.unwrap();
    drop(start);
    let (other, process) =
        pod.launcher.launch(&pod_id(), tempfile::tempdir().unwrap().path(), &options()).await.unwrap();
    let first = std::mem::replace(&mut pod.monitor, other.clone());
    drop(first);
    std::thread::sleep(Duration::from_millis(500));
    let before = records(&path_of(&pod, "log")).len();

    pod.monitor = Monitor::connect(pod.dir.path(), &pod.id, Instant::now()).await.unwrap();
    pod.exits = pod.monitor.exits();
    assert_eq!(pod.monitor.pid(), pod.process.pid);
    assert_eq!(pod.task("ends").await.exit.unwrap().code, 5);
    assert_eq!(pod.task("starting").await.exit.unwrap().code, 111, "nothing starts that nobody waits for");
    assert!(pod.task("runs").await.exit.is_none());
    until("the log goes on", || records(&path_of(&pod, "log")).len() > before);
    other.shutdown().await.unwrap();
    process.ended().await;
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_monitor_catches_up_and_a_killed_one_is_noticed() {
    let mut pod = Pod::start().await;
    let child = pod.run("runs", "exec sleep 600").await;
    let signal = |number| berth_sys::pidfd::signal(pod.process.pidfd.as_fd(), number).unwrap();
    signal(19);
    until("it is stopped", || state(pod.process.pid) == Some('T'));
    berth_sys::pidfd::signal(berth_sys::pidfd::open(child).unwrap().as_fd(), SIGTERM).unwrap();
    signal(18);
    assert_eq!(pod.exit_of("runs").await.code, 128 + SIGTERM);
    // The four signals that it ignores change nothing.
    for number in [1, 2, 13, 15] {
        berth_sys::pidfd::signal(pod.process.pidfd.as_fd(), number).unwrap();
    }
    assert_eq!(pod.monitor.list().await.unwrap().len(), 1);

    let survivor = pod.run("survives", "exec sleep 600").await;
    berth_sys::pidfd::signal(pod.process.pidfd.as_fd(), SIGKILL).unwrap();
    assert_eq!(pod.monitor.closed().await, Closed::ProcessEnded);
    assert_eq!(pod.process.ended().await, Some(berth_sys::pidfd::ExitStatus::Signaled(SIGKILL)));
    assert_eq!(pod.monitor.list().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(read_exits(pod.dir.path()).unwrap().records["runs"].exit.code, 128 + SIGTERM);
    assert!(state(survivor).is_some_and(|state| state != 'Z'), "the death of a monitor ends no container");
    berth_sys::pidfd::signal(berth_sys::pidfd::open(survivor).unwrap().as_fd(), SIGKILL).unwrap();
    let error = Monitor::connect(pod.dir.path(), &pod.id, Instant::now()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Its place can be taken.
    let (next, process) = pod.launcher.launch(&pod.id, pod.dir.path(), &options()).await.unwrap();
    next.shutdown().await.unwrap();
    process.ended().await;
    until("the survivor is gone", || !Path::new(&format!("/proc/{survivor}")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kill_file_and_the_oom_counter_are_used_at_the_end() {
    let mut pod = Pod::start().await;
    let (oom, kill) = (path_of(&pod, "memory.events"), path_of(&pod, "cgroup.kill"));
    std::fs::write(&oom, "low 0\noom 2\noom_kill 2\n").unwrap();
    std::fs::write(&kill, "").unwrap();
    let (oom_file, kill_file) = (std::fs::File::open(&oom).unwrap(), log_file(&kill));
    let spec = shell("sleep 0.2");
    let request =
        SpawnRequest { oom: Some(oom_file.as_fd()), kill: Some(kill_file.as_fd()), ..pod.request("task", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    std::fs::write(&oom, "low 0\noom 3\noom_kill 3\n").unwrap();
    assert_eq!(std::fs::read(&kill).unwrap(), b"");
    assert_eq!(pod.exit_of("task").await.oom_kills, 3);
    assert_eq!(std::fs::read(&kill).unwrap(), b"1");
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_one_monitor_and_a_bad_start_says_why() {
    let pod = Pod::start().await;
    let error = pod.launcher.launch(&pod.id, pod.dir.path(), &options()).await.unwrap_err();
    assert!(error.message().contains("a pod has one monitor"), "{error}");
    let error = pod.launcher.launch(&pod.id, Path::new("/nonexistent/x"), &options()).await.unwrap_err();
    assert!(error.message().contains("/nonexistent/x: open: No such file"), "{error}");
    let error = Monitor::connect(pod.dir.path(), &pod_id(), Instant::now()).await.unwrap_err();
    assert!(error.message().contains("says that it is of pod"), "{error}");
    pod.end().await;
}
