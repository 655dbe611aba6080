//! What the tests of images share: a registry, a store in a directory of its own, pulls, a look at the disk.
#![allow(dead_code, reason = "each test file uses a part of it")]
use berth_images::{Evidence, ImageRecord, Images, ImagesConfig, PullRequest, Source};
use berth_model::{PhaseLog, Reference, Result};
use berth_registry::{Auth, Client, ClientConfig, Platform, RetryPolicy};
use berth_store::Database;
use berth_test_registry::{ImageBuilder, Options, Registry};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A registry and a store.
pub struct Bench {
    pub registry: Registry,
    pub images: Images,
    pub root: PathBuf,
    database: Arc<Database>,
    client: Client,
    config: ImagesConfig,
    directory: tempfile::TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A store in `/tmp` with settings of its own.
    pub async fn with(change: impl FnOnce(&mut ImagesConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("images");
        Self::at(directory, root, change).await
    }

    /// A store at `root`; `directory` holds its database.
    pub async fn at(directory: tempfile::TempDir, root: PathBuf, change: impl FnOnce(&mut ImagesConfig)) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let registry = Registry::start(Options::default()).await.unwrap();
        let mut config = ImagesConfig::new(root.clone());
        change(&mut config);
        let pause = std::time::Duration::from_millis(20);
        let retry = RetryPolicy { base: pause, cap: pause, ..RetryPolicy::default() };
        let client = Client::new(ClientConfig { retry, ..ClientConfig::default() }).unwrap();
        let database = Arc::new(Database::open(&directory.path().join("berth.redb")).unwrap());
        let images = Images::open(config.clone(), database.clone(), client.clone()).unwrap();
        Self { registry, images, root, database, client, config, directory }
    }

    /// Opens the store again, as after a crash: the former handle does not clean up.
    pub fn reopen(&mut self) {
        self.images = Images::open(self.config.clone(), self.database.clone(), self.client.clone()).unwrap();
    }

    pub fn reference(&self, name: &str) -> Reference {
        Reference::parse(&self.registry.reference(name)).unwrap()
    }

    pub async fn request(&self, name: &str) -> Result<PullRequest> {
        self.request_as(name, Auth::Anonymous).await
    }

    pub async fn request_as(&self, name: &str, auth: Auth) -> Result<PullRequest> {
        let reference = self.reference(name);
        let digest = self.images.resolve(&reference, &auth).await?.digest;
        let source = Source { reference: reference.clone(), registry: reference.host().into(), digest: digest.clone() };
        let evidence = Evidence { sources: vec![source], verified_keys: vec![] };
        let platform = Platform::host();
        Ok(PullRequest { reference, digest, platform, auth, evidence, progress: None, log: PhaseLog::default() })
    }

    pub async fn pull(&self, name: &str) -> Result<Arc<ImageRecord>> {
        self.images.fetch(self.request(name).await?).await
    }

    pub async fn push_and_pull(&self, image: &ImageBuilder, name: &str) -> Arc<ImageRecord> {
        self.registry.push_image(image).unwrap();
        self.pull(name).await.unwrap()
    }

    /// Everything on disk, with what tells one state from another.
    pub fn tree(&self) -> BTreeMap<PathBuf, (u32, u64)> {
        let mut all = BTreeMap::new();
        list(&self.root, &mut all);
        all
    }
}

fn list(directory: &Path, all: &mut BTreeMap<PathBuf, (u32, u64)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        let size = if meta.is_dir() { 0 } else { meta.size() };
        all.insert(path.clone(), (meta.mode(), size));
        if meta.is_dir() {
            list(&path, all);
        }
    }
}

/// An overlay mount that ends with its test.
pub struct Overlay(pub PathBuf);

impl Overlay {
    /// Mounts layers read-only, topmost first, or with an upper layer.
    pub fn mount(lower: &[PathBuf], upper: Option<(&Path, &Path)>, at: &Path) -> Self {
        let join = |paths: &[PathBuf]| paths.iter().map(|p| p.to_str().unwrap()).collect::<Vec<_>>().join(":");
        let mut options = format!("lowerdir={}", join(lower));
        if let Some((upper, work)) = upper {
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("overlay"), at, Some("overlay"), flags, Some(options.as_str())).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        nix::mount::umount(&self.0).unwrap();
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap();
        let left = mounts.windows(self.0.as_os_str().len()).any(|w| w == self.0.as_os_str().as_bytes());
        assert!(!left, "{} is still mounted", self.0.display());
    }
}

/// Names in a directory, sorted.
pub fn names(directory: &Path) -> Vec<String> {
    let mut all: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

/// Bytes that do not compress.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..bytes).map(|_| step()).collect()
}
