//! How the API server is talked to: one policy for all. A request ends within [`REQUEST_LIMIT`]; none is tried again behind its caller's back,
//! because whoever asks decides again from a fresh view, and must know at once when a disruption budget says no. Watches alone may be silent
//! for long.
use super::clock::Clock;
use kube::api::ListParams;
use kube::client::{ClientBuilder, DynBody};
use kube::core::ListMeta;
use kube::{Client, Config};
use std::time::Duration;
use tower::util::MapResponseLayer;

/// Longest time for one request.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Most objects of one answer.
pub const PAGE: u32 = 500;
/// Longest time for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Whether a list has a further page, which is what `params` ask for then.
pub fn goes_on(params: &mut ListParams, page: ListMeta) -> bool {
    params.continue_token = page.continue_.filter(|token| !token.is_empty());
    params.continue_token.is_some()
}

/// A client of that policy; each answer tells `clock` the API server's time. Errors: what the configuration names cannot be used.
pub fn of(mut config: Config, clock: &Clock) -> kube::Result<Client> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.write_timeout = Some(REQUEST_LIMIT);
    let clock = clock.clone();
    let listen = MapResponseLayer::new(move |response: http::Response<Box<DynBody>>| {
        if let Some(date) = response.headers().get(http::header::DATE).and_then(|value| value.to_str().ok()) {
            clock.hear(date);
        }
        response
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&listen).build())
}
