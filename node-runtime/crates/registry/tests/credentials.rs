//! The node's own credentials against a real registry: real programs as providers, good and bad, and Docker's file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use berth_model::ErrorKind;
use berth_registry::credentials::{DockerConfig, Keychain, Provider};
use berth_registry::{Auth, Client, ClientConfig, Observation, Observer};
use berth_test_registry::{AuthMode, Options, TokenAuth};
use common::{config, pull, setup, user};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const ANON: Auth = Auth::Anonymous;

fn basic() -> Options {
    let auth = AuthMode::Basic { username: "user".into(), password: "sesame".into() };
    Options { auth, ..Options::default() }
}

struct Programs(tempfile::TempDir);

impl Programs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("runs")).map_or(0, |text| text.lines().count())
    }

    /// A provider that is this shell script; each run leaves a line in `runs`.
    fn provider(&self, name: &str, script: &str) -> Provider {
        let program = self.path(name);
        let text = format!("#!/bin/sh\necho {name} >> {}\n{script}\n", self.path("runs").display());
        write_elsewhere(&program, &text);
        Provider {
            name: name.into(),
            program,
            match_images: vec!["*.*.*.*:*".into(), "127.0.0.1".into()],
            default_cache: Duration::ZERO,
            args: vec!["get".into()],
            env: vec![("FROM_ENV".into(), "from-env".into())],
            limit: Duration::from_secs(2),
        }
    }
}

/// Writes a program by a process of its own: while this one has it open for writing, a fork of a neighbouring test would inherit the
/// descriptor and the program could not be run (ETXTBSY).
fn write_elsewhere(path: &Path, text: &str) {
    use std::io::Write;
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o755);
}

fn answer(key_type: &str, key: &str, password: &str, more: &str) -> String {
    format!(
        r#"cat <<END
{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"{key_type}"{more},
"auth":{{"{key}":{{"username":"user","password":"{password}"}}}}}}
END"#
    )
}

fn client(providers: Vec<Provider>, files: Vec<PathBuf>) -> (Client, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let keychain = Arc::new(Keychain::new(providers, files));
    (Client::new(ClientConfig { keychain, observer: Some(seen.clone()), ..config() }).unwrap(), seen)
}

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<String>>);

impl Observer for Seen {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Credentials { source, ok, .. } = observation {
            self.0.lock().unwrap().push(format!("{} {ok}", source.label()));
        }
    }
}

/// A provider for this registry alone.
fn only(provider: Provider, host: &str) -> Provider {
    Provider { match_images: vec![host.into()], ..provider }
}

#[tokio::test]
async fn a_provider_is_asked_as_the_kubelet_asks_it() {
    let s = setup(basic()).await;
    let (programs, host) = (Programs::new(), s.registry.host());
    let script = format!(
        "cat > {}; echo \"$1 $FROM_ENV $CARGO_MANIFEST_DIR\" >> {0}\n{}",
        programs.path("question").display(),
        answer("Image", &host, "sesame", "")
    );
    let (client, seen) = client(vec![only(programs.provider("good", &script), &host)], vec![]);
    pull(&client, &s.reference, &ANON).await.unwrap();
    let question = std::fs::read_to_string(programs.path("question")).unwrap();
    let expected = [r#""kind":"CredentialProviderRequest""#, r#""apiVersion":"credentialprovider.kubelet.k8s.io/v1""#];
    for text in expected.into_iter().chain([format!(r#""image":"{host}/team/app""#).as_str(), "get from-env \n"]) {
        assert!(question.contains(text), "{question}");
    }
    assert_eq!(programs.runs(), 1, "one pull asks once");
    assert!(seen.0.lock().unwrap().contains(&"provider true".to_owned()));
}

#[tokio::test]
async fn what_is_open_to_all_asks_nobody() {
    let s = setup(Options::default()).await;
    let programs = Programs::new();
    let provider = only(programs.provider("good", "exit 1"), &s.registry.host());
    pull(&client(vec![provider], vec![]).0, &s.reference, &ANON).await.unwrap();
    assert_eq!(programs.runs(), 0);
}

#[tokio::test]
async fn the_requests_own_credentials_come_first_and_alone() {
    let s = setup(basic()).await;
    let (programs, host) = (Programs::new(), s.registry.host());
    let provider = only(programs.provider("good", &answer("Image", &host, "sesame", "")), &host);
    let (client, _) = client(vec![provider], vec![]);
    let e = pull(&client, &s.reference, &user("wrong")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied, "a pod with bad credentials does not get by with the node's");
    assert_eq!(programs.runs(), 0);
    pull(&client, &s.reference, &user("sesame")).await.unwrap();
}

#[tokio::test]
async fn answers_are_kept_as_they_say() {
    let s = setup(Options {
        auth: AuthMode::Token(TokenAuth { password: "sesame".into(), ..TokenAuth::default() }),
        ..Options::default()
    })
    .await;
    let host = s.registry.host();
    s.registry.push_built("other/app", Some("v1"), &common::image().build().unwrap());
    let other = berth_model::Reference::parse(&s.registry.reference("other/app:v1")).unwrap();
    // Runs after: the same image, another image of the registry.
    let kept = r#","cacheDuration":"5m""#;
    let cases = [
        ("Image", kept, [1, 2]),
        ("Registry", kept, [1, 1]),
        ("Global", kept, [1, 1]),
        ("Global", r#","cacheDuration":"0s""#, [2, 3]),
        ("Image", "", [2, 3]),
    ];
    for (key_type, more, runs) in cases {
        let programs = Programs::new();
        let provider = only(programs.provider("good", &answer(key_type, &host, "sesame", more)), &host);
        let (client, _) = client(vec![provider], vec![]);
        client.resolve(&s.reference, &ANON).await.unwrap();
        assert_eq!(programs.runs(), 1);
        // Without its token the client must prove itself again.
        s.registry.revoke_tokens();
        client.resolve(&s.reference, &ANON).await.unwrap();
        assert_eq!(programs.runs(), runs[0], "{key_type} {more}");
        client.resolve(&other, &ANON).await.unwrap();
        assert_eq!(programs.runs(), runs[1], "{key_type} {more}");
    }
}

#[tokio::test]
async fn the_next_source_helps_where_one_fails_or_is_refused() {
    let s = setup(basic()).await;
    let (programs, host) = (Programs::new(), s.registry.host());
    let file = programs.path("config.json");
    let mut docker = DockerConfig::default();
    docker.set(&host, "user", &"sesame".into());
    docker.save(&file).unwrap();
    let stale = answer("Image", &host, "stale", "");
    let big = "head -c 104857600 /dev/zero";
    let left_over = programs.path("left-over.pid");
    let hangs = format!("sleep 1000 & echo $! >> {}; sleep 1000", left_over.display());
    for (name, script) in [
        ("crash", "kill -SEGV $$"),
        ("fails", "echo sesame-in-output; exit 3"),
        ("garbage", "echo '{\"sesame'"),
        ("other_kind", "echo '{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"cacheKeyType\":\"Image\"}'"),
        ("big", big),
        ("hangs", &hangs),
        ("stale", &stale),
    ] {
        let begun = Instant::now();
        let mut providers = vec![only(programs.provider(name, script), &host)];
        providers.push(Provider { program: programs.path("not there"), name: "gone".into(), ..providers[0].clone() });
        let (client, seen) = client(providers, vec![programs.path("no file"), file.clone()]);
        pull(&client, &s.reference, &ANON).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(begun.elapsed() < Duration::from_secs(30), "{name} took {:?}", begun.elapsed());
        let seen = seen.0.lock().unwrap().clone();
        let failed = if name == "stale" { "provider true" } else { "provider false" };
        assert!(seen.contains(&failed.to_owned()) && seen.contains(&"file true".to_owned()), "{name}: {seen:?}");
    }
    // What hung is gone with all that it started.
    let pids = std::fs::read_to_string(left_over).unwrap();
    assert!(!pids.is_empty(), "it started a child");
    for pid in pids.lines() {
        assert!(is_gone(pid).await, "the child {pid} of what hung runs on");
    }
}

/// Waits until this `sleep` runs no more. One that nobody reaps yet has no command line.
async fn is_gone(pid: &str) -> bool {
    for _ in 0..100 {
        let runs = std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words.starts_with(b"sleep\0"));
        if !runs {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

#[tokio::test]
async fn a_stale_login_does_not_close_what_is_open() {
    let auth = TokenAuth { password: "sesame".into(), anonymous_pull: true, ..TokenAuth::default() };
    let s = setup(Options { auth: AuthMode::Token(auth), ..Options::default() }).await;
    let programs = Programs::new();
    let file = programs.path("config.json");
    let mut docker = DockerConfig::default();
    docker.set(&s.registry.host(), "user", &"stale".into());
    docker.save(&file).unwrap();
    pull(&client(vec![], vec![file]).0, &s.reference, &ANON).await.unwrap();
}

#[tokio::test]
async fn a_broken_file_is_told_and_left_out() {
    let s = setup(basic()).await;
    let programs = Programs::new();
    let file = programs.path("config.json");
    std::fs::write(&file, r#"{"auths": {"x": {"auth": 5, "password": "sesame"}}}"#).unwrap();
    let (client, seen) = client(vec![], vec![file]);
    let e = pull(&client, &s.reference, &ANON).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied);
    assert!(!e.message().contains("sesame"), "{e}");
    assert!(seen.0.lock().unwrap().contains(&"file false".to_owned()));
}

#[tokio::test]
async fn a_login_is_checked() {
    for auth in [
        AuthMode::Basic { username: "user".into(), password: "sesame".into() },
        AuthMode::Token(TokenAuth { password: "sesame".into(), ..TokenAuth::default() }),
    ] {
        let s = setup(Options { auth, ..Options::default() }).await;
        let client = common::client();
        client.check_login(&s.registry.host(), &user("sesame")).await.unwrap();
        let e = client.check_login(&s.registry.host(), &user("wrong")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e}");
        assert!(!e.message().contains("wrong"), "{e}");
    }
    assert!(common::client().check_login("a/b", &user("x")).await.is_err());
}
