//! Credential providers of the kubelet's kind.
//!
//! Owns: their protocol (`credentialprovider.kubelet.k8s.io/v1`, KEP-2133) and what their answers may be kept for. Must not: read
//! the kubelet's configuration; who builds a [`Provider`] has.
use super::matching::matches_image;
use super::response::{API_VERSION, CacheKeyType, Response, go_duration};
use super::run::Run;
use crate::auth::Auth;
use crate::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name, for people and for the cache.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Which images it is asked for.
    pub match_images: Vec<String>,
    /// How long its answers are kept where they do not say.
    pub default_cache: Duration,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment beside the little that all get.
    pub env: Vec<(String, Secret)>,
    /// How long it may take.
    pub limit: Duration,
}

/// An answer, made fit for the cache.
pub(crate) struct Answer {
    pub found: Vec<Auth>,
    pub key: String,
    /// `None` and zero are not kept.
    pub life: Option<Duration>,
}

impl Provider {
    /// Whether it is to be asked for an image.
    pub(crate) fn concerns(&self, image: &str) -> bool {
        self.match_images.iter().any(|pattern| matches_image(pattern, image))
    }

    /// Where an answer for an image may lie, the narrowest first.
    pub(crate) fn cache_keys(&self, image: &str) -> [String; 3] {
        [CacheKeyType::Image, CacheKeyType::Registry, CacheKeyType::Global].map(|kind| self.cache_key(kind, image))
    }

    fn cache_key(&self, kind: CacheKeyType, image: &str) -> String {
        let name = &self.name;
        match kind {
            CacheKeyType::Image => format!("provider {name} image {image}"),
            CacheKeyType::Registry => {
                format!("provider {name} registry {}", image.split('/').next().unwrap_or_default())
            }
            CacheKeyType::Global => format!("provider {name}"),
        }
    }

    /// Asks. Errors: what the provider did, in words for people.
    pub(crate) async fn ask(&self, image: &str) -> Result<Answer, String> {
        let question =
            serde_json::json!({"kind": "CredentialProviderRequest", "apiVersion": API_VERSION, "image": image});
        let env = self.env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        let input = question.to_string();
        let run = Run { program: &self.program, args: &self.args, env, input: input.as_bytes(), limit: self.limit };
        let told = |problem: String| format!("credential provider {}: {problem}", self.name);
        let done = run.run().await.map_err(told)?;
        if !done.ok {
            return Err(told("failed; run it by hand to see why".into()));
        }
        let response = Response::parse(&done.output).map_err(told)?;
        let life = match &response.cache_duration {
            Some(text) => go_duration(text),
            None => Some(self.default_cache),
        };
        Ok(Answer { found: response.lookup(image), key: self.cache_key(response.cache_key_type, image), life })
    }
}
