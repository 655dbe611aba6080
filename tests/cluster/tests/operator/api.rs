//! An API server with our definitions, and requests to it.
use crate::reporters::VERSION;
use berth_cluster_tests::control_plane::ControlPlane;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::service::{Recipe, Service};
use berth_cluster_tests::space::NodeSpace;
use berth_cluster_tests::{Diagnose, http, programs, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `kubectl proxy`.
pub const PROXY: &str = "127.0.0.1:8001";
/// A fleet takes as long as the machine is slow; who waits for what comes does not wait longer.
const LIMIT: Duration = Duration::from_secs(240);
/// How long an API server may be busy with itself: a definition that has changed makes its kind answer 429 and 503 for a while.
const BUSY: Duration = Duration::from_secs(60);
/// Where our kinds are.
pub const GROUP: &str = "/apis/berth.dev/v1alpha1";

pub struct Api {
    space: Logged,
    plane: ControlPlane,
    /// `kubectl proxy`: the API without TLS, for many small requests.
    proxy: Service,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Diagnose for Api {
    fn diagnosis(&self) -> String {
        let kinds =
            self.kubectl().try_run(&["get", "runtimeconfigs,imagepolicies,runtimerevisions", "-o", "wide"]).text();
        format!("{kinds}\n{}", self.space.diagnosis())
    }
}

impl Api {
    pub fn start() -> Self {
        let space = Logged(NodeSpace::new());
        let plane = ControlPlane::start_api(&space.0, &space);
        let proxy = Recipe::new("proxy", programs::kubernetes("kubectl"));
        let proxy = proxy.flag("kubeconfig", plane.admin().display()).arg("proxy").flag("port", 8001);
        let api = Self { proxy: Service::start(&space.0, proxy), space, plane };
        api.wait("the proxy answers", || api.get("/readyz").map(drop));
        let generated = repository().join("crds/generated");
        api.kubectl().run(&["apply", "--server-side", "-f", &generated.display().to_string()]);
        for plural in ["runtimeconfigs", "imagepolicies", "runtimerevisions", "runtimenodes"] {
            api.wait("the kind is served", || api.get(&format!("{GROUP}/{plural}")).map(drop));
        }
        api
    }

    pub fn space(&self) -> &NodeSpace {
        &self.space.0
    }

    pub fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(self.space(), self.plane.admin(), "default")
    }

    /// The operator, as that replica.
    pub fn operator(&self, identity: &str, port: u16) -> Service {
        self.operator_of(identity, port, VERSION)
    }

    /// The same, of a release that has that version of the runtime.
    pub fn operator_of(&self, identity: &str, port: u16, runtime_version: &str) -> Service {
        let mut recipe = Recipe::new(identity, programs::berth("berth-operator"))
            .flag("identity", identity)
            .flag("lease-seconds", 10)
            .flag("listen", format!("127.0.0.1:{port}"))
            .flag("runtime-version", runtime_version);
        recipe.env.push(("KUBECONFIG".to_owned(), self.plane.admin().display().to_string()));
        Service::start(self.space(), recipe)
    }

    /// What is served at a path: JSON, or its text where it is none.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        patiently(|| http::get(self.space(), PROXY, path))
    }

    pub fn post(&self, path: &str, object: &Value) -> Result<Value, String> {
        patiently(|| http::send(self.space(), PROXY, ("POST", "application/json"), path, object))
    }

    /// A merge patch.
    pub fn patch(&self, path: &str, fields: &Value) -> Result<Value, String> {
        patiently(|| http::send(self.space(), PROXY, ("PATCH", "application/merge-patch+json"), path, fields))
    }

    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
        wait_for(self, what, LIMIT, condition)
    }

    pub fn finish(self) {
        self.proxy.kill();
        self.plane.finish();
        self.space.0.finish();
    }
}

/// Again where nothing was done because the API server was busy.
fn patiently(ask: impl Fn() -> std::io::Result<(u16, String)>) -> Result<Value, String> {
    let end = Instant::now() + BUSY;
    loop {
        match ask() {
            Ok((429 | 503, _)) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            other => return answer(other),
        }
    }
}

fn answer(result: std::io::Result<(u16, String)>) -> Result<Value, String> {
    match result {
        Ok((200..=299, body)) => Ok(serde_json::from_str(&body).unwrap_or(Value::String(body))),
        Ok((status, body)) => {
            let message =
                serde_json::from_str::<Value>(&body).ok().and_then(|v| v["message"].as_str().map(str::to_owned));
            Err(format!("{status}: {}", message.unwrap_or(body)))
        }
        Err(e) => Err(e.to_string()),
    }
}

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
