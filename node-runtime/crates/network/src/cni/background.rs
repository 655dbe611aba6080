//! What the client does by itself: it deletes until that succeeds, checks what it finds at its start, and collects.
//! Must not: keep a caller waiting.
use super::call::Target;
use super::chain::Chain;
use super::client::{Inner, blocking};
use super::gc;
use super::netns::is_pinned;
use super::record::Stage;
use super::request::INTERFACE;
use super::secrets::Secrets;
use super::version::{CHECK_FROM, STATUS_FROM};
use berth_model::{PodId, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};

/// Most DELs at a time.
const DELETES: usize = 4;
/// How long CHECK of one pod may take.
const CHECK_LIMIT: Duration = Duration::from_secs(30);
/// How long GC may take; nothing is attached meanwhile.
const GC_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two collections.
const GC_EVERY: Duration = Duration::from_secs(3600);
/// Pause before a collection is tried again that found somebody at work.
const GC_AGAIN: Duration = Duration::from_secs(5);
/// How long the task that deletes sleeps where nothing is due; it is woken before.
const IDLE: Duration = Duration::from_secs(3600);

/// Starts the tasks.
pub(super) fn start(inner: &Arc<Inner>) {
    tokio::spawn(delete_all(inner.clone()));
    let both = inner.clone();
    tokio::spawn(async move {
        check_all(&both).await;
        collect_for_ever(&both).await;
    });
}

async fn delete_all(inner: Arc<Inner>) {
    let places = Arc::new(Semaphore::new(DELETES));
    loop {
        let (due, next) = inner.ledger.take_due();
        for pod in due {
            let (inner, places) = (inner.clone(), places.clone());
            tokio::spawn(async move {
                let _place = places.acquire().await;
                delete_one(&inner, &pod).await;
            });
        }
        let next = next.unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = inner.wake.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

async fn delete_one(inner: &Arc<Inner>, pod: &PodId) {
    let Some(lock) = inner.ledger.with(pod, |entry| entry.lock.clone()) else { return };
    let _shared = inner.gate.read().await;
    let _one = lock.lock().await;
    let limit = inner.config.borrow().timeout;
    match inner.delete(pod, Instant::now() + limit).await {
        Ok(()) => tracing::info!(%pod, "CNI attachment is deleted"),
        Err(e) => inner.delete_failed(pod, &e),
    }
}

/// CHECK of every pod that was there at the daemon's start, one after the other. What it finds is told, and changes nothing: a
/// pod that runs is not stopped for what a plugin says of it.
async fn check_all(inner: &Arc<Inner>) {
    let pods = inner.ledger.collect(|pod, entry| (entry.stage == Stage::Attached).then(|| pod.clone()));
    for pod in pods {
        let Some(lock) = inner.ledger.with(&pod, |entry| entry.lock.clone()) else { continue };
        let _shared = inner.gate.read().await;
        let _one = lock.lock().await;
        let Err(e) = check(inner, &pod).await else { continue };
        (inner.tell)("cni_check_failed");
        tracing::warn!(%pod, error = %e, "CNI CHECK finds the pod's network broken; the pod runs on");
        inner.ledger.with(&pod, |entry| entry.check = Some(e.to_string()));
    }
}

async fn check(inner: &Arc<Inner>, pod: &PodId) -> Result<()> {
    let Ok(record) = inner.read(pod).await else { return Ok(()) };
    let network = record.network()?;
    let target: Target = record.target;
    let asked = record.stage == Stage::Attached
        && network.version >= CHECK_FROM
        && !network.disable_check
        && is_pinned(&target.netns);
    let Some(previous) = record.result.filter(|_| asked) else { return Ok(()) };
    let secrets = Secrets::of(&network);
    let bin_dirs = inner.config.borrow().bin_dirs.clone();
    let chain = Chain { network: &network, secrets: &secrets, bin_dirs: &bin_dirs };
    chain.check(&target, &previous, Instant::now() + CHECK_LIMIT).await
}

async fn collect_for_ever(inner: &Arc<Inner>) {
    let mut state = inner.state.subscribe();
    loop {
        if state.wait_for(|s| s.network.is_some() && s.problem.is_none()).await.is_err() {
            return;
        }
        while !collect(inner).await {
            sleep(GC_AGAIN).await;
        }
        sleep(GC_EVERY).await;
    }
}

/// GC of the network, while nobody attaches or detaches. Returns whether it came to it.
async fn collect(inner: &Arc<Inner>) -> bool {
    let Some(network) = inner.state.borrow().network.clone() else { return true };
    if network.config.disable_gc || network.config.version < STATUS_FROM {
        return true;
    }
    // Waiting for it would keep everybody else waiting behind a plugin that hangs.
    let Ok(_alone) = inner.gate.try_write() else { return false };
    let name = network.config.name.clone();
    let others = blocking(move || Ok(gc::of_others(Path::new(gc::LIBCNI_RESULTS), &name))).await;
    let Ok(Some(mut valid)) = others else {
        tracing::warn!("what other runtimes attached cannot be read; CNI GC is left out");
        return true;
    };
    valid.extend(inner.ledger.collect(|pod, entry| {
        let keep = entry.network == network.config.name && entry.pending.is_none();
        keep.then(|| (pod.to_string(), entry.interface.clone()))
    }));
    // Which network these are of is not known, and one more name harms no plugin.
    valid.extend(inner.unreadable.iter().map(|container| (container.clone(), INTERFACE.to_owned())));
    let bin_dirs = inner.config.borrow().bin_dirs.clone();
    let chain = Chain { network: &network.config, secrets: &network.secrets, bin_dirs: &bin_dirs };
    match chain.gc(&valid, Instant::now() + GC_LIMIT).await {
        Ok(()) => tracing::debug!(network = network.config.name, valid = valid.len(), "CNI GC"),
        Err(e) => {
            (inner.tell)("cni_gc_failed");
            tracing::warn!(error = %e, "CNI GC failed");
        }
    }
    true
}
