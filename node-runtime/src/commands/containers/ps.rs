//! `berth ps`: containers.
use crate::commands::connect;
use crate::commands::listing::{self, ContainerView, PodView};
use crate::commands::output::choice::Choice;
use crate::commands::output::filter::{Filters, Match, Seen as Has};
use crate::commands::output::list::{Column, Row, Seen, Show, joined_labels};
use crate::commands::phases::{longest, total};
use crate::commands::time;
use crate::layout::Layout;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest command in a table.
const COMMAND: usize = 30;

/// What to list.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth ps                                what runs
  berth ps -a -o wide                     all, with the time of each start and where it went
  berth ps -q -f pod=web                  ids of what runs in pod web
  berth ps -a -f status=exited -f exited=137
  berth ps --format 'table {{.Names}}\\t{{.Status}}\\t{{.Ports}}'
  berth ps -o json | jq -r '.[].id'

Filters (-f KEY=VALUE, KEY!=VALUE): name (a part; ^ and $ bind it), id, status (created, running,
exited, unknown), exited (its code), label (KEY or KEY=VALUE), pod, namespace, image or ancestor.
Values of one key are alternatives, keys must all hold.

Fields of --format: ID Names Pod PodID Namespace Image ImageID Command CreatedAt RunningFor State
Status ExitCode Reason Attempt IP Ports Mounts Labels Networks PID PodStart Start LongestPhases,
and {{.Label \"key\"}}.

Fields of -o json and -o yaml: a list of containers with
  id name attempt image imageId state exitCode reason message createdAt startedAt finishedAt
  logPath pid command mounts labels phases, and pod with id name namespace uid ips ports
Times are RFC 3339 in UTC, empty for not yet.")]
pub struct Options {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    show: Show,
}

/// A container with its pod.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerRow {
    #[serde(flatten)]
    pub container: ContainerView,
    pub pod: PodOf,
    #[serde(skip)]
    pub start: String,
}

/// The pod that a container is in.
#[derive(Debug, Clone, Serialize)]
pub struct PodOf {
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub ips: Vec<String>,
    pub ports: Vec<String>,
    #[serde(skip)]
    labels: BTreeMap<String, String>,
}

impl Row for ContainerRow {
    fn id(&self) -> String {
        self.container.id.clone()
    }
    fn name(&self) -> String {
        format!("{}/{}/{}", self.pod.namespace, self.pod.name, self.container.name)
    }
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.pod.labels.clone();
        labels.extend(self.container.labels.clone());
        labels
    }
}

const KEYS: &[(&str, Match)] = &[
    ("name", Match::Part),
    ("id", Match::Prefix),
    ("status", Match::Whole),
    ("state", Match::Whole),
    ("exited", Match::Whole),
    ("label", Match::Label),
    ("pod", Match::Part),
    ("namespace", Match::Whole),
    ("image", Match::Part),
    ("ancestor", Match::Part),
];

/// Lists them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let filters = options.choice.filters(KEYS)?;
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list_whole(&mut runtime, options.show.more_than_table()).await?;
    let all = options.choice.every_state(&filters, &["status", "state", "exited"]);
    let mut rows = rows(pods);
    rows.retain(|row| kept(row, &filters, all));
    options.choice.keep_newest(&mut rows, |row| row.container.created_nanos);
    options.show.rows(&rows, COLUMNS)
}

/// One row per container, in the order of pods.
pub fn rows(pods: Vec<PodView>) -> Vec<ContainerRow> {
    let rows = pods.into_iter().flat_map(|pod| {
        let PodView { id, name, namespace, uid, ips, ports, labels, phases, containers, .. } = pod;
        let (of, start) = (PodOf { id, name, namespace, uid, ips, ports, labels }, total(&phases));
        containers.into_iter().map(move |container| ContainerRow { container, pod: of.clone(), start: start.clone() })
    });
    rows.collect()
}

fn kept(row: &ContainerRow, filters: &Filters, all: bool) -> bool {
    let (c, pod, labels) = (&row.container, &row.pod, row.labels());
    let code = c.exit_code.map(|code| code.to_string()).unwrap_or_default();
    let (full, whole) = (format!("{}/{}", pod.name, c.name), format!("{}/{}", pod.namespace, pod.name));
    let fits = filters.keep(|key| match key {
        "name" => Has::Texts(vec![&c.name, &full]),
        "id" => Has::Texts(vec![&c.id]),
        "status" | "state" => Has::Texts(vec![&c.state]),
        "exited" => Has::Texts(vec![&code]),
        "pod" => Has::Named(vec![&pod.name, &whole], &pod.id),
        "namespace" => Has::Texts(vec![&pod.namespace]),
        "image" | "ancestor" => Has::Named(vec![&c.image], &c.image_id),
        _ => Has::Labels(&labels),
    });
    fits && (all || c.running())
}

/// docker's words for a state.
fn status(c: &ContainerView, now: i64) -> String {
    match (c.state.as_str(), c.exit_code) {
        ("Running", _) => format!("Up {}", time::age(now, c.started_nanos)),
        (state, Some(code)) => format!("{state} ({code}) {} ago", time::age(now, c.finished_nanos)),
        (state, None) => state.to_owned(),
    }
}

const COLUMNS: &[Column<ContainerRow>] = &[
    Column { field: "Pod", heading: "POD", seen: Seen::Always, cell: |r, _| r.pod.name.clone() },
    Column { field: "Namespace", heading: "NAMESPACE", seen: Seen::Always, cell: |r, _| r.pod.namespace.clone() },
    Column { field: "Names", heading: "CONTAINER", seen: Seen::Always, cell: |r, _| r.container.name.clone() },
    Column { field: "Image", heading: "IMAGE", seen: Seen::Always, cell: |r, c| image(&r.container, c.whole) },
    Column { field: "State", heading: "STATE", seen: Seen::Always, cell: |r, _| r.container.shown_state() },
    Column {
        field: "RunningFor",
        heading: "AGE",
        seen: Seen::Always,
        cell: |r, c| time::age(c.now, r.container.created_nanos),
    },
    Column {
        field: "IP",
        heading: "IP",
        seen: Seen::Always,
        cell: |r, _| r.pod.ips.first().cloned().unwrap_or_default(),
    },
    Column { field: "ID", heading: "ID", seen: Seen::Always, cell: |r, c| c.id(&r.container.id) },
    Column { field: "PodID", heading: "POD ID", seen: Seen::Wide, cell: |r, c| c.id(&r.pod.id) },
    Column { field: "ImageID", heading: "IMAGE ID", seen: Seen::Wide, cell: |r, c| c.id(&r.container.image_id) },
    Column { field: "Attempt", heading: "ATTEMPT", seen: Seen::Wide, cell: |r, _| r.container.attempt.to_string() },
    Column { field: "Ports", heading: "PORTS", seen: Seen::Wide, cell: |r, _| r.pod.ports.join(", ") },
    Column {
        field: "Command",
        heading: "COMMAND",
        seen: Seen::Wide,
        cell: |r, c| c.cut(&r.container.command.join(" "), COMMAND),
    },
    Column { field: "PodStart", heading: "POD START", seen: Seen::Wide, cell: |r, _| r.start.clone() },
    Column { field: "Start", heading: "START", seen: Seen::Wide, cell: |r, _| total(&r.container.phases) },
    Column {
        field: "LongestPhases",
        heading: "LONGEST PHASES",
        seen: Seen::Wide,
        cell: |r, _| longest(&r.container.phases),
    },
    Column { field: "Status", heading: "STATUS", seen: Seen::Template, cell: |r, c| status(&r.container, c.now) },
    Column {
        field: "ExitCode",
        heading: "EXIT CODE",
        seen: Seen::Template,
        cell: |r, _| r.container.exit_code.map(|code| code.to_string()).unwrap_or_default(),
    },
    Column { field: "Reason", heading: "REASON", seen: Seen::Template, cell: |r, _| r.container.reason.clone() },
    Column {
        field: "CreatedAt",
        heading: "CREATED AT",
        seen: Seen::Template,
        cell: |r, _| r.container.created_at.clone(),
    },
    Column { field: "Labels", heading: "LABELS", seen: Seen::Template, cell: |r, _| joined_labels(&r.labels()) },
    Column { field: "Mounts", heading: "MOUNTS", seen: Seen::Template, cell: |r, _| r.container.mounts.join(",") },
    Column { field: "Networks", heading: "NETWORKS", seen: Seen::Template, cell: |r, _| r.pod.ips.join(",") },
    Column {
        field: "PID",
        heading: "PID",
        seen: Seen::Template,
        cell: |r, _| r.container.pid.map(|pid| pid.to_string()).unwrap_or_default(),
    },
];

/// A digest that somebody wrote is as long as a table is wide.
fn image(container: &ContainerView, whole: bool) -> String {
    match container.image.split_once("@sha256:") {
        Some((name, digest)) if !whole => format!("{name}@sha256:{}…", &digest.chars().take(6).collect::<String>()),
        _ if container.image.starts_with("sha256:") && !whole => crate::commands::table::short(&container.image),
        _ => container.image.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::listing::PhaseView;

    fn pods() -> Vec<PodView> {
        let container = |name: &str, state: &str, exit_code| ContainerView {
            id: format!("{name}123456789abcdef"),
            name: name.into(),
            image: "web:1".into(),
            state: state.into(),
            exit_code,
            created_nanos: 1,
            started_nanos: 1,
            finished_nanos: 1,
            phases: vec![PhaseView { name: "start/mounts".into(), micros: 1500 }],
            ..ContainerView::default()
        };
        let pod = |name: &str, containers| PodView {
            id: format!("{name}0000000000000000"),
            name: name.into(),
            namespace: "default".into(),
            ips: vec!["10.0.0.2".into()],
            labels: [("app".to_owned(), name.to_owned())].into(),
            phases: vec![PhaseView { name: "run/network".into(), micros: 2000 }],
            containers,
            ..PodView::default()
        };
        vec![
            pod("web", vec![container("a", "Running", None), container("b", "Exited", Some(3))]),
            pod("empty", vec![]),
            pod("done", vec![container("c", "Exited", Some(0))]),
        ]
    }

    fn names(filters: &[&str], all: bool) -> String {
        let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
        let filters = Filters::parse(&filters, KEYS).unwrap();
        let rows = rows(pods()).into_iter().filter(|row| kept(row, &filters, all));
        rows.map(|row| row.container.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn filters_choose() {
        let table = [
            (&[][..], false, "a"),
            (&[], true, "a b c"),
            (&["name=web/"], true, "a b"),
            (&["status=exited"], true, "b c"),
            (&["exited=3"], true, "b"),
            (&["label=app=done"], true, "c"),
            (&["pod=default/web", "id=b1"], true, "b"),
            (&["ancestor=web:1", "namespace=default", "pod!=web"], true, "c"),
            (&["image=db"], true, ""),
        ];
        for (filters, all, wanted) in table {
            assert_eq!(names(filters, all), wanted, "{filters:?}");
        }
    }

    #[test]
    fn states_are_told_as_docker_does() {
        let rows = rows(pods());
        let now = 61_000_000_001;
        let told: Vec<_> = rows.iter().map(|row| status(&row.container, now)).collect();
        assert_eq!(told, ["Up 61s", "Exited (3) 61s ago", "Exited (0) 61s ago"]);
        assert_eq!(rows[0].name(), "default/web/a");
    }

    #[test]
    fn field_names_are_stable() {
        let value = serde_json::to_value(rows(pods())).unwrap();
        let keys = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        let of_exited = "attempt command createdAt exitCode finishedAt id image imageId labels logPath message mounts name \
                         phases pod reason startedAt state";
        assert_eq!(keys(&value[1]), of_exited);
        assert!(value[0].get("exitCode").is_none());
        assert_eq!(keys(&value[0]["phases"][0]), "micros name");
        assert_eq!(keys(&value[0]["pod"]), "id ips name namespace ports uid");
    }

    #[test]
    fn digests_are_cut() {
        let of = |image: &str, whole| super::image(&ContainerView { image: image.into(), ..Default::default() }, whole);
        let digest = format!("r.io/a@sha256:{}", "ab".repeat(32));
        assert_eq!(of(&digest, false), "r.io/a@sha256:ababab…");
        assert_eq!(of(&digest, true), digest);
        assert_eq!(of("r.io/a:1", false), "r.io/a:1");
    }
}
