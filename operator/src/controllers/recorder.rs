//! Events of objects (events.k8s.io/v1). Told on transitions only, by whoever leads; what cannot be told is logged and holds up nothing.
use crate::cluster::Leadership;
use crate::cluster::client::REQUEST_LIMIT;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a repetition is counted with the first one: as long as kube's recorder remembers it.
const REPEATS: Duration = Duration::from_secs(6 * 60);

/// Recorders by what they tell, with when they told it last. One alone takes what has the same reason for a repetition, and keeps the words
/// of the first.
type Recorders = BTreeMap<String, (Recorder, Instant)>;

/// Tells events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    reporter: Reporter,
    recorders: Arc<Mutex<Recorders>>,
    leadership: Leadership,
}

impl Events {
    /// In the name of the operator, from that instance, under that lease.
    pub fn new(client: Client, instance: String, leadership: Leadership) -> Self {
        let reporter = Reporter { controller: "berth.dev/operator".to_owned(), instance: Some(instance) };
        Self { client, reporter, recorders: Arc::default(), leadership }
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

    /// The one that tells this.
    fn recorder(&self, note: &str) -> Recorder {
        let now = Instant::now();
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|_, (_, told)| now.duration_since(*told) < REPEATS);
        let new = || (Recorder::new(self.client.clone(), self.reporter.clone()), now);
        let (recorder, told) = recorders.entry(note.to_owned()).or_insert_with(new);
        *told = now;
        recorder.clone()
    }

    async fn tell(&self, reference: &ObjectReference, type_: EventType, reason: &str, mut note: String) {
        let Some(rest) = self.leadership.rest() else { return };
        // The API server's limit is 1 KiB.
        let end = (0..=note.len().min(1000)).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(end);
        let recorder = self.recorder(&note);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(REQUEST_LIMIT.min(rest), recorder.publish(&event, reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(reason, error = %e, "an event could not be told"),
            Err(_) => tracing::warn!(reason, "the API server does not answer about an event"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Method, Request, Response};
    use kube::client::Body;
    use std::convert::Infallible;
    use tower::service_fn;

    #[tokio::test]
    async fn other_words_are_another_event_and_the_same_ones_are_counted() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let service = service_fn(move |request: Request<Body>| {
            seen.lock().unwrap().push(request.method().clone());
            async { Ok::<_, Infallible>(Response::new(Body::from(br#"{"metadata": {}}"#.to_vec()))) }
        });
        let leadership = Leadership::default();
        leadership.set(Some(Instant::now() + Duration::from_secs(60)));
        let events = Events::new(Client::new(service, "default"), "me".to_owned(), leadership);
        let object = ObjectReference { name: Some("workers".to_owned()), ..Default::default() };
        for note in ["a: no profile", "b: no kubelet", "b: no kubelet"] {
            events.warning_of(&object, "RolledBack", note.to_owned()).await;
        }
        assert_eq!(*asked.lock().unwrap(), [Method::POST, Method::POST, Method::PATCH]);
    }
}
