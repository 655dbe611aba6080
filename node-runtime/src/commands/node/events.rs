//! `berth events`: what happened on the node, and what happens.
use crate::commands::connect::{self, said};
use crate::commands::output::filter::{Filters, Match, Seen};
use crate::commands::output::template::{Data, Template};
use crate::commands::table::short;
use crate::commands::{output, time};
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::{EventsRequest, NodeEvent};
use serde_json::{Map, Value, json};

/// What to show.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth events                                    what happens from now on
  berth events --since 10m --until 0s             what happened in the last ten minutes
  berth events -f type=container -f event=die --format '{{.Name}} {{.ExitCode}}'
  berth events --since 1h --until 0s --format json | jq .

Types and their events: pod (create, start, stop, destroy), container (create, start, oom, die, destroy)
and image (pull, delete). The daemon keeps the last 2048 in memory; a new daemon begins anew.

Filters (-f KEY=VALUE, KEY!=VALUE): type, event, container, pod, namespace, image, id.

Fields of --format: Time TimeNano Type Action ID Name Pod Namespace Image ExitCode Reason, and
{{.Actor.ID}} {{.Actor.Attributes}} as docker has them. `--format json` writes one document a line.")]
pub struct Options {
    /// From this time on: 90s, 15m, 1h30m ago, or an RFC 3339 time
    #[arg(long, value_name = "TIME", value_parser = time::parse_moment)]
    since: Option<i64>,
    /// Until this time; then it ends
    #[arg(long, value_name = "TIME", value_parser = time::parse_moment)]
    until: Option<i64>,
    /// Keep what fits KEY=VALUE
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// `json` or TEMPLATE
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

const KEYS: &[(&str, Match)] = &[
    ("type", Match::Whole),
    ("event", Match::Whole),
    ("container", Match::Part),
    ("pod", Match::Part),
    ("namespace", Match::Whole),
    ("image", Match::Part),
    ("id", Match::Prefix),
];

/// Shows them until the end.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let filters = Filters::parse(&options.filters, KEYS)?;
    let template = match options.format.as_deref() {
        None => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(text) => Some(Template::parse(&text.replace("\\t", "\t").replace("\\n", "\n"))?),
    };
    // A template that is wrong is wrong before anything happens.
    if let Some(template) = &template {
        filled(template, &NodeEvent::default())?;
    }
    let mut node = connect::node(layout).await?;
    let request = EventsRequest { since: options.since.unwrap_or(0), until: options.until.unwrap_or(0) };
    let mut events = node.events(request).await.map_err(said)?.into_inner();
    while let Some(event) = events.message().await.map_err(said)? {
        if !kept(&event, &filters) {
            continue;
        }
        match &template {
            Some(template) => output::line(filled(template, &event)?)?,
            None => output::line(text(&event, options.no_trunc))?,
        }
        output::flush()?;
    }
    Ok(())
}

fn attribute<'e>(event: &'e NodeEvent, name: &str) -> &'e str {
    event.attributes.get(name).map_or("", String::as_str)
}

fn kept(event: &NodeEvent, filters: &Filters) -> bool {
    let of = |kind: &str, name: &'static str| if event.r#type == kind { attribute(event, name) } else { "" };
    let (pod, namespace) = (attribute(event, "pod"), attribute(event, "namespace"));
    let whole = format!("{namespace}/{pod}");
    filters.keep(|key| match key {
        "type" => Seen::Texts(vec![&event.r#type]),
        "event" => Seen::Texts(vec![&event.action]),
        "container" => Seen::Texts(match event.r#type.as_str() {
            "container" => vec![of("container", "name"), &event.id],
            _ => Vec::new(),
        }),
        "pod" => Seen::Texts(if pod.is_empty() { Vec::new() } else { vec![pod, &whole] }),
        "namespace" => Seen::Texts(vec![namespace]),
        "image" => Seen::Texts(vec![of("image", "name"), of("container", "image")]),
        _ => Seen::Texts(vec![&event.id, event.id.trim_start_matches("sha256:")]),
    })
}

fn filled(template: &Template, event: &NodeEvent) -> Result<String> {
    let mut attributes: Vec<_> = event.attributes.iter().collect();
    attributes.sort();
    let attributes: Map<String, Value> = attributes.into_iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    let root = json!({
        "Time": event.at / 1_000_000_000, "TimeNano": event.at, "Type": event.r#type, "Action": event.action, "Status": event.action,
        "ID": event.id, "Name": attribute(event, "name"), "Pod": attribute(event, "pod"),
        "Namespace": attribute(event, "namespace"), "Image": attribute(event, "image"),
        "ExitCode": attribute(event, "exitCode"), "Reason": attribute(event, "reason"),
        "Actor": {"ID": event.id, "Attributes": attributes},
    });
    template.fill(Data { root: &root, labels: &Map::new(), strict: true })
}

/// docker's line: time, type, action, id, and the attributes in parentheses. Nothing in a name drives the terminal.
fn text(event: &NodeEvent, whole: bool) -> String {
    let id = if whole { event.id.clone() } else { short(&event.id) };
    let mut attributes: Vec<String> =
        event.attributes.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}={v}")).collect();
    attributes.sort();
    let line =
        format!("{} {} {} {id} ({})", time::rfc3339(event.at), event.r#type, event.action, attributes.join(", "));
    output::harmless(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> NodeEvent {
        let attributes =
            [("name", "app"), ("pod", "web"), ("namespace", "default"), ("image", "r/web:1"), ("exitCode", "3")];
        NodeEvent {
            at: 1_500_000_000,
            r#type: "container".into(),
            action: "die".into(),
            id: "0123456789abcdef".into(),
            attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let line = "1970-01-01T00:00:01.500000000Z container die 0123456789ab \
                    (exitCode=3, image=r/web:1, name=app, namespace=default, pod=web)";
        assert_eq!(text(&event(), false), line);
        let mut hostile = event();
        hostile.attributes.insert("name".into(), "a\n\u{1b}[2J".into());
        assert!(!text(&hostile, true).contains(['\n', '\u{1b}']));
        let template = Template::parse("{{.Name}} {{.ExitCode}} {{.Actor.Attributes.pod}} {{.TimeNano}}").unwrap();
        assert_eq!(filled(&template, &event()).unwrap(), "app 3 web 1500000000");
        assert!(filled(&Template::parse("{{.Nmae}}").unwrap(), &event()).is_err());
    }

    #[test]
    fn filters_choose() {
        let keep = |text: &str| kept(&event(), &Filters::parse(&[text.to_owned()], KEYS).unwrap());
        for good in [
            "type=container",
            "event=die",
            "container=app",
            "pod=default/web",
            "namespace=default",
            "image=web:1",
            "id=0123",
            "event!=start",
        ] {
            assert!(keep(good), "{good}");
        }
        for bad in ["type=pod", "event=start", "container=db", "pod=db", "image=db", "id=9"] {
            assert!(!keep(bad), "{bad}");
        }
    }
}
