//! A bare machine as the guide takes it for granted: the packages at hand, a docker.io that answers, and a firm's registry.
//!
//! Owns: what the guest has instead of the internet. Must not: do anything for Berth; what the page does not say is not done.
use crate::daemon::{host, images};
use berth_node_tests::path_from_env;
use berth_test_registry::{AuthMode, OCI_MANIFEST, Options, Registry};
use serde_json::json;
use std::path::Path;

/// Docker Hub's name for its registry, and its website's.
const HUB: [&str; 2] = ["registry-1.docker.io", "docker.io"];
/// The registry of a firm, which lets in whom it knows.
const OWN: &str = "registry.example";
const OWN_PORT: u16 = 5000;
/// Type of a bill of materials.
const BILL: &str = "application/spdx+json";
/// What the page types.
const USER: [&str; 2] = ["me", "correct horse battery"];

/// The machine. Dropping it ends the registries.
pub struct Machine {
    directory: tempfile::TempDir,
    _registries: [Registry; 2],
    _runtime: tokio::runtime::Runtime,
}

/// A registry with a certificate for these names that the machine trusts.
fn registry(runtime: &tokio::runtime::Runtime, port: u16, names: &[&str], auth: AuthMode) -> Registry {
    let certificate = format!("/usr/local/share/ca-certificates/{}.crt", names[0]);
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let registry =
        runtime.block_on(Registry::start(Options { port, tls: true, names, auth, ..Options::default() })).unwrap();
    std::fs::write(certificate, registry.ca_pem().unwrap()).unwrap();
    registry
}

/// Pushes an image, and a bill of materials that refers to it (OCI image spec, "Guidelines for Artifact Usage").
fn with_bill(registry: &Registry, repository: &str, tag: &str) {
    let built = images::tools(repository, tag).build().unwrap();
    registry.push_built(repository, Some(tag), &built);
    let bill = json!({"spdxVersion": "SPDX-2.3", "name": "tools"}).to_string();
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": registry.put_blob("{}"), "size": 2});
    let layer = json!({"mediaType": BILL, "digest": registry.put_blob(bill.clone()), "size": bill.len()});
    let subject = json!({"mediaType": built.media_type, "digest": built.digest, "size": built.manifest.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": BILL, "config": empty, "layers": [layer], "subject": subject,
    });
    registry.put_manifest(repository, None, OCI_MANIFEST, manifest.to_string());
}

impl Machine {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let hub = registry(&runtime, 443, &HUB, AuthMode::Open);
        for tag in ["1.37", "latest"] {
            hub.push_image(&images::tools("library/busybox", tag)).unwrap();
        }
        let [username, password] = USER.map(str::to_owned);
        let own = registry(&runtime, OWN_PORT, &[OWN], AuthMode::Basic { username, password });
        with_bill(&own, "team/tools", "v1");
        let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        std::fs::write("/etc/hosts", format!("127.0.0.1 localhost {} {OWN}\n{hosts}", HUB.join(" "))).unwrap();
        host("update-ca-certificates", &[]);

        let directory = tempfile::Builder::new().prefix("guide-").tempdir_in("/tmp").unwrap();
        // As a browser or a build has left them.
        for entry in std::fs::read_dir(path_from_env("BERTH_PACKAGES")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "deb") {
                std::fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        // Programs of others that a node has beside its runtime.
        for program in [path_from_env("BERTH_CRICTL"), path_from_env("BERTH_KUBERNETES").join("kubelet")] {
            std::os::unix::fs::symlink(&program, Path::new("/usr/local/bin").join(program.file_name().unwrap()))
                .unwrap();
        }
        std::os::unix::fs::symlink("/bin/busybox", "/usr/local/bin/wget").unwrap();
        // As the package of the CNI project's plugins leaves them.
        std::fs::create_dir_all("/opt/cni").unwrap();
        std::os::unix::fs::symlink(path_from_env("BERTH_CNI"), "/opt/cni/bin").unwrap();
        Self { directory, _registries: [hub, own], _runtime: runtime }
    }

    /// Where a new user is: packages lie here.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}
