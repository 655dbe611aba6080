//! `berth stats`: what running containers use, again and again.
use crate::commands::connect::{self, Node, said};
use crate::commands::listing::{self, PodView};
use crate::commands::names::{self, Target};
use crate::commands::output::list::{Column, Row, Seen, Show, Text};
use crate::commands::output::{self, Document};
use crate::commands::table::size;
use crate::commands::time;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::{ContainerReading, StatsRequest};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::io::IsTerminal;
use std::time::Duration;

/// Shortest interval: below it readings cost more than they tell.
const SHORTEST: Duration = Duration::from_millis(200);
/// Home, and clear what was there: one write a picture, so that nothing flickers.
const AGAIN: &str = "\x1b[H";
const CLEAR_REST: &str = "\x1b[J";

/// What to show.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth stats                        all that runs, every second
  berth stats --no-stream --sort memory web db/app
  berth stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}'

CPU % is of one CPU, from two readings; MEM is what the kubelet evicts by. Network figures are the
pod's, shared by its containers; a pod on the node's network has none.
On a terminal the picture is drawn anew; in a pipe tables follow each other.

Fields of --format: ID Container Name Pod Namespace CPUPerc MemUsage MemPerc NetIO BlockIO PIDs Throttled
OOMKills Written.

Fields of -o json and -o yaml: a list of
  id name pod namespace cpuPercent cpuNanos throttledNanos memoryBytes memoryLimitBytes receivedBytes
  sentBytes readBytes writeBytes pids pidsLimit oomKills writtenBytes")]
pub struct Options {
    /// One picture, and no more
    #[arg(long)]
    no_stream: bool,
    /// Time between two pictures
    #[arg(short, long, value_name = "DURATION", value_parser = time::parse_span, default_value = "1s")]
    interval: Duration,
    /// By what to sort
    #[arg(long, value_enum, value_name = "COLUMN", default_value_t)]
    sort: Sort,
    /// Containers that do not run are never shown
    #[arg(short, long, hide = true)]
    all: bool,
    #[command(flatten)]
    show: Show,
    /// Only these pods and containers
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// By what readings are sorted, the largest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    /// Namespace, pod and container
    #[default]
    Name,
    /// CPU time
    Cpu,
    /// Memory
    Memory,
    /// Network bytes since the pod's start
    Net,
    /// Block I/O since the container's start
    Io,
    /// Processes
    Pids,
}

/// One container's figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    id: String,
    name: String,
    pod: String,
    namespace: String,
    cpu_percent: f64,
    cpu_nanos: u64,
    throttled_nanos: u64,
    memory_bytes: u64,
    memory_limit_bytes: u64,
    received_bytes: u64,
    sent_bytes: u64,
    read_bytes: u64,
    write_bytes: u64,
    pids: u64,
    pids_limit: u64,
    oom_kills: u64,
    written_bytes: u64,
}

impl Row for Figures {
    fn id(&self) -> String {
        self.id.clone()
    }
    fn name(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.pod, self.name)
    }
}

/// Shows them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let interval = options.interval.max(SHORTEST);
    let (mut runtime, _) = connect::cri(layout).await?;
    let mut node = connect::node(layout).await?;
    let mut pods = listing::list(&mut runtime).await?;
    let wanted = wanted(&pods, &options.names)?;
    let mut before = read(&mut node).await?;
    let live = !options.no_stream;
    let redraw = live && std::io::stdout().is_terminal() && !options.show.documents() && options.show.format.is_none();
    if redraw {
        output::bytes(b"\x1b[2J")?;
    }
    loop {
        tokio::time::sleep(interval).await;
        let now = read(&mut node).await?;
        pods = listing::list(&mut runtime).await?;
        let mut figures = figures(&before, &now, &pods, wanted.as_ref());
        sort(&mut figures, options.sort);
        draw(options, &figures, redraw)?;
        if !live {
            return Ok(());
        }
        before = now;
    }
}

fn draw(options: &Options, figures: &[Figures], redraw: bool) -> Result<()> {
    if options.show.documents() && !options.no_stream {
        // A stream of documents is one a line, so that a reader knows where one ends.
        return output::line(serde_json::to_string(figures)?);
    }
    match options.show.text(figures, COLUMNS, output::colours())? {
        Text::Document(form @ Document::Json) | Text::Document(form) => output::document(&figures, form),
        Text::Lines(text) if redraw => {
            let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
            output::bytes(format!("{AGAIN}{lines}{CLEAR_REST}").as_bytes())?;
            output::flush()
        }
        Text::Lines(text) => output::line(text),
    }
}

/// Ids of the containers that are meant; `None` for all.
fn wanted(pods: &[PodView], wanted: &[String]) -> Result<Option<BTreeSet<String>>> {
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut ids = BTreeSet::new();
    for name in wanted {
        match names::find(pods, name)? {
            Target::Pod(pod) => ids.extend(pod.containers.iter().map(|c| c.id.clone())),
            Target::Container(_, container) => drop(ids.insert(container.id.clone())),
        }
    }
    Ok(Some(ids))
}

type Readings = HashMap<String, ContainerReading>;

async fn read(node: &mut Node) -> Result<Readings> {
    let answer = node.stats(StatsRequest {}).await.map_err(said)?.into_inner();
    Ok(answer.containers.into_iter().map(|reading| (reading.container_id.clone(), reading)).collect())
}

/// A container that has just started is measured from its beginning.
fn figures(before: &Readings, now: &Readings, pods: &[PodView], wanted: Option<&BTreeSet<String>>) -> Vec<Figures> {
    let all = pods.iter().flat_map(|pod| pod.containers.iter().map(move |c| (pod, c)));
    let meant = all.filter(|(_, c)| wanted.is_none_or(|ids| ids.contains(&c.id)));
    let read = meant.filter_map(|(pod, c)| Some((pod, c, now.get(&c.id)?)));
    let figures = read.map(|(pod, c, r)| {
        let (cpu, at) = before.get(&c.id).map_or((0, c.created_nanos), |b| (b.cpu, b.taken_at));
        let (used, passed) = (r.cpu.saturating_sub(cpu), u64::try_from(r.taken_at - at).unwrap_or(0));
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let percent = if passed == 0 { 0.0 } else { used as f64 * 100.0 / passed as f64 };
        Figures {
            id: c.id.clone(),
            name: c.name.clone(),
            pod: pod.name.clone(),
            namespace: pod.namespace.clone(),
            cpu_percent: (percent * 100.0).round() / 100.0,
            cpu_nanos: r.cpu,
            throttled_nanos: r.throttled,
            memory_bytes: r.memory,
            memory_limit_bytes: r.memory_limit,
            received_bytes: r.received_bytes,
            sent_bytes: r.sent_bytes,
            read_bytes: r.read_bytes,
            write_bytes: r.write_bytes,
            pids: r.pids,
            pids_limit: r.pids_limit,
            oom_kills: r.oom_kills,
            written_bytes: r.written_bytes,
        }
    });
    figures.collect()
}

fn sort(figures: &mut [Figures], by: Sort) {
    let largest = |key: fn(&Figures) -> u64| move |f: &Figures| std::cmp::Reverse(key(f));
    match by {
        Sort::Name => figures.sort_by_key(Row::name),
        Sort::Cpu => figures.sort_by(|a, b| b.cpu_percent.total_cmp(&a.cpu_percent)),
        Sort::Memory => figures.sort_by_key(largest(|f| f.memory_bytes)),
        Sort::Net => figures.sort_by_key(largest(|f| f.received_bytes + f.sent_bytes)),
        Sort::Io => figures.sort_by_key(largest(|f| f.read_bytes + f.write_bytes)),
        Sort::Pids => figures.sort_by_key(largest(|f| f.pids)),
    }
}

fn share(f: &Figures) -> String {
    match f.memory_limit_bytes {
        0 => String::new(),
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        limit => format!("{:.2}%", f.memory_bytes as f64 * 100.0 / limit as f64),
    }
}

fn limit(bytes: u64) -> String {
    if bytes == 0 { "-".to_owned() } else { size(bytes) }
}

fn pids(f: &Figures) -> String {
    if f.pids_limit == 0 { f.pids.to_string() } else { format!("{}/{}", f.pids, f.pids_limit) }
}

const COLUMNS: &[Column<Figures>] = &[
    Column { field: "Pod", heading: "POD", seen: Seen::Always, cell: |f, _| f.pod.clone() },
    Column { field: "Namespace", heading: "NAMESPACE", seen: Seen::Wide, cell: |f, _| f.namespace.clone() },
    Column { field: "Name", heading: "CONTAINER", seen: Seen::Always, cell: |f, _| f.name.clone() },
    Column { field: "CPUPerc", heading: "CPU %", seen: Seen::Always, cell: |f, _| format!("{:.2}%", f.cpu_percent) },
    Column {
        field: "MemUsage",
        heading: "MEM / LIMIT",
        seen: Seen::Always,
        cell: |f, _| format!("{} / {}", size(f.memory_bytes), limit(f.memory_limit_bytes)),
    },
    Column { field: "MemPerc", heading: "MEM %", seen: Seen::Always, cell: |f, _| share(f) },
    Column {
        field: "NetIO",
        heading: "NET I/O",
        seen: Seen::Always,
        cell: |f, _| format!("{} / {}", size(f.received_bytes), size(f.sent_bytes)),
    },
    Column {
        field: "BlockIO",
        heading: "BLOCK I/O",
        seen: Seen::Always,
        cell: |f, _| format!("{} / {}", size(f.read_bytes), size(f.write_bytes)),
    },
    Column { field: "PIDs", heading: "PIDS", seen: Seen::Always, cell: |f, _| pids(f) },
    Column {
        field: "Throttled",
        heading: "THROTTLED",
        seen: Seen::Wide,
        cell: |f, _| time::micros(f.throttled_nanos / 1000),
    },
    Column { field: "OOMKills", heading: "OOM KILLS", seen: Seen::Wide, cell: |f, _| f.oom_kills.to_string() },
    Column { field: "Written", heading: "WRITTEN", seen: Seen::Wide, cell: |f, _| size(f.written_bytes) },
    Column { field: "ID", heading: "ID", seen: Seen::Always, cell: |f, c| c.id(&f.id) },
    Column { field: "Container", heading: "CONTAINER", seen: Seen::Template, cell: |f, c| c.id(&f.id) },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::listing::ContainerView;

    #[test]
    fn two_readings_make_a_rate() {
        let reading = |at: i64, cpu: u64| {
            let reading = ContainerReading {
                container_id: "c".into(),
                taken_at: at,
                cpu,
                memory: 50,
                memory_limit: 200,
                ..Default::default()
            };
            Readings::from([("c".to_owned(), reading)])
        };
        let container =
            ContainerView { id: "c".into(), name: "web".into(), created_nanos: 0, ..ContainerView::default() };
        let pods =
            [PodView { name: "p".into(), namespace: "n".into(), containers: vec![container], ..PodView::default() }];
        let one = figures(&reading(1_000, 100), &reading(2_000, 600), &pods, None);
        assert_eq!((one[0].cpu_percent, share(&one[0]), one[0].name()), (50.0, "25.00%".into(), "n/p/web".into()));
        let new = figures(&Readings::new(), &reading(2_000, 600), &pods, None);
        assert_eq!(new[0].cpu_percent, 30.0, "from its beginning");
        assert!(figures(&reading(1, 1), &reading(2, 2), &pods, Some(&BTreeSet::new())).is_empty());
        assert!(figures(&reading(1, 1), &Readings::new(), &pods, None).is_empty(), "one that has ended");
        let wanted = wanted(&pods, &["p".to_owned()]).unwrap().unwrap();
        assert!(wanted.contains("c"));
    }

    #[test]
    fn the_largest_come_first() {
        let of = |name: &str, cpu, memory| Figures {
            name: name.into(),
            cpu_percent: cpu,
            memory_bytes: memory,
            ..Figures::default()
        };
        let mut all = vec![of("a", 1.0, 5), of("b", 9.5, 1)];
        sort(&mut all, Sort::Cpu);
        assert_eq!(all[0].name, "b");
        sort(&mut all, Sort::Memory);
        assert_eq!(all[0].name, "a");
        assert_eq!((limit(0), pids(&all[0])), ("-".into(), "0".into()));
    }
}
