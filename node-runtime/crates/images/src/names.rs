//! Names of images: given, taken away, pinned.
//!
//! Owns: what it means to remove one of several names. Must not: decide whether a name may be given (image policy judges it when a
//! pod uses it).
use crate::record::ImageRecord;
use crate::state::State;
use crate::{Images, refused};
use berth_model::{ContainerId, Error, ErrorKind, ImageId, Reference, Result};
use berth_store::ImageChanges;
use std::collections::HashSet;
use std::sync::Arc;

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// Images that are gone.
    pub deleted: Vec<ImageId>,
}

/// How an image is to be removed.
enum Way {
    /// The image, with all its names.
    Whole,
    /// These names; the image has others.
    Names(Vec<String>),
}

impl Images {
    /// Gives an image a further name; one of another image is taken from it. Errors: `NotFound`; `InvalidArgument` for a name with a
    /// digest.
    pub async fn tag(&self, text: &str, name: &Reference) -> Result<Arc<ImageRecord>> {
        if name.digest().is_some() {
            return Err(Error::invalid(
                "name",
                format!("{name} has a digest, which content alone can have: give a tag"),
            ));
        }
        let _guard = self.inner.committing.lock().await;
        let image = self.find(text)?.ok_or_else(|| Error::not_found("image", text))?;
        let names = vec![name.to_string()];
        let changes =
            ImageChanges { put_references: vec![(names[0].clone(), image.id.to_string())], ..ImageChanges::default() };
        let database = self.inner.database.clone();
        self.blocking(move || database.change_images(&changes)).await?;
        Ok(self.state().put_image((*image).clone(), names))
    }

    /// Removes the name that a text is; with the last of an image's tags goes the image. A digest is a name too, and goes alone while the
    /// image has others. An id stands for the image itself, which must have
    /// names in one repository only.
    ///
    /// Without `force` it stays when it is pinned, when containers stand on it, or when an id has names in several repositories. With
    /// it everything goes; containers keep the layers that they stand on. Errors: `NotFound`, `FailedPrecondition` saying why.
    pub async fn untag(&self, text: &str, force: bool) -> Result<Removed> {
        let _guard = self.inner.committing.lock().await;
        let image = self.find(text)?.ok_or_else(|| Error::not_found("image", text))?;
        let way = self.way(text, &image, force)?;
        if let Way::Names(names) = way {
            let changes = ImageChanges { remove_references: names.clone(), ..ImageChanges::default() };
            let database = self.inner.database.clone();
            self.blocking(move || database.change_images(&changes)).await?;
            self.state().remove_references(&names);
            return Ok(Removed { untagged: names, deleted: Vec::new() });
        }
        if !force {
            self.refuse_used(&image)?;
        }
        let mut removed = Removed::default();
        let may = |state: &State, id: &ImageId| force || state.is_unused(id);
        for (image, names) in self.remove_records(std::slice::from_ref(&image.id), may).await? {
            removed.untagged.extend(names);
            removed.deleted.push(image.id.clone());
        }
        if removed.deleted.is_empty() {
            // A container has taken it since.
            self.refuse_used(&image)?;
            return Err(refused(format!("image {}", image.id), "was in use a moment ago; try again"));
        }
        drop(_guard);
        self.collect().await?;
        Ok(removed)
    }

    fn way(&self, text: &str, image: &ImageRecord, force: bool) -> Result<Way> {
        let name = Reference::parse(text).ok();
        let by_digest = name.as_ref().and_then(|n| Some(n.with_digest_only(n.digest()?.clone())));
        if let Some(name) = by_digest.filter(|name| image.repo_digests.contains(name)) {
            let others = image.repo_tags.len() + image.repo_digests.len() > 1;
            return Ok(if others { Way::Names(vec![name.to_string()]) } else { Way::Whole });
        }
        let Some(name) = name.filter(|name| image.repo_tags.contains(name)) else {
            let repositories: HashSet<String> = image.repo_tags.iter().map(Reference::repository).collect();
            if repositories.len() > 1 && !force {
                let problem =
                    format!("has names in {} repositories; remove them by name, or force it", repositories.len());
                return Err(refused(format!("image {text}"), problem));
            }
            return Ok(Way::Whole);
        };
        if image.repo_tags.len() < 2 {
            return Ok(Way::Whole);
        }
        let repository = name.repository();
        let last = image.repo_tags.iter().filter(|t| t.repository() == repository).count() == 1;
        let mut names = vec![name.to_string()];
        if last {
            // Without a tag there, the digests of that repository say nothing any more.
            let digests = image.repo_digests.iter().filter(|d| d.repository() == repository);
            names.extend(digests.map(ToString::to_string));
        }
        Ok(Way::Names(names))
    }

    fn refuse_used(&self, image: &ImageRecord) -> Result<()> {
        if image.pinned {
            return Err(refused(format!("image {}", image.id), "is pinned by spec.images.pinned; force removes it"));
        }
        let users: Vec<String> = self.image_users(&image.id).iter().map(|id| id.short().to_owned()).collect();
        if users.is_empty() {
            return Ok(());
        }
        let shown = users.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let problem = format!("is used by {} containers ({shown}): remove them first, or force it", users.len());
        Err(Error::new(ErrorKind::FailedPrecondition, format!("image {}: {problem}", image.id)))
    }

    /// The containers that stand on an image, or mount it as a volume.
    pub fn image_users(&self, id: &ImageId) -> Vec<ContainerId> {
        self.state().users(id).cloned().collect()
    }

    /// Pins the images of these references from now on, and no others: they are never removed to make room.
    pub fn set_pinned(&self, references: &[Reference]) {
        self.state().set_pins(references.iter().cloned().collect());
    }
}
