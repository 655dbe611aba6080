//! Whether credentials are good, as `berth login` asks.
//!
//! Owns: that one question. Must not: keep anything.
use crate::auth::Auth;
use crate::client::Client;
use crate::exchange::{Ask, Target};
use crate::observe::{Observation, Phase};
use crate::site::Need;
use berth_model::{Error, ErrorKind, Reference, Result};
use http::Method;

impl Client {
    /// Shows the registry these credentials. Errors: `PermissionDenied` where it does not take them, `Unknown` starting
    /// `RegistryUnavailable` where it cannot be asked, `InvalidArgument` for what is no registry.
    pub async fn check_login(&self, host: &str, auth: &Auth) -> Result<()> {
        // Only the host of the reference is used.
        let repo = Reference::parse(&format!("{host}/login"))
            .ok()
            .filter(|r| r.host() == host)
            .ok_or_else(|| Error::invalid("registry", format!("{host:?} is not a host name with an optional port")))?;
        // As for a pull: settings that cannot be applied are an error.
        self.sites(host, Need::Content)?;
        let site = self.home(host);
        let ask =
            Ask { target: Target::Root, ..Ask::new(&site, &repo, auth, Phase::Token, Method::GET, String::new()) };
        let again = || self.tell(&Observation::Retry { place: site.place() });
        let asked = self.config().retry.run(host, again, || async { self.exchange().ask(&ask).await.map(drop) }).await;
        asked.map_err(|e| match e.kind() {
            // No repository is meant here.
            ErrorKind::PermissionDenied => {
                Error::new(ErrorKind::PermissionDenied, format!("registry {host} does not take these credentials"))
            }
            _ => e,
        })
    }
}
