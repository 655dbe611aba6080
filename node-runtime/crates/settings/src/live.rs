//! Watches the documents and publishes what they say.
use crate::{Settings, diff, load};
use berth_model::{Result, ResultExt};
use futures_util::StreamExt;
use inotify::{EventMask, Inotify, WatchMask};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Writers often touch several files; what comes within this time is read together.
const SETTLE: Duration = Duration::from_millis(100);
/// How often a directory that is not there is looked for, and the watched one read again to be sure.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Settings as they change.
#[derive(Clone)]
pub struct Live {
    /// In force.
    pub current: watch::Receiver<Arc<Settings>>,
    /// Why the documents on disk are not the ones in force; empty when they are.
    pub refused: watch::Receiver<String>,
}

/// A further check on settings, such as compiling the policies.
pub type Check = Box<dyn Fn(&Settings) -> Result<()> + Send + Sync>;

/// Loads the directory, checks, and watches it from then on. Errors: those of the first load; a daemon does not start with
/// documents that it cannot understand.
pub fn watch(directory: PathBuf, check: Check) -> Result<Live> {
    // Listening starts before the first look, so that nothing falls in between.
    let events = listen(&directory);
    let first = load(&directory)?;
    check(&first).context(|| directory.display())?;
    let (publish, current) = watch::channel(Arc::new(first));
    let (refuse, refused) = watch::channel(String::new());
    tokio::spawn(Follower { directory, check, publish, refuse }.run(events));
    Ok(Live { current, refused })
}

fn listen(directory: &Path) -> Option<inotify::EventStream<[u8; 4096]>> {
    let inotify = Inotify::init().ok()?;
    let mask =
        WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::DELETE | WatchMask::CREATE | WatchMask::DELETE_SELF;
    inotify.watches().add(directory, mask).ok()?;
    inotify.into_event_stream([0; 4096]).ok()
}

struct Follower {
    directory: PathBuf,
    check: Check,
    publish: watch::Sender<Arc<Settings>>,
    refuse: watch::Sender<String>,
}

impl Follower {
    async fn run(self, mut events: Option<inotify::EventStream<[u8; 4096]>>) {
        loop {
            if !self.next_change(&mut events).await {
                events = listen(&self.directory);
            }
            if self.publish.is_closed() {
                return;
            }
            self.read_again().await;
        }
    }

    /// Waits for a change or for the time to look again. Returns whether the watch still stands.
    async fn next_change(&self, events: &mut Option<inotify::EventStream<[u8; 4096]>>) -> bool {
        let Some(stream) = events else {
            tokio::time::sleep(LOOK_AGAIN).await;
            return false;
        };
        let gone = EventMask::DELETE_SELF | EventMask::IGNORED;
        let stands = tokio::select! {
            event = stream.next() => matches!(event, Some(Ok(e)) if !e.mask.intersects(gone)),
            () = tokio::time::sleep(LOOK_AGAIN) => true,
        };
        tokio::time::sleep(SETTLE).await;
        stands
    }

    async fn read_again(&self) {
        let directory = self.directory.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&directory)).await;
        let loaded = loaded.unwrap_or_else(|e| Err(berth_model::Error::internal(e.to_string())));
        match loaded.and_then(|new| (self.check)(&new).map(|()| new)) {
            Ok(new) => self.accept(new),
            Err(e) => self.reject(e.to_string()),
        }
    }

    fn accept(&self, new: Settings) {
        self.refuse.send_if_modified(|r| !std::mem::take(r).is_empty());
        let old = self.publish.borrow().clone();
        if *old == new {
            return;
        }
        for change in diff(&old, &new) {
            tracing::info!(field = change.field, class = %change.class, "settings changed");
        }
        self.publish.send_replace(Arc::new(new));
    }

    fn reject(&self, problem: String) {
        let fresh = self.refuse.send_if_modified(|r| {
            let fresh = *r != problem;
            r.clone_from(&problem);
            fresh
        });
        if fresh {
            tracing::error!(problem, "documents are refused; the former settings stay in force");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NetworkMode;

    fn document(spec: &str) -> String {
        format!("apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: node}}\nspec: {spec}\n")
    }

    async fn becomes(live: &mut Live, condition: impl FnMut(&Arc<Settings>) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(10), live.current.wait_for(condition)).await;
        assert!(waited.is_ok_and(|w| w.is_ok()), "settings did not change in time");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_apply_and_bad_ones_leave_the_former_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("10-node.yaml");
        std::fs::write(&file, document("{runtime: {pidsLimit: 50}}")).unwrap();
        let mut live = watch(dir.path().to_owned(), Box::new(|_| Ok(()))).unwrap();
        assert_eq!(live.current.borrow().pids_limit, Some(50));

        std::fs::write(&file, document("{runtime: {pidsLimit: 60}, network: {mode: Builtin}}")).unwrap();
        becomes(&mut live, |s| s.pids_limit == Some(60)).await;
        assert_eq!(live.current.borrow().network.mode, NetworkMode::Builtin);

        std::fs::write(&file, document("{runtime: {pidLimit: 70}}")).unwrap();
        let mut refused = live.refused.clone();
        let told = tokio::time::timeout(Duration::from_secs(10), refused.wait_for(|r| r.contains("pidLimit"))).await;
        assert!(told.is_ok_and(|t| t.is_ok()), "the refusal names the field");
        assert_eq!(live.current.borrow().pids_limit, Some(60), "the former settings stay");

        std::fs::write(&file, document("{runtime: {pidsLimit: 80}}")).unwrap();
        becomes(&mut live, |s| s.pids_limit == Some(80)).await;
        assert_eq!(*live.refused.borrow(), "");
    }

    #[tokio::test]
    async fn a_daemon_does_not_start_with_documents_it_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), document("{colour: red}")).unwrap();
        let message = watch(dir.path().to_owned(), Box::new(|_| Ok(()))).err().unwrap().to_string();
        assert!(message.contains("a.yaml") && message.contains("colour"), "{message}");
    }
}
