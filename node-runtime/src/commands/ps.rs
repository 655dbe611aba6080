//! `berth ps`.
use super::listing::{self, ContainerView, PhaseView, PodView};
use super::output::{self, Document, Format};
use super::table::{Columns, short};
use super::{connect, time};
use crate::layout::Layout;
use anyhow::Result;
use std::collections::BTreeSet;

/// Of the phases of a start, this many are shown in a table: the longest.
const SHOWN_PHASES: usize = 3;

/// What to list.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth ps                   what runs
  berth ps -a -o wide        all, with the time of each start and where it went
  berth ps -o json | jq -r '.[].containers[].id'

Fields of -o json and -o yaml: a list of pods with
  id name namespace uid attempt state createdAt ips labels phases containers
each container with
  id name attempt image imageId state exitCode reason message
  createdAt startedAt finishedAt logPath phases
and each phase with name and micros. Times are RFC 3339 in UTC, empty for not yet.")]
pub struct Options {
    /// Stopped ones too
    #[arg(short, long)]
    all: bool,
    /// Only the ids of containers
    #[arg(short, long)]
    quiet: bool,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

/// Lists it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let phases = options.output != Format::Table && !options.quiet;
    let mut pods = listing::list_whole(&mut runtime, phases).await?;
    if !options.all {
        keep_running(&mut pods);
    }
    if options.quiet {
        return pods.iter().flat_map(|p| &p.containers).try_for_each(|c| output::line(&c.id));
    }
    match options.output {
        Format::Json => output::document(&pods, Document::Json),
        Format::Yaml => output::document(&pods, Document::Yaml),
        Format::Table => output::line(table(&pods, time::now(), output::colours())),
        Format::Wide => output::line(wide(&pods, time::now(), output::colours())),
    }
}

/// Pods that are ready, with what runs in them. One that has containers, none of which runs, is left out with them.
fn keep_running(pods: &mut Vec<PodView>) {
    pods.retain_mut(|pod| {
        let had = !pod.containers.is_empty();
        pod.containers.retain(ContainerView::running);
        pod.state == "Ready" && (!had || !pod.containers.is_empty())
    });
}

/// One row per container; one for a pod that has none.
fn rows(pods: &[PodView]) -> impl Iterator<Item = (&PodView, Option<&ContainerView>)> {
    pods.iter().flat_map(|pod| {
        let alone = pod.containers.is_empty().then_some((pod, None));
        alone.into_iter().chain(pod.containers.iter().map(move |c| (pod, Some(c))))
    })
}

fn common(pod: &PodView, container: Option<&ContainerView>, now: i64) -> [String; 8] {
    let ip = pod.ips.first().cloned().unwrap_or_default();
    match container {
        Some(c) => [
            pod.name.clone(),
            pod.namespace.clone(),
            c.name.clone(),
            c.image.clone(),
            c.shown_state(),
            time::age(now, c.created_nanos),
            ip,
            short(&c.id),
        ],
        None => {
            let (none, age) = (String::new, time::age(now, pod.created_nanos));
            [pod.name.clone(), pod.namespace.clone(), none(), none(), pod.state.clone(), age, ip, none()]
        }
    }
}

const HEADINGS: [&str; 8] = ["POD", "NAMESPACE", "CONTAINER", "IMAGE", "STATE", "AGE", "IP", "ID"];

fn table(pods: &[PodView], now: i64, colours: bool) -> String {
    let mut table = Columns::new(&HEADINGS, colours);
    rows(pods).for_each(|(pod, container)| table.row(common(pod, container, now)));
    table.render()
}

fn wide(pods: &[PodView], now: i64, colours: bool) -> String {
    let more = ["POD ID", "POD STATE", "IMAGE ID", "ATTEMPT", "POD START", "START", "LONGEST PHASES"];
    let headings: Vec<&str> = HEADINGS.into_iter().chain(more).collect();
    let mut table = Columns::new(&headings, colours);
    let mut seen = BTreeSet::new();
    for (pod, container) in rows(pods) {
        // The pod's phases count once, in its first row.
        let of_pod: &[PhaseView] = if seen.insert(&pod.id) { &pod.phases } else { &[] };
        let of_container: &[PhaseView] = container.map_or(&[], |c| &c.phases);
        let more = [
            short(&pod.id),
            pod.state.clone(),
            container.map(|c| short(&c.image_id)).unwrap_or_default(),
            container.map(|c| c.attempt.to_string()).unwrap_or_default(),
            total(&pod.phases),
            total(of_container),
            longest(of_pod, of_container),
        ];
        table.row(common(pod, container, now).into_iter().chain(more));
    }
    table.render()
}

/// Sum of the phases that are no part of another one: `start/setup` contains `start/setup/mounts`.
fn total(phases: &[PhaseView]) -> String {
    if phases.is_empty() {
        return String::new();
    }
    let whole = phases.iter().filter(|p| !phases.iter().any(|other| within(p, other)));
    time::micros(whole.map(|p| p.micros).sum())
}

fn within(part: &PhaseView, whole: &PhaseView) -> bool {
    part.name.strip_prefix(&whole.name).is_some_and(|rest| rest.starts_with('/'))
}

fn longest(pod: &[PhaseView], container: &[PhaseView]) -> String {
    let all = || pod.iter().chain(container);
    // A phase that is told in parts is told by them.
    let mut all: Vec<&PhaseView> = all().filter(|p| !all().any(|other| within(other, p))).collect();
    all.sort_by_key(|p| std::cmp::Reverse(p.micros));
    let shown = all.iter().take(SHOWN_PHASES).map(|p| format!("{} {}", p.name, time::micros(p.micros)));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Vec<PodView> {
        let container = |name: &str, state: &str, exit_code| ContainerView {
            id: "0123456789abcdef".into(),
            name: name.into(),
            image: "web:1".into(),
            state: state.into(),
            exit_code,
            created_nanos: 1,
            phases: vec![PhaseView { name: "start/mounts".into(), micros: 1500 }],
            ..ContainerView::default()
        };
        let pod = |name: &str, state: &str, containers| PodView {
            id: format!("{name}0000000000000000"),
            name: name.into(),
            namespace: "default".into(),
            state: state.into(),
            ips: vec!["10.0.0.2".into()],
            created_nanos: 1,
            phases: vec![
                PhaseView { name: "run/network".into(), micros: 2000 },
                PhaseView { name: "run/record".into(), micros: 10 },
            ],
            containers,
            ..PodView::default()
        };
        vec![
            pod("web", "Ready", vec![container("a", "Running", None), container("b", "Exited", Some(3))]),
            pod("empty", "Ready", vec![]),
            pod("done", "Ready", vec![container("c", "Exited", Some(0))]),
            pod("old", "NotReady", vec![]),
        ]
    }

    #[test]
    fn what_runs_is_listed() {
        let mut all = pods();
        keep_running(&mut all);
        let text = table(&all, 61_000_000_001, false);
        assert_eq!(
            text,
            "POD     NAMESPACE   CONTAINER   IMAGE   STATE     AGE   IP         ID\n\
             web     default     a           web:1   Running   61s   10.0.0.2   0123456789ab\n\
             empty   default     -           -       Ready     61s   10.0.0.2   -"
        );
    }

    #[test]
    fn wide_shows_where_the_time_went() {
        let text = wide(&pods(), 61_000_000_001, false);
        assert_eq!(text.lines().count(), 6, "{text}");
        let first = text.lines().nth(1).unwrap();
        assert!(first.contains("run/network 2.0ms, start/mounts 1.5ms, run/record 10us"), "{text}");
        assert!(first.contains("2.0ms    ") || first.contains("2.0ms   "), "{text}");
        assert!(text.contains("Exited (3)") && text.contains("NotReady"), "{text}");
    }

    #[test]
    fn parts_count_once() {
        let phase = |name: &str, micros| PhaseView { name: name.into(), micros };
        let phases = [phase("start/setup", 9000), phase("start/setup/mounts", 8000), phase("start/setups", 1000)];
        assert_eq!(total(&phases), "10.0ms");
        assert_eq!(longest(&[], &phases), "start/setup/mounts 8.0ms, start/setups 1.0ms");
    }

    #[test]
    fn field_names_are_stable() {
        let value = serde_json::to_value(pods()).unwrap();
        let keys = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(&value[0]), "attempt containers createdAt id ips labels name namespace phases state uid");
        let of_exited =
            "attempt createdAt exitCode finishedAt id image imageId logPath message name phases reason startedAt state";
        assert_eq!(keys(&value[0]["containers"][1]), of_exited);
        assert!(value[0]["containers"][0].get("exitCode").is_none());
        assert_eq!(keys(&value[0]["phases"][0]), "micros name");
    }
}
