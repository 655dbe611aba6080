//! Registries as fleets have them, with a whole daemon: Debian's docker-registry with TLS and passwords, logins, helpers and providers,
//! mirrors under image policies, and the search for a secret in all that the daemon says and writes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::{Node, eventually, images, page, pod};
use berth_model::Digest;
use berth_proto::cri::{AuthConfig, ImageSpec, PullImageRequest};
use berth_test_registry::{AuthMode, BuiltImage, Fault, OCI_INDEX, OCI_MANIFEST, Options, Registry, When, sha256};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The password of `planted`, which must be found nowhere.
const SECRET: &str = "pw-planted-7f3a";
/// Its line of htpasswd: bcrypt, cost 5.
const HTPASSWD: &str = "planted:$2y$05$abcdefghijklmnopqrstuuttPc7vAT0ej8egKdQgazaWTRkHdanV2\n";

/// Debian's docker-registry on loopback, over HTTPS, for whom `HTPASSWD` knows.
struct DebianRegistry {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
    ca_pem: String,
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl DebianRegistry {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // Certificates of a registry of ours, which ends at once.
        let ours = Registry::start(Options { tls: true, ..Options::default() }).await.unwrap();
        let (cert, key) = ours.server_identity().unwrap();
        let ca_pem = ours.ca_pem().unwrap().to_owned();
        for (name, text) in [("cert.pem", cert), ("key.pem", key), ("htpasswd", HTPASSWD)] {
            std::fs::write(at(name), text).unwrap();
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nauth: {{htpasswd: {{realm: test, path: {0}/htpasswd}}}}\n\
             http: {{addr: '{free}', tls: {{certificate: {0}/cert.pem, key: {0}/key.pem}}}}\n",
            dir.path().display()
        );
        std::fs::write(at("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry)");
        let registry = Self { child, address: free, dir, ca_pem };
        eventually("docker-registry listens", async || tokio::net::TcpStream::connect(&registry.address).await.ok())
            .await;
        registry
    }

    /// Puts an image into its storage, as distribution's file system driver has it.
    fn store(&self, repo: &str, tag: &str, image: &BuiltImage) {
        let blobs = image.layers.iter().map(|l| (&l.digest, &l.blob)).chain([(&image.config_digest, &image.config)]);
        blobs.for_each(|(digest, bytes)| self.store_blob(repo, digest, bytes));
        self.store_manifest(repo, tag, &image.manifest);
    }

    fn write(&self, path: String, bytes: &[u8]) {
        let path = self.dir.path().join("data/docker/registry/v2").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn store_blob(&self, repo: &str, digest: &Digest, bytes: &[u8]) {
        let hex = digest.hex();
        self.write(format!("blobs/sha256/{}/{hex}/data", &hex[..2]), bytes);
        self.write(format!("repositories/{repo}/_layers/sha256/{hex}/link"), digest.as_str().as_bytes());
    }

    /// A manifest or index.
    fn store_manifest(&self, repo: &str, tag: &str, bytes: &[u8]) {
        let digest = sha256(bytes);
        self.store_blob(repo, &digest, bytes);
        let (hex, link) = (digest.hex(), digest.as_str().as_bytes());
        let manifests = format!("repositories/{repo}/_manifests");
        self.write(format!("{manifests}/revisions/sha256/{hex}/link"), link);
        self.write(format!("{manifests}/tags/{tag}/current/link"), link);
        self.write(format!("{manifests}/tags/{tag}/index/sha256/{hex}/link"), link);
    }

    fn trusted(&self) -> String {
        format!("- {{host: '{}', tls: {{caPem: {:?}}}}}", self.address, self.ca_pem)
    }
}

fn document(spec: &str) -> String {
    format!("apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: registries}}\nspec:\n{spec}\n")
}

async fn in_force(node: &Node, wanted: &str) {
    let what = format!("{wanted} is in force");
    eventually(&what, async || node.info().await.documents.iter().any(|d| d.contains(wanted)).then_some(())).await;
}

/// The command line, on this node.
fn berth(node: &Node, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(berth_node_tests::programs().join("berth"));
    command.arg("--root").arg(node.root()).args(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A program, written by a process of its own: a neighbour's fork must not hold it open for writing.
fn program(path: &Path, text: &str) {
    let mut child = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Files below `dir` that hold the secret, plain or as base64 of `planted:SECRET`.
fn holding_the_secret(dir: &Path) -> Vec<PathBuf> {
    let out = Command::new("grep")
        .args(["-rlaE", &format!("{SECRET}|cGxhbnRlZDpwdy1wbGFudGVkLTdmM2")])
        .arg(dir)
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(PathBuf::from).collect()
}

async fn pull_with(node: &Node, reference: &str, auth: AuthConfig) -> Result<String, tonic::Status> {
    let image = Some(ImageSpec { image: reference.into(), ..Default::default() });
    let request = PullImageRequest { image, auth: Some(auth), ..Default::default() };
    node.cri().images().pull_image(request).await.map(|r| r.into_inner().image_ref)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debians_registry_by_login_and_by_the_pods_credentials_and_no_secret_is_told() {
    let node = Node::new().await;
    let registry = DebianRegistry::start().await;
    for tag in ["v1", "v2", "v3", "v4"] {
        registry.store("team/web", tag, &images::web(&format!("web-{tag}"), tag).build().unwrap());
    }
    let image = |tag: &str| format!("{}/team/web:{tag}", registry.address);
    node.document("70-registries.yaml", &document(&format!("  registries:\n  {}", registry.trusted())));
    in_force(&node, "RuntimeConfig/registries").await;
    let refused = eventually("the authority is trusted", async || {
        let e = node.cri().try_pull(&image("v1"), "default").await.unwrap_err();
        (!e.message().contains("not trusted")).then_some(e)
    })
    .await;
    assert!(refused.message().contains("berth login"), "{refused:?}");

    let wrong = berth(&node, &["login", &registry.address, "-u", "planted", "--password-stdin"], "pw-planted-wrong");
    assert!(!wrong.status.success() && said(&wrong).contains("credentials"), "{}", said(&wrong));
    assert!(!said(&wrong).contains("pw-planted"), "{}", said(&wrong));
    let file = node.root().join("etc/config.json");
    assert!(!file.exists(), "nothing is kept that the registry does not take");
    let login =
        berth(&node, &["login", &registry.address, "-u", "planted", "--password-stdin"], &format!("{SECRET}\n"));
    assert!(login.status.success() && said(&login).contains("Login Succeeded"), "{}", said(&login));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    node.cri().pull(&image("v1")).await;
    let logout = berth(&node, &["logout", &registry.address], "");
    assert_eq!(said(&logout), format!("Removing login credentials for {}\n", registry.address));
    let again = berth(&node, &["logout", &registry.address], "");
    assert_eq!(said(&again), format!("Not logged in to {}\n", registry.address));

    let fields = || AuthConfig { username: "planted".into(), password: SECRET.into(), ..Default::default() };
    pull_with(&node, &image("v2"), fields()).await.unwrap();
    let elsewhere =
        AuthConfig { server_address: "other.example".into(), password: "pw-planted-other".into(), ..fields() };
    let own = AuthConfig { server_address: format!("https://{}/v2/", registry.address), ..fields() };
    pull_with(&node, &image("v3"), own).await.unwrap();
    let bad = pull_with(&node, &image("v4"), AuthConfig { password: "pw-planted-bad".into(), ..fields() }).await;
    let other = pull_with(&node, &image("v4"), elsewhere).await;
    for refused in [bad, other] {
        let e = refused.expect_err("these credentials are for nobody here");
        assert!(!e.message().contains("pw-planted"), "{e:?}");
    }

    let metrics = page(&node.info().await.metrics_address, "/metrics").await.unwrap();
    let inspected = said(&berth(&node, &["inspect", &image("v1")], ""));
    let told = said(&berth(&node, &["info"], ""));
    assert!(inspected.contains("team/web") && metrics.contains("berth_"), "{inspected}");
    for (what, text) in [("metrics", &metrics), ("inspect", &inspected), ("info", &told)] {
        assert!(!text.contains("pw-planted"), "{what} tells a secret");
    }
    let holding = holding_the_secret(node.base());
    assert!(holding.is_empty(), "{holding:?}");
    node.finish().await;
}

const SPDX: &str = "application/spdx+json";

/// The manifest of something that refers to a manifest, if to any.
fn referrer(kind: &str, number: usize, subject: Option<&[u8]>) -> Vec<u8> {
    let empty = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2});
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind, "config": empty, "layers": [empty],
        "annotations": {"number": number.to_string()},
    });
    if let Some(bytes) = subject {
        manifest["subject"] = json!({"mediaType": OCI_MANIFEST, "digest": sha256(bytes), "size": bytes.len()});
    }
    manifest.to_string().into_bytes()
}

/// A list of manifests, as the referrers API answers it and as the tag that stands in for it holds it.
fn list_of(manifests: &[&[u8]]) -> Vec<u8> {
    let entry = |bytes: &&[u8]| json!({"mediaType": OCI_MANIFEST, "digest": sha256(bytes), "size": bytes.len(), "artifactType": SPDX});
    let entries: Vec<Value> = manifests.iter().map(entry).collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}

/// What `berth image referrers` lists, and what it says beside.
fn referrers(node: &Node, reference: &str, input: &str, options: &[&str]) -> (Vec<Value>, String) {
    let args = [&["image", "referrers", "-o", "json", reference], options].concat();
    let output = berth(node, &args, input);
    assert!(output.status.success(), "{}", said(&output));
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    (list.as_array().unwrap().clone(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_refers_to_an_image_is_listed_by_the_registrys_api() {
    let node = Node::new().await;
    let registry = node.registry();
    let image = images::web("signed", "v1").build().unwrap();
    registry.push_built("signed", Some("v1"), &image);
    let reference = registry.reference("signed:v1");
    assert_eq!(referrers(&node, &reference, "", &[]), (vec![], String::new()));

    // More than a page has; and what refers to something else.
    let push = |bytes: Vec<u8>| registry.put_manifest("signed", None, OCI_MANIFEST, bytes);
    let many: Vec<Digest> = (0..120).map(|n| push(referrer(SPDX, n, Some(&image.manifest)))).collect();
    let signature = push(referrer("application/vnd.example.signature", 0, Some(&image.manifest)));
    push(referrer(SPDX, 999, Some(b"something else")));
    let (found, told) = referrers(&node, &reference, "", &[]);
    assert_eq!((found.len(), told.as_str()), (121, ""));
    let digests: BTreeSet<&str> = found.iter().map(|one| one["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, many.iter().chain([&signature]).map(Digest::as_str).collect());
    let first = &found[0];
    assert_eq!((&first["artifactType"], &first["foundBy"]), (&json!(SPDX), &json!("api")));
    assert_eq!(first["subject"], json!(image.digest));
    let args = ["image", "referrers", "-q", "--artifact-type", "application/vnd.example.signature", &reference];
    assert_eq!(said(&berth(&node, &args, "")), format!("{signature}\n"));
    assert!(registry.count(&When::path("/referrers/")) >= 3, "three pages");

    // A registry that lies: one refers to nothing, one to another image, one is not there.
    let (nothing, other) = (referrer(SPDX, 1, None), referrer(SPDX, 2, Some(b"something else")));
    push(nothing.clone());
    push(other.clone());
    let good = referrer(SPDX, 0, Some(&image.manifest));
    let lie = list_of(&[&nothing, &other, b"nowhere", &good, &good]);
    registry.inject(When::path("/referrers/"), Fault::Body(lie.into()));
    let (found, told) = referrers(&node, &reference, "", &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["digest"], json!(many[0]));
    for words in [
        format!("{}: {0} refers to nothing", sha256(&nothing)),
        format!("{}: {0} refers to {}, not to {}", sha256(&other), sha256(b"something else"), image.digest),
        format!("{}: registry", sha256(b"nowhere")),
    ] {
        assert!(told.contains(&words), "{words}: {told}");
    }
    registry.clear_faults();
    for (body, words) in [
        (vec![b' '; 5 << 20], "larger than"),
        (list_of(&vec![good.as_slice(); 1001]), "at most 1000"),
        (b"{}".to_vec(), "list of referrers"),
    ] {
        registry.inject(When::path("/referrers/"), Fault::Body(body.into()));
        let refused = berth(&node, &["image", "referrers", &reference], "");
        assert!(!refused.status.success() && said(&refused).contains(words), "{words}: {}", said(&refused));
        registry.clear_faults();
    }
    registry.inject(When::path("/referrers/"), Fault::Status { code: 500, retry_after: None });
    let refused = berth(&node, &["image", "referrers", &reference], "");
    assert!(!refused.status.success(), "a registry that fails is not one that has nothing: {}", said(&refused));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_registry_has_no_such_api_a_tag_stands_in_for_it() {
    let node = Node::new().await;
    // Debian's registry has no referrers API.
    let debian = DebianRegistry::start().await;
    node.document("70-registries.yaml", &document(&format!("  registries:\n  {}", debian.trusted())));
    in_force(&node, "RuntimeConfig/registries").await;
    let image = images::web("team/signed", "v1").build().unwrap();
    debian.store("team/signed", "v1", &image);
    let reference = format!("{}/team/signed:v1", debian.address);
    let input = format!("planted:{SECRET}\n");
    let list = || referrers(&node, &reference, &input, &["--creds", "-"]);
    assert_eq!(list(), (vec![], String::new()), "neither an API nor such a tag: nothing refers to it");
    let sbom = referrer(SPDX, 0, Some(&image.manifest));
    debian.store_blob("team/signed", &sha256(b"{}"), b"{}");
    debian.store_manifest("team/signed", "sbom", &sbom);
    let tag = format!("sha256-{}", image.digest.hex());
    debian.store_manifest("team/signed", &tag, &list_of(&[&sbom]));
    let (found, told) = list();
    assert_eq!((found.len(), told.as_str()), (1, ""));
    assert_eq!((&found[0]["digest"], &found[0]["foundBy"]), (&json!(sha256(&sbom)), &json!("tag")));

    // Others say in their own words that they have none; a tag of that name that is an image says nothing.
    let registry = node.registry();
    registry.push_built("signed", Some("v1"), &image);
    registry.put_manifest("signed", Some(&tag), OCI_MANIFEST, image.manifest.clone());
    let reference = registry.reference("signed:v1");
    for fault in [
        Fault::Status { code: 404, retry_after: None },
        Fault::Status { code: 405, retry_after: None },
        Fault::ContentType("text/html".into()),
    ] {
        registry.clear_faults();
        registry.inject(When::path("/referrers/"), fault);
        assert_eq!(referrers(&node, &reference, "", &[]).0, Vec::<Value>::new());
    }
    registry.put_manifest("signed", None, OCI_MANIFEST, sbom.clone());
    registry.put_manifest("signed", Some(&tag), OCI_INDEX, list_of(&[&sbom]));
    assert_eq!(referrers(&node, &reference, "", &[]).0[0]["foundBy"], "tag");

    // What the image's own index brings beside it is found without either.
    let about =
        json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image.digest});
    let mut attested: Value = serde_json::from_slice(&list_of(&[&image.manifest, &sbom])).unwrap();
    attested["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "amd64"});
    attested["manifests"][1]["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attested["manifests"][1]["annotations"] = about;
    registry.put_manifest("signed", Some("attested"), OCI_INDEX, attested.to_string());
    let (found, _) = referrers(&node, &registry.reference("signed:attested"), "", &[]);
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["foundBy"], &found[0]["subject"]), (&json!("index"), &json!(image.digest)));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helpers_and_providers_give_out_what_the_node_has() {
    let mut node = Node::new().await;
    let auth = AuthMode::Basic { username: "planted".into(), password: SECRET.into() };
    let registry = Registry::start(Options { auth, ..Options::default() }).await.unwrap();
    for tag in ["v1", "v2"] {
        registry.push_image(&images::web(&format!("app-{tag}"), tag)).unwrap();
    }
    let tools = tempfile::tempdir().unwrap();
    let secret = tools.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let helper = format!(
        "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread server\n[ \"$server\" = {} ] || {{ echo credentials not found in native keychain; exit 1; }}\n\
         echo \"{{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"planted\\\",\\\"Secret\\\":\\\"$(cat {})\\\"}}\"\n",
        registry.host(),
        secret.display()
    );
    program(&tools.path().join("docker-credential-berthtest"), &helper);
    let docker = tools.path().join("docker.json");
    std::fs::write(&docker, r#"{"credsStore": "berthtest"}"#).unwrap();
    node.env("PATH", format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap()));
    assert!(node.terminate().await.success());
    node.start().await;
    assert!(
        node.cri().try_pull(&registry.reference("app-v1:v1"), "default").await.is_err(),
        "no document names a source yet"
    );
    node.document(
        "70-registries.yaml",
        &document(&format!("  credentials: {{dockerConfigFile: {}}}", docker.display())),
    );
    let pulled = async || node.cri().try_pull(&registry.reference("app-v1:v1"), "default").await.ok();
    eventually("the helper's credentials are used", pulled).await;
    assert!(node.figure("berth_registry_credentials_total{result=\"ok\",source=\"helper\"}") >= 1.0);

    let provider = format!(
        "#!/bin/sh\ncat > /dev/null\ncat <<END\n{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\
         \"cacheKeyType\":\"Registry\",\"auth\":{{\"{}\":{{\"username\":\"planted\",\"password\":\"$(cat {})\"}}}}}}\nEND\n",
        registry.host(),
        secret.display()
    );
    program(&tools.path().join("test-provider"), &provider);
    let config = format!(
        "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: test-provider\n  matchImages: ['{}']\n  \
         defaultCacheDuration: 1m\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n",
        registry.host()
    );
    std::fs::write(tools.path().join("providers.yaml"), config).unwrap();
    let dir = tools.path().display();
    let spec = format!(
        "  credentials: {{providerConfigFile: {dir}/providers.yaml, providerBinDir: {dir}, providerTimeout: 5s}}"
    );
    node.document("70-registries.yaml", &document(&spec));
    // Until the document is in force it is the helper that is asked.
    const PROVIDER: &str = "berth_registry_credentials_total{result=\"ok\",source=\"provider\"}";
    let asked = async || {
        node.cri().try_pull(&registry.reference("app-v2:v2"), "default").await.ok()?;
        node.figures().get(PROVIDER).filter(|count| **count >= 1.0).copied()
    };
    eventually("the provider's credentials are used", asked).await;
    std::fs::remove_file(tools.path().join("docker-credential-berthtest")).unwrap();
    node.cri().try_pull(&registry.reference("app-v1:v1"), "default").await.unwrap();
    let holding = holding_the_secret(node.base());
    assert!(holding.is_empty(), "{holding:?}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_makes_no_policy_looser() {
    let node = Node::new().await;
    let (origin, mirror) =
        (Registry::start(Options::default()).await.unwrap(), Registry::start(Options::default()).await.unwrap());
    for registry in [&origin, &mirror] {
        for repository in ["good/app", "bad/app"] {
            registry.push_image(&images::web(repository, "v1")).unwrap();
        }
    }
    let spec = format!("  registries:\n  - {{host: '{}', mirrors: [{{url: '{}'}}]}}", origin.host(), mirror.url());
    node.document("70-registries.yaml", &document(&spec));
    let policy = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {{name: only}}\nspec:\n  mode: Enforce\n  registries:\n    \
         allow: ['{0}', '{1}']\n    deny: ['{0}/bad']\n",
        origin.host(),
        node.registry().host()
    );
    node.document("71-policy.yaml", &policy);
    in_force(&node, "ImagePolicy/only").await;
    in_force(&node, "RuntimeConfig/registries").await;
    let cri = node.cri();
    let denied = cri.try_pull(&origin.reference("bad/app:v1"), "default").await.unwrap_err();
    assert!(denied.message().contains("only"), "{denied:?}");
    assert!(mirror.requests().is_empty() && origin.requests().is_empty());
    let image = origin.reference("good/app:v1");
    eventually("the mirror is in use", async || {
        cri.try_pull(&image, "default").await.unwrap();
        if mirror.requests().is_empty() {
            cri.images()
                .remove_image(berth_proto::cri::RemoveImageRequest {
                    image: Some(ImageSpec { image: image.clone(), ..Default::default() }),
                })
                .await
                .unwrap();
        }
        (!mirror.requests().is_empty()).then_some(())
    })
    .await;
    // It is an image of the registry that the reference names, so that it may be used; by the mirror's name it is not.
    let sandbox = pod(&node, "pod");
    let running = cri.run(&sandbox).await;
    let mut web = daemon::container(&node, "web", &["/web"]);
    web.image.as_mut().unwrap().image.clone_from(&image);
    cri.try_create(&running, &web, &sandbox).await.unwrap();
    let id = cri.image(&image).await.unwrap().id;
    web.metadata.as_mut().unwrap().name = "by-id".into();
    web.image.as_mut().unwrap().image = id;
    cri.try_create(&running, &web, &sandbox).await.unwrap();
    let direct = cri.try_pull(&mirror.reference("good/app:v1"), "default").await.unwrap_err();
    assert!(direct.message().contains("only"), "{direct:?}");
    cri.try_remove_pod(&running).await.unwrap();
    node.finish().await;
}
