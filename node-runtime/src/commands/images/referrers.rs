//! `berth image referrers`: signatures, attestations and bills of materials of an image, as its registry has them.
use super::pull::Login;
use crate::commands::connect::{self, said};
use crate::commands::output::harmless;
use crate::commands::output::list::{Column, Row, Seen, Show};
use crate::commands::table::size;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::ImageReferrersRequest;
use serde::Serialize;
use std::collections::BTreeMap;

/// When an artifact was made (OCI image spec, `annotations.md`).
const CREATED: &str = "org.opencontainers.image.created";

/// Of which image.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth image referrers registry.example/web:1
  berth image referrers --artifact-type application/spdx+json registry.example/web:1
  berth image referrers -o json registry.example/web@sha256:…

The registry is asked by its referrers API, and where it has none for the tag sha256-DIGEST that stands in for it; attestations
that the image's own index brings are shown too. Only what proves by its own manifest that it refers to the image is listed;
whether a signature is good is not looked at.

Fields of --format: Type Digest Size Found Created Subject MediaType.

Fields of -o json and -o yaml: a list with
  artifactType digest sizeBytes foundBy subject mediaType annotations
where foundBy is api, tag or index.")]
pub struct Options {
    /// Image, as on its registry
    #[arg(value_name = "REFERENCE")]
    reference: String,
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    #[command(flatten)]
    login: Login,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    artifact_type: String,
    digest: String,
    size_bytes: u64,
    found_by: String,
    subject: String,
    media_type: String,
    annotations: BTreeMap<String, String>,
}

impl Row for View {
    fn id(&self) -> String {
        self.digest.clone()
    }
    fn name(&self) -> String {
        self.digest.clone()
    }
    fn labels(&self) -> BTreeMap<String, String> {
        self.annotations.clone()
    }
}

const COLUMNS: &[Column<View>] = &[
    Column { field: "Type", heading: "TYPE", seen: Seen::Always, cell: |v, _| v.artifact_type.clone() },
    Column { field: "Digest", heading: "DIGEST", seen: Seen::Always, cell: |v, _| v.digest.clone() },
    Column { field: "Size", heading: "SIZE", seen: Seen::Always, cell: |v, _| size(v.size_bytes) },
    Column { field: "Found", heading: "FOUND", seen: Seen::Always, cell: |v, _| v.found_by.clone() },
    Column {
        field: "Created",
        heading: "CREATED",
        seen: Seen::Wide,
        cell: |v, _| v.annotations.get(CREATED).cloned().unwrap_or_default(),
    },
    Column { field: "Subject", heading: "SUBJECT", seen: Seen::Wide, cell: |v, _| v.subject.clone() },
    Column { field: "MediaType", heading: "MEDIA TYPE", seen: Seen::Wide, cell: |v, _| v.media_type.clone() },
];

/// Lists them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (username, password) = options.login.read()?;
    let mut node = connect::node(layout).await?;
    let request = ImageReferrersRequest { reference: options.reference.clone(), username, password };
    let answer = node.image_referrers(request).await.map_err(said)?.into_inner();
    for refused in &answer.refused {
        eprintln!("berth: warning: not listed: {}", harmless(refused));
    }
    let wanted = |kind: &str| options.artifact_type.as_deref().is_none_or(|wanted| wanted == kind);
    let views: Vec<View> = answer
        .referrers
        .into_iter()
        .filter(|one| wanted(&one.artifact_type))
        .map(|one| View {
            artifact_type: one.artifact_type,
            digest: one.digest,
            size_bytes: one.size,
            found_by: one.found_by,
            subject: one.subject,
            media_type: one.media_type,
            annotations: one.annotations.into_iter().collect(),
        })
        .collect();
    options.show.rows(&views, COLUMNS)
}
