//! The cluster that is talked to: as kubectl finds it, by the same kubeconfig. A request ends within its limit, and none is tried again unasked.
use anyhow::{Context, Result, anyhow, bail};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
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
    pub async fn all<K: Kind>(&self) -> Result<Vec<K>> {
        let api: Api<K> = Api::all(self.0.clone());
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = answered::<K, _>(api.list(&params)).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
        found.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        Ok(found)
    }

    /// One object. Errors: there is none, with the remedy.
    pub async fn one<K: Kind>(&self, name: &str, remedy: &str) -> Result<K> {
        let api: Api<K> = Api::all(self.0.clone());
        let found = answered::<K, _>(api.get_opt(name)).await?;
        found.ok_or_else(|| anyhow!("there is no {} {name}; {remedy}", K::kind(&())))
    }

    /// Labels of a Node, which is no kind of ours. `None`: it is not there, or may not be read.
    pub async fn labels(&self, node: &str) -> Option<BTreeMap<String, String>> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Node"));
        let api: Api<DynamicObject> = Api::all_with(self.0.clone(), &kind);
        let found = tokio::time::timeout(LIMIT, api.get_metadata(node)).await.ok()?.ok()?;
        Some(found.metadata.labels.unwrap_or_default())
    }

    /// Changes fields of an object.
    pub async fn patch<K: Kind>(&self, name: &str, fields: Value) -> Result<K> {
        let api: Api<K> = Api::all(self.0.clone());
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        answered::<K, _>(api.patch(name, &params, &Patch::Merge(fields))).await
    }
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
