//! `berth top`: the processes of a pod or a container, read from their cgroups and from /proc.
use crate::commands::connect::{self, Runtime, said};
use crate::commands::listing;
use crate::commands::names::{self, Target};
use crate::commands::output::list::{Column, Row, Seen, Show};
use crate::commands::table::size;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_cgroups::{CgroupPath, Cgroups};
use berth_proto::cri as wire;
use serde::Serialize;
use serde_json::Value;
use std::fs;

/// Clock ticks a second in /proc (`getconf CLK_TCK`: the kernel's USER_HZ, 100 everywhere).
const TICKS: u64 = 100;
/// Longest command in a table.
const COMMAND: usize = 60;

/// Of what.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth top web               the processes of all containers of pod web
  berth top -o wide db/app    with their ids in the container, threads and ages
  berth top --format '{{.PID}} {{.Command}}' web

PID and UID are the node's numbers, NSPID is the one inside. CPU % is over the process's life, as ps(1)
has it.

Fields of --format: Container PID NSPID PPID UID Stat Threads CPUPerc RSS Time Start Command.
Fields of -o json and -o yaml: a list of
  container pid nsPid ppid uid stat threads cpuPercent rssBytes cpuSeconds ageSeconds command")]
pub struct Options {
    #[command(flatten)]
    show: Show,
    /// Pod (name, namespace/name or id) or container (name, pod/name or id)
    #[arg(value_name = "POD|CONTAINER")]
    name: String,
}

/// A process.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    container: String,
    pid: u32,
    ns_pid: u32,
    ppid: u32,
    uid: u32,
    stat: String,
    threads: u32,
    cpu_percent: f64,
    rss_bytes: u64,
    cpu_seconds: f64,
    age_seconds: f64,
    command: String,
}

impl Row for Process {
    fn id(&self) -> String {
        self.pid.to_string()
    }
    fn name(&self) -> String {
        self.pid.to_string()
    }
}

/// Shows them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let containers = match names::find(&pods, &options.name)? {
        Target::Pod(pod) => pod.containers.iter().filter(|c| c.running()).collect(),
        Target::Container(_, container) if container.running() => vec![container],
        Target::Container(_, c) => bail!("container {} does not run: {}", c.name, c.shown_state()),
    };
    if containers.is_empty() {
        bail!("pod {} has no container that runs", options.name);
    }
    let cgroups = Cgroups::probe(Cgroups::default_driver()).context("cgroups")?;
    let uptime = uptime()?;
    let mut processes = Vec::new();
    for container in containers {
        let Some(group) = group(&mut runtime, &container.id).await? else { continue };
        // One that has ended meanwhile has none.
        for pid in cgroups.pids(&group).unwrap_or_default() {
            processes.extend(read(pid, &container.name, uptime));
        }
    }
    processes.sort_by_key(|p| p.pid);
    options.show.rows(&processes, COLUMNS)
}

/// The container's group, from its record.
async fn group(runtime: &mut Runtime, id: &str) -> Result<Option<CgroupPath>> {
    let request = wire::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = runtime.container_status(request).await.map_err(said)?.into_inner();
    let info = answer.info.get("info").context("the daemon does not tell the container's record")?;
    let document: Value = serde_json::from_str(info).context("the container's record")?;
    Ok(serde_json::from_value(document["record"]["cgroup"].clone()).ok())
}

fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime").context("/proc/uptime")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("/proc/uptime has no number")
}

/// `None` for one that has ended.
fn read(pid: u32, container: &str, uptime: f64) -> Option<Process> {
    let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let (stat, status) = (file("stat")?, file("status")?);
    let command = file("cmdline").unwrap_or_default();
    parse(&String::from_utf8_lossy(&stat), &String::from_utf8_lossy(&status), &command, uptime).map(|process| Process {
        container: container.to_owned(),
        pid,
        ..process
    })
}

/// Fields of /proc/PID/stat and status (proc_pid_stat(5), proc_pid_status(5)).
fn parse(stat: &str, status: &str, command: &[u8], uptime: f64) -> Option<Process> {
    // The name may have spaces and parentheses: what follows the last one counts. The first field after it is the third.
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(').map_or("", |(_, name)| name);
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let number = |n: usize| field(n).parse::<u64>().unwrap_or_default();
    let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
    let rss = line("VmRSS").and_then(|v| v.strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024;
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = |ticks: u64| ticks as f64 / TICKS as f64;
    let (used, age) = (seconds(number(14) + number(15)), (uptime - seconds(number(22))).max(0.0));
    let words = command.split(|b| *b == 0).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    let words = words.trim_end();
    Some(Process {
        ns_pid: line("NSpid").and_then(|v| v.split_whitespace().last()?.parse().ok()).unwrap_or(0),
        ppid: field(4).parse().unwrap_or_default(),
        uid: line("Uid").and_then(|v| v.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0),
        stat: field(3).to_owned(),
        threads: field(20).parse().unwrap_or_default(),
        cpu_percent: if age > 0.0 { (used * 10_000.0 / age).round() / 100.0 } else { 0.0 },
        rss_bytes: rss,
        cpu_seconds: used,
        age_seconds: (age * 100.0).round() / 100.0,
        // A kernel thread, or a zombie, has no arguments.
        command: if words.is_empty() { format!("[{name}]") } else { words.to_owned() },
        ..Process::default()
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times are positive, and rounded for people"
)]
fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    format!("{}:{:02}.{:02}", whole / 60, whole % 60, (seconds.fract() * 100.0) as u64)
}

#[expect(clippy::cast_possible_truncation, reason = "an age for people")]
fn age(p: &Process) -> String {
    crate::commands::time::age((p.age_seconds * 1e9) as i64 + 1, 1)
}

const COLUMNS: &[Column<Process>] = &[
    Column { field: "Container", heading: "CONTAINER", seen: Seen::Always, cell: |p, _| p.container.clone() },
    Column { field: "PID", heading: "PID", seen: Seen::Always, cell: |p, _| p.pid.to_string() },
    Column { field: "NSPID", heading: "NSPID", seen: Seen::Wide, cell: |p, _| p.ns_pid.to_string() },
    Column { field: "PPID", heading: "PPID", seen: Seen::Always, cell: |p, _| p.ppid.to_string() },
    Column { field: "UID", heading: "UID", seen: Seen::Always, cell: |p, _| p.uid.to_string() },
    Column { field: "Stat", heading: "STAT", seen: Seen::Always, cell: |p, _| p.stat.clone() },
    Column { field: "Threads", heading: "THREADS", seen: Seen::Wide, cell: |p, _| p.threads.to_string() },
    Column { field: "CPUPerc", heading: "CPU %", seen: Seen::Always, cell: |p, _| format!("{:.2}", p.cpu_percent) },
    Column { field: "RSS", heading: "RSS", seen: Seen::Always, cell: |p, _| size(p.rss_bytes) },
    Column { field: "Time", heading: "TIME", seen: Seen::Always, cell: |p, _| clock(p.cpu_seconds) },
    Column { field: "Start", heading: "AGE", seen: Seen::Wide, cell: |p, _| age(p) },
    Column { field: "Command", heading: "COMMAND", seen: Seen::Always, cell: |p, c| c.cut(&p.command, COMMAND) },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b) S 3 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 4 0 1000 0 0";
        let status = "Name:\ta) b\nUid:\t0\t1000\t0\t0\nVmRSS:\t  12 kB\nNSpid:\t7\t1\n";
        let p = parse(stat, status, b"/bin/x\0-a\0", 30.0).unwrap();
        assert_eq!((p.ppid, p.uid, p.ns_pid, p.threads), (3, 1000, 1, 4));
        assert_eq!((p.stat.as_str(), p.rss_bytes, p.command.as_str()), ("S", 12 << 10, "/bin/x -a"));
        assert_eq!((p.cpu_seconds, p.age_seconds, p.cpu_percent), (2.0, 20.0, 10.0));
        assert_eq!((clock(125.5), age(&p)), ("2:05.50".into(), "20s".into()));
        assert_eq!(parse(stat, status, b"", 30.0).unwrap().command, "[a) b]");
        assert!(parse("7 nothing", "", b"", 1.0).is_none());
        let own = read(std::process::id(), "me", uptime().unwrap()).unwrap();
        assert!(own.rss_bytes > 0 && own.container == "me");
    }
}
