//! Figures of what goes on between a node and its registries, as the registry client tells it.
//!
//! Owns: those series. Must not: let a name that no document configures have one: it is "other".
use super::bounded::NONE;
use super::make::Make;
use super::parts::Parts;
use berth_model::{ByteSource, Observation as Told, Observe};
use berth_registry::{Observation, Observer, Place};
use prometheus::{HistogramVec, IntCounterVec};
use std::fmt;
use std::sync::Arc;

const REQUEST: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The series.
pub(super) struct Requests {
    parts: Arc<Parts>,
    requests: IntCounterVec,
    seconds: HistogramVec,
    retries: IntCounterVec,
    pauses: IntCounterVec,
    credentials: IntCounterVec,
}

impl Requests {
    pub(super) fn new(make: &Make<'_>, parts: Arc<Parts>) -> Result<Self, prometheus::Error> {
        let requests = Self {
            parts,
            requests: make.counter(
                "berth_registry_requests_total",
                "Requests to registries by registry, mirror that was asked in its place, phase (resolve, manifest, blob, token, push) \
                 and outcome.",
                &["registry", "mirror", "phase", "outcome"],
            )?,
            seconds: make.histogram(
                "berth_registry_request_seconds",
                "Time from a request's start to its answer's head by registry, mirror and phase.",
                REQUEST,
                &["registry", "mirror", "phase"],
            )?,
            retries: make.counter(
                "berth_registry_retries_total",
                "Requests and broken transfers that were tried again, by registry and mirror.",
                &["registry", "mirror"],
            )?,
            pauses: make.counter(
                "berth_registry_mirror_pauses_total",
                "Times that a mirror failed and was left alone for a while, by registry and mirror.",
                &["registry", "mirror"],
            )?,
            credentials: make.counter(
                "berth_registry_credentials_total",
                "Looks for credentials of this node by source (request, provider, helper, file) and result.",
                &["source", "result"],
            )?,
        };
        let other = super::bounded::OTHER;
        requests.requests.with_label_values(&[other, NONE, "resolve", "ok"]);
        requests.seconds.with_label_values(&[other, NONE, "resolve"]);
        requests.retries.with_label_values(&[other, NONE]);
        requests.pauses.with_label_values(&[other, other]);
        requests.credentials.with_label_values(&["file", "ok"]);
        Ok(requests)
    }

    fn place(&self, place: &Place<'_>) -> (String, String) {
        let mirror = place.mirror.map_or_else(|| NONE.to_owned(), |mirror| self.parts.hosts.label(mirror));
        (self.parts.hosts.label(place.registry), mirror)
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl Observer for Requests {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::Request { place, phase, outcome, elapsed } => {
                let (registry, mirror) = self.place(place);
                self.requests.with_label_values(&[registry.as_str(), &mirror, phase.label(), outcome.label()]).inc();
                let seconds = self.seconds.with_label_values(&[registry.as_str(), &mirror, phase.label()]);
                seconds.observe(elapsed.as_secs_f64());
            }
            Observation::Bytes { place, count } => {
                let source = if place.mirror.is_some() { ByteSource::Mirror } else { ByteSource::Registry };
                self.parts.observe(Told::PullBytes { source, bytes: *count });
            }
            Observation::Retry { place } => {
                let (registry, mirror) = self.place(place);
                self.retries.with_label_values(&[registry.as_str(), &mirror]).inc();
            }
            Observation::MirrorPaused { place, .. } => {
                let (registry, mirror) = self.place(place);
                self.pauses.with_label_values(&[registry.as_str(), &mirror]).inc();
            }
            Observation::Credentials { source, ok, .. } => {
                self.credentials.with_label_values(&[source.label(), if *ok { "ok" } else { "error" }]).inc();
            }
        }
    }
}
