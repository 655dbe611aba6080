//! `berth inspect`: all that the daemon knows.
use crate::commands::connect::{self, said};
use crate::commands::listing;
use crate::commands::names::{self, Target};
use crate::commands::output::{self, Document};
use crate::layout::Layout;
use anyhow::{Context, Result};
use berth_proto::node::InspectRequest;
use serde_json::Value;

/// What to look at.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth inspect web                                         pod web
  berth inspect web | jq '.pod.phases'                      where the time of its start went
  berth inspect registry.example/web:1 -o yaml              an image

The document has `kind` (pod, container or image) and the object's record under that name.
Phases carry microseconds; one whose name begins with another's is a part of it.")]
pub struct Options {
    /// Pod (name, namespace/name or id), container (name or id) or image (reference or id)
    #[arg(value_name = "NAME")]
    name: String,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Document,
}

/// Shows it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let name = match names::find_any(&pods, &options.name)? {
        Some(Target::Pod(pod)) => pod.id.clone(),
        Some(Target::Container(_, container)) => container.id.clone(),
        None => options.name.clone(),
    };
    let mut node = connect::node(layout).await?;
    let answer = node.inspect(InspectRequest { name }).await.map_err(said)?.into_inner();
    let mut document: Value = serde_json::from_str(&answer.json).context("the daemon's answer")?;
    if let Some(object) = document.as_object_mut() {
        object.insert("kind".to_owned(), Value::String(answer.kind));
    }
    output::document(&document, options.output)
}
