//! Credentials, as the CRI hands them over.
//!
//! Owns: their forms and where they apply. Must not: show them; `Debug` names the form only.
use crate::endpoint;
use crate::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_model::{Error, Result};
use http::HeaderValue;
use std::fmt;

/// What a pull presents to the registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// Nothing.
    #[default]
    Anonymous,
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// A refresh token, exchanged at the token server (OAuth2).
    IdentityToken(Secret),
    /// A token for the registry itself, sent as it is.
    RegistryToken(Secret),
    /// Any of these, for another host than the one that the reference names: of use for a mirror on that host alone.
    Elsewhere {
        /// `host[:port]`.
        host: String,
        /// What is for it.
        auth: Box<Auth>,
    },
}

/// The fields of the CRI's AuthConfig, borrowed.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// User name.
    pub username: &'a str,
    /// Password.
    pub password: &'a str,
    /// `base64(username:password)`.
    pub auth: &'a str,
    /// Registry that the credentials are for, as a host or a URL; empty is any.
    pub server_address: &'a str,
    /// Refresh token.
    pub identity_token: &'a str,
    /// Registry token.
    pub registry_token: &'a str,
}

impl Auth {
    /// The credentials of a request for an image on `host`. The most specific field wins: registry token, identity token, user
    /// name, `auth`. Credentials whose server address is another host are kept for a mirror there and shown to nobody else (as
    /// containerd does). Errors: `InvalidArgument` naming the field.
    pub fn from_cri(fields: &Credentials<'_>, host: &str) -> Result<Self> {
        let auth = Self::from_fields(fields)?;
        if fields.server_address.is_empty()
            || auth == Self::Anonymous
            || endpoint::same_registry(fields.server_address, host)
        {
            return Ok(auth);
        }
        let host = endpoint::registry_of(fields.server_address);
        Ok(Self::Elsewhere { host, auth: Box::new(auth) })
    }

    /// What this is for the registry that the reference names, and, when `host` is given, for a mirror on that host.
    pub(crate) fn at(&self, mirror: Option<&str>) -> Self {
        match (self, mirror) {
            (Self::Elsewhere { host, auth }, Some(mirror)) if host == mirror => (**auth).clone(),
            (Self::Elsewhere { .. }, _) | (_, Some(_)) => Self::Anonymous,
            (own, None) => own.clone(),
        }
    }

    fn from_fields(fields: &Credentials<'_>) -> Result<Self> {
        if !fields.registry_token.is_empty() {
            return Ok(Self::RegistryToken(fields.registry_token.into()));
        }
        if !fields.identity_token.is_empty() {
            return Ok(Self::IdentityToken(fields.identity_token.into()));
        }
        if !fields.username.is_empty() {
            return Self::basic(fields.username, fields.password);
        }
        if fields.auth.is_empty() {
            return Ok(Self::Anonymous);
        }
        Self::from_base64(fields.auth).ok_or_else(|| Error::invalid("auth.auth", "must be base64 of username:password"))
    }

    /// What stands in an `auth` field: base64 of `username:password`.
    pub(crate) fn from_base64(text: &str) -> Option<Self> {
        let raw = STANDARD.decode(text.trim()).ok()?;
        // Some tools pad the text with zero bytes; Docker's own reader strips them.
        let text = std::str::from_utf8(&raw).ok()?.trim_end_matches('\0');
        let (username, password) = text.split_once(':')?;
        Some(Self::Basic { username: username.to_owned(), password: password.into() })
    }

    /// User name and password. Errors: `InvalidArgument` for a user name with a colon.
    pub fn basic(username: &str, password: &str) -> Result<Self> {
        if username.contains(':') {
            return Err(Error::invalid("auth.username", "must not contain a colon (RFC 7617)"));
        }
        Ok(Self::Basic { username: username.to_owned(), password: password.into() })
    }

    /// The `Basic` header value; `None` for other forms.
    pub(crate) fn basic_header(&self) -> Option<HeaderValue> {
        let Self::Basic { username, password } = self else { return None };
        secret(&format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose()))))
    }
}

/// A header value that is never logged.
pub(crate) fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(redacted)",
            Self::IdentityToken(_) => "IdentityToken(redacted)",
            Self::RegistryToken(_) => "RegistryToken(redacted)",
            Self::Elsewhere { .. } => "Elsewhere(redacted)",
        })
    }
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(redacted, for {:?})", self.server_address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Auth {
        Auth::Basic { username: username.into(), password: password.into() }
    }

    #[test]
    fn the_most_specific_field_wins() {
        let all = Credentials {
            username: "u",
            password: "p",
            auth: "YTpi",
            identity_token: "i",
            registry_token: "r",
            server_address: "",
        };
        let from = |c: Credentials<'_>| Auth::from_cri(&c, "h.io").unwrap();
        assert_eq!(from(all), Auth::RegistryToken("r".into()));
        assert_eq!(from(Credentials { registry_token: "", ..all }), Auth::IdentityToken("i".into()));
        let plain = Credentials { registry_token: "", identity_token: "", ..all };
        assert_eq!(from(plain), basic("u", "p"));
        assert_eq!(from(Credentials { username: "", password: "", ..plain }), basic("a", "b"));
        assert_eq!(from(Credentials::default()), Auth::Anonymous);
        // a:b:c, and a:b padded with zero bytes
        assert_eq!(from(Credentials { auth: "YTpiOmM=", ..Credentials::default() }), basic("a", "b:c"));
        assert_eq!(from(Credentials { auth: "YTpiAAAA", ..Credentials::default() }), basic("a", "b"));
        for bad in ["%%%", "YWI=", "/w=="] {
            assert!(Auth::from_cri(&Credentials { auth: bad, ..Credentials::default() }, "h.io").is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_for_another_registry_stay_home() {
        let at = |server_address, host| {
            Auth::from_cri(&Credentials { username: "u", server_address, ..Credentials::default() }, host).unwrap()
        };
        assert_eq!(at("https://index.docker.io/v1/", "docker.io"), basic("u", ""));
        assert_eq!(at("ghcr.io", "ghcr.io"), basic("u", ""));
        assert_eq!(at("https://r.example:5000/v2/", "r.example:5000"), basic("u", ""));
        for (server, host) in [("r.example", "r.example:5000"), ("https://GHCR.io/v2/", "ghcr.io.evil.example")] {
            let kept = at(server, host);
            assert_eq!(kept.at(None), Auth::Anonymous, "{server} is not {host}");
            assert_eq!(kept.at(Some(host)), Auth::Anonymous);
        }
        assert_eq!(at("https://M.example:5000/", "ghcr.io").at(Some("m.example:5000")), basic("u", ""));
        assert_eq!(basic("u", "p").at(Some("m.example")), Auth::Anonymous, "a mirror gets nothing by itself");
        assert_eq!(basic("u", "p").at(None), basic("u", "p"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let auths =
            [basic("tom", "sesame"), Auth::IdentityToken("sesame".into()), Auth::RegistryToken("sesame".into())];
        let fields = Credentials { password: "sesame", auth: "sesame", ..Credentials::default() };
        let shown = format!("{auths:?} {fields:?}");
        assert!(!shown.contains("sesame") && !shown.contains("tom"), "{shown}");
    }
}
