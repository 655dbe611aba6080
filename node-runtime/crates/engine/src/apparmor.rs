//! AppArmor profiles are there before a container needs them: the runtime's default is loaded by the daemon, those of users are
//! looked for.
//!
//! Must not: decide which profile counts (`oci::spec`), nor let a container start without the one it was promised.
use crate::context::{Engine, blocking};
use berth_model::{Error, ErrorKind, Result, SecurityContext};
use berth_oci::apparmor;
use berth_oci::spec::DEFAULT_APPARMOR;
use std::sync::{Mutex, PoisonError};

/// What is known of the default profile.
#[derive(Debug, Default)]
pub(crate) struct DefaultProfile {
    /// One load at a time.
    loading: tokio::sync::Mutex<()>,
    /// Why the last load failed; none when it did not.
    problem: Mutex<Option<String>>,
}

impl DefaultProfile {
    /// Why containers that need the default profile cannot be made now.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn load(&self) -> Result<()> {
        let loaded = apparmor::load_default().await;
        let problem = loaded.as_ref().err().map(|e| e.message().to_owned());
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
        loaded
    }

    /// Loads it if the kernel has none of its name.
    async fn need(&self) -> Result<()> {
        let _one = self.loading.lock().await;
        if blocking(|| apparmor::is_loaded(DEFAULT_APPARMOR)).await? {
            return Ok(());
        }
        self.load().await
    }
}

impl Engine {
    /// At the daemon's start: this version's default profile takes the place of an older one's, also for containers that run.
    /// A failure is told by [`Engine::status`] and at each container that needs the profile; it does not end the daemon, because
    /// privileged pods may be what mends the node.
    pub async fn load_profiles(&self) {
        if !self.facts.apparmor {
            return;
        }
        let _one = self.default_profile.loading.lock().await;
        match self.default_profile.load().await {
            Ok(()) => tracing::info!(profile = DEFAULT_APPARMOR, "AppArmor profile is loaded"),
            Err(e) => {
                self.metrics.event("apparmor_load_failed");
                tracing::error!(error = %e, "containers that need it will be refused");
            }
        }
    }

    /// The profile that a container is promised is loaded. Errors: `FailedPrecondition` naming the profile.
    pub(crate) async fn need_apparmor(&self, security: &SecurityContext) -> Result<()> {
        let Some(name) = berth_oci::spec::apparmor(security, &self.facts)? else { return Ok(()) };
        if name == DEFAULT_APPARMOR {
            return self.default_profile.need().await.map_err(|e| {
                let remedy = "; or set the container's appArmorProfile to Unconfined";
                Error::new(e.kind(), format!("linux.security_context.apparmor: {}{remedy}", e.message()))
            });
        }
        let wanted = name.clone();
        if blocking(move || apparmor::is_loaded(&wanted)).await? {
            return Ok(());
        }
        let problem = format!(
            "linux.security_context.apparmor: profile {name:?} is not loaded on this node; load it there with apparmor_parser"
        );
        Err(Error::new(ErrorKind::FailedPrecondition, problem))
    }
}
