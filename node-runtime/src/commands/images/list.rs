//! `berth images`.
use crate::commands::connect::{self, Images, said};
use crate::commands::output::filter::{Filters, Match, Seen as Has};
use crate::commands::output::list::{Column, Row, Seen, Show};
use crate::commands::output::{Document, document};
use crate::commands::table::size;
use crate::commands::time;
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use berth_proto::cri as wire;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What to list.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth images
  berth images -f reference=web
  berth images -f 'reference=*/team/web:v*' -f label=stage=test
  berth images -f since=web:1
  berth images --format '{{.Repository}}:{{.Tag}} {{.Size}}'
  berth images -o json | jq -r '.[].repoDigests[]'

Filters (-f KEY=VALUE, KEY!=VALUE): reference (a part; ^ and $ bind it; with *, ? or [ a pattern of the whole name,
with or without its tag), label (KEY or KEY=VALUE; all must be there), before and since (IMAGE: built before or
after it), id, dangling (true, false), pinned (true, false).

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

const KEYS: &[(&str, Match)] = &[
    ("reference", Match::Pattern),
    ("label", Match::Label),
    ("before", Match::Other),
    ("since", Match::Other),
    ("id", Match::Prefix),
    ("dangling", Match::Whole),
    ("pinned", Match::Whole),
];

/// What only an image's configuration tells.
#[derive(Debug, Clone, Default, PartialEq)]
struct Built {
    labels: BTreeMap<String, String>,
    /// Unix nanoseconds; none where the image does not say.
    created: Option<i64>,
}

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
    let mut views: Vec<ImageView> = answer.images.into_iter().map(view).collect();
    let bounds = Bounds {
        before: bounds(&mut images, &filters, "before").await?,
        since: bounds(&mut images, &filters, "since").await?,
    };
    // Asked for where it is needed alone: one call an image.
    let built = match filters.has("label") || bounds.some() {
        true => built(&mut images, &views).await?,
        false => BTreeMap::new(),
    };
    views.retain(|v| {
        let built = built.get(&v.id).cloned().unwrap_or_default();
        kept(v, &built, &filters) && bounds.hold(built.created)
    });
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

/// When images named in `before` and `since` were built.
struct Bounds {
    before: Vec<i64>,
    since: Vec<i64>,
}

impl Bounds {
    fn some(&self) -> bool {
        !self.before.is_empty() || !self.since.is_empty()
    }

    fn hold(&self, created: Option<i64>) -> bool {
        let Some(at) = created else { return !self.some() };
        self.before.iter().all(|bound| at < *bound) && self.since.iter().all(|bound| at > *bound)
    }
}

/// Errors: an image that is not here, or that does not say when it was built.
async fn bounds(images: &mut Images, filters: &Filters, key: &str) -> Result<Vec<i64>> {
    let mut bounds = Vec::new();
    for name in filters.values(key) {
        let Some(built) = status(images, name).await? else { bail!("--filter {key}: there is no image {name:?}") };
        let created =
            built.created.with_context(|| format!("--filter {key}: image {name:?} does not say when it was built"))?;
        bounds.push(created);
    }
    Ok(bounds)
}

async fn built(images: &mut Images, views: &[ImageView]) -> Result<BTreeMap<String, Built>> {
    let mut all = BTreeMap::new();
    for view in views {
        // One that was removed meanwhile is none.
        if let Some(built) = status(images, &view.id).await? {
            all.insert(view.id.clone(), built);
        }
    }
    Ok(all)
}

async fn status(images: &mut Images, name: &str) -> Result<Option<Built>> {
    let image = Some(wire::ImageSpec { image: name.to_owned(), ..wire::ImageSpec::default() });
    let request = wire::ImageStatusRequest { image, verbose: true };
    let answer = images.image_status(request).await.map_err(said)?.into_inner();
    if answer.image.is_none() {
        return Ok(None);
    }
    let info: Value = serde_json::from_str(answer.info.get("info").map(String::as_str).unwrap_or("{}"))?;
    let record = &info["record"];
    let labels = record["config"]["labels"].as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
    let created = record["created"].as_str().and_then(time::parse_rfc3339);
    Ok(Some(Built { labels, created }))
}

/// An image's name as it can be meant: whole, without its tag or digest, and as people write names of Docker Hub.
fn spellings(name: &str) -> Vec<&str> {
    let short = name.strip_prefix("docker.io/").map(|rest| rest.strip_prefix("library/").unwrap_or(rest));
    let whole = [Some(name), short].into_iter().flatten();
    whole.flat_map(|name| [name, name.split_once('@').map_or_else(|| untagged_name(name), |(bare, _)| bare)]).collect()
}

fn kept(image: &ImageView, built: &Built, filters: &Filters) -> bool {
    filters.keep(|key| match key {
        "reference" => {
            Has::Texts(image.repo_tags.iter().chain(&image.repo_digests).flat_map(|n| spellings(n)).collect())
        }
        "label" => Has::Labels(&built.labels),
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
fn untagged_name(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    }
}

fn split(reference: &str) -> (String, String) {
    let name = untagged_name(reference);
    (name.to_owned(), reference[name.len()..].trim_start_matches(':').to_owned())
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
        let labels = [("stage".to_owned(), "test".to_owned())].into();
        let built = Built { labels, created: Some(5) };
        for (text, wanted) in [
            ("reference=web:1$", 1),
            ("reference=h:5000/w*", 1),
            ("reference=h:5000/w*:[3-9]", 0),
            ("dangling=true", 1),
            ("id=aa", 1),
            ("pinned=true", 0),
            ("reference=:5000", 1),
            ("label=stage", 2),
            ("label=stage=prod", 0),
        ] {
            let filters = Filters::parse(&[text.to_owned()], KEYS).unwrap();
            assert_eq!(views().iter().filter(|v| kept(v, &built, &filters)).count(), wanted, "{text}");
        }
        let hub = spellings("docker.io/library/busybox:1.37");
        assert_eq!(hub, ["docker.io/library/busybox:1.37", "docker.io/library/busybox", "busybox:1.37", "busybox"]);
        assert_eq!(spellings("h:5000/x@sha256:aa"), ["h:5000/x@sha256:aa", "h:5000/x"]);
    }

    #[test]
    fn before_and_since_are_strict() {
        let hold =
            |before: &[i64], since: &[i64], at| Bounds { before: before.to_vec(), since: since.to_vec() }.hold(at);
        assert!(hold(&[], &[], None) && hold(&[5], &[], Some(4)) && hold(&[5], &[3], Some(4)));
        assert!(!hold(&[5], &[], Some(5)) && !hold(&[], &[5], Some(5)) && !hold(&[5], &[], None));
    }
}
