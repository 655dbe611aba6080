//! `berth explain`: where the time of a start went.
use crate::commands::connect::{self, said};
use crate::commands::output::{self, Document, Format};
use crate::commands::table::Columns;
use crate::commands::time;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::start_line::Kind;
use berth_proto::node::{ExplainStartRequest, ExplainStartResponse, StartLine};
use serde::Serialize;

/// Cells of the bar that stands for the whole time.
const BAR: u64 = 32;

/// What to explain.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Show where the time of a pod's or a container's start went
    Start(Start),
}

/// Whose start, and how to show it.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth explain start web                  pod web with all its containers
  berth explain start default/web          the same, where two namespaces have one
  berth explain start 3f2a9c               a pod or container by its id
  berth explain start web -o json | jq '.lines[] | select(.kind == \"unaccounted\")'

USUAL is the median of the last starts on this node. `unaccounted` is time inside an operation that no step accounts for;
`between` is time between two calls, which whoever gives the orders (the kubelet) let pass.

Fields of -o json and -o yaml:
  pod podId began totalMicros advice lines
  lines: kind (operation step unaccounted between) name container depth offsetMicros micros usualMicros percent")]
struct Start {
    /// Pod (name, namespace/name or id) or container (name or id)
    #[arg(value_name = "NAME")]
    name: String,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    pod: String,
    pod_id: String,
    began: String,
    total_micros: u64,
    advice: Vec<String>,
    lines: Vec<Line>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    kind: &'static str,
    name: String,
    container: String,
    depth: u32,
    offset_micros: u64,
    micros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    usual_micros: Option<u64>,
    percent: u64,
}

impl From<ExplainStartResponse> for Report {
    fn from(r: ExplainStartResponse) -> Self {
        let total = r.micros;
        Self {
            pod: r.pod,
            pod_id: r.pod_id,
            began: time::rfc3339(r.began),
            total_micros: total,
            advice: r.advice,
            lines: r.lines.into_iter().map(|l| line(l, total)).collect(),
        }
    }
}

fn line(l: StartLine, total: u64) -> Line {
    let kind = match l.kind() {
        Kind::Operation => "operation",
        Kind::Step => "step",
        Kind::Unaccounted => "unaccounted",
        Kind::Between => "between",
    };
    Line {
        kind,
        percent: l.micros.saturating_mul(100) / total.max(1),
        name: l.name,
        container: l.container,
        depth: l.depth,
        offset_micros: l.offset_micros,
        micros: l.micros,
        usual_micros: l.usual_micros,
    }
}

/// Shows it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let What::Start(start) = &options.what;
    let mut node = connect::node(layout).await?;
    let request = ExplainStartRequest { name: start.name.clone() };
    let report: Report = node.explain_start(request).await.map_err(said)?.into_inner().into();
    match start.output {
        Format::Json => output::document(&report, Document::Json),
        Format::Yaml => output::document(&report, Document::Yaml),
        Format::Table | Format::Wide => output::bytes(text(&report).as_bytes()),
    }
}

fn text(report: &Report) -> String {
    let mut table = Columns::new(&["AT", "TOOK", "%", "USUAL", "STEP", "TIME"], false);
    for line in &report.lines {
        let indent = "  ".repeat(usize::try_from(line.depth).unwrap_or(0).min(8));
        let name = line
            .name
            .rsplit_once('/')
            .filter(|_| line.depth > 0 && line.kind == "step")
            .map_or(&*line.name, |(_, n)| n);
        let whose =
            if line.depth == 0 && !line.container.is_empty() { format!(" {}", line.container) } else { String::new() };
        table.row([
            time::micros(line.offset_micros),
            time::micros(line.micros),
            line.percent.to_string(),
            line.usual_micros.map(time::micros).unwrap_or_default(),
            format!("{indent}{name}{whose}"),
            bar(line.offset_micros, line.micros, report.total_micros),
        ]);
    }
    let head = format!("Pod {}, {} from {}\n", report.pod, time::micros(report.total_micros), report.began);
    let advice: String = report.advice.iter().map(|a| format!("{a}\n")).collect();
    format!("{head}\n{}\n\n{advice}", table.render())
}

/// Where in the whole time a line lies, and how much of it it takes: one cell at least.
fn bar(at: u64, micros: u64, total: u64) -> String {
    let cells = |part: u64| usize::try_from(part.saturating_mul(BAR) / total.max(1)).unwrap_or(0).min(BAR as usize);
    let from = cells(at).min(BAR as usize - 1);
    let to = cells(at.saturating_add(micros)).max(from + 1);
    format!("{}{}{}", ".".repeat(from), "#".repeat(to - from), ".".repeat(BAR as usize - to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_place_and_share() {
        assert_eq!(bar(0, 32, 32), "#".repeat(32));
        assert_eq!(bar(16, 16, 32), format!("{}{}", ".".repeat(16), "#".repeat(16)));
        assert_eq!(bar(32, 0, 32), format!("{}#", ".".repeat(31)), "what takes no time is seen");
        for (at, micros, total) in [(0, 0, 0), (u64::MAX, u64::MAX, 1), (5, u64::MAX, u64::MAX)] {
            assert_eq!(bar(at, micros, total).len(), 32);
        }
    }

    #[test]
    fn a_report_is_a_table_and_advice() {
        let line = |kind: Kind, name: &str, depth, offset_micros, micros, usual_micros| StartLine {
            kind: kind as i32,
            name: name.into(),
            container: "app".into(),
            depth,
            offset_micros,
            micros,
            usual_micros,
        };
        let report = Report::from(ExplainStartResponse {
            pod: "default/web".into(),
            began: 1_700_000_000_000_000_000,
            micros: 20_000,
            lines: vec![
                line(Kind::Operation, "start", 0, 0, 20_000, None),
                line(Kind::Step, "start/spawn", 1, 0, 14_000, Some(1_300)),
                line(Kind::Unaccounted, "unaccounted", 1, 14_000, 6_000, None),
            ],
            advice: vec!["start/spawn took 14 ms, usually 1.3 ms.".into()],
            ..ExplainStartResponse::default()
        });
        let text = text(&report);
        assert!(text.starts_with("Pod default/web, 20.0ms from 2023-11-14T22:13:20"), "{text}");
        let rows: Vec<&str> = text.lines().skip(2).take(4).collect();
        assert!(rows[1].contains("start app") && rows[2].contains("14.0ms") && rows[2].contains("1.3ms"), "{text}");
        assert!(rows[2].contains("  spawn") && rows[3].contains("30"), "{text}");
        assert!(text.ends_with("usually 1.3 ms.\n"), "{text}");
    }
}
