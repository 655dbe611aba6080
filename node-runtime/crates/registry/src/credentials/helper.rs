//! `docker-credential-*` helpers.
//!
//! Owns: their protocol (docker/docker-credential-helpers, README: get, store, erase). Must not: decide when one is asked.
use super::response::parse_helper;
use super::run::Run;
use crate::auth::Auth;
use crate::secret::Secret;
use berth_model::{Error, ErrorKind, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// What a helper says when it has nothing: the only words of it that are looked at.
const NOT_FOUND: &str = "credentials not found";

/// One helper.
#[derive(Debug)]
pub struct Helper {
    program: PathBuf,
    limit: Duration,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(rename = "ServerURL")]
    server_url: &'a str,
    username: &'a str,
    secret: &'a str,
}

impl Helper {
    /// The helper of this name, as configurations have it (`ecr-login`), found by PATH. Errors: `InvalidArgument` for a name that
    /// would lead elsewhere.
    pub fn new(name: &str, limit: Duration) -> Result<Self> {
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain {
            return Err(Error::invalid(
                "credential helper",
                format!("{name:?} is not the name of a docker-credential program"),
            ));
        }
        Ok(Self { program: format!("docker-credential-{name}").into(), limit })
    }

    /// What it has for a server; `None` is nothing. Errors: `Unavailable` saying what the helper did.
    pub async fn get(&self, server: &str) -> Result<Option<Auth>> {
        let done = self.run("get", server.as_bytes()).await?;
        if !done.ok {
            let words = String::from_utf8_lossy(&done.output);
            return if words.contains(NOT_FOUND) {
                Ok(None)
            } else {
                Err(self.failed("failed; run it by hand to see why"))
            };
        }
        parse_helper(&done.output).ok_or_else(|| self.failed("gave an answer that cannot be used"))
    }

    /// Hands it credentials to keep. Errors: `Unavailable`.
    pub async fn store(&self, server: &str, username: &str, secret: &Secret) -> Result<()> {
        let entry = Entry { server_url: server, username, secret: secret.expose() };
        let input = serde_json::to_vec(&entry).map_err(|e| Error::internal(e.to_string()))?;
        if self.run("store", &input).await?.ok { Ok(()) } else { Err(self.failed("did not store the credentials")) }
    }

    /// Has it forget a server. Errors: `Unavailable`.
    pub async fn erase(&self, server: &str) -> Result<()> {
        if self.run("erase", server.as_bytes()).await?.ok {
            Ok(())
        } else {
            Err(self.failed("did not erase the credentials"))
        }
    }

    async fn run(&self, verb: &str, input: &[u8]) -> Result<super::run::Done> {
        let args = [verb.to_owned()];
        let run = Run { program: &self.program, args: &args, env: Vec::new(), input, limit: self.limit };
        run.run().await.map_err(|problem| self.failed(&problem))
    }

    fn failed(&self, problem: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("credential helper {}: {problem}", self.program.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["", "../x", "a b", "/bin/sh"] {
            assert!(Helper::new(name, Duration::from_secs(1)).is_err(), "{name}");
        }
        assert!(Helper::new("ecr-login", Duration::from_secs(1)).is_ok());
    }
}
