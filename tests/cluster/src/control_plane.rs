//! etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kube-proxy, unmodified, on a node. Owns: their flags and order.
//! Must not: keep anything outside the node's directory and its `/run`.
use crate::pki::{Authority, Pair, service_account_key};
use crate::service::{Recipe, Service};
use crate::space::{NODE_ADDRESS, NodeSpace};
use crate::wait::{Diagnose, wait_for};
use crate::{http, kubelet, programs};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const ETCD: &str = "http://127.0.0.1:2379";
const SERVICES: &str = "10.96.0.0/16";
/// Address of the service `kubernetes`.
pub const API_SERVICE: &str = "10.96.0.1";
const PODS: &str = "10.88.0.0/16";
const START_LIMIT: Duration = Duration::from_secs(120);
/// Name of the service.
const API_SERVER: &str = "apiserver";
const STOP_GRACE: Duration = Duration::from_secs(3);

/// A running control plane.
pub struct ControlPlane {
    services: Vec<Service>,
    dir: PathBuf,
    authority: Authority,
    /// How the API server was started that was killed.
    killed: Option<Recipe>,
}

impl ControlPlane {
    /// Starts all but kube-proxy, and waits until the API server is ready.
    pub fn start(space: &NodeSpace, node: &impl Diagnose) -> Self {
        let mut plane = Self::start_api(space, node);
        let accounts = service_account_key(&plane.dir);
        let manager = plane.controller_manager(&accounts);
        plane.services.push(Service::start(space, manager));
        let scheduler = plane.kubeconfig("scheduler", "system:kube-scheduler", "");
        let recipe = three_kubeconfigs(Recipe::new("scheduler", programs::kubernetes("kube-scheduler")), &scheduler);
        plane.services.push(Service::start(space, recipe.flag("leader-elect", false)));
        plane
    }

    /// Starts etcd and the API server alone, and waits until it is ready: objects stay as clients write them.
    pub fn start_api(space: &NodeSpace, node: &impl Diagnose) -> Self {
        let dir = space.base().join("pki");
        let authority = Authority::new(&dir, "ca");
        let mut plane = Self { services: Vec::new(), dir, authority, killed: None };
        plane.services.push(Service::start(space, etcd()));
        let accounts = service_account_key(&plane.dir);
        let api = plane.api_server(&accounts);
        plane.services.push(Service::start(space, api));
        plane.wait_ready(space, node);
        plane
    }

    fn wait_ready(&mut self, space: &NodeSpace, node: &impl Diagnose) {
        let admin = self.admin();
        wait_for(node, "the API server is ready", START_LIMIT, || {
            self.services.iter_mut().for_each(Service::must_live);
            let mut kubectl = space.command("tools", programs::kubernetes("kubectl"));
            let output = kubectl.arg("--kubeconfig").arg(&admin).args(["get", "--raw", "/readyz"]).output().unwrap();
            if output.stdout == b"ok" { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        });
    }

    /// SIGKILL to the API server.
    pub fn kill_api_server(&mut self) {
        let at = self.services.iter().position(|s| s.recipe().name == API_SERVER).expect("the API server runs");
        self.killed = Some(self.services.remove(at).kill());
    }

    /// Starts it anew after [`Self::kill_api_server`], and waits until it is ready.
    pub fn start_api_server_again(&mut self, space: &NodeSpace, node: &impl Diagnose) {
        let recipe = self.killed.take().expect("it was killed");
        self.services.push(Service::start(space, recipe));
        self.wait_ready(space, node);
    }

    /// Starts kube-proxy on this node.
    pub fn start_proxy(&mut self, space: &NodeSpace) {
        let config = self.dir.join("kube-proxy.json");
        let kubeconfig = self.kubeconfig("kube-proxy", "system:kube-proxy", "");
        std::fs::write(&config, proxy_config(&kubeconfig).to_string()).unwrap();
        let recipe = Recipe::new("kube-proxy", programs::kubernetes("kube-proxy"));
        self.services.push(Service::start(space, recipe.flag("config", config.display())));
    }

    /// The administrator's kubeconfig.
    pub fn admin(&self) -> PathBuf {
        let path = self.dir.join("admin.kubeconfig");
        if path.exists() { path } else { self.kubeconfig("admin", "admin", "system:masters") }
    }

    /// What a kubelet of this cluster needs beyond a runtime.
    pub fn kubelet_options(&self) -> kubelet::Options {
        let group = "system:nodes";
        let user = format!("system:node:{}", kubelet::NODE_NAME);
        let kubeconfig = self.kubeconfig("kubelet", &user, group);
        let serving = self.authority.issue("kubelet-serving", &user, group, &[NODE_ADDRESS, kubelet::NODE_NAME]);
        let config = json!({
            "tlsCertFile": serving.certificate,
            "tlsPrivateKeyFile": serving.key,
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.authority.certificate()},
            },
            "authorization": {"mode": "Webhook"},
            "nodeStatusUpdateFrequency": "2s",
            // How often a pod's volumes are looked at again.
            "syncFrequency": "5s",
        });
        kubelet::Options { kubeconfig: Some(kubeconfig), config }
    }

    /// Ends everything, last started first.
    pub fn finish(mut self) {
        while let Some(service) = self.services.pop() {
            service.stop(STOP_GRACE);
        }
    }

    fn kubeconfig(&self, file: &str, user: &str, group: &str) -> PathBuf {
        self.authority.kubeconfig(file, &format!("https://{NODE_ADDRESS}:6443"), user, group)
    }

    fn api_server(&self, accounts: &Pair) -> Recipe {
        let names =
            [NODE_ADDRESS, "127.0.0.1", API_SERVICE, "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let serving = self.authority.issue("apiserver", "kube-apiserver", "", &names);
        let client = self.authority.issue("apiserver-kubelet", "apiserver", "system:masters", &[]);
        let front = Authority::new(&self.dir, "front-proxy-ca");
        let proxy = front.issue("front-proxy", "front-proxy-client", "", &[]);
        let ca = self.authority.certificate();
        Recipe::new(API_SERVER, programs::kubernetes("kube-apiserver"))
            .flag("etcd-servers", ETCD)
            .flag("secure-port", 6443)
            .flag("advertise-address", NODE_ADDRESS)
            .flag("client-ca-file", ca.display())
            .flag("tls-cert-file", serving.certificate.display())
            .flag("tls-private-key-file", serving.key.display())
            .flag("service-account-issuer", "https://kubernetes.default.svc")
            .flag("service-account-key-file", accounts.certificate.display())
            .flag("service-account-signing-key-file", accounts.key.display())
            .flag("service-cluster-ip-range", SERVICES)
            .flag("authorization-mode", "Node,RBAC")
            .flag("enable-admission-plugins", "NodeRestriction")
            .flag("allow-privileged", true)
            .flag("kubelet-client-certificate", client.certificate.display())
            .flag("kubelet-client-key", client.key.display())
            .flag("kubelet-certificate-authority", ca.display())
            .flag("kubelet-preferred-address-types", "InternalIP")
            .flag("requestheader-client-ca-file", front.certificate().display())
            .flag("requestheader-allowed-names", "front-proxy-client")
            .flag("requestheader-extra-headers-prefix", "X-Remote-Extra-")
            .flag("requestheader-group-headers", "X-Remote-Group")
            .flag("requestheader-username-headers", "X-Remote-User")
            .flag("proxy-client-cert-file", proxy.certificate.display())
            .flag("proxy-client-key-file", proxy.key.display())
            .flag("enable-aggregator-routing", true)
            .flag("watch-cache", true)
    }

    fn controller_manager(&self, accounts: &Pair) -> Recipe {
        let kubeconfig = self.kubeconfig("controller-manager", "system:kube-controller-manager", "");
        let ca = self.authority.certificate();
        three_kubeconfigs(
            Recipe::new("controller-manager", programs::kubernetes("kube-controller-manager")),
            &kubeconfig,
        )
        .flag("leader-elect", false)
        .flag("service-account-private-key-file", accounts.key.display())
        .flag("root-ca-file", ca.display())
        .flag("cluster-signing-cert-file", ca.display())
        .flag("cluster-signing-key-file", self.authority.key().display())
        .flag("use-service-account-credentials", true)
        .flag("allocate-node-cidrs", true)
        .flag("cluster-cidr", PODS)
        .flag("service-cluster-ip-range", SERVICES)
    }
}

/// Data on the node's own tmpfs, and nothing written through to a disk: it need not survive.
fn etcd() -> Recipe {
    Recipe::new("etcd", programs::etcd())
        .flag("data-dir", "/run/etcd")
        .arg("--unsafe-no-fsync")
        .flag("listen-client-urls", ETCD)
        .flag("advertise-client-urls", ETCD)
        .flag("listen-peer-urls", "http://127.0.0.1:2380")
}

fn three_kubeconfigs(recipe: Recipe, kubeconfig: &Path) -> Recipe {
    let path = &kubeconfig.display();
    recipe.flag("kubeconfig", path).flag("authentication-kubeconfig", path).flag("authorization-kubeconfig", path)
}

/// KubeProxyConfiguration, v1alpha1. Connection tracking's limits are the machine's, and cannot be set from a network namespace.
fn proxy_config(kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": kubelet::NODE_NAME,
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// Whether kube-proxy calls itself healthy.
pub fn proxy_is_healthy(space: &NodeSpace) -> Result<(), String> {
    match http::get(space, "127.0.0.1:10256", "/healthz") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
