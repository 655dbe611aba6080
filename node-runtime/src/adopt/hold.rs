//! With the feature `failpoints`: if `BERTH_HOLD=<direction>/<step>/<enter|leave>=<file>` names this place and the file exists, makes
//! `<file>.reached` and waits while `<file>` exists, as the daemon's steps do.
use berth_adopt::{Direction, Step};

#[cfg(feature = "failpoints")]
pub(super) async fn hold(direction: Direction, step: Step, edge: &str) {
    let Some(wish) = std::env::var_os("BERTH_HOLD").and_then(|v| v.into_string().ok()) else { return };
    let place = format!("{direction}/{step}/{edge}=");
    let Some(file) = wish.strip_prefix(&place) else { return };
    if !std::path::Path::new(file).exists() {
        return;
    }
    let _ = std::fs::write(format!("{file}.reached"), &place);
    while std::path::Path::new(file).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[cfg(not(feature = "failpoints"))]
pub(super) async fn hold(_direction: Direction, _step: Step, _edge: &str) {}
