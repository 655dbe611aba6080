//! Watches the documents and publishes what they say.
use crate::accepted::{Accepted, Texts};
use crate::load::{from_sources, from_texts, texts};
use crate::{Settings, Source, diff};
use berth_model::{Error, Result, ResultExt};
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
    check: Check,
}

/// A further check on settings, such as compiling the policies.
pub type Check = Arc<dyn Fn(&Settings) -> Result<()> + Send + Sync>;

impl Live {
    /// What the settings would be with these documents too: those of a kind and name that is in force take its place.
    /// Errors: those of documents that would be refused.
    pub fn with(&self, documents: Vec<Source>) -> Result<Settings> {
        let current = self.current.borrow().clone();
        let replaced = |source: &&Source| documents.iter().all(|d| d.document.title() != source.document.title());
        let mut all: Vec<Source> = current.inputs.iter().filter(replaced).cloned().collect();
        all.extend(documents);
        let settings = from_sources(all)?;
        (self.check)(&settings)?;
        Ok(settings)
    }
}

/// Loads the directory, checks, and watches it from then on. What is accepted is kept in the file `accepted`; when the documents cannot
/// be read at the start, those are in force, and `refused` says so. Errors: those of the first load, with nothing kept that helps.
pub fn watch(directory: PathBuf, accepted: PathBuf, check: Check) -> Result<Live> {
    // Listening starts before the first look, so that nothing falls in between.
    let events = listen(&directory);
    let mut accepted = Accepted::new(accepted);
    let (first, problem) = match read(&directory, &check) {
        Ok((settings, texts)) => {
            keep(&mut accepted, &texts);
            (settings, String::new())
        }
        Err(e) => fall_back(&accepted, &check, &e)?,
    };
    let (publish, current) = watch::channel(Arc::new(first));
    let (refuse, refused) = watch::channel(problem);
    tokio::spawn(Follower { directory, accepted, check: check.clone(), publish, refuse }.run(events));
    Ok(Live { current, refused, check })
}

fn read(directory: &Path, check: &Check) -> Result<(Settings, Texts)> {
    let texts = texts(directory)?;
    let settings = from_texts(&texts)?;
    check(&settings).context(|| directory.display())?;
    Ok((settings, texts))
}

/// The node's data path does not wait for somebody to mend a file.
fn fall_back(accepted: &Accepted, check: &Check, problem: &Error) -> Result<(Settings, String)> {
    let refuse = |why: String| {
        let kind = problem.kind();
        Error::new(kind, format!("{}{why}", problem.message()))
    };
    let (texts, at) = match accepted.read() {
        Ok(Some(kept)) => kept,
        Ok(None) => return Err(refuse(String::new())),
        Err(e) => return Err(refuse(format!("; and what was accepted last cannot be read: {}", e.message()))),
    };
    let settings = from_texts(&texts).and_then(|settings| check(&settings).map(|()| settings));
    let settings = settings
        .map_err(|e| refuse(format!("; and what was accepted last is refused by this version: {}", e.message())))?;
    let told = format!("{}; the documents accepted at {at} (seconds since 1970) are in force", problem.message());
    tracing::error!(problem = told, "documents are refused at the start");
    Ok((settings, told))
}

fn keep(accepted: &mut Accepted, texts: &Texts) {
    if let Err(e) = accepted.keep(texts) {
        tracing::error!(error = %e, "the documents in force could not be kept; the next start needs those of the directory");
    }
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
    accepted: Accepted,
    check: Check,
    publish: watch::Sender<Arc<Settings>>,
    refuse: watch::Sender<String>,
}

impl Follower {
    async fn run(mut self, mut events: Option<inotify::EventStream<[u8; 4096]>>) {
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

    async fn read_again(&mut self) {
        let (directory, check) = (self.directory.clone(), self.check.clone());
        let loaded = tokio::task::spawn_blocking(move || read(&directory, &check)).await;
        let loaded = loaded.unwrap_or_else(|e| Err(Error::internal(e.to_string())));
        match loaded {
            Ok((new, texts)) => self.accept(new, &texts),
            Err(e) => self.reject(e.message().to_owned()),
        }
    }

    fn accept(&mut self, new: Settings, texts: &Texts) {
        keep(&mut self.accepted, texts);
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
            // What was said at the start says more of the same problem.
            let fresh = !r.starts_with(&problem);
            if fresh {
                r.clone_from(&problem);
            }
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

    fn start(root: &Path) -> Result<Live> {
        watch(root.join("etc"), root.join("accepted.json"), Arc::new(|_| Ok(())))
    }

    fn root(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let file = dir.path().join("etc/10-node.yaml");
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    async fn becomes(live: &mut Live, condition: impl FnMut(&Arc<Settings>) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(10), live.current.wait_for(condition)).await;
        assert!(waited.is_ok_and(|w| w.is_ok()), "settings did not change in time");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changes_apply_and_bad_ones_leave_the_former_in_force() {
        let (dir, file) = root(&document("{runtime: {pidsLimit: 50}}"));
        let mut live = start(dir.path()).unwrap();
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
    async fn a_daemon_without_a_past_does_not_start_with_documents_it_cannot_read() {
        let (dir, _) = root(&document("{colour: red}"));
        let message = start(dir.path()).err().unwrap().to_string();
        assert!(message.contains("10-node.yaml") && message.contains("colour"), "{message}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_boots_from_what_it_accepted_last() {
        let (dir, file) = root(&document("{runtime: {pidsLimit: 50}}"));
        drop(start(dir.path()).unwrap());
        std::fs::write(&file, document("{runtime: {pidsLimit: 60, colour: red}}")).unwrap();
        let mut live = start(dir.path()).unwrap();
        assert_eq!(live.current.borrow().pids_limit, Some(50));
        let refused = live.refused.borrow().clone();
        assert!(refused.contains("colour") && refused.contains("are in force"), "{refused}");
        std::fs::write(&file, document("{runtime: {pidsLimit: 60}}")).unwrap();
        becomes(&mut live, |s| s.pids_limit == Some(60)).await;
        assert_eq!(*live.refused.borrow(), "");
    }

    #[tokio::test]
    async fn documents_on_trial_take_the_place_of_their_namesakes() {
        let (dir, _) = root(&document("{runtime: {pidsLimit: 50, logLevel: Debug}}"));
        let live = start(dir.path()).unwrap();
        let trial = |spec: &str| {
            let document = berth_crds::parse_documents(&document(spec)).unwrap().remove(0);
            live.with(vec![Source { file: "new.yaml".into(), document }])
        };
        let settings = trial("{runtime: {pidsLimit: 60}}").unwrap();
        assert_eq!(settings.pids_limit, Some(60));
        assert_eq!(settings.sources["spec.runtime.pidsLimit"], "RuntimeConfig/node (new.yaml)");
        let changes: Vec<_> = diff(&live.current.borrow(), &settings).into_iter().map(|c| c.field).collect();
        assert_eq!(changes, ["spec.runtime.logLevel", "spec.runtime.pidsLimit"]);
    }
}
