//! Watches the documents and publishes what they say.
use crate::accepted::{Accepted, Texts};
use crate::load::{accepted_before, among, from_sources, sources, texts};
use crate::managed::{Applied, FileDrift, beside};
use crate::revision::{Revision, Revisions};
use crate::starts::FailedStart;
use crate::{Change, Settings, Source, diff};
use berth_model::{Error, Result, ResultExt};
use futures_util::StreamExt;
use inotify::{EventMask, Inotify, WatchMask};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    shared: Arc<Shared>,
}

/// A further check on settings, such as compiling the policies.
pub type Check = Arc<dyn Fn(&Settings) -> Result<()> + Send + Sync>;

/// What the watch of the directory and the revisions of a cluster both change.
struct Shared {
    check: Check,
    publish: watch::Sender<Arc<Settings>>,
    /// What this daemon starts with.
    started: (Arc<Settings>, Option<Revision>),
    state: Mutex<State>,
}

struct State {
    /// The directory's documents that were accepted last.
    directory: Arc<Vec<Source>>,
    applied: Applied,
    /// Why the revisions in force are not those that were applied last; empty when they are.
    told: String,
}

/// Settings of a directory's documents under what is applied. Errors: those of documents that would be refused.
fn settings(directory: &[Source], revisions: &Revisions, check: &Check) -> Result<Settings> {
    let settings = from_sources(revisions.sources(directory)?)?;
    check(&settings)?;
    Ok(settings)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what differs; the changes.
    fn publish(&self, new: Settings) -> Vec<Change> {
        let old = self.publish.borrow().clone();
        if *old == new {
            return Vec::new();
        }
        let changes = diff(&old, &new);
        for change in &changes {
            tracing::info!(field = change.field, class = %change.class, "settings changed");
        }
        self.publish.send_replace(Arc::new(new));
        changes
    }

    /// Reads the directory and, if its documents are accepted, publishes what they say; whoever sees it sees no refusal any more. The
    /// files' texts.
    fn read_directory(&self, directory: &Path, refuse: &watch::Sender<String>) -> Result<Texts> {
        let before = self.state().directory.clone();
        let (sources, texts) = read(directory, &before)?;
        let mut state = self.state();
        let settings = settings(&sources, &state.applied.revisions, &self.check).context(|| directory.display())?;
        state.directory = Arc::new(sources);
        refuse.send_if_modified(|r| {
            let news = *r != state.told;
            r.clone_from(&state.told);
            news
        });
        self.publish(settings);
        Ok(texts)
    }
}

impl Live {
    /// What the settings would be with these documents too: those of a kind and name that is in force take its place.
    /// Errors: those of documents that would be refused.
    pub fn with(&self, documents: Vec<Source>) -> Result<Settings> {
        let current = self.current.borrow().clone();
        let replaced = |source: &&Source| documents.iter().all(|d| d.document.title() != source.document.title());
        let mut all: Vec<Source> = current.inputs.iter().filter(replaced).cloned().collect();
        all.extend(documents);
        let settings = from_sources(all)?;
        (self.shared.check)(&settings)?;
        Ok(settings)
    }

    /// What is applied of a cluster's revisions.
    pub fn applied(&self) -> Revisions {
        self.shared.state().applied.revisions.clone()
    }

    /// What would change with these revisions in the place of those of their kind. Errors: those of revisions that would be refused.
    pub fn preflight(&self, revisions: Revisions) -> Result<Vec<Change>> {
        let state = self.shared.state();
        let wanted = settings(&state.directory, &revisions.over(&state.applied.revisions), &self.shared.check)?;
        Ok(diff(&self.current.borrow(), &wanted))
    }

    /// Puts these revisions in the place of those of their kind, for this daemon and for those that start later; what changed. It is on
    /// disk before it is in force. Blocks on the disk. Errors: those of revisions that are refused, and of the disk; what was in force is
    /// in force still.
    pub fn apply(&self, revisions: Revisions) -> Result<Vec<Change>> {
        let mut state = self.shared.state();
        let again = revisions.configuration.is_some();
        let revisions = revisions.over(&state.applied.revisions);
        let wanted = settings(&state.directory, &revisions, &self.shared.check)?;
        if again {
            state.applied.starts.forgive();
            if state.applied.revisions.configuration.is_none() {
                note(state.applied.starts.came_up(None));
            }
        }
        if revisions != state.applied.revisions || state.applied.drift().is_some() {
            state.applied.keep(revisions)?;
        }
        state.told.clear();
        // What needs no restart is in force already: no start will fail for it.
        if again && !diff(&self.shared.started.0, &wanted).iter().any(Change::waits_for_start) {
            note(state.applied.starts.came_up(state.applied.revisions.configuration.as_ref()));
        }
        Ok(self.shared.publish(wanted))
    }

    /// The daemon has come up with what it was started with. Blocks on the disk.
    pub fn came_up(&self) {
        if let Some(configuration) = &self.shared.started.1 {
            note(self.shared.state().applied.starts.came_up(Some(configuration)));
        }
    }

    /// The configuration that a daemon did not start with, until another one is applied. Reads a small file.
    pub fn failed_start(&self) -> Option<FailedStart> {
        self.shared.state().applied.starts.failed()
    }

    /// Whether somebody else has changed the file of what is applied. May read it.
    pub fn drift(&self) -> Option<FileDrift> {
        self.shared.state().applied.drift()
    }

    /// Forgets all revisions: the directory's documents count again, as on a node without a cluster. Blocks on the disk. Errors: those of
    /// a directory whose documents would be refused, and of the disk; what was in force is in force still.
    pub fn release(&self) -> Result<Vec<Change>> {
        self.leave(|_| Revisions::default())
    }

    /// Forgets the configuration alone; the policies stay. As [`Self::release`] else.
    pub fn release_configuration(&self) -> Result<Vec<Change>> {
        self.leave(|applied| Revisions { configuration: None, policies: applied.policies.clone() })
    }

    /// Forgets the policies alone; the configuration stays. As [`Self::release`] else.
    pub fn release_policies(&self) -> Result<Vec<Change>> {
        self.leave(|applied| Revisions { configuration: applied.configuration.clone(), policies: None })
    }

    fn leave(&self, left: impl FnOnce(&Revisions) -> Revisions) -> Result<Vec<Change>> {
        let mut state = self.shared.state();
        let left = left(&state.applied.revisions);
        let wanted = settings(&state.directory, &left, &self.shared.check)?;
        state.applied.leave(left)?;
        state.told.clear();
        Ok(self.shared.publish(wanted))
    }
}

/// Loads the directory, checks, and watches it from then on. What is accepted is kept in the file `accepted`; when the documents cannot
/// be read at the start, those are in force, and `refused` says so. The revisions that a cluster has had applied lie beside that file.
/// Errors: those of the first load, with nothing kept that helps.
pub fn watch(directory: PathBuf, accepted: PathBuf, check: Check) -> Result<Live> {
    // Listening starts before the first look, so that nothing falls in between.
    let events = listen(&directory);
    let (mut applied, told) = Applied::open(beside(&accepted))?;
    let mut told = told.unwrap_or_default();
    let mut accepted = Accepted::new(accepted);
    let mut begun = begin(&directory, &accepted, &applied.revisions, &check);
    let former = applied.former.clone().filter(|former| *former != applied.revisions);
    if let (Err(e), Some(former)) = (&begun, former) {
        // Another version may have had them applied.
        let problem = format!("{}; the revisions that were in force before are in force", e.message());
        if let Ok(before) = begin(&directory, &accepted, &former, &check) {
            (begun, applied.revisions, told) = (Ok(before), former, problem);
        }
    }
    let Begun { settings: first, sources, texts, problem } = begun?;
    if let Some(texts) = texts {
        keep(&mut accepted, &texts);
    }
    let problems = [told.as_str(), &problem].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ");
    if !problems.is_empty() {
        tracing::error!(problems, "not everything that the node was told is in force");
    }
    let started = (Arc::new(first), applied.revisions.configuration.clone());
    let (publish, current) = watch::channel(started.0.clone());
    let (refuse, refused) = watch::channel(problems);
    let state = Mutex::new(State { directory: Arc::new(sources), applied, told });
    let shared = Arc::new(Shared { check, publish, started, state });
    tokio::spawn(Follower { directory, accepted, shared: shared.clone(), refuse }.run(events));
    Ok(Live { current, refused, shared })
}

/// What a daemon starts with.
struct Begun {
    settings: Settings,
    sources: Vec<Source>,
    /// The directory's, if they are what it starts with.
    texts: Option<Texts>,
    /// Why it does not start with what it should; empty if it does.
    problem: String,
}

fn begin(directory: &Path, accepted: &Accepted, revisions: &Revisions, check: &Check) -> Result<Begun> {
    let first = read(directory, &accepted_before(accepted)).and_then(|(sources, texts)| {
        let settings = settings(&sources, revisions, check).context(|| directory.display())?;
        Ok(Begun { settings, sources, texts: Some(texts), problem: String::new() })
    });
    first.or_else(|e| fall_back(accepted, revisions, check, &e))
}

/// The directory's documents, of which those accepted before are known, and its files' texts.
fn read(directory: &Path, before: &[Source]) -> Result<(Vec<Source>, Texts)> {
    let texts = texts(directory)?;
    Ok((sources(&texts, &among(before))?, texts))
}

/// The node's data path does not wait for somebody to mend a file. Where all that counts comes from a cluster, no file of the node is needed.
fn fall_back(accepted: &Accepted, revisions: &Revisions, check: &Check, problem: &Error) -> Result<Begun> {
    let refuse = |why: String| {
        let kind = problem.kind();
        Error::new(kind, format!("{}{why}", problem.message()))
    };
    let complete = revisions.configuration.is_some() && revisions.policies.is_some();
    let (kept, told) = match accepted.read() {
        Ok(Some((texts, at))) => {
            (sources(&texts, &|_| true), format!("the documents accepted at {at} (seconds since 1970) are in force"))
        }
        _ if complete => (Ok(Vec::new()), "the cluster's revisions are in force".to_owned()),
        Ok(None) => return Err(refuse(String::new())),
        Err(e) => return Err(refuse(format!("; and what was accepted last cannot be read: {}", e.message()))),
    };
    let accepted = kept.and_then(|sources| settings(&sources, revisions, check).map(|settings| (settings, sources)));
    let (settings, sources) = accepted
        .map_err(|e| refuse(format!("; and what was accepted last is refused by this version: {}", e.message())))?;
    Ok(Begun { settings, sources, texts: None, problem: format!("{}; {told}", problem.message()) })
}

/// Without the note, a configuration that the daemon cannot start with is tried again for ever: for people to know, and no reason to stop.
fn note(kept: Result<()>) {
    if let Err(e) = kept {
        tracing::error!(error = %e, "what the daemon came up with cannot be noted");
    }
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
    shared: Arc<Shared>,
    refuse: watch::Sender<String>,
}

impl Follower {
    async fn run(mut self, mut events: Option<inotify::EventStream<[u8; 4096]>>) {
        loop {
            if !self.next_change(&mut events).await {
                events = listen(&self.directory);
            }
            if self.shared.publish.is_closed() {
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
        let (directory, shared, refuse) = (self.directory.clone(), self.shared.clone(), self.refuse.clone());
        let loaded = tokio::task::spawn_blocking(move || shared.read_directory(&directory, &refuse)).await;
        let loaded = loaded.unwrap_or_else(|e| Err(Error::internal(e.to_string())));
        match loaded {
            Ok(texts) => keep(&mut self.accepted, &texts),
            Err(e) => self.reject(e.message().to_owned()),
        }
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
mod limits;
#[cfg(test)]
mod released;

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

    fn revision(spec: serde_json::Value) -> crate::Revision {
        let spec = serde_json::from_value(spec).unwrap();
        let content = berth_crds::RuntimeRevisionSpec::of_runtime("0.1.0", &spec);
        crate::Revision { name: content.name(), content }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_boots_from_the_revision_that_was_applied_last() {
        let (dir, file) = root(&document("{runtime: {pidsLimit: 50}}"));
        let mut live = start(dir.path()).unwrap();
        let wish = Revisions::of(revision(serde_json::json!({"runtime": {"pidsLimit": 70}})));
        let fields: Vec<_> = live.preflight(wish.clone()).unwrap().into_iter().map(|c| c.field).collect();
        assert_eq!(fields, ["spec.runtime.pidsLimit"]);
        assert_eq!(live.current.borrow().pids_limit, Some(50), "a preflight changes nothing");
        live.apply(wish.clone()).unwrap();
        assert_eq!(live.current.borrow().pids_limit, Some(70));
        std::fs::write(&file, document("{runtime: {pidsLimit: 60}}")).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(live.current.borrow_and_update().pids_limit, Some(70), "the directory does not count");
        drop(live);
        let mut live = start(dir.path()).unwrap();
        assert_eq!((live.current.borrow().pids_limit, live.applied()), (Some(70), wish));
        live.release().unwrap();
        becomes(&mut live, |s| s.pids_limit == Some(60)).await;
        assert_eq!(start(dir.path()).unwrap().current.borrow().pids_limit, Some(60));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_configuration_alone_is_forgotten_and_policies_stay() {
        let (dir, _) = root(&document("{runtime: {pidsLimit: 50}}"));
        let spec = serde_json::from_value(serde_json::json!({"mode": "Enforce"})).unwrap();
        let content = berth_crds::RuntimeRevisionSpec::of_policies([("p", &spec)]);
        let policies = Revisions::of(crate::Revision { name: content.name(), content });
        let live = start(dir.path()).unwrap();
        live.apply(policies.clone()).unwrap();
        live.apply(Revisions::of(revision(serde_json::json!({"runtime": {"pidsLimit": 70}})))).unwrap();
        live.release_configuration().unwrap();
        assert_eq!(
            (live.current.borrow().pids_limit, live.applied(), live.drift()),
            (Some(50), policies.clone(), None)
        );
        drop(live);
        let live = start(dir.path()).unwrap();
        assert_eq!((live.current.borrow().policies.len(), live.applied()), (1, policies));
        live.release_configuration().unwrap();
        live.release().unwrap();
        live.release_configuration().unwrap();
        assert_eq!(live.applied(), Revisions::default());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_boots_from_the_former_revision_where_the_last_one_cannot_be_used() {
        let (dir, _) = root(&document("{runtime: {pidsLimit: 50}}"));
        let applied = dir.path().join("applied-revisions.json");
        let of = |limit: u64| Revisions::of(revision(serde_json::json!({"runtime": {"pidsLimit": limit}})));
        let live = start(dir.path()).unwrap();
        live.apply(of(60)).unwrap();
        live.apply(of(70)).unwrap();
        drop(live);
        std::fs::write(&applied, "{\"kind\": \"App").unwrap();
        let live = start(dir.path()).unwrap();
        assert_eq!((live.current.borrow().pids_limit, live.applied()), (Some(60), of(60)));
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(live.refused.borrow().contains("in force before"), "a look at the directory does not mend it");
        assert_eq!(live.drift().unwrap().kind, "Changed");
        live.apply(of(70)).unwrap();
        assert_eq!(live.drift(), None);
        drop(live);
        // A later version's, whose field this one does not know.
        let mut unknown = revision(serde_json::json!({}));
        unknown.content.runtime.as_mut().unwrap().config = serde_json::json!({"runtime": {"turbo": true}});
        unknown.name = unknown.content.name();
        std::fs::write(&applied, crate::revision::encode(&Revisions::of(unknown), 1).unwrap()).unwrap();
        let mut live = start(dir.path()).unwrap();
        assert_eq!(live.current.borrow().pids_limit, Some(60));
        let refused = live.refused.borrow().clone();
        assert!(refused.contains("turbo") && refused.contains("in force before"), "{refused}");
        live.apply(of(80)).unwrap();
        let mut refused = live.refused.clone();
        assert!(tokio::time::timeout(Duration::from_secs(10), refused.wait_for(String::is_empty)).await.is_ok());
        becomes(&mut live, |s| s.pids_limit == Some(80)).await;
    }

    #[tokio::test]
    async fn a_revision_that_is_refused_leaves_the_former_in_force() {
        let (dir, _) = root(&document("{runtime: {pidsLimit: 50}}"));
        let check: Check = Arc::new(|settings| match settings.pids_limit {
            Some(66) => Err(Error::invalid("spec.runtime.pidsLimit", "is impossible here")),
            _ => Ok(()),
        });
        let live = watch(dir.path().join("etc"), dir.path().join("accepted.json"), check).unwrap();
        let good = Revisions::of(revision(serde_json::json!({"runtime": {"pidsLimit": 70}})));
        live.apply(good.clone()).unwrap();
        let bad = Revisions::of(revision(serde_json::json!({"runtime": {"pidsLimit": 66}})));
        let message = live.apply(bad).unwrap_err().to_string();
        assert!(message.contains("impossible"), "{message}");
        let mut unknown = revision(serde_json::json!({}));
        unknown.content.runtime.as_mut().unwrap().config = serde_json::json!({"runtime": {"turbo": true}});
        let message = live.apply(Revisions::of(unknown)).unwrap_err().to_string();
        assert!(message.contains("turbo"), "{message}");
        assert_eq!((live.current.borrow().pids_limit, live.applied()), (Some(70), good));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_configuration_that_no_daemon_starts_with_gives_way_to_the_one_before_it_alone() {
        let (dir, _) = root(&document("{runtime: {pidsLimit: 50}}"));
        let accepted = dir.path().join("accepted.json");
        let of = |manager: &str| Revisions::of(revision(serde_json::json!({"runtime": {"cgroupManager": manager}})));
        let policies = {
            let spec = serde_json::from_value(serde_json::json!({"mode": "Enforce"})).unwrap();
            let content = berth_crds::RuntimeRevisionSpec::of_policies([("p", &spec)]);
            Revisions::of(crate::Revision { name: content.name(), content })
        };
        let live = start(dir.path()).unwrap();
        live.came_up();
        live.apply(of("Cgroupfs")).unwrap();
        drop(live);
        start(dir.path()).unwrap().came_up();
        assert_eq!(crate::start_failed(&accepted, "some trouble").unwrap(), None, "it came up with this one");
        let live = start(dir.path()).unwrap();
        let bad = of("Systemd");
        live.apply(bad.clone()).unwrap();
        live.apply(policies.clone()).unwrap();
        drop(live);
        let failed = crate::start_failed(&accepted, "no systemd").unwrap();
        assert_eq!(failed.as_ref(), bad.configuration.as_ref().map(|r| &r.name));
        assert_eq!(crate::start_failed(&accepted, "again").unwrap(), None);
        let live = start(dir.path()).unwrap();
        assert_eq!(live.applied(), policies.over(&of("Cgroupfs")), "policies stay");
        assert_eq!((live.failed_start().unwrap().problem.as_str(), live.drift()), ("no systemd", None));
        live.came_up();
        live.apply(bad).unwrap();
        assert_eq!(live.failed_start(), None, "it is to be tried again");
        // What needs no start is proven at once.
        live.apply(Revisions::of(revision(
            serde_json::json!({"runtime": {"cgroupManager": "Cgroupfs", "pidsLimit": 60}}),
        )))
        .unwrap();
        drop(live);
        let live = start(dir.path()).unwrap();
        live.came_up();
        let limit = |pids: u64| {
            Revisions::of(revision(serde_json::json!({"runtime": {"cgroupManager": "Cgroupfs", "pidsLimit": pids}})))
        };
        live.apply(limit(70)).unwrap();
        drop(live);
        assert_eq!(crate::start_failed(&accepted, "disk full").unwrap(), None);
        assert_eq!(start(dir.path()).unwrap().current.borrow().pids_limit, Some(70));
    }
}
