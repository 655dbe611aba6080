//! Further paths at which the CRI answers (`spec.runtime.sockets.cri`): who may connect there, what is refused, and that nothing of them is
//! left, whatever ends the daemon, while what is somebody else's is.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Cri, Node, cli, doctor, ended, eventually};
use berth_node_tests::programs;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const FIELD: &str = "spec.runtime.sockets.cri";
const FILE: &str = "60-sockets.yaml";
/// How long a daemon may take to find that it cannot start.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A directory of /run that no other test has, and in it one that Berth may make.
fn place() -> (tempfile::TempDir, PathBuf) {
    let run = tempfile::Builder::new().prefix("sockets-").tempdir_in("/run").unwrap();
    let made = run.path().join("made");
    (run, made)
}

/// Wants the CRI at these paths.
fn wish(node: &Node, paths: &[&Path]) {
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let head = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: sockets}\nspec:\n";
    node.document(FILE, &format!("{head}  runtime: {{sockets: {{cri: [{}]}}}}\n", paths.join(", ")));
}

/// A daemon that has these paths.
async fn serving(paths: &[PathBuf]) -> Node {
    let mut node = Node::new().await;
    wish(&node, &paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    pending(&node).await;
    assert!(node.terminate().await.success());
    node.start().await;
    node
}

async fn pending(node: &Node) {
    eventually("the field waits for a restart", async || {
        node.info().await.pending_restart.contains(&FIELD.to_owned()).then_some(())
    })
    .await;
    // A start that refuses the documents would have those that were kept before.
    let kept = node.root().join("lib/accepted-documents.json");
    eventually("the documents are kept", async || {
        fs::read_to_string(&kept).unwrap_or_default().contains("sockets: {cri").then_some(())
    })
    .await;
}

/// What the daemon says of documents that it does not take.
async fn refused(node: &Node) -> String {
    eventually("the documents are refused", async || {
        Some(node.info().await.refused_documents).filter(|refused| refused.contains(FIELD))
    })
    .await
}

/// Starts a daemon that does not come up; its log has why.
async fn fails_to_start(node: &Node) {
    let log = File::options().create(true).append(true).open(node.log()).unwrap();
    let mut command = Command::new(programs().join("berth"));
    command.arg("serve").arg("--root").arg(node.root()).env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let status = ended(command.spawn().unwrap(), END_LIMIT).await;
    let status = status.unwrap_or_else(|| panic!("it runs: {}", node.log_tail()));
    assert!(!status.success(), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cri_answers_at_further_paths_for_root_alone() {
    let (_run, place) = place();
    let paths = [place.join("deep/one.sock"), place.join("two.sock")];
    let mut node = serving(&paths).await;
    for path in &paths {
        let version = Cri::connect(path).await.unwrap().version().await.unwrap();
        assert_eq!(version.runtime_name, "berth");
        let meta = fs::symlink_metadata(path).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, 0), "{}", path.display());
        let socket = format!("unix://{}", path.display());
        let channel = tonic::transport::Endpoint::from_shared(socket).unwrap().connect().await.unwrap();
        let mut other = berth_proto::node::node_client::NodeClient::new(channel);
        let denied = other.info(berth_proto::node::InfoRequest {}).await.unwrap_err();
        assert_eq!(denied.code(), tonic::Code::Unimplemented, "the node API is not served there: {denied}");
    }
    let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    assert_eq!(node.info().await.further_cri_sockets, shown);
    let line = format!("CRI also on:    {}", shown.join(", "));
    assert!(cli::run(&node, &["info"]).contains(&line), "{line}");
    fs::set_permissions(&paths[0], std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    doctor::doctor(&node, &["daemon"]).finding("socket-open", &["one.sock", "0666"]);

    // The daemon's own sockets are nobody else's, whatever else is read again.
    node.document(
        "70-more.yaml",
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: more}\nspec: {runtime: {limits: {maxLayers: 9}}}\n",
    );
    eventually("the other document is in force", async || {
        node.info().await.documents.iter().any(|d| d.contains("70-more.yaml")).then_some(())
    })
    .await;
    assert_eq!(node.info().await.refused_documents, "");
    assert!(node.take_over().await.success());
    Cri::connect(&paths[1]).await.unwrap().version().await.unwrap();
    node.finish().await;
    assert!(!place.exists(), "a daemon without pods takes its directories with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_of_somebody_else_is_refused_and_untouched() {
    let mut node = Node::new().await;
    let (_run, place) = place();
    fs::create_dir(&place).unwrap();
    let (file, socket) = (place.join("file"), place.join("cri.sock"));
    fs::write(&file, "mine").unwrap();
    wish(&node, &[&file]);
    let told = refused(&node).await;
    assert!(told.contains(&format!("{FIELD}[0]")) && told.contains("is no socket; remove it"), "{told}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");

    // Known before the restart.
    let foreign = UnixListener::bind(&socket).unwrap();
    wish(&node, &[&socket]);
    let told = eventually("the other refusal", async || {
        Some(refused(&node).await).filter(|told| told.contains("another program answers"))
    })
    .await;
    assert!(told.contains(&socket.display().to_string()) && told.contains("stop it, or take the path out"), "{told}");
    drop(foreign);

    // And at the start, where it comes after the document was accepted.
    fs::remove_file(&socket).unwrap();
    pending(&node).await;
    assert!(node.terminate().await.success());
    let foreign = UnixListener::bind(&socket).unwrap();
    fails_to_start(&node).await;
    let tail = node.log_tail();
    assert!(tail.contains(&format!("{FIELD}[0]")) && tail.contains("another program answers"), "{tail}");
    UnixStream::connect(&socket).unwrap();
    drop(foreign);

    // What is dead is replaced.
    assert!(UnixStream::connect(&socket).is_err());
    node.start().await;
    Cri::connect(&socket).await.unwrap().version().await.unwrap();
    node.finish().await;
    assert!(!socket.exists());
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "the file alone; no draft");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemons_sockets_go_but_not_what_took_their_place() {
    let (_run, place) = place();
    let paths = [place.join("left.sock"), place.join("taken/cri.sock")];
    let mut node = serving(&paths).await;
    node.kill();
    assert!(paths.iter().all(|path| path.exists()), "nobody could remove them");
    fs::remove_file(&paths[1]).unwrap();
    let foreign = UnixListener::bind(&paths[1]).unwrap();
    node.remove_document(FILE);
    node.start().await;
    assert!(!paths[0].exists(), "{}", node.log_tail());
    UnixStream::connect(&paths[1]).unwrap();
    assert_eq!(node.info().await.further_cri_sockets, [""; 0]);
    drop(foreign);
    node.finish().await;
    assert!(paths[1].exists(), "it is somebody else's still");
}
