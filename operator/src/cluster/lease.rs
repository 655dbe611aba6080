//! Leader election by a Lease (coordination.k8s.io/v1): who holds it writes, the others stand by with everything watched.
//!
//! Expiry is judged by this process's own monotonic clock: how long the lease has been seen unchanged. Clocks of other machines count
//! for nothing. A holder that could not renew stops writing before anybody else may begin.
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Whether this process leads.
#[derive(Debug, Clone, Default)]
pub struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Leadership {
    /// Whether writes are allowed now.
    pub fn held(&self) -> bool {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    /// How long writes are allowed yet; `None`: they are not.
    pub fn rest(&self) -> Option<Duration> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    }

    pub(crate) fn set(&self, until: Option<Instant>) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// The lease and who wants it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this is, unlike all others.
    pub identity: String,
    /// How long a lease lasts that is not renewed.
    pub duration: Duration,
}

/// What was seen of the lease, and when first.
struct Seen {
    lease: Option<LeaseSpec>,
    since: Instant,
}

/// Tries to have the lease, and keeps it, until `stop`; then gives it back.
pub async fn hold(client: Client, candidate: Candidate, leadership: Leadership, mut stop: watch::Receiver<bool>) {
    let api: Api<Lease> = Api::namespaced(client, &candidate.namespace);
    let mut seen = Seen { lease: None, since: Instant::now() };
    let pause = candidate.duration / 5;
    loop {
        // A request that hangs must not outlive the lease.
        match tokio::time::timeout(candidate.duration / 3, attempt(&api, &candidate, &leadership, &mut seen)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "the lease could not be read or renewed"),
            Err(_) => tracing::warn!("the API server does not answer about the lease"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    leadership.set(None);
    // Also where it was not renewed in time: as long as it names this process, nobody else has it.
    let given = tokio::time::timeout(candidate.duration, give_back(&api, &candidate)).await;
    if !matches!(given, Ok(Ok(()))) {
        tracing::warn!(?given, "the lease could not be given back; it expires");
    }
}

/// If it is this one's.
async fn give_back(api: &Api<Lease>, candidate: &Candidate) -> kube::Result<()> {
    let Some(mut lease) = api.get_opt(&candidate.name).await? else { return Ok(()) };
    let ours = |spec: &&mut LeaseSpec| spec.holder_identity.as_deref() == Some(&candidate.identity);
    let Some(spec) = lease.spec.as_mut().filter(ours) else { return Ok(()) };
    spec.holder_identity = None;
    api.replace(&candidate.name, &PostParams::default(), &lease).await.map(drop)
}

async fn attempt(
    api: &Api<Lease>,
    candidate: &Candidate,
    leadership: &Leadership,
    seen: &mut Seen,
) -> kube::Result<()> {
    let began = Instant::now();
    let found = api.get_opt(&candidate.name).await?;
    let spec = found.as_ref().and_then(|lease| lease.spec.clone());
    if spec != seen.lease {
        *seen = Seen { lease: spec.clone(), since: began };
    }
    let holder = spec.as_ref().and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
    let ours = holder.as_ref() == Some(&candidate.identity);
    let lasts = spec.as_ref().and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    let expired = began.duration_since(seen.since) >= lasts.map_or(candidate.duration, Duration::from_secs);
    if holder.is_some() && !ours && !expired {
        leadership.set(None);
        return Ok(());
    }
    let now = MicroTime(jiff::Timestamp::now());
    let before = spec.unwrap_or_default();
    let wanted = LeaseSpec {
        holder_identity: Some(candidate.identity.clone()),
        lease_duration_seconds: i32::try_from(candidate.duration.as_secs()).ok(),
        acquire_time: if ours { before.acquire_time } else { Some(now.clone()) },
        lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!ours)),
        renew_time: Some(now),
        ..before
    };
    // The version that was read is the condition: of two that try at once one fails.
    let result = match found {
        Some(mut lease) => {
            lease.spec = Some(wanted);
            api.replace(&candidate.name, &PostParams::default(), &lease).await
        }
        None => {
            let metadata = ObjectMeta { name: Some(candidate.name.clone()), ..Default::default() };
            api.create(&PostParams::default(), &Lease { metadata, spec: Some(wanted) }).await
        }
    };
    match result {
        Ok(lease) => {
            if !ours {
                tracing::info!(identity = candidate.identity, "leads");
            }
            *seen = Seen { lease: lease.spec, since: began };
            // Counted from before the request, and less than others wait: whoever takes over begins after this one has stopped.
            leadership.set(Some(began + candidate.duration * 4 / 5));
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => {
            leadership.set(None);
            Ok(())
        }
        Err(e) => Err(e),
    }
}
