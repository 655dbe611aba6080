//! `berth inspect`: all that the daemon knows.
use crate::commands::connect::{self, said};
use crate::commands::listing::{self, PodView};
use crate::commands::names::{self, Target};
use crate::commands::output::template::of_document;
use crate::commands::output::{self, Document};
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_proto::node::InspectRequest;
use serde_json::Value;

/// What to look at.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth inspect web                                         pod web
  berth inspect web | jq '.pod.phases'                      where the time of its start went
  berth inspect --format '{{.container.life.Running.pid}}' web/app
  berth inspect --type image registry.example/web:1 -o yaml

The document has `kind` (pod, container or image) and the object's record under that name; of several names
it is a list. In templates a field is found without regard to case, and one that is not there is <no value>.
Phases carry microseconds; one whose name begins with another's is a part of it.")]
pub struct Options {
    /// Pods (name, namespace/name or id), containers (name, pod/name or id) or images (reference or id)
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// What it is, where several things have the name
    #[arg(long, value_enum, value_name = "KIND")]
    r#type: Option<Kind>,
    /// TEMPLATE of the document, or `json`
    #[arg(short, long, value_name = "TEMPLATE", conflicts_with = "output")]
    format: Option<String>,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Document,
}

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// A pod
    Pod,
    /// A container
    Container,
    /// An image
    Image,
}

/// Shows it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let names = options.names.iter().map(|name| id_of(&pods, name, options.r#type)).collect::<Result<Vec<_>>>()?;
    let mut node = connect::node(layout).await?;
    let mut documents = Vec::new();
    for name in names {
        let answer = node.inspect(InspectRequest { name }).await.map_err(said)?.into_inner();
        let mut document: Value = serde_json::from_str(&answer.json).context("the daemon's answer")?;
        if let Some(object) = document.as_object_mut() {
            object.insert("kind".to_owned(), Value::String(answer.kind));
        }
        documents.push(document);
    }
    match (&options.format, documents.as_slice()) {
        (Some(format), all) => all.iter().try_for_each(|one| output::line(of_document(format, one)?)),
        (None, [one]) => output::document(one, options.output),
        (None, all) => output::document(&all, options.output),
    }
}

/// What the daemon is to be asked for. An image is asked for by its name.
fn id_of(pods: &[PodView], name: &str, kind: Option<Kind>) -> Result<String> {
    match (kind, names::find_any(pods, name)) {
        (Some(Kind::Image), _) => Ok(name.to_owned()),
        (Some(Kind::Container), Ok(Some(Target::Pod(_)))) => {
            names::container(pods, name, None).map(|(_, c)| c.id.clone())
        }
        (Some(Kind::Pod), Ok(Some(Target::Container(_, c)))) => {
            bail!("{name:?} is the container {}, and no pod", c.name)
        }
        (_, found) => match found? {
            Some(Target::Pod(pod)) => Ok(pod.id.clone()),
            Some(Target::Container(_, container)) => Ok(container.id.clone()),
            None if kind.is_some() => names::find(pods, name).map(|_| String::new()),
            None => Ok(name.to_owned()),
        },
    }
}
