//! AppArmor profiles are there before a container needs them: the runtime's default and those of documents are loaded by the daemon,
//! others are looked for. A loaded profile stays when its document goes: the kernel would leave the processes that have it unconfined.
//!
//! Must not: decide which profile counts (`profiles`, `oci::spec`), nor let a container start without the one it was promised.
use crate::context::{Engine, blocking};
use berth_model::{Error, ErrorKind, Result, SecurityContext};
use berth_oci::apparmor;
use berth_oci::spec::DEFAULT_APPARMOR;
use berth_settings::{ProfileType, SecurityProfile, find_profile};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What is known of the profiles that the daemon loads.
#[derive(Debug, Default)]
pub(crate) struct AppArmorProfiles {
    /// One load at a time. Holds the texts of documents' profiles that were loaded, by name.
    loaded: tokio::sync::Mutex<BTreeMap<String, String>>,
    /// Why the default profile's last load failed; none when it did not.
    problem: Mutex<Option<String>>,
}

impl AppArmorProfiles {
    /// Why containers that need the default profile cannot be made now.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn load_default(&self) -> Result<()> {
        let loaded = apparmor::load_default().await;
        let problem = loaded.as_ref().err().map(|e| e.message().to_owned());
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        loaded
    }

    /// Loads the default profile if the kernel has none of its name.
    async fn need_default(&self) -> Result<()> {
        let _one = self.loaded.lock().await;
        if blocking(|| apparmor::is_loaded(DEFAULT_APPARMOR)).await? {
            return Ok(());
        }
        self.load_default().await
    }

    /// Loads a document's profile unless this very text was loaded and the kernel still has a profile of its name.
    async fn need(&self, profile: &SecurityProfile) -> Result<()> {
        let (name, text) = (&profile.name, &profile.source.inline);
        let mut loaded = self.loaded.lock().await;
        let wanted = name.clone();
        if loaded.get(name) == Some(text) && blocking(move || apparmor::is_loaded(&wanted)).await? {
            return Ok(());
        }
        apparmor::load(name, text).await?;
        loaded.insert(name.clone(), text.clone());
        Ok(())
    }
}

impl Engine {
    /// At the daemon's start: this version's default profile takes the place of an older one's, also for containers that run.
    /// A failure is told by [`Engine::status`] and at each container that needs the profile; it does not end the daemon, because
    /// privileged pods may be what mends the node.
    pub async fn load_default_profile(&self) {
        if !self.facts.apparmor {
            return;
        }
        let _one = self.apparmor.loaded.lock().await;
        match self.apparmor.load_default().await {
            Ok(()) => tracing::info!(profile = DEFAULT_APPARMOR, "AppArmor profile is loaded"),
            Err(e) => {
                self.metrics.event("apparmor_load_failed");
                tracing::error!(error = %e, "containers that need it will be refused");
            }
        }
    }

    /// Loads the AppArmor profiles of these documents, in the place of those of their names, also for containers that run. On a node
    /// without AppArmor nothing is loaded, and containers that name one are refused.
    ///
    /// Errors: the first that cannot be loaded, after all others were; containers that name it are refused until it can.
    pub async fn load_profiles(&self, profiles: &[SecurityProfile]) -> Result<()> {
        let mut result = Ok(());
        for profile in profiles.iter().filter(|p| self.facts.apparmor && p.kind == ProfileType::AppArmor) {
            let loaded = self.apparmor.need(profile).await;
            if loaded.is_err() {
                self.metrics.event("apparmor_load_failed");
            }
            result = result.and(loaded);
        }
        result
    }

    /// The profile that a container is promised is loaded. Errors: `FailedPrecondition` naming the profile.
    pub(crate) async fn need_apparmor(&self, security: &SecurityContext) -> Result<()> {
        const FIELD: &str = "linux.security_context.apparmor";
        let Some(name) = berth_oci::spec::apparmor(security, &self.facts)? else { return Ok(()) };
        if name == DEFAULT_APPARMOR {
            return self.apparmor.need_default().await.map_err(|e| {
                let remedy = "; or set the container's appArmorProfile to Unconfined";
                Error::new(e.kind(), format!("{FIELD}: {}{remedy}", e.message()))
            });
        }
        if let Some(profile) = find_profile(&self.settings().spec.profiles, ProfileType::AppArmor, &name) {
            return self.apparmor.need(profile).await.map_err(|e| e.context(FIELD));
        }
        let wanted = name.clone();
        if blocking(move || apparmor::is_loaded(&wanted)).await? {
            return Ok(());
        }
        let problem = format!(
            "{FIELD}: profile {name:?} is not loaded on this node; put it into spec.profiles of a RuntimeConfig, or load it there with apparmor_parser"
        );
        Err(Error::new(ErrorKind::FailedPrecondition, problem))
    }
}
