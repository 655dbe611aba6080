//! Events of objects (events.k8s.io/v1). Told on transitions only, by whoever leads; what cannot be told is logged and holds up nothing.
use crate::cluster::Leadership;
use crate::cluster::client::REQUEST_LIMIT;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// Tells events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    leadership: Leadership,
}

impl Events {
    /// In the name of the operator, from that instance, under that lease.
    pub fn new(client: Client, instance: String, leadership: Leadership) -> Self {
        let reporter = Reporter { controller: "berth.dev/operator".to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client, reporter), leadership }
    }

    /// Something that somebody should look at.
    pub async fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: String) {
        self.tell(&object.object_ref(&()), EventType::Warning, reason, note).await;
    }

    /// Something that went as it should.
    pub async fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: String) {
        self.tell(&object.object_ref(&()), EventType::Normal, reason, note).await;
    }

    /// Something that somebody should look at, of an object that cannot be parsed.
    pub async fn warning_of(&self, object: &ObjectReference, reason: &str, note: String) {
        self.tell(object, EventType::Warning, reason, note).await;
    }

    async fn tell(&self, reference: &ObjectReference, type_: EventType, reason: &str, mut note: String) {
        let Some(rest) = self.leadership.rest() else { return };
        // The API server's limit is 1 KiB.
        let end = (0..=note.len().min(1000)).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(end);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(REQUEST_LIMIT.min(rest), self.recorder.publish(&event, reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(reason, error = %e, "an event could not be told"),
            Err(_) => tracing::warn!(reason, "the API server does not answer about an event"),
        }
    }
}
