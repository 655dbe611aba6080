//! The registry client follows the documents, and the files that they name: pulls that begin after a change use it.
//!
//! Must not: read documents (settings do), or stop what runs.
use crate::layout::Layout;
use crate::registries;
use berth_images::Images;
use berth_registry::{Client, ClientConfig};
use berth_settings::Standing;
use std::time::Duration;

/// The field that problems are told under.
const FIELD: &str = "spec.registries";
/// Certificates and keys are renewed on disk; how often their files are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(30);

/// Follows from `first`, which is in force. What of it cannot be had is told at once.
pub fn follow(standing: Standing, layout: Layout, images: Images, first: ClientConfig) {
    let (mut in_force, mut refused) = (first, None);
    let mut current = standing.live().current.clone();
    let part = standing.part();
    // The first round is for what changed, or was found wrong, during the start.
    current.mark_changed();
    tokio::spawn(async move {
        loop {
            let changed = tokio::time::timeout(LOOK_AT_FILES, current.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
            let settings = current.borrow_and_update().clone();
            let (place, given) = (layout.clone(), in_force.keychain.given.clone());
            let seen = settings.clone();
            let read = tokio::task::spawn_blocking(move || registries::client_config(&settings, &place, &given)).await;
            let Ok((mut wanted, problems)) = read else { continue };
            wanted.observer.clone_from(&in_force.observer);
            if !registries::same(&wanted, &in_force) {
                refused = match Client::new(wanted.clone()) {
                    Ok(client) => {
                        images.set_client(client);
                        None
                    }
                    Err(e) => Some(format!("{e}; the former settings stay in force")),
                };
                // Also where it was refused: it is not tried again before it changes.
                in_force = wanted;
            }
            // A problem need not change the client: it may be a file that is missing still, or there again.
            told(&standing, problems.into_iter().chain(refused.clone()).collect());
            part.follows(seen);
        }
    });
}

/// What is told changes with the problems, not with the settings.
fn told(standing: &Standing, problems: Vec<String>) {
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    if standing.report(FIELD, problem.clone()) {
        match problem {
            Some(problem) => tracing::error!(problem, "registry settings cannot be applied"),
            None => tracing::info!("registry settings are applied after all"),
        }
    }
}
