//! Image use cases: policy, resolve, fetch; list, status, remove.
use crate::context::Engine;
use crate::metrics::Metrics;
use crate::pod::stop::run_to_end;
use crate::record::PullTimes;
use crate::steps::Walk;
use berth_images::{Evidence, FsUsage, ImageRecord, PullRequest, Source};
use berth_model::{ErrorKind, Observation, PullPhase, PullProgress, Reference, Result};
use berth_registry::{Auth, Platform};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// What to pull.
pub struct PullSpec {
    /// The reference as written.
    pub reference: String,
    /// Of an image for several platforms, which one; empty is the node's.
    pub platform: String,
    /// Credentials.
    pub auth: Auth,
    /// Namespace whose policies apply; empty is unknown: the strictest set.
    pub namespace: String,
    /// Where progress goes.
    pub progress: Option<mpsc::Sender<PullProgress>>,
}

/// What a pull gave.
#[derive(Debug, Clone)]
pub struct PullOutcome {
    /// The image.
    pub image: Arc<ImageRecord>,
    /// What policies in mode Warn say.
    pub warnings: Vec<String>,
}

/// Counts a pull when it ends, also when its caller goes away.
struct Count<'a> {
    metrics: &'a Metrics,
    registry: String,
    begun: Instant,
    label: &'static str,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.metrics.pull(self.label, &self.registry, self.begun.elapsed());
    }
}

/// The platform that a text means; empty is the node's. Errors: as [`Platform::of_node`].
pub(crate) fn platform_of(text: &str) -> Result<Platform> {
    if text.is_empty() { Ok(Platform::host()) } else { Platform::of_node(text) }
}

impl Engine {
    /// Pulls an image; equal pulls join one transfer. It is given up when this is dropped: what asked for it has gone away. The
    /// transfer itself ends with the last of those that wait for it, between two of its steps (see `Images::fetch`).
    /// Errors: `PolicyDenied`; `Unknown` with `RegistryUnavailable` in front, as the kubelet expects; `InvalidArgument` for a
    /// malformed reference; `NotFound`; `ResourceExhausted` for limits and full disks.
    pub async fn pull(&self, spec: PullSpec) -> Result<PullOutcome> {
        // People alone ask for a platform: what cannot be one is told to them, and is no trouble that a pod is in.
        let platform = platform_of(&spec.platform)?;
        let registry = Reference::parse(&spec.reference).map(|r| r.host().to_owned()).unwrap_or_default();
        let mut count = Count { metrics: &self.metrics, registry, begun: Instant::now(), label: "cancelled" };
        let reference = spec.reference.clone();
        let result = self.execute_pull(spec, platform).await;
        if let Err(e) = &result {
            self.troubles.pull(&reference, e);
        }
        count.label = match &result {
            Ok(_) => "ok",
            Err(e) if e.kind() == ErrorKind::PolicyDenied => "denied",
            Err(_) => "error",
        };
        result
    }

    async fn execute_pull(&self, spec: PullSpec, platform: Platform) -> Result<PullOutcome> {
        let reference = Reference::parse(&spec.reference)?;
        let mut walk = Walk::new("pull", &self.metrics);
        let namespace = spec.namespace.clone();
        let warnings = walk.step("policy", async { self.decide_reference(&namespace, &reference) }).await?;
        let begun = Instant::now();
        let resolved = walk.step("resolve", self.images.resolve(&reference, &spec.auth)).await?;
        let (registry, phase) = (reference.host(), PullPhase::Resolve);
        self.metrics.tell(Observation::PullPhase { registry, phase, took: begun.elapsed() });
        let source = Source {
            registry: reference.host().to_owned(),
            digest: resolved.digest.clone(),
            reference: reference.clone(),
        };
        let evidence = Evidence { sources: vec![source], verified_keys: Vec::new() };
        let (auth, progress, log) = (spec.auth, spec.progress, walk.parts());
        let digest = resolved.digest;
        let request = PullRequest { reference, digest, platform, auth, evidence, progress, log };
        let image = walk.step("fetch", self.images.fetch(request)).await?;
        self.starts.pulled(&image.id, PullTimes { reference: spec.reference.clone(), timeline: walk.timeline() });
        tracing::info!(image = %image.id, reference = spec.reference, "image is here");
        self.events.journal.image("pull", image.id.as_str(), &spec.reference);
        Ok(PullOutcome { image, warnings })
    }

    /// All images.
    pub fn images(&self) -> Vec<Arc<ImageRecord>> {
        self.images.list()
    }

    /// The image by id, unique prefix or name; `None` when it is not here.
    pub fn image(&self, name: &str) -> Result<Option<Arc<ImageRecord>>> {
        self.images.find(name)
    }

    /// Removes an image with all its names. One that is not here is removed.
    pub async fn remove_image(self: &Arc<Self>, name: &str) -> Result<()> {
        let (engine, name) = (self.clone(), name.to_owned());
        run_to_end(async move {
            let known = engine.images.find(&name).ok().flatten();
            engine.images.remove(&name).await?;
            if let Some(image) = known {
                engine.events.journal.image("delete", image.id.as_str(), &name);
            }
            Ok(())
        })
        .await
    }

    /// Use of the file system that holds images and writable layers.
    pub fn image_fs(&self) -> Result<FsUsage> {
        self.images.fs_usage()
    }
}
