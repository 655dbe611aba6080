//! `berth pods`.
use crate::commands::listing::{self, PodView};
use crate::commands::output::choice::Choice;
use crate::commands::output::filter::{Filters, Match, Seen as Has};
use crate::commands::output::list::{Column, Row, Seen, Show, joined_labels};
use crate::commands::phases::{longest, total};
use crate::commands::{connect, time};
use crate::layout::Layout;
use anyhow::Result;
use std::collections::BTreeMap;

/// What to list.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth pods                         those that are ready
  berth pods -a -o wide              all, with all addresses and the time of each start
  berth pods -f namespace=kube-system -f label=app=dns
  berth pods --format '{{.Namespace}}/{{.Name}} {{.IPs}}'

Filters (-f KEY=VALUE, KEY!=VALUE): name (a part; ^ and $ bind it), id, status (ready, notready),
label (KEY or KEY=VALUE), namespace, ip.

Fields of --format: ID Name Namespace UID State CreatedAt Age Attempt Containers IP IPs Ports Labels
Start LongestPhases, and {{.Label \"key\"}}.

Fields of -o json and -o yaml: a list of pods with
  id name namespace uid attempt state createdAt ips labels ports phases containers
each container as `berth ps -o json` has it, without its pod.")]
pub struct Options {
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    show: Show,
}

const KEYS: &[(&str, Match)] = &[
    ("name", Match::Part),
    ("id", Match::Prefix),
    ("status", Match::Whole),
    ("state", Match::Whole),
    ("label", Match::Label),
    ("namespace", Match::Whole),
    ("ip", Match::Whole),
];

impl Row for PodView {
    fn id(&self) -> String {
        self.id.clone()
    }
    fn name(&self) -> String {
        self.full_name()
    }
    fn labels(&self) -> BTreeMap<String, String> {
        self.labels.clone()
    }
}

/// Lists them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let filters = options.choice.filters(KEYS)?;
    let (mut runtime, _) = connect::cri(layout).await?;
    let mut pods = listing::list_whole(&mut runtime, options.show.more_than_table()).await?;
    let all = options.choice.every_state(&filters, &["status", "state"]);
    pods.retain(|pod| (all || pod.state == "Ready") && kept(pod, &filters));
    options.choice.keep_newest(&mut pods, |pod| pod.created_nanos);
    options.show.rows(&pods, COLUMNS)
}

fn kept(pod: &PodView, filters: &Filters) -> bool {
    let full = pod.full_name();
    filters.keep(|key| match key {
        "name" => Has::Texts(vec![&pod.name, &full]),
        "id" => Has::Texts(vec![&pod.id]),
        "status" | "state" => Has::Texts(vec![&pod.state]),
        "namespace" => Has::Texts(vec![&pod.namespace]),
        "ip" => Has::Texts(pod.ips.iter().map(String::as_str).collect()),
        _ => Has::Labels(&pod.labels),
    })
}

fn containers(pod: &PodView) -> String {
    format!("{}/{}", pod.containers.iter().filter(|c| c.running()).count(), pod.containers.len())
}

const COLUMNS: &[Column<PodView>] = &[
    Column { field: "Name", heading: "POD", seen: Seen::Always, cell: |p, _| p.name.clone() },
    Column { field: "Namespace", heading: "NAMESPACE", seen: Seen::Always, cell: |p, _| p.namespace.clone() },
    Column { field: "State", heading: "STATE", seen: Seen::Always, cell: |p, _| p.state.clone() },
    Column { field: "Containers", heading: "RUNNING", seen: Seen::Always, cell: |p, _| containers(p) },
    Column { field: "Age", heading: "AGE", seen: Seen::Always, cell: |p, c| time::age(c.now, p.created_nanos) },
    Column { field: "ID", heading: "ID", seen: Seen::Always, cell: |p, c| c.id(&p.id) },
    Column { field: "IPs", heading: "IPS", seen: Seen::Wide, cell: |p, _| p.ips.join(", ") },
    Column { field: "Ports", heading: "PORTS", seen: Seen::Wide, cell: |p, _| p.ports.join(", ") },
    Column { field: "UID", heading: "UID", seen: Seen::Wide, cell: |p, _| p.uid.clone() },
    Column { field: "Attempt", heading: "ATTEMPT", seen: Seen::Wide, cell: |p, _| p.attempt.to_string() },
    Column { field: "Start", heading: "START", seen: Seen::Wide, cell: |p, _| total(&p.phases) },
    Column { field: "LongestPhases", heading: "LONGEST PHASES", seen: Seen::Wide, cell: |p, _| longest(&p.phases) },
    Column {
        field: "IP",
        heading: "IP",
        seen: Seen::Template,
        cell: |p, _| p.ips.first().cloned().unwrap_or_default(),
    },
    Column { field: "CreatedAt", heading: "CREATED AT", seen: Seen::Template, cell: |p, _| p.created_at.clone() },
    Column { field: "Labels", heading: "LABELS", seen: Seen::Template, cell: |p, _| joined_labels(&p.labels) },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::listing::ContainerView;

    #[test]
    fn filters_choose_and_containers_are_counted() {
        let container = |state: &str| ContainerView { state: state.into(), ..ContainerView::default() };
        let pod = PodView {
            id: "abc".into(),
            name: "web".into(),
            namespace: "default".into(),
            state: "NotReady".into(),
            ips: vec!["10.0.0.2".into(), "fd00::2".into()],
            labels: [("app".to_owned(), "x".to_owned())].into(),
            containers: vec![container("Running"), container("Exited")],
            ..PodView::default()
        };
        assert_eq!((containers(&pod), pod.name()), ("1/2".into(), "default/web".into()));
        let keep = |text: &str| kept(&pod, &Filters::parse(&[text.to_owned()], KEYS).unwrap());
        for good in
            ["name=we", "name=default/", "id=ab", "status=notready", "ip=fd00::2", "label=app=x", "namespace=default"]
        {
            assert!(keep(good), "{good}");
        }
        for bad in ["name=x", "id=b", "state=ready", "ip=10.0.0.", "label=b", "namespace=def"] {
            assert!(!keep(bad), "{bad}");
        }
    }

    #[test]
    fn field_names_are_stable() {
        let value = serde_json::to_value(PodView::default()).unwrap();
        let keys = value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys, "attempt containers createdAt id ips labels name namespace phases ports state uid");
    }
}
