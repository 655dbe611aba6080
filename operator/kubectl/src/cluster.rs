//! The cluster that is talked to: as kubectl finds it, by the same kubeconfig. A request ends within its limit, and none is tried again unasked.
//! Objects are parsed one by one: what a newer version of Berth wrote into one hides no other.
use anyhow::{Context, Result, anyhow, bail};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

/// Longest time for one request.
const LIMIT: Duration = Duration::from_secs(30);
/// Most objects of one answer.
const PAGE: u32 = 500;
/// Who writes.
const MANAGER: &str = "kubectl-berth";

/// The cluster.
pub struct Cluster(Client);

/// A kind of ours, without namespaces.
pub trait Kind: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned {}
impl<T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned> Kind for T {}

/// An object of a list.
#[derive(Debug)]
pub struct Listed<K> {
    /// Its name.
    pub name: String,
    /// The object; of one that this version cannot parse, why, and what to do.
    pub object: Result<K, String>,
}

impl<K: Kind> Listed<K> {
    /// Of an object as it is written.
    pub fn of(written: DynamicObject) -> Self {
        Self { name: written.name_any(), object: parsed(written) }
    }
}

impl Cluster {
    /// Of that kubeconfig (by default `KUBECONFIG`, `~/.kube/config`, or the pod's account) and context.
    pub async fn of(kubeconfig: Option<&Path>, context: Option<String>) -> Result<Self> {
        let options = KubeConfigOptions { context, ..Default::default() };
        let mut config = match kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
                Config::from_custom_kubeconfig(read, &options).await?
            }
            None if options.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        };
        config.default_retry = false;
        config.connect_timeout = Some(LIMIT);
        Ok(Self(Client::try_from(config)?))
    }

    /// All objects of a kind, by name.
    pub async fn all<K: Kind>(&self) -> Result<Vec<Listed<K>>> {
        let api = self.api::<K>();
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = answered::<K, _>(api.list(&params)).await?;
            found.extend(page.items.into_iter().map(Listed::of));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
        found.sort_by(|a: &Listed<K>, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// One object. Errors: there is none, with the remedy, or this version cannot parse it.
    pub async fn one<K: Kind>(&self, name: &str, remedy: &str) -> Result<K> {
        let written = self.written::<K>(name, remedy).await?;
        parsed(written).map_err(|why| anyhow!("{} {name}: {why}", K::kind(&())))
    }

    /// One object as it is written. Errors: there is none, with the remedy.
    pub async fn written<K: Kind>(&self, name: &str, remedy: &str) -> Result<DynamicObject> {
        let found = answered::<K, _>(self.api::<K>().get_opt(name)).await?;
        found.ok_or_else(|| anyhow!("there is no {} {name}; {remedy}", K::kind(&())))
    }

    /// Labels of a Node, which is no kind of ours. `None`: it is not there, or may not be read.
    pub async fn labels(&self, node: &str) -> Option<BTreeMap<String, String>> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
        let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &kind);
        let found = tokio::time::timeout(LIMIT, api.get_metadata(node)).await.ok()?.ok()?;
        Some(found.metadata.labels.unwrap_or_default())
    }

    /// Changes fields of an object, whatever else is in it.
    pub async fn patch<K: Kind>(&self, name: &str, fields: Value) -> Result<()> {
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        answered::<K, _>(self.api::<K>().patch(name, &params, &Patch::Merge(fields))).await.map(drop)
    }

    fn api<K: Kind>(&self) -> Api<DynamicObject> {
        Api::all_with(self.0.clone(), &ApiResource::erase::<K>(&()))
    }
}

/// An object as this version reads it. Errors: it cannot, why, and what to do.
fn parsed<K: Kind>(written: DynamicObject) -> Result<K, String> {
    serde_json::to_value(written).and_then(serde_json::from_value).map_err(|e| not_understood(&e))
}

/// Why an object cannot be parsed, and what to do.
pub fn not_understood(error: &serde_json::Error) -> String {
    format!(
        "this version of kubectl berth does not understand it: {error}; a newer version of Berth wrote it: use the kubectl-berth of that one"
    )
}

async fn answered<K: Kind, T>(request: impl Future<Output = kube::Result<T>>) -> Result<T> {
    let plural = K::plural(&()).into_owned();
    match tokio::time::timeout(LIMIT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
            bail!("the cluster knows no {plural}.berth.dev: Berth is not installed, or in another context")
        }
        Ok(Err(kube::Error::Api(status))) => bail!("{plural}: {}", status.message),
        Ok(Err(e)) => Err(e).context(plural),
        Err(_) => bail!("the API server did not answer within {} s", LIMIT.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::RuntimeNode;
    use serde_json::json;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn node(name: &str, state: &str) -> Value {
        json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": name}, "spec": {"nodeName": name},
            "status": {"state": state}})
    }

    /// A cluster that answers each request with the next of these bodies.
    fn answering(bodies: Vec<Value>) -> Cluster {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for body in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut read = Vec::new();
                let mut byte = [0];
                while !read.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    read.push(byte[0]);
                }
                let body = body.to_string();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
                let _ = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Cluster(Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap())
    }

    #[tokio::test]
    async fn an_object_of_a_newer_version_hides_no_other_on_any_page() {
        let list = |items: [Value; 2], more: &str| {
            let metadata = json!({"continue": more});
            json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNodeList", "metadata": metadata, "items": items})
        };
        let pages = vec![
            list([node("d", "Managed"), node("b", "Suspended")], "more"),
            list([node("c", "Foreign"), node("a", "Managed")], ""),
        ];
        let found = answering(pages).all::<RuntimeNode>().await.unwrap();
        let names: Vec<_> = found.iter().map(|l| (l.name.as_str(), l.object.is_ok())).collect();
        assert_eq!(names, [("a", true), ("b", false), ("c", true), ("d", true)]);
        let why = found[1].object.as_ref().unwrap_err();
        assert!(why.contains("`Suspended`") && why.contains("newer version"), "{why}");
    }

    #[tokio::test]
    async fn one_of_a_newer_version_is_named_with_the_reason_and_changed_all_the_same() {
        let cluster = answering(vec![node("b", "Suspended"), node("b", "Suspended")]);
        let why = cluster.one::<RuntimeNode>("b", "").await.unwrap_err().to_string();
        assert!(why.starts_with("RuntimeNode b: ") && why.contains("`Suspended`"), "{why}");
        cluster.patch::<RuntimeNode>("b", json!({"spec": {"hold": true}})).await.unwrap();
    }
}
