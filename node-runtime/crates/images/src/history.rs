//! How an image came to be: the steps that its configuration tells (OCI image spec, `config.md`, "history").
//!
//! Owns: which step made which layer. Must not: believe it for more than words: nothing is decided by it.
use crate::{Images, refused};
use berth_model::{Error, Result};
use serde::Deserialize;

/// Most steps that are told.
const MAX_STEPS: usize = 1000;

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// When, as the configuration says it.
    pub created: String,
    /// By which command.
    pub created_by: String,
    /// What its author had to say.
    pub comment: String,
    /// Bytes of its layer unpacked; zero for a step without one.
    pub size: u64,
    /// Whether it made no layer.
    pub empty: bool,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    history: Option<Vec<Entry>>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    empty_layer: Option<bool>,
}

impl Images {
    /// The steps of an image, newest first. One whose configuration tells none has a step for each layer. Errors: `NotFound`.
    pub async fn history(&self, text: &str) -> Result<Vec<Step>> {
        let image = self.find(text)?.ok_or_else(|| Error::not_found("image", text))?;
        let bytes = self.blob_bytes(&image.id).await?;
        let document: Document =
            serde_json::from_slice(&bytes).map_err(|e| refused(format!("configuration of {text}"), e))?;
        let mut layers = image.layers.iter().map(|l| l.usage.bytes);
        let mut steps: Vec<Step> = Vec::new();
        for entry in document.history.unwrap_or_default().into_iter().take(MAX_STEPS) {
            let empty = entry.empty_layer.unwrap_or(false);
            steps.push(Step {
                created: entry.created.unwrap_or_default(),
                created_by: entry.created_by.unwrap_or_default(),
                comment: entry.comment.unwrap_or_default(),
                size: if empty { 0 } else { layers.next().unwrap_or(0) },
                empty,
            });
        }
        steps.extend(layers.map(|size| Step { size, ..Step::default() }));
        steps.reverse();
        Ok(steps)
    }
}
