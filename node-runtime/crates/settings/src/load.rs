//! A directory to settings.
use crate::accepted::Accepted;
use crate::{Network, Settings, Source, Storage, Streaming};
use berth_crds::{
    Document, Effective, ImagePolicy, LogLevel, MAX_DOCUMENT, RuntimeConfig, RuntimeConfigSpec, check_sockets, merge,
    parse_known_documents, streaming_tls,
};
use berth_model::{Error, Reference, Result, ResultExt};
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most files in the directory.
const MAX_FILES: usize = 200;

/// Reads all documents of a directory. One that does not exist holds none: the defaults apply. `accepted` is the same file as for
/// [`crate::watch`]: limits of what newly enters say nothing of documents that stand there.
/// Errors: `InvalidArgument` naming file, document, field, line and column.
pub fn load(directory: &Path, accepted: &Path) -> Result<Settings> {
    let before = accepted_before(&Accepted::new(accepted.to_owned()));
    from_sources(sources(&texts(directory)?, &among(&before))?)
}

/// Every document file of a directory with its text, in name order.
pub(crate) fn texts(directory: &Path) -> Result<Vec<(PathBuf, String)>> {
    let named = |file: PathBuf| read(&file).context(|| file.display()).map(|text| (file.clone(), text));
    document_files(directory)?.into_iter().map(named).collect()
}

/// Settings from files' texts, all of them new. Errors: as [`load`].
pub fn from_texts(texts: &[(PathBuf, String)]) -> Result<Settings> {
    from_sources(sources(texts, &|_| false)?)
}

/// The documents of files' texts; `known` tells of one whether it was accepted before. Errors: as [`load`].
pub fn sources(texts: &[(PathBuf, String)], known: &dyn Fn(&Document) -> bool) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (file, text) in texts {
        for document in parse_known_documents(text, known).context(|| file.display())? {
            sources.push(Source { file: file.clone(), document });
        }
    }
    Ok(sources)
}

/// Whether a document is one of these.
pub fn among(sources: &[Source]) -> impl Fn(&Document) -> bool {
    move |document| sources.iter().any(|source| source.document == *document)
}

/// The documents that were accepted last; none where nothing was kept that helps.
pub(crate) fn accepted_before(accepted: &Accepted) -> Vec<Source> {
    let kept = accepted.read().ok().flatten();
    kept.and_then(|(texts, _)| sources(&texts, &|_| true).ok()).unwrap_or_default()
}

/// Settings from documents. Errors: two of one name, a merge that contradicts itself.
pub fn from_sources(sources: Vec<Source>) -> Result<Settings> {
    let mut configs = Vec::new();
    let mut policies: Vec<ImagePolicy> = Vec::new();
    for source in &sources {
        match &source.document {
            Document::RuntimeConfig(config) => configs.push(config.as_ref().clone()),
            Document::ImagePolicy(policy) => {
                add_policy(&mut policies, policy.as_ref().clone()).context(|| source.file.display())?;
            }
        }
    }
    policies.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    settings(&configs, policies, sources)
}

fn add_policy(policies: &mut Vec<ImagePolicy>, policy: ImagePolicy) -> Result<()> {
    if policies.iter().any(|p| p.metadata.name == policy.metadata.name) {
        return Err(Error::invalid("metadata.name", format!("ImagePolicy {} stands twice", policy.metadata.name)));
    }
    policies.push(policy);
    Ok(())
}

/// The rules of the documents have accepted every value; what they would not is the default here.
fn streaming(wish: &berth_crds::Streaming) -> Result<Streaming> {
    let field = |name: &str| format!("spec.runtime.streaming.{name}");
    let mut streaming = Streaming::default();
    if let Some(bind) = &wish.bind {
        let address = bind.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| bind.parse());
        streaming.bind = address.map_err(|_| Error::invalid(field("bind"), "is no address"))?;
    }
    if let Some(seconds) = wish.token_ttl.as_deref().and_then(berth_crds::seconds) {
        streaming.token_seconds = seconds;
    }
    streaming.tls = streaming_tls(wish)?.map(|(cert, key)| (cert.into(), key.into()));
    Ok(streaming)
}

/// The image store. Two documents may set `gc.high` and `gc.low`, so only what is merged can be judged.
fn storage(spec: &RuntimeConfigSpec) -> Result<Storage> {
    let berth_crds::Storage { directory, keep_compressed_layers, image_fs_quota, writable_layer_limit, gc } =
        &spec.runtime.storage;
    let low = gc.low.unwrap_or_else(|| gc.high.unwrap_or(100).saturating_sub(5));
    if let Some(high) = gc.high
        && low >= high
        && gc.low.is_some()
    {
        let problem = format!("is {low}, must be below gc.high, which is {high}");
        return Err(Error::invalid("spec.runtime.storage.gc.low", problem));
    }
    Ok(Storage {
        directory: directory.as_ref().map(PathBuf::from),
        keep_compressed_layers: keep_compressed_layers.unwrap_or(true),
        max_bytes: image_fs_quota.as_deref().and_then(berth_crds::bytes),
        writable_layer_limit: writable_layer_limit.as_deref().and_then(berth_crds::bytes),
        high: gc.high,
        low,
        min_age_seconds: gc.min_age.as_deref().and_then(berth_crds::seconds).unwrap_or(120),
        pinned: references(&spec.images.pinned)?,
        prefetch: references(&spec.images.prefetch)?,
    })
}

fn references(texts: &[String]) -> Result<Vec<Reference>> {
    texts.iter().map(|text| Reference::parse(text)).collect()
}

fn settings(configs: &[RuntimeConfig], policies: Vec<ImagePolicy>, inputs: Vec<Source>) -> Result<Settings> {
    let Effective { spec, sources } = merge(configs)?;
    // Several documents together may name too many, or one by both of its names.
    check_sockets(&spec.runtime.sockets)?;
    let documents: Vec<String> = inputs.iter().map(Source::title).collect();
    // A configuration's name is unique, so its title with the file is found by it.
    let title = |name: &String| {
        let start = format!("RuntimeConfig/{name} (");
        documents.iter().find(|d| d.starts_with(&start)).unwrap_or(name).clone()
    };
    Ok(Settings {
        log_level: spec.runtime.log_level.unwrap_or(LogLevel::Info),
        pids_limit: spec.runtime.pids_limit,
        cgroup_manager: spec.runtime.cgroup_manager,
        limits: spec.runtime.limits.clone(),
        registries: spec.registries.clone(),
        network: Network {
            mode: spec.network.mode.unwrap_or_default(),
            subnet: spec.network.subnet.clone(),
            mtu: spec.network.mtu,
        },
        streaming: streaming(&spec.runtime.streaming)?,
        storage: storage(&spec)?,
        metrics_address: spec.metrics.address.clone(),
        policies,
        sources: sources.iter().map(|(field, name)| (field.clone(), title(name))).collect(),
        documents,
        inputs: Arc::new(inputs),
        spec,
    })
}

/// The document files of a directory in name order; hidden ones (an editor's, a ConfigMap's `..data`) are not documents.
pub fn document_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| directory.display())?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.context(|| directory.display())?.path();
        let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if yaml && !hidden {
            files.push(path);
        }
    }
    if files.len() > MAX_FILES {
        let problem = format!("holds {} documents files, the limit is {MAX_FILES}", files.len());
        return Err(Error::invalid(directory.display(), problem));
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    // One byte more than allowed, so that the parser's limit tells about a longer file.
    fs::File::open(path)?.take(MAX_DOCUMENT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
