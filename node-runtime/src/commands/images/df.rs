//! `berth df`: what takes the disk.
use crate::commands::connect::{self, said};
use crate::commands::output::list::{Column, Row, Seen, Show};
use crate::commands::output::{Document, document, line};
use crate::commands::table::{Columns, short, size};
use crate::commands::{output, time};
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::node::{DiskUsageRequest, DiskUsageResponse};
use serde::Serialize;

/// How to show it.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth df            images and containers, and what a prune would give back
  berth df -v         each of them
  berth df -o json    the same for scripts

Sizes are blocks as the kernel counts them: sparse files take what they have, a file with several names is counted
once, and blocks that files share by reflink are counted for each of them, as du counts them. SHARED SIZE is what
other images have too. Compressed layers that are kept (spec.runtime.storage.keepCompressedLayers) count as images.

Fields of --format: Type TotalCount Active Size Reclaimable.

Fields of -o json and -o yaml:
  directory imageBytes imageInodes containerBytes containerInodes reclaimableBytes layers sharedLayers keptBytes
  images[]: id names sizeBytes sharedBytes containers pinned
  containers[]: id name pod namespace image running sizeBytes inodes")]
pub struct Options {
    /// Each image and each container
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    directory: String,
    image_bytes: u64,
    image_inodes: u64,
    container_bytes: u64,
    container_inodes: u64,
    reclaimable_bytes: u64,
    layers: u32,
    shared_layers: u32,
    kept_bytes: u64,
    images: Vec<ImageView>,
    containers: Vec<ContainerView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageView {
    id: String,
    names: Vec<String>,
    size_bytes: u64,
    shared_bytes: u64,
    containers: u32,
    pinned: bool,
    #[serde(skip)]
    pulled_at: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerView {
    id: String,
    name: String,
    pod: String,
    namespace: String,
    image: String,
    running: bool,
    size_bytes: Option<u64>,
    inodes: Option<u64>,
    #[serde(skip)]
    created_at: i64,
}

/// A line of the short table.
#[derive(Debug, Serialize)]
struct Kind {
    kind: &'static str,
    count: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

impl Row for Kind {
    fn id(&self) -> String {
        self.kind.to_owned()
    }
    fn name(&self) -> String {
        self.kind.to_owned()
    }
}

const COLUMNS: &[Column<Kind>] = &[
    Column { field: "Type", heading: "TYPE", seen: Seen::Always, cell: |k, _| k.kind.to_owned() },
    Column { field: "TotalCount", heading: "TOTAL", seen: Seen::Always, cell: |k, _| k.count.to_string() },
    Column { field: "Active", heading: "ACTIVE", seen: Seen::Always, cell: |k, _| k.active.to_string() },
    Column { field: "Size", heading: "SIZE", seen: Seen::Always, cell: |k, _| size(k.size) },
    Column { field: "Reclaimable", heading: "RECLAIMABLE", seen: Seen::Always, cell: |k, _| reclaimable(k) },
];

fn reclaimable(kind: &Kind) -> String {
    match kind.size {
        0 => size(kind.reclaimable),
        all => format!("{} ({}%)", size(kind.reclaimable), kind.reclaimable.saturating_mul(100) / all),
    }
}

/// Shows it.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut node = connect::node(layout).await?;
    let view = view(node.disk_usage(DiskUsageRequest {}).await.map_err(said)?.into_inner());
    if options.show.documents() {
        let yaml = options.show.output == crate::commands::output::list::Output::Yaml;
        return document(&view, if yaml { Document::Yaml } else { Document::Json });
    }
    if options.verbose {
        return verbose(&view);
    }
    options.show.rows(&kinds(&view), COLUMNS)
}

fn kinds(view: &View) -> Vec<Kind> {
    let idle: u64 = view.containers.iter().filter(|c| !c.running).filter_map(|c| c.size_bytes).sum();
    vec![
        Kind {
            kind: "Images",
            count: view.images.len(),
            active: view.images.iter().filter(|i| i.containers > 0).count(),
            size: view.image_bytes,
            reclaimable: view.reclaimable_bytes,
        },
        Kind {
            kind: "Containers",
            count: view.containers.len(),
            active: view.containers.iter().filter(|c| c.running).count(),
            size: view.container_bytes,
            reclaimable: idle,
        },
    ]
}

fn verbose(view: &View) -> Result<()> {
    line("Images space usage:\n")?;
    let headings = ["IMAGE", "ID", "PULLED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS", "PINNED"];
    let mut table = Columns::new(&headings, output::colours());
    for image in &view.images {
        let name = image.names.first().cloned().unwrap_or_else(|| "<none>".to_owned());
        let unique = image.size_bytes.saturating_sub(image.shared_bytes);
        let sizes = [image.size_bytes, image.shared_bytes, unique].map(size);
        let pulled = time::age(time::now(), image.pulled_at);
        let pinned = if image.pinned { "yes" } else { "no" };
        let row = [name, short(&image.id), pulled].into_iter().chain(sizes);
        table.row(row.chain([image.containers.to_string(), pinned.to_owned()]));
    }
    line(table.render())?;
    line("\nContainers space usage:\n")?;
    let headings = ["CONTAINER ID", "NAME", "POD", "IMAGE", "SIZE", "INODES", "CREATED", "STATUS"];
    let mut table = Columns::new(&headings, output::colours());
    for container in &view.containers {
        let state = if container.running { "Running" } else { "Not running" };
        table.row([
            short(&container.id),
            container.name.clone(),
            format!("{}/{}", container.namespace, container.pod),
            container.image.clone(),
            container.size_bytes.map(size).unwrap_or_default(),
            container.inodes.map(|n| n.to_string()).unwrap_or_default(),
            time::age(time::now(), container.created_at),
            state.to_owned(),
        ]);
    }
    line(table.render())?;
    let View { layers, shared_layers, kept_bytes, .. } = view;
    line(format_args!(
        "\n{layers} layers, {shared_layers} of them shared; {} of compressed layers kept",
        size(*kept_bytes)
    ))
}

fn view(answer: DiskUsageResponse) -> View {
    let images = answer.images.into_iter().map(|i| ImageView {
        id: i.id,
        names: i.names,
        size_bytes: i.size,
        shared_bytes: i.shared,
        containers: i.containers,
        pinned: i.pinned,
        pulled_at: i.pulled_at,
    });
    let containers = answer.containers.into_iter().map(|c| ContainerView {
        id: c.id,
        name: c.name,
        pod: c.pod,
        namespace: c.namespace,
        image: c.image,
        running: c.running,
        size_bytes: c.size,
        inodes: c.inodes,
        created_at: c.created_at,
    });
    View {
        directory: answer.directory,
        image_bytes: answer.image_bytes,
        image_inodes: answer.image_inodes,
        container_bytes: answer.container_bytes,
        container_inodes: answer.container_inodes,
        reclaimable_bytes: answer.reclaimable_bytes,
        layers: answer.layers,
        shared_layers: answer.shared_layers,
        kept_bytes: answer.kept_bytes,
        images: images.collect(),
        containers: containers.collect(),
    }
}
