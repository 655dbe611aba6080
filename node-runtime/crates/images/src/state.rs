//! What the store has, in memory: every list and lookup is answered from here.
//!
//! Owns: images with their names, snapshots, blobs, who needs which of them. Must not: change the disk.
use crate::record::ImageRecord;
use crate::rootfs::RootfsRecord;
use crate::tree::DiskUsage;
use berth_model::{ContainerId, Digest, Error, ImageId, Reference, Result, UnixNanos};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// Fewest hex digits of an id that stand for it.
const MIN_PREFIX: usize = 12;

/// A snapshot on disk.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// What it takes.
    pub usage: DiskUsage,
    /// Whether it survives a power cut. What is not synced yet is only used by pulls that sync before they commit.
    pub synced: bool,
}

/// A blob on disk.
#[derive(Debug, Clone, Copy)]
pub struct Blob {
    /// What it takes.
    pub usage: DiskUsage,
}

impl Blob {
    /// The one at this path.
    pub fn at(path: &std::path::Path) -> Result<Self> {
        Ok(Self { usage: crate::layout::measured(path)? })
    }
}

/// What a digest stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A chain id.
    Snapshot,
    /// Content.
    Blob,
}

/// Everything there is.
#[derive(Debug, Default)]
pub struct State {
    images: HashMap<ImageId, Arc<ImageRecord>>,
    references: BTreeMap<String, ImageId>,
    /// By chain id.
    pub snapshots: HashMap<Digest, Snapshot>,
    /// By digest.
    pub blobs: HashMap<Digest, Blob>,
    /// What running pulls need: digests of blobs and chain ids, with the number of pulls.
    pub leases: HashMap<Digest, usize>,
    /// What pulls that a registry failed have finished, until when it waits for the next attempt.
    pub retained: Vec<(Instant, Vec<Digest>)>,
    /// Root filesystems, by container.
    pub rootfs: HashMap<ContainerId, RootfsRecord>,
    /// When a container last took or left an image; not written down.
    used_at: HashMap<ImageId, UnixNanos>,
    /// When the store was opened. What an earlier daemon knew of uses is lost, so each image counts as used until then.
    pub opened_at: UnixNanos,
    /// Layers that were fetched for a push or an export alone, on a node that does not keep them: they go when nobody leases them.
    pub passing: HashSet<Digest>,
    /// References whose images are pinned, by the settings.
    pins: HashSet<Reference>,
}

impl State {
    /// Takes over what a start found.
    pub fn load(&mut self, images: Vec<ImageRecord>, references: Vec<(String, ImageId)>) {
        self.images = images.into_iter().map(|i| (i.id.clone(), Arc::new(i))).collect();
        self.references = references.into_iter().filter(|(_, id)| self.images.contains_key(id)).collect();
        for id in self.images.keys().cloned().collect::<Vec<_>>() {
            self.rename(&id);
        }
    }

    /// All images, by id.
    pub fn images(&self) -> Vec<Arc<ImageRecord>> {
        let mut all: Vec<_> = self.images.values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// One image.
    pub fn image(&self, id: &ImageId) -> Option<&Arc<ImageRecord>> {
        self.images.get(id)
    }

    /// An image that one of its names has this digest, in any repository.
    pub fn image_by_digest(&self, digest: &Digest) -> Option<&Arc<ImageRecord>> {
        self.images
            .values()
            .find(|i| i.manifest_digest == *digest || i.repo_digests.iter().any(|r| r.digest() == Some(digest)))
    }

    /// The texts of the references to an image.
    pub fn references_to<'a>(&'a self, id: &'a ImageId) -> impl Iterator<Item = &'a String> {
        self.references.iter().filter(move |(_, to)| *to == id).map(|(text, _)| text)
    }

    /// Writes an image and lets references name it; those that named another one are moved. Returns the image.
    pub fn put_image(&mut self, record: ImageRecord, references: Vec<String>) -> Arc<ImageRecord> {
        let id = record.id.clone();
        // What an earlier attempt has left for this one goes with the image from now on, not by the clock.
        let own: HashSet<&Digest> = record.chain_ids().chain(record.blobs()).collect();
        self.retained.iter_mut().for_each(|(_, digests)| digests.retain(|digest| !own.contains(digest)));
        self.images.insert(id.clone(), Arc::new(record));
        let mut touched: HashSet<ImageId> = [id.clone()].into();
        for text in references {
            touched.extend(self.references.insert(text, id.clone()));
        }
        touched.iter().for_each(|id| self.rename(id));
        self.images[&id].clone()
    }

    /// Lets references name an image; those that named another one are moved. Returns the image.
    pub fn name_image(&mut self, id: &ImageId, references: Vec<String>) -> Option<Arc<ImageRecord>> {
        let record = self.images.get(id).cloned()?;
        Some(self.put_image((*record).clone(), references))
    }

    /// Forgets an image and all of its names; returns them.
    pub fn remove_image(&mut self, id: &ImageId) -> Option<(Arc<ImageRecord>, Vec<String>)> {
        let image = self.images.remove(id)?;
        let names = self.references_to(id).cloned().collect();
        self.references.retain(|_, to| to != id);
        self.used_at.remove(id);
        Some((image, names))
    }

    /// Forgets names of images that stay.
    pub fn remove_references(&mut self, names: &[String]) {
        let touched: HashSet<ImageId> = names.iter().filter_map(|name| self.references.remove(name)).collect();
        touched.iter().for_each(|id| self.rename(id));
    }

    /// Pins the images of these references, and no others.
    pub fn set_pins(&mut self, pins: HashSet<Reference>) {
        // As an image's names are kept: one by digest has no tag.
        let named = |pin: Reference| pin.digest().cloned().map_or(pin.clone(), |digest| pin.with_digest_only(digest));
        self.pins = pins.into_iter().map(named).collect();
        for id in self.images.keys().cloned().collect::<Vec<_>>() {
            self.rename(&id);
        }
    }

    /// Takes note that a container takes or leaves an image.
    pub fn touch(&mut self, id: &ImageId, at: UnixNanos) {
        self.used_at.insert(id.clone(), at);
    }

    /// When an image was last of use: to a container, or by its pull; not before the store was opened.
    pub fn used_at(&self, image: &ImageRecord) -> UnixNanos {
        self.last_used(image).max(self.opened_at)
    }

    /// The same as far as it is known.
    pub fn last_used(&self, image: &ImageRecord) -> UnixNanos {
        self.used_at.get(&image.id).copied().unwrap_or_default().max(image.pulled_at)
    }

    /// Whether an image is here that no container uses and nobody has pinned.
    pub fn is_unused(&self, id: &ImageId) -> bool {
        self.image(id).is_some_and(|image| !image.pinned) && self.users(id).next().is_none()
    }

    /// The containers that stand on an image, or mount it as a volume.
    pub fn users<'a>(&'a self, id: &'a ImageId) -> impl Iterator<Item = &'a ContainerId> {
        let uses = move |r: &RootfsRecord| r.image == *id || r.image_volumes.iter().any(|v| v.image == *id);
        self.rootfs.iter().filter(move |(_, record)| uses(record)).map(|(owner, _)| owner)
    }

    /// Brings the names in a record up to date.
    fn rename(&mut self, id: &ImageId) {
        let names: Vec<Reference> = self.references_to(id).filter_map(|text| Reference::parse(text).ok()).collect();
        let Some(image) = self.images.get_mut(id) else { return };
        let pinned = names.iter().any(|name| self.pins.contains(name));
        let (digests, tags) = names.into_iter().partition(|r| r.digest().is_some());
        let image = Arc::make_mut(image);
        (image.repo_digests, image.repo_tags, image.pinned) = (digests, tags, pinned);
    }

    /// The image that a text stands for: a full id with or without `sha256:`, a unique prefix of 12 digits or more, a reference with tag
    /// or digest, shortened as people write it. Errors: `InvalidArgument` for a text that is none of these, and for a
    /// prefix of several images.
    pub fn find(&self, text: &str) -> Result<Option<Arc<ImageRecord>>> {
        let bare = text.strip_prefix("sha256:");
        let hex = bare.unwrap_or(text);
        if hex.len() >= MIN_PREFIX
            && hex.len() <= 64
            && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            let mut found = self.images.values().filter(|i| i.id.hex().starts_with(hex));
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => {
                    return Err(Error::invalid("image id", format!("{text} stands for several images")));
                }
                (Some(one), None) => return Ok(Some(one.clone())),
                (None, _) if bare.is_some() => return Ok(None),
                (None, _) => {}
            }
        }
        let reference = Reference::parse(text)?;
        let key = match reference.digest() {
            Some(digest) => reference.with_digest_only(digest.clone()),
            None => reference,
        };
        Ok(self.references.get(&key.to_string()).and_then(|id| self.images.get(id)).cloned())
    }

    /// Whether an image is here with all of its layers, its manifest and its configuration.
    pub fn is_whole(&self, image: &ImageRecord) -> bool {
        self.has_documents(image) && image.chain_ids().all(|id| self.snapshots.contains_key(id))
    }

    /// Whether its manifest and its configuration are here.
    pub fn has_documents(&self, image: &ImageRecord) -> bool {
        [&image.id, &image.manifest_digest].iter().all(|digest| self.blobs.contains_key(*digest))
    }

    /// The numbers of projects that root file systems have.
    pub fn projects(&self) -> HashSet<u32> {
        self.rootfs.values().filter_map(|r| r.project).collect()
    }

    /// Gives a root file system this number, unless it has another owner by now.
    pub fn claim_project(&mut self, owner: &ContainerId, project: Option<u32>) -> bool {
        let taken = project.is_some() && self.rootfs.iter().any(|(id, r)| id != owner && r.project == project);
        match self.rootfs.get_mut(owner) {
            Some(record) if !taken => {
                record.project = project;
                true
            }
            _ => false,
        }
    }

    /// Whether all of these snapshots are known to be on the disk.
    pub fn is_synced(&self, chain_ids: &[Digest]) -> bool {
        chain_ids.iter().all(|id| self.snapshots.get(id).is_some_and(|s| s.synced))
    }

    /// Says that they are.
    pub fn set_synced(&mut self, chain_ids: &[Digest]) {
        for id in chain_ids {
            if let Some(snapshot) = self.snapshots.get_mut(id) {
                snapshot.synced = true;
            }
        }
    }

    /// What of a kind someone needs: images, containers, running pulls, the next attempt of one that failed. The kinds are kept apart:
    /// the chain id of a lowest layer is the digest of its archive, uncompressed.
    pub fn needed(&mut self, kind: Kind) -> HashSet<Digest> {
        let now = Instant::now();
        self.retained.retain(|(until, _)| *until > now);
        let mut needed: HashSet<Digest> = self.retained.iter().flat_map(|(_, digests)| digests).cloned().collect();
        for image in self.images.values() {
            match kind {
                Kind::Snapshot => needed.extend(image.chain_ids().cloned()),
                Kind::Blob => needed.extend(image.blobs().cloned()),
            }
        }
        match kind {
            Kind::Snapshot => needed.extend(self.rootfs.values().flat_map(RootfsRecord::uses).cloned()),
            Kind::Blob => needed.retain(|digest| !self.passing.contains(digest)),
        }
        needed.extend(self.leases.keys().cloned());
        needed
    }

    /// Whether someone needs this one: the same answer as by [`State::needed`], without the set.
    pub fn is_needed(&self, kind: Kind, digest: &Digest) -> bool {
        let now = Instant::now();
        let waits = || self.retained.iter().any(|(until, digests)| *until > now && digests.contains(digest));
        let used = || match kind {
            Kind::Snapshot => {
                self.images.values().any(|i| i.chain_ids().any(|d| d == digest))
                    || self.rootfs.values().any(|r| r.uses().any(|d| d == digest))
            }
            Kind::Blob => self.images.values().any(|i| i.blobs().any(|d| d == digest)),
        };
        let passes = kind == Kind::Blob && self.passing.contains(digest);
        self.leases.contains_key(digest) || (!passes && (waits() || used()))
    }

    /// Adds to the leases.
    pub fn lease(&mut self, digests: &[Digest]) {
        for digest in digests {
            *self.leases.entry(digest.clone()).or_default() += 1;
        }
    }

    /// Takes from the leases.
    pub fn release(&mut self, digests: &[Digest]) {
        for digest in digests {
            if let Some(count) = self.leases.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    self.leases.remove(digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Evidence, LayerRecord};
    use crate::rootfs::ImageVolume;

    fn digest(n: u8) -> Digest {
        Digest::from_bytes([n; 32])
    }

    fn image(n: u8) -> ImageRecord {
        let layer = LayerRecord {
            chain_id: digest(n + 100),
            diff_id: digest(n),
            digest: digest(n + 50),
            size: 1,
            usage: DiskUsage::default(),
        };
        ImageRecord {
            id: digest(n),
            config: Default::default(),
            repo_tags: vec![],
            repo_digests: vec![],
            manifest_digest: digest(n + 150),
            size: 1,
            layers: vec![layer],
            created: String::new(),
            pulled_at: 1,
            pinned: false,
            evidence: Evidence::default(),
            bundle: None,
        }
    }

    fn tags(state: &State, n: u8) -> Vec<String> {
        state.image(&digest(n)).unwrap().repo_tags.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tag_moves_and_the_former_image_stays_without_it() {
        let mut state = State::default();
        let by_digest = format!("r.io/app@{}", digest(9));
        state.put_image(image(1), vec!["r.io/app:v1".into(), "r.io/app:latest".into(), by_digest.clone()]);
        state.put_image(image(2), vec!["r.io/app:latest".into()]);
        assert_eq!(tags(&state, 1), ["r.io/app:v1"]);
        assert_eq!(tags(&state, 2), ["r.io/app:latest"]);
        state.put_image(image(2), vec!["r.io/app:v1".into()]);
        assert!(tags(&state, 1).is_empty());
        assert_eq!(state.images().len(), 2);
        assert_eq!(state.find(&by_digest).unwrap().unwrap().id, digest(1));
        assert_eq!(state.image_by_digest(&digest(9)).unwrap().id, digest(1));
        state.remove_image(&digest(2));
        assert!(state.find("r.io/app:v1").unwrap().is_none());
    }

    #[test]
    fn an_image_is_found_by_every_name() {
        let mut state = State::default();
        state.put_image(
            image(1),
            vec!["docker.io/library/busybox:1.36".into(), format!("docker.io/library/busybox@{}", digest(8))],
        );
        let hex = digest(1).hex().to_owned();
        let names = [
            digest(1).to_string(),
            hex.clone(),
            hex[..12].to_owned(),
            format!("sha256:{}", &hex[..20]),
            "busybox:1.36".into(),
            "docker.io/busybox:1.36".into(),
            "index.docker.io/library/busybox:1.36".into(),
            format!("busybox@{}", digest(8)),
            format!("busybox:any@{}", digest(8)),
        ];
        for name in names {
            assert!(state.find(&name).unwrap().is_some(), "{name}");
        }
        for name in ["busybox", "other:1.36", &hex[..11], &digest(2).to_string(), &format!("busybox@{}", digest(7))] {
            assert!(state.find(name).unwrap().is_none(), "{name}");
        }
        assert!(state.find("UPPER").is_err());
        let mut twin = image(2);
        twin.id = Digest::parse(&format!("sha256:{}ff", &hex[..62])).unwrap();
        state.put_image(twin, vec![]);
        assert!(state.find(&hex[..12]).unwrap_err().message().contains("several"));
    }

    #[test]
    fn what_an_earlier_daemon_knew_of_uses_is_not_taken_for_none() {
        let mut state = State::default();
        let (first, second) = (state.put_image(image(1), vec![]), state.put_image(image(2), vec![]));
        state.opened_at = 1000;
        assert_eq!((state.used_at(&first), state.last_used(&first)), (1000, 1));
        state.touch(&second.id, 2000);
        assert_eq!(state.used_at(&second), 2000);
        assert!(state.is_unused(&first.id));
        state.rootfs.insert(ContainerId::from_random([1; 32]), RootfsRecord::of(first.id.clone(), vec![]));
        assert!(!state.is_unused(&first.id) && !state.is_unused(&digest(9)));
    }

    #[test]
    fn a_project_has_one_owner() {
        let mut state = State::default();
        let owners = [1, 2].map(|n| ContainerId::from_random([n; 32]));
        for owner in &owners {
            state.rootfs.insert(owner.clone(), RootfsRecord::of(digest(1), vec![]));
        }
        assert!(state.claim_project(&owners[0], Some(7)) && !state.claim_project(&owners[1], Some(7)));
        assert!(state.claim_project(&owners[1], Some(8)) && state.claim_project(&owners[0], Some(7)));
        assert!(
            state.claim_project(&owners[0], None) && state.claim_project(&owners[1], None),
            "no number is nobody's"
        );
        assert!(!state.claim_project(&ContainerId::from_random([3; 32]), Some(9)), "removed meanwhile");
    }

    #[test]
    fn what_images_containers_and_pulls_use_is_needed() {
        let mut state = State::default();
        state.put_image(image(1), vec![]);
        let (blobs, snapshots) = (state.needed(Kind::Blob), state.needed(Kind::Snapshot));
        assert_eq!((&blobs, &snapshots), (&[digest(1), digest(51), digest(151)].into(), &[digest(101)].into()));
        assert!(blobs.iter().all(|d| state.is_needed(Kind::Blob, d) && !state.is_needed(Kind::Snapshot, d)));
        assert!(state.is_needed(Kind::Snapshot, &digest(101)) && !state.is_needed(Kind::Blob, &digest(101)));
        // A layer that came for a push alone is needed as long as that goes on.
        state.passing.insert(digest(51));
        state.lease(&[digest(51)]);
        assert!(state.needed(Kind::Blob).contains(&digest(51)) && state.is_needed(Kind::Blob, &digest(51)));
        state.release(&[digest(51)]);
        assert!(!state.needed(Kind::Blob).contains(&digest(51)) && !state.is_needed(Kind::Blob, &digest(51)));
        state.remove_image(&digest(1));
        assert!(state.needed(Kind::Blob).is_empty() && state.needed(Kind::Snapshot).is_empty());
        let container = ContainerId::from_random([1; 32]);
        let record = RootfsRecord {
            image_volumes: vec![ImageVolume { image: digest(2), layers: vec![digest(102)] }],
            ..RootfsRecord::of(digest(1), vec![digest(101)])
        };
        state.rootfs.insert(container, record);
        state.lease(&[digest(5)]);
        state.lease(&[digest(5)]);
        state.release(&[digest(5)]);
        assert_eq!(state.needed(Kind::Snapshot), [digest(101), digest(102), digest(5)].into());
        assert!([5, 101, 102].iter().all(|n| state.is_needed(Kind::Snapshot, &digest(*n))));
        assert_eq!(state.needed(Kind::Blob), [digest(5)].into(), "a container stands on no blob");
        state.release(&[digest(5)]);
        assert_eq!(state.needed(Kind::Snapshot), [digest(101), digest(102)].into());
    }
}
