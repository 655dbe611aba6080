//! `berth images`.
use crate::commands::connect::{self, said};
use crate::commands::output::filter::{Filters, Match, Seen as Has};
use crate::commands::output::list::{Column, Row, Seen, Show};
use crate::commands::output::{Document, document};
use crate::commands::table::size;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::cri as wire;
use serde::Serialize;

/// What to list.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth images
  berth images -f reference=web
  berth images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
  berth images -o json | jq -r '.[].repoDigests[]'

Filters (-f KEY=VALUE, KEY!=VALUE): reference (a part; ^ and $ bind it), id, dangling (true, false),
pinned (true, false).

Fields of --format: ID Repository Tag Digest Size User Pinned.

Fields of -o json and -o yaml: a list of images with
  id repoTags repoDigests sizeBytes user pinned
where user is the number or the name that the image runs as.")]
pub struct Options {
    /// Only those whose name has this part
    #[arg(value_name = "REFERENCE")]
    reference: Option<String>,
    /// Keep what fits KEY=VALUE
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// All are shown in any case; there are no intermediate images
    #[arg(short, long, hide = true)]
    all: bool,
    /// The digest too
    #[arg(long)]
    digests: bool,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageView {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    size_bytes: u64,
    user: String,
    pinned: bool,
}

/// One name of an image.
#[derive(Debug, Serialize)]
struct Named {
    image: ImageView,
    name: String,
    tag: String,
}

const KEYS: &[(&str, Match)] =
    &[("reference", Match::Part), ("id", Match::Prefix), ("dangling", Match::Whole), ("pinned", Match::Whole)];

impl Row for Named {
    fn id(&self) -> String {
        self.image.id.clone()
    }
    fn name(&self) -> String {
        if self.image.repo_tags.is_empty() { self.image.id.clone() } else { format!("{}:{}", self.name, self.tag) }
    }
}

/// Lists them.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let mut texts = options.filters.clone();
    texts.extend(options.reference.iter().map(|part| format!("reference={part}")));
    let filters = Filters::parse(&texts, KEYS)?;
    let (_, mut images) = connect::cri(layout).await?;
    let answer = images.list_images(wire::ListImagesRequest::default()).await.map_err(said)?.into_inner();
    let mut views: Vec<ImageView> = answer.images.into_iter().map(view).filter(|v| kept(v, &filters)).collect();
    views.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
    if options.show.documents() {
        let yaml = options.show.output == crate::commands::output::list::Output::Yaml;
        return document(&views, if yaml { Document::Yaml } else { Document::Json });
    }
    let mut columns: Vec<Column<Named>> = COLUMNS.to_vec();
    if options.digests {
        columns.iter_mut().filter(|c| c.field == "Digest").for_each(|c| c.seen = Seen::Always);
    }
    options.show.rows(&rows(views), &columns)
}

fn kept(image: &ImageView, filters: &Filters) -> bool {
    filters.keep(|key| match key {
        "reference" => Has::Texts(image.repo_tags.iter().chain(&image.repo_digests).map(String::as_str).collect()),
        "id" => Has::Texts(vec![&image.id, image.id.trim_start_matches("sha256:")]),
        "dangling" => Has::Texts(vec![if image.repo_tags.is_empty() { "true" } else { "false" }]),
        _ => Has::Texts(vec![if image.pinned { "true" } else { "false" }]),
    })
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
fn rows(images: Vec<ImageView>) -> Vec<Named> {
    let named = images.into_iter().flat_map(|image| {
        let names: Vec<(String, String)> = match image.repo_tags.as_slice() {
            [] => vec![(untagged(&image), "<none>".to_owned())],
            tags => tags.iter().map(|t| split(t)).collect(),
        };
        names.into_iter().map(move |(name, tag)| Named { image: image.clone(), name, tag })
    });
    named.collect()
}

const COLUMNS: &[Column<Named>] = &[
    Column { field: "Repository", heading: "IMAGE", seen: Seen::Always, cell: |r, _| r.name.clone() },
    Column { field: "Tag", heading: "TAG", seen: Seen::Always, cell: |r, _| r.tag.clone() },
    Column { field: "ID", heading: "ID", seen: Seen::Always, cell: |r, c| c.id(&r.image.id) },
    Column { field: "Size", heading: "SIZE", seen: Seen::Always, cell: |r, _| size(r.image.size_bytes) },
    Column { field: "User", heading: "USER", seen: Seen::Wide, cell: |r, _| r.image.user.clone() },
    Column {
        field: "Pinned",
        heading: "PINNED",
        seen: Seen::Wide,
        cell: |r, _| if r.image.pinned { "yes" } else { "no" }.to_owned(),
    },
    Column {
        field: "Digest",
        heading: "DIGEST",
        seen: Seen::Wide,
        cell: |r, _| {
            let digest = r.image.repo_digests.iter().find_map(|d| d.strip_prefix(&format!("{}@", r.name)));
            digest.unwrap_or_default().to_owned()
        },
    },
];

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
    use crate::commands::output::list::{Output, Text};

    fn views() -> Vec<ImageView> {
        let image = |id: &str, tags: &[&str], digests: &[&str]| wire::Image {
            id: format!("sha256:{id}"),
            repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            repo_digests: digests.iter().map(|t| (*t).to_owned()).collect(),
            size: 1500,
            uid: Some(wire::Int64Value { value: 7 }),
            ..wire::Image::default()
        };
        let images = [
            image("aa", &["h:5000/web:1", "h:5000/web:2"], &["h:5000/web@sha256:dd"]),
            image("bb", &[], &["x.io/y@sha256:ee"]),
        ];
        images.map(view).to_vec()
    }

    #[test]
    fn every_tag_has_a_row_and_ports_are_no_tags() {
        let show = Show { output: Output::Wide, ..Show::default() };
        let Text::Lines(text) = show.text(&rows(views()), COLUMNS, false).unwrap() else { panic!() };
        assert_eq!(
            text,
            "IMAGE        TAG      ID   SIZE     USER   PINNED   DIGEST\n\
             h:5000/web   1        aa   1.5 kB   7      no       sha256:dd\n\
             h:5000/web   2        aa   1.5 kB   7      no       sha256:dd\n\
             x.io/y       <none>   bb   1.5 kB   7      no       sha256:ee"
        );
        assert_eq!(split("h:5000/web"), ("h:5000/web".into(), String::new()));
        assert_eq!(
            rows(views()).iter().map(Row::name).collect::<Vec<_>>(),
            ["h:5000/web:1", "h:5000/web:2", "sha256:bb"]
        );
    }

    #[test]
    fn filters_choose() {
        for (text, wanted) in
            [("reference=web:1$", 1), ("dangling=true", 1), ("id=aa", 1), ("pinned=true", 0), ("reference=:5000", 1)]
        {
            let filters = Filters::parse(&[text.to_owned()], KEYS).unwrap();
            assert_eq!(views().iter().filter(|v| kept(v, &filters)).count(), wanted, "{text}");
        }
    }
}
