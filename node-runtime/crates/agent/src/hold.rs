//! With the feature `failpoints`: if `BERTH_AGENT_HOLD=<place>=<file>` names this place and the file exists, makes `<file>.reached` and
//! waits while `<file>` exists. Only tests use it: they kill an agent there.

#[cfg(feature = "failpoints")]
pub(crate) async fn hold(place: &str) {
    let Some(wish) = std::env::var_os("BERTH_AGENT_HOLD").and_then(|v| v.into_string().ok()) else { return };
    let Some(file) = wish.strip_prefix(&format!("{place}=")) else { return };
    if !std::path::Path::new(file).exists() {
        return;
    }
    let _ = std::fs::write(format!("{file}.reached"), place);
    while std::path::Path::new(file).exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[cfg(not(feature = "failpoints"))]
#[allow(clippy::unused_async)] // As the other one.
pub(crate) async fn hold(_place: &str) {}
