//! `berth images`.
use super::connect::{self, said};
use super::output::{self, Document, Format};
use super::table::{Columns, short, size};
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::cri as wire;
use serde::Serialize;
use std::collections::BTreeSet;

/// What to list.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth images
  berth images -o json | jq -r '.[].repoDigests[]'

Fields of -o json and -o yaml: a list of images with
  id repoTags repoDigests sizeBytes user pinned
where user is the number or the name that the image runs as.")]
pub struct Options {
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageView {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    size_bytes: u64,
    user: String,
    pinned: bool,
}

/// Lists them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let (_, mut images) = connect::cri(layout).await?;
    let answer = images.list_images(wire::ListImagesRequest::default()).await.map_err(said)?.into_inner();
    let mut views: Vec<ImageView> = answer.images.into_iter().map(view).collect();
    views.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    if options.quiet {
        let ids: BTreeSet<_> = views.iter().map(|v| &v.id).collect();
        return ids.into_iter().try_for_each(output::line);
    }
    match options.output {
        Format::Json => output::document(&views, Document::Json),
        Format::Yaml => output::document(&views, Document::Yaml),
        Format::Table => output::line(table(&views, false, output::colours())),
        Format::Wide => output::line(table(&views, true, output::colours())),
    }
}

fn view(image: wire::Image) -> ImageView {
    let user = match (image.uid, image.username) {
        (Some(uid), name) if name.is_empty() => uid.value.to_string(),
        (_, name) => name,
    };
    ImageView {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size_bytes: image.size,
        user,
        pinned: image.pinned,
    }
}

/// One row per tag; one for an image that has none.
fn table(images: &[ImageView], wide: bool, colours: bool) -> String {
    let mut headings = vec!["IMAGE", "TAG", "ID", "SIZE"];
    if wide {
        headings.extend(["USER", "PINNED", "DIGEST"]);
    }
    let mut table = Columns::new(&headings, colours);
    for image in images {
        let names: Vec<(String, String)> = match image.repo_tags.as_slice() {
            [] => vec![(untagged(image), "<none>".to_owned())],
            tags => tags.iter().map(|t| split(t)).collect(),
        };
        for (name, tag) in names {
            let digest = image.repo_digests.iter().find_map(|d| d.strip_prefix(&format!("{name}@")));
            let mut row = vec![name.clone(), tag, short(&image.id), size(image.size_bytes)];
            if wide {
                let pinned = if image.pinned { "yes" } else { "no" };
                row.extend([image.user.clone(), pinned.to_owned(), digest.unwrap_or_default().to_owned()]);
            }
            table.row(row);
        }
    }
    table.render()
}

fn untagged(image: &ImageView) -> String {
    let digest = image.repo_digests.first().and_then(|d| d.split_once('@'));
    digest.map_or_else(|| "<none>".to_owned(), |(name, _)| name.to_owned())
}

/// A colon before a slash is a port's.
fn split(reference: &str) -> (String, String) {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), tag.to_owned()),
        _ => (reference.to_owned(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_has_a_row_and_ports_are_no_tags() {
        let image = |id: &str, tags: &[&str], digests: &[&str]| wire::Image {
            id: format!("sha256:{id}"),
            repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            repo_digests: digests.iter().map(|t| (*t).to_owned()).collect(),
            size: 1500,
            uid: Some(wire::Int64Value { value: 7 }),
            ..wire::Image::default()
        };
        let views = [
            image("aa", &["h:5000/web:1", "h:5000/web:2"], &["h:5000/web@sha256:dd"]),
            image("bb", &[], &["x.io/y@sha256:ee"]),
        ]
        .map(view);
        assert_eq!(
            table(&views, true, false),
            "IMAGE        TAG      ID   SIZE     USER   PINNED   DIGEST\n\
             h:5000/web   1        aa   1.5 kB   7      no       sha256:dd\n\
             h:5000/web   2        aa   1.5 kB   7      no       sha256:dd\n\
             x.io/y       <none>   bb   1.5 kB   7      no       sha256:ee"
        );
        assert_eq!(split("h:5000/web"), ("h:5000/web".into(), String::new()));
    }
}
