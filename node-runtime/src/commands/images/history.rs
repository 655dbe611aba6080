//! `berth history`: how an image came to be.
use crate::commands::connect::{self, said};
use crate::commands::output::list::{Column, Row, Seen, Show};
use crate::commands::table::size;
use crate::commands::time;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::ImageHistoryRequest;
use serde::Serialize;

/// Characters of a command that a table shows.
const COMMAND: usize = 45;

/// Of which image.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth history web:1
  berth history --no-trunc --format '{{.Size}}\\t{{.CreatedBy}}' web:1

Fields of --format: ID CreatedAt CreatedSince CreatedBy Size Comment.

Fields of -o json and -o yaml: a list of steps, newest first, with
  created createdBy comment sizeBytes empty
where sizeBytes is what the layer takes on disk, and empty a step without one.")]
pub struct Options {
    /// Image: a name or an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Sizes for people; they are in any case, and exact in -o json
    #[arg(short = 'H', long, hide = true)]
    human: bool,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView {
    #[serde(skip)]
    id: String,
    created: String,
    created_by: String,
    comment: String,
    size_bytes: u64,
    empty: bool,
}

impl Row for StepView {
    fn id(&self) -> String {
        self.id.clone()
    }
    fn name(&self) -> String {
        self.created_by.clone()
    }
}

const COLUMNS: &[Column<StepView>] = &[
    Column { field: "ID", heading: "IMAGE", seen: Seen::Always, cell: |s, c| c.id(&s.id) },
    Column { field: "CreatedAt", heading: "CREATED AT", seen: Seen::Wide, cell: |s, _| s.created.clone() },
    Column {
        field: "CreatedSince",
        heading: "CREATED",
        seen: Seen::Always,
        cell: |s, c| time::parse_rfc3339(&s.created).map(|at| time::age(c.now, at)).unwrap_or_default(),
    },
    Column {
        field: "CreatedBy",
        heading: "CREATED BY",
        seen: Seen::Always,
        cell: |s, c| c.cut(&s.created_by.replace('\t', " "), COMMAND),
    },
    Column { field: "Size", heading: "SIZE", seen: Seen::Always, cell: |s, _| size(s.size_bytes) },
    Column { field: "Comment", heading: "COMMENT", seen: Seen::Always, cell: |s, c| c.cut(&s.comment, COMMAND) },
];

/// Shows it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut node = connect::node(layout).await?;
    let request = ImageHistoryRequest { name: options.image.clone() };
    let history = node.image_history(request).await.map_err(said)?.into_inner();
    // Steps have no ids of their own: the last one made the image, of the others docker says the same.
    let ids = std::iter::once(history.image_id).chain(std::iter::repeat("<missing>".to_owned()));
    let views: Vec<StepView> = history
        .steps
        .into_iter()
        .zip(ids)
        .map(|(step, id)| StepView {
            id,
            created: step.created,
            created_by: step.created_by,
            comment: step.comment,
            size_bytes: step.size,
            empty: step.empty,
        })
        .collect();
    options.show.rows(&views, COLUMNS)
}
