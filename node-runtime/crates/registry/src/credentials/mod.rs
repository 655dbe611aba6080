//! The node's own credentials: those that a cluster hands over, kubelet-style credential providers, Docker's configuration files and their helpers.
//!
//! Owns: the order in which they are asked, and how long their answers are kept (in memory only). Must not: talk to registries,
//! or show an answer: a failure names the program and what it did, never what it said.
mod docker_config;
mod given;
mod helper;
mod key;
mod matching;
mod provider;
mod response;
mod run;

pub use docker_config::{DockerConfig, config_key};
pub use given::Given;
pub use helper::Helper;
pub use matching::matches_image;
pub use provider::Provider;
pub use response::go_duration;

pub(crate) use key::host_and_path;

use crate::auth::Auth;
use crate::observe::{CredentialSource, Observation};
use crate::transport::Transport;
use berth_model::Result;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long what a helper has is kept: the requests of one pull ask once.
const HELPER_LIFE: Duration = Duration::from_secs(30);
/// How long a program that failed is not started again.
const FAILED_LIFE: Duration = Duration::from_secs(10);
/// Answers kept at most.
const MAX_KEPT: usize = 1024;
/// How long a helper may take.
const HELPER_LIMIT: Duration = Duration::from_secs(30);

/// Where the node's credentials come from.
#[derive(Debug, Default)]
pub struct Keychain {
    /// Asked first, in order: names and hashes of what somebody hands over.
    pub named: Vec<(String, String)>,
    /// What was handed over.
    pub given: Given,
    /// Asked next, in order.
    pub providers: Vec<Provider>,
    /// Files in Docker's format, in order; one that is not there holds nothing. They are read at each look-up, so that a login
    /// counts at once.
    pub files: Vec<PathBuf>,
    kept: Kept,
}

impl PartialEq for Keychain {
    fn eq(&self, other: &Self) -> bool {
        (&self.named, &self.providers, &self.files) == (&other.named, &other.providers, &other.files)
    }
}

/// Answers of programs, and who is asking which one now.
#[derive(Debug, Default)]
struct Kept {
    answers: std::sync::Mutex<HashMap<String, (Vec<Auth>, Instant)>>,
    asking: std::sync::Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl Kept {
    fn get(&self, key: &str) -> Option<Vec<Auth>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(_, until)| *until > Instant::now()).map(|(found, _)| found.clone())
    }

    fn put(&self, key: String, found: Vec<Auth>, life: Duration) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answers.len() >= MAX_KEPT {
            answers.retain(|_, (_, until)| *until > now);
        }
        if answers.len() >= MAX_KEPT {
            answers.clear();
        }
        // A provider may say for ever; a clock has an end.
        answers.insert(key, (found, now.checked_add(life).unwrap_or(now)));
    }

    /// One program at a time does not answer the same question twice.
    fn turn(&self, program: &str) -> Arc<Mutex<()>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(asking.entry(program.to_owned()).or_default())
    }
}

impl Keychain {
    /// With these sources.
    pub fn new(providers: Vec<Provider>, files: Vec<PathBuf>) -> Self {
        Self { named: Vec::new(), given: Given::default(), providers, files, kept: Kept::default() }
    }

    /// With those names, out of what is handed over, before its other sources.
    #[must_use]
    pub fn with_given(self, named: Vec<(String, String)>, given: Given) -> Self {
        Self { named, given, ..self }
    }

    /// A value that changes with the files: what was proven with a login must not outlive the logout.
    pub(crate) fn edition(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.given.edition().hash(&mut hasher);
        for file in &self.files {
            let at = std::fs::metadata(file).map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
            at.ok().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// What there is for an image (`host/path`, without tag), best first. A source that fails is left out and told.
    pub(crate) async fn lookup(&self, image: &str, transport: &Transport) -> Vec<Auth> {
        let mut found: Vec<Auth> = Vec::new();
        let host = image.split('/').next().unwrap_or_default();
        let mut add = |source, answer: std::result::Result<Vec<Auth>, String>| {
            let ok = match answer {
                Ok(auths) if auths.is_empty() => return,
                Ok(auths) => {
                    for auth in auths {
                        if !found.contains(&auth) {
                            found.push(auth);
                        }
                    }
                    true
                }
                Err(problem) => {
                    tracing::warn!(registry = host, problem, "credentials cannot be had");
                    false
                }
            };
            transport.tell(&Observation::Credentials { registry: host, source, ok });
        };
        for name in &self.named {
            add(CredentialSource::Given, self.given.lookup(name, image));
        }
        for provider in &self.providers {
            if provider.concerns(image) {
                add(CredentialSource::Provider, self.ask_provider(provider, image).await);
            }
        }
        for file in &self.files {
            let config = match read_file(file.clone()).await {
                Ok(Some(config)) => config,
                Ok(None) => continue,
                Err(e) => {
                    add(CredentialSource::File, Err(e.to_string()));
                    continue;
                }
            };
            if let Some(helper) = config.helper(host) {
                add(CredentialSource::Helper, self.ask_helper(helper, host).await);
            }
            add(CredentialSource::File, Ok(config.lookup(image)));
        }
        found
    }

    async fn ask_provider(&self, provider: &Provider, image: &str) -> std::result::Result<Vec<Auth>, String> {
        let turn = self.kept.turn(&provider.name);
        let _turn = turn.lock().await;
        for key in provider.cache_keys(image) {
            if let Some(found) = self.kept.get(&key) {
                return Ok(found);
            }
        }
        match provider.ask(image).await {
            Ok(answer) => {
                if let Some(life) = answer.life.filter(|l| !l.is_zero()) {
                    self.kept.put(answer.key, answer.found.clone(), life);
                }
                Ok(answer.found)
            }
            Err(problem) => {
                let key = provider.cache_keys(image).into_iter().next().unwrap_or_default();
                self.kept.put(key, Vec::new(), FAILED_LIFE);
                Err(problem)
            }
        }
    }

    async fn ask_helper(&self, name: &str, host: &str) -> std::result::Result<Vec<Auth>, String> {
        let turn = self.kept.turn(&format!("helper {name}"));
        let _turn = turn.lock().await;
        let key = format!("helper {name} {host}");
        if let Some(found) = self.kept.get(&key) {
            return Ok(found);
        }
        let answer = async { Helper::new(name, HELPER_LIMIT)?.get(&config_key(host)).await }.await;
        match answer {
            Ok(Some(found)) => {
                self.kept.put(key, vec![found.clone()], HELPER_LIFE);
                Ok(vec![found])
            }
            // Not kept: a login counts at the next pull.
            Ok(None) => Ok(Vec::new()),
            Err(e) => {
                self.kept.put(key, Vec::new(), FAILED_LIFE);
                Err(e.to_string())
            }
        }
    }
}

/// Reads a file in Docker's format; `None` where there is none.
async fn read_file(path: PathBuf) -> Result<Option<DockerConfig>> {
    match tokio::task::spawn_blocking(move || DockerConfig::load(&path)).await {
        Ok(result) => result,
        Err(e) => Err(berth_model::Error::internal(format!("reading credentials ended early: {e}"))),
    }
}
