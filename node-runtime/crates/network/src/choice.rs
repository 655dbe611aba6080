//! Who connects pods: the built-in bridge or CNI plugins. The one place that knows both.
//!
//! New pods get the network that the settings choose; a pod keeps, and is taken from, the one that it was given, also after
//! the choice changed. Must not: know how either works.
use crate::{Attachment, Bridge, Cni, PodNetwork, Reconciled};
use berth_model::{Error, ErrorKind, PodConfig, PodId, Result};
use std::path::Path;

/// Which of the two new pods get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// CNI plugins.
    Cni,
    /// The built-in bridge.
    Builtin,
}

/// The network of pods. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Networks {
    /// Who connects new pods.
    pub choice: Choice,
    /// The built-in network: also where it is not chosen, for as long as a pod hangs on it.
    pub builtin: Option<Bridge>,
    /// The CNI client: also where it is not chosen, for what it has still to delete.
    pub cni: Cni,
}

impl Networks {
    /// Whether a pod could be attached now. Errors: `Unavailable` or `FailedPrecondition`, saying what is missing.
    pub fn check_usable(&self) -> Result<()> {
        match (self.choice, &self.builtin) {
            (Choice::Cni, _) => self.cni.check_usable(),
            (Choice::Builtin, Some(_)) => Ok(()),
            (Choice::Builtin, None) => Err(missing()),
        }
    }

    /// Gives a pod its network. After an error, [`Self::detach`] takes back what was done.
    /// Errors: those of [`Bridge::attach`] and [`Cni::attach`].
    pub async fn attach(&self, pod: &PodId, netns: &Path, config: &PodConfig) -> Result<Attachment> {
        match (self.choice, &self.builtin) {
            (Choice::Cni, _) => self.cni.attach(pod, netns, config).await,
            (Choice::Builtin, Some(bridge)) => bridge.attach(pod, netns, &PodNetwork::of(config)?).await,
            (Choice::Builtin, None) => Err(missing()),
        }
    }

    /// Takes a pod's network back, whoever gave it. Idempotent; a pod without one is fine.
    pub async fn detach(&self, pod: &PodId, attachment: Option<&Attachment>) -> Result<()> {
        if let Some(bridge) = &self.builtin {
            bridge.detach(pod, attachment).await?;
        }
        self.cni.detach(pod).await
    }

    /// The same at the daemon's start: plugins are not waited for.
    pub async fn detach_at_start(&self, pod: &PodId, attachment: Option<&Attachment>) -> Result<()> {
        if let Some(bridge) = &self.builtin {
            bridge.detach(pod, attachment).await?;
        }
        self.cni.detach_later(pod).await;
        Ok(())
    }

    /// Takes back what belongs to none of the `live` pods, at the daemon's start, and goes on with what is left to do.
    pub async fn recover(&self, live: &[PodId]) -> Result<Reconciled> {
        let strays = self.cni.recover(live).await;
        let mut done = match &self.builtin {
            Some(bridge) => bridge.reconcile(live).await?,
            None => Reconciled::default(),
        };
        done.leases.extend(strays.iter().map(ToString::to_string));
        Ok(done)
    }

    /// Who connects new pods, in a word.
    pub fn name(&self) -> &'static str {
        match self.choice {
            Choice::Cni => "cni",
            Choice::Builtin => "builtin",
        }
    }

    /// Whether pods can get a network; else a sentence for the condition NetworkReady.
    pub async fn ready(&self) -> Result<(), String> {
        match (self.choice, &self.builtin) {
            (Choice::Cni, _) => self.cni.ready(),
            (Choice::Builtin, Some(bridge)) => bridge.ready().await,
            (Choice::Builtin, None) => Err(missing().message().to_owned()),
        }
    }
}

fn missing() -> Error {
    let problem = "the built-in network was not there at the daemon's start; restart the daemon";
    Error::new(ErrorKind::FailedPrecondition, problem)
}
