//! Inspect: a container, a pod or an image, by id, unique prefix or name. Secrets never come this far: credentials are not
//! part of any record.
use berth_engine::{ContainerFilter, Engine, PodFilter};
use berth_model::{Error, ErrorKind, Result};
use berth_proto::node as wire;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) fn call(engine: &Arc<Engine>, name: &str) -> Result<wire::InspectResponse> {
    if name.is_empty() {
        return Err(Error::invalid("name", "must not be empty"));
    }
    let found = container(engine, name)?.or(pod(engine, name)?).or(image(engine, name)?);
    let (kind, value) = found.ok_or_else(|| Error::not_found("container, pod or image", name))?;
    Ok(wire::InspectResponse { kind: kind.to_owned(), json: value.to_string() })
}

type Found = Option<(&'static str, Value)>;

/// A name of several is an error that asks for an id; not found is no error yet.
fn one<T>(mut all: Vec<T>, kind: &str, name: &str) -> Result<Option<T>> {
    if all.len() > 1 {
        let problem = format!("{name:?} names {} {kind}s; use an id", all.len());
        return Err(Error::new(ErrorKind::InvalidArgument, problem));
    }
    Ok(all.pop())
}

fn container(engine: &Engine, name: &str) -> Result<Found> {
    let all = engine.containers(&ContainerFilter::default());
    let matches = all.into_iter().filter(|c| c.id.as_str().starts_with(name) || c.record.config.metadata.name == name);
    Ok(one(matches.collect(), "container", name)?.map(|c| {
        let pod = &c.pod_record.config.metadata;
        let pod = json!({ "id": c.pod, "name": pod.name, "namespace": pod.namespace, "uid": pod.uid });
        ("container", json!({ "id": c.id, "pod": pod, "container": c.record }))
    }))
}

fn pod(engine: &Engine, name: &str) -> Result<Found> {
    let all = engine.pods(&PodFilter::default());
    let matches = all.into_iter().filter(|p| {
        let m = &p.record.config.metadata;
        p.id.as_str().starts_with(name) || m.name == name || format!("{}/{}", m.namespace, m.name) == name
    });
    Ok(one(matches.collect(), "pod", name)?.map(|p| ("pod", json!({ "id": p.id, "pod": &*p.record }))))
}

fn image(engine: &Engine, name: &str) -> Result<Found> {
    Ok(engine.image(name).ok().flatten().map(|i| ("image", json!({ "image": &*i }))))
}
