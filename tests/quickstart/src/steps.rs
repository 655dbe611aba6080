//! The steps, in the order in which they are shown. Each one checks what it shows; the first failure ends the show.
use crate::args::Options;
use crate::node::Node;
use crate::sample::expected;
use crate::stage::Stage;
use crate::{Result, console, http, interrupt, limits, reading, sample};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long the pod's server gets to listen.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a program of the user's choice gets: nobody says that it is a web server.
const FOREIGN_ANSWER: Duration = Duration::from_secs(3);
const PORT: u16 = 80;

/// What the later steps need to know of the pod.
struct Pod {
    running: reading::Running,
    pod: reading::Pod,
}

/// All of them.
pub fn all(stage: &mut Stage, options: &Options) -> Result {
    let own = options.image.is_none();
    serve(stage, options)?;
    pull(stage, options)?;
    let pod = run(stage)?;
    let node = stage.node()?;
    list(node)?;
    if own {
        enter(node)?;
    }
    answer(&pod, own)?;
    if own {
        logs(node)?;
    }
    check_limits(&pod)?;
    phases(&pod);
    refusal(stage)?;
    measurements(node, &pod)?;
    if !options.keep {
        remove(node)?;
    }
    Ok(())
}

fn step(title: &str) -> Result {
    interrupt::check()?;
    console::heading(title);
    Ok(())
}

fn serve(stage: &mut Stage, options: &Options) -> Result {
    step("The daemon, in a root directory of its own")?;
    let host = sample::host(&stage.registry);
    sample::write(&stage.base, &stage.root().join("etc"), &host, options.image.as_deref())?;
    println!("   documents (manifests/samples): {}", stage.root().join("etc").display());
    println!("   $ berth serve --root {}", stage.root().display());
    let start = Instant::now();
    let node = stage.start_node()?;
    println!("   ready after {} ms, CRI on {}", start.elapsed().as_millis(), node.socket().display());
    println!("   (below, `berth` stands for `{}`)", node.command_line());
    let info = node.json(&["info"])?;
    if let Some(refused) = info["refusedDocuments"].as_str().filter(|r| !r.is_empty()) {
        return Err(format!("the daemon refused the sample documents: {refused}"));
    }
    node.show(&["version"]).map(drop)
}

fn pull(stage: &Stage, options: &Options) -> Result {
    step("An image, pulled from a registry")?;
    let image = options.image.clone().unwrap_or_else(|| sample::image(&stage.registry));
    let requests = stage.registry.requests().len();
    let start = Instant::now();
    stage.node()?.pass_on(&["pull", &image])?;
    println!("   pulled in {} ms", start.elapsed().as_millis());
    if options.image.is_none() && stage.registry.requests().len() == requests {
        return Err("the registry was never asked".into());
    }
    let images = stage.node()?.show(&["images"])?;
    contains(&images, if options.image.is_none() { "samples/web" } else { "" }, "berth images")
}

fn run(stage: &Stage) -> Result<Pod> {
    step("A pod: one web server, 128Mi of memory, 500m of CPU")?;
    let file = stage.base.join("pod.yaml");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    console::indented(&text.lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n"));
    let node = stage.node()?;
    let start = Instant::now();
    node.show(&["run", "-f", &file.display().to_string()])?;
    println!("   running after {} ms", start.elapsed().as_millis());
    let (pod, container) = reading::listed(&node.json(&["pods"])?, "web")?;
    let running = reading::container(&node.json(&["inspect", &container])?)?;
    Ok(Pod { running, pod: reading::pod(&node.json(&["inspect", &pod])?)? })
}

fn list(node: &Node) -> Result {
    step("What runs")?;
    let listed = node.show(&["ps"])?;
    contains(&listed, "web", "berth ps")?;
    contains(&listed, "Running", "berth ps")
}

fn enter(node: &Node) -> Result {
    step("A command in the container (its image has no shell; `id` is the web server's own)")?;
    let id = node.show(&["exec", "web", "--", "/berth-web", "id"])?;
    // Filter mode (proc(5)): the default seccomp profile is on.
    if !id.lines().any(|l| l.split_whitespace().eq(["Seccomp:", "2"])) {
        return Err("berth exec: the default seccomp profile is not on".into());
    }
    Ok(())
}

fn answer(pod: &Pod, own: bool) -> Result {
    step("An answer from the pod's address")?;
    let address = SocketAddr::new(pod.pod.address, PORT);
    println!("   GET http://{address}/");
    match http::get(address, "/", if own { ANSWER } else { FOREIGN_ANSWER }) {
        Ok(answer) => {
            console::indented(&answer.status);
            console::indented(&answer.body.lines().take(10).collect::<Vec<_>>().join("\n"));
            if own && !(answer.is_ok() && answer.body.contains("Hello from web")) {
                return Err("the pod's answer is not the sample's page".into());
            }
            Ok(())
        }
        Err(why) if own => Err(why),
        Err(why) => {
            println!("   {why}: this image seems to serve nothing on port {PORT}");
            Ok(())
        }
    }
}

fn logs(node: &Node) -> Result {
    step("Its log")?;
    // The server logs a request after it has answered it: its line may be a moment behind.
    node.wait_for_output(&["logs", "web"], "GET / 200")?;
    let log = node.show(&["logs", "web"])?;
    contains(&log, "listening on", "berth logs")
}

fn check_limits(pod: &Pod) -> Result {
    step("Its limits, read from the kernel's files")?;
    let limits = limits::of_process(pod.running.pid)?;
    for (path, value) in &limits.files {
        println!("   {value:<14} {}", path.display());
    }
    let pairs = [
        ("memory", limits.memory, expected::MEMORY),
        ("cpu", limits.cpu_millis, expected::CPU_MILLIS),
        ("pids", limits.pids, expected::PIDS),
    ];
    match pairs.iter().find(|(_, have, want)| have != want) {
        None => Ok(()),
        Some((name, have, want)) => Err(format!("the kernel's limit of {name} is {have}, the documents say {want}")),
    }
}

fn phases(pod: &Pod) {
    console::heading("Where the time of the start went");
    let all: Vec<_> = pod.pod.phases.iter().chain(&pod.running.phases).collect();
    let ms = |micros: u64| format!("{:>8.2} ms", micros as f64 / 1000.0);
    // `start/setup/mounts` is a part of `start/setup`: it is shown below that, and counts once.
    let parts = |name: &str| name.split('/').skip(2).map(|part| format!("  {part}")).last();
    let row = |(name, micros): &(String, u64)| match parts(name) {
        Some(part) => vec![part, String::new(), ms(*micros)],
        None => vec![name.clone(), ms(*micros)],
    };
    let total = all.iter().filter(|(name, _)| parts(name).is_none()).map(|(_, micros)| micros).sum();
    let mut rows: Vec<_> = all.iter().map(|phase| row(phase)).collect();
    rows.push(vec!["together".into(), ms(total)]);
    console::table(&rows);
}

fn refusal(stage: &Stage) -> Result {
    step("A pod that the policy refuses")?;
    let node = stage.node()?;
    let file = stage.base.join("denied-pod.yaml");
    let before = stage.registry.requests().len();
    let said = node.show_refused(&["run", "-f", &file.display().to_string()])?;
    contains(&said, expected::POLICY, "the refusal names the policy:")?;
    contains(&said, "denied", "the refusal says why:")?;
    if stage.registry.requests().len() != before {
        return Err("the registry was asked for an image that the policy refuses".into());
    }
    let listed = node.json(&["pods", "--all"])?.to_string();
    if listed.contains("denied") {
        return Err(format!("the refused pod left something behind: {listed}"));
    }
    Ok(())
}

fn measurements(node: &Node, pod: &Pod) -> Result {
    step("Metrics, and what it all costs")?;
    let info = node.json(&["info"])?;
    let address = info["metricsAddress"].as_str().ok_or_else(|| format!("berth info: no metricsAddress in {info}"))?;
    let address: SocketAddr = address.parse().map_err(|e| format!("metrics address {address:?}: {e}"))?;
    println!("   GET http://{address}/metrics");
    let metrics = http::get(address, "/metrics", Duration::ZERO)?;
    for (name, label) in [
        ("berth_pods{", "state=\"ready\""),
        ("berth_containers{", "state=\"running\""),
        ("berth_pulls_total{", ""),
        ("berth_policy_decisions_total{", ""),
        ("berth_cri_calls_total{", "method=\"RunPodSandbox\""),
    ] {
        let lines: Vec<&str> = metrics
            .body
            .lines()
            .filter(|l| l.starts_with(name) && l.to_lowercase().contains(&label.to_lowercase()))
            .collect();
        if lines.is_empty() {
            return Err(format!("metrics: no {name}{label}}}"));
        }
        console::indented(&lines.join("\n"));
    }
    let monitor = reading::comm(pod.pod.monitor)?;
    if !monitor.starts_with("berth-monitor") {
        return Err(format!("process {} is no monitor but {monitor}", pod.pod.monitor));
    }
    println!("   memory (PSS): berth serve {} KiB", reading::pss_kib(node.pid())?);
    println!("                 berth-monitor {} KiB, one per pod", reading::pss_kib(pod.pod.monitor)?);
    Ok(())
}

fn remove(node: &Node) -> Result {
    step("Removing the pod")?;
    node.show(&["rm", "--force", "web"])?;
    let left = node.json(&["pods", "--all"])?;
    if left.as_array().is_none_or(|l| !l.is_empty()) {
        return Err(format!("berth pods still lists something: {left}"));
    }
    Ok(())
}

fn contains(text: &str, word: &str, what: &str) -> Result {
    if text.contains(word) { Ok(()) } else { Err(format!("{what}: {word:?} is missing")) }
}
