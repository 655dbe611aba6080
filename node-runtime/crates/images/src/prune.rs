//! Images that nobody uses, removed on purpose: by people, or to keep within the store's own limits.
//!
//! Owns: which images may go, and in which order. Must not: take one that a container stands on, that is pinned, or that is being used
//! at the moment it would go.
use crate::record::ImageRecord;
use crate::state::State;
use crate::{Images, now};
use berth_model::{ImageId, Result, UnixNanos};
use std::sync::Arc;
use std::time::Duration;

/// Which unused images go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prune {
    /// Those with tags too.
    pub all: bool,
    /// Only those built before this time; an image that does not say when counts from its pull.
    pub until: Option<UnixNanos>,
    /// Only those with all of these labels.
    pub labels: Vec<Label>,
    /// Not those with any of these.
    pub without_labels: Vec<Label>,
}

/// A label: its key, and its value if that matters.
pub type Label = (String, Option<String>);

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images.
    pub deleted: Vec<ImageId>,
    /// Their names.
    pub untagged: Vec<String>,
    /// Bytes that the disk got back, from them and from what lay unused anyway.
    pub bytes: u64,
    /// Bytes that the store is over its limits still, with nothing left that may go.
    pub over: u64,
}

/// Limits of the image store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreLimits {
    /// Above this percentage of its disk in use (0 to 100), images go.
    pub high: Option<u8>,
    /// Until it is below this one.
    pub low: u8,
    /// Most bytes that images take.
    pub max_bytes: Option<u64>,
    /// How long an image was of no use before it may go.
    pub min_age: Duration,
}

impl Images {
    /// Removes unused images, and everything that lay unused anyway. Errors: a disk that refuses.
    pub async fn prune(&self, prune: &Prune) -> Result<Pruned> {
        let bears = |image: &ImageRecord, (key, value): &Label| {
            let found = image.config.labels.get(key);
            found.is_some_and(|found| value.as_ref().is_none_or(|wanted| wanted == found))
        };
        let chosen = |image: &ImageRecord| {
            (prune.all || image.repo_tags.is_empty())
                && prune.until.is_none_or(|until| built_at(image) < until)
                && prune.labels.iter().all(|label| bears(image, label))
                && !prune.without_labels.iter().any(|label| bears(image, label))
        };
        // What a failed pull has left for its next attempt is not of use to somebody who wants the space.
        self.state().retained.clear();
        let chosen: Vec<ImageId> = self.unused().into_iter().filter(|i| chosen(i)).map(|i| i.id.clone()).collect();
        let mut pruned = self.remove_unused(&chosen).await?;
        pruned.bytes = self.collect().await?.usage.bytes;
        Ok(pruned)
    }

    /// Removes the images that were of no use for longest until the store is within its limits. Errors: a disk that refuses.
    pub async fn keep_within(&self, limits: &StoreLimits) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let mut excess = self.excess(limits, true)?;
        if excess == 0 {
            return Ok(pruned);
        }
        // What nobody needs goes first: perhaps that is all.
        pruned.bytes += self.collect().await?.usage.bytes;
        let oldest = now() - i64::try_from(limits.min_age.as_nanos()).unwrap_or(i64::MAX);
        for image in self.unused() {
            excess = self.excess(limits, false)?;
            if excess == 0 {
                break;
            }
            if self.state().used_at(&image) > oldest {
                continue;
            }
            let one = self.remove_unused(std::slice::from_ref(&image.id)).await?;
            pruned.deleted.extend(one.deleted);
            pruned.untagged.extend(one.untagged);
            pruned.bytes += self.collect().await?.usage.bytes;
        }
        if excess > 0 {
            pruned.over = self.excess(limits, false)?;
        }
        Ok(pruned)
    }

    /// Bytes over the limits. A collection begins above `high` and ends below `low`.
    fn excess(&self, limits: &StoreLimits, begins: bool) -> Result<u64> {
        let own = self.fs_usage()?.images.bytes;
        let over_size = limits.max_bytes.map_or(0, |max| own.saturating_sub(max));
        let Some(high) = limits.high else { return Ok(over_size) };
        let stat = rustix::fs::statvfs(self.inner.layout.root()).map_err(crate::unpack::io)?;
        let unit = stat.f_frsize;
        // As df(1) counts: what root alone may use is no space.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree) * unit;
        let capacity = used + stat.f_bavail * unit;
        let at = |percent: u8| capacity / 100 * u64::from(percent.min(100));
        if begins && used <= at(high) {
            return Ok(over_size);
        }
        Ok(over_size.max(used.saturating_sub(at(limits.low.min(high)))))
    }

    /// Images that no container uses and nobody has pinned, the one first that was of no use for longest.
    fn unused(&self) -> Vec<Arc<ImageRecord>> {
        let state = self.state();
        let mut unused: Vec<_> = state.images();
        unused.retain(|image| state.is_unused(&image.id));
        unused.sort_by_key(|image| (state.used_at(image), state.last_used(image), image.id.clone()));
        unused
    }

    /// Removes those of them that are still unused.
    async fn remove_unused(&self, ids: &[ImageId]) -> Result<Pruned> {
        let _guard = self.inner.committing.lock().await;
        let removed = self.remove_records(ids, State::is_unused).await?;
        let untagged = removed.iter().flat_map(|(_, names)| names.clone()).collect();
        Ok(Pruned {
            deleted: removed.iter().map(|(image, _)| image.id.clone()).collect(),
            untagged,
            ..Pruned::default()
        })
    }
}

/// When an image was built; its pull where it does not say.
fn built_at(image: &ImageRecord) -> UnixNanos {
    berth_model::parse_rfc3339(&image.created).unwrap_or(image.pulled_at)
}
