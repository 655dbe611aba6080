//! Asking a registry what refers to an image: by its API, else by the tag that stands in for it.
//!
//! Owns: which of the two is asked, the pages of an answer, and the proof that a thing refers to the image. Must not: judge what it says.
//! Source: OCI distribution spec 1.1, "Listing Referrers", "Referrers Tag Schema".
use crate::auth::Auth;
use crate::client::Client;
use crate::endpoint;
use crate::error::{Failure, unavailable};
use crate::exchange::{Ask, Target, read_limited};
use crate::manifest::media_type;
use crate::observe::Phase;
use crate::range::parse_next_link;
use crate::referrer::{About, LIST, Referrer, check_count, parse_about, parse_list, stand_in_tag};
use crate::site::{Need, Site};
use berth_model::{Digest, ErrorKind, Reference, Result};
use http::header::{CONTENT_TYPE, LINK};
use http::{HeaderMap, Method, Uri};
use std::sync::Arc;

/// How registries say that they do not have the API. The specification says 404; others that know no such path say what they say then.
const NO_API: &[u16] = &[400, 404, 405, 501];
/// Most pages of one answer.
const MAX_PAGES: usize = 50;

/// How a registry told its referrers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferrersBy {
    /// By its API.
    Api,
    /// By the tag that stands in for it, which whoever pushed them keeps.
    Tag,
}

/// What a registry says refers to an image. Nothing of it is proven: [`Client::prove_referrer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrers {
    /// How it was told.
    pub by: ReferrersBy,
    /// Each digest once.
    pub list: Vec<Referrer>,
}

impl Client {
    /// What refers to the manifest or index `subject` in the repository of `repo`. Errors: as [`Client::resolve`]; `FailedPrecondition` for a
    /// list that cannot be read or is too long, `ResourceExhausted` where it is larger than the client's `max_manifest_bytes`.
    pub async fn referrers(&self, repo: &Reference, subject: &Digest, auth: &Auth) -> Result<Referrers> {
        // A list is the word of whoever is asked, as a tag is.
        let mut found =
            self.across(repo.host(), Need::Tags, |site| self.referrers_at(site, repo, subject, auth)).await?;
        let mut seen = std::collections::BTreeSet::new();
        found.list.retain(|referrer| seen.insert(referrer.digest.clone()));
        Ok(found)
    }

    /// What a referrer says of itself, by its manifest. Errors: as [`Client::manifest`]; `FailedPrecondition` where it does not refer to
    /// `subject`.
    pub async fn prove_referrer(
        &self,
        repo: &Reference,
        subject: &Digest,
        referrer: &Digest,
        auth: &Auth,
    ) -> Result<About> {
        let manifest = self.manifest(repo, referrer, auth).await?;
        let about = parse_about(&manifest.bytes)?;
        match &about.subject {
            Some(found) if found == subject => Ok(about),
            Some(other) => Err(crate::error::mismatch(format!("{referrer} refers to {other}, not to {subject}"))),
            None => Err(crate::error::mismatch(format!("{referrer} refers to nothing: its manifest has no subject"))),
        }
    }

    async fn referrers_at(
        &self,
        site: Arc<Site>,
        repo: &Reference,
        subject: &Digest,
        auth: &Auth,
    ) -> Result<Referrers, Failure> {
        if let Some(list) = self.by_api(&site, repo, subject, auth).await? {
            return Ok(Referrers { by: ReferrersBy::Api, list });
        }
        let tag = stand_in_tag(subject);
        let list = match self.manifest_at(site.clone(), repo, &tag, auth).await {
            // What is there under that name and is no list says nothing of referrers.
            Ok(found) if found.media_type != LIST => Vec::new(),
            Ok(found) => parse_list(&found.bytes)?,
            // A mirror may just not have it; the registry itself has the last word.
            Err(Failure::Final(e)) if e.kind() == ErrorKind::NotFound && site.mirror.is_none() => Vec::new(),
            Err(e) => return Err(e),
        };
        Ok(Referrers { by: ReferrersBy::Tag, list })
    }

    /// `None` where the site does not have the API.
    async fn by_api(
        &self,
        site: &Site,
        repo: &Reference,
        subject: &Digest,
        auth: &Auth,
    ) -> Result<Option<Vec<Referrer>>, Failure> {
        let config = self.config();
        let path = format!("referrers/{subject}");
        let scheme = self.exchange().transport.scheme(site).await?;
        let base = format!("{scheme}://{}{}/{}/{path}", site.authority, site.root, repo.path());
        let base: Uri = base.parse().map_err(|_| unavailable(site.name(), "makes no valid URL"))?;
        let ask = Ask::new(site, repo, auth, Phase::Manifest, Method::GET, path);
        let mut ask = Ask { accept: LIST, pass: NO_API, ..ask };
        let mut list = Vec::new();
        for page in 0..MAX_PAGES {
            let response = self.exchange().ask(&ask).await?;
            let has_api = !NO_API.contains(&response.status().as_u16()) && is_list(response.headers());
            match (has_api, page) {
                (true, _) => {}
                (false, 0) => return Ok(None),
                (false, _) => return Err(unavailable(site.name(), "breaks off a list of referrers").into()),
            }
            let next = next_page(site, &base, response.headers())?;
            let bytes = read_limited(site.name(), response, config.max_manifest_bytes, config.timeouts.stall).await?;
            list.extend(parse_list(&bytes)?);
            check_count(list.len())?;
            match next {
                Some(next) => ask.target = Target::Location(next),
                None => return Ok(Some(list)),
            }
        }
        Err(unavailable(site.name(), format!("has more than {MAX_PAGES} pages of referrers")).into())
    }
}

/// Whether an answer is a list. A server that knows no such path may answer with a page for people.
fn is_list(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|value| media_type(value) == LIST)
}

/// Where the list goes on: on the same server, or nowhere.
fn next_page(site: &Site, base: &Uri, headers: &HeaderMap) -> Result<Option<Uri>, Failure> {
    let Some(link) = headers.get(LINK).and_then(|v| v.to_str().ok()).and_then(parse_next_link) else { return Ok(None) };
    match endpoint::resolve_location(base, link) {
        Some(next) if endpoint::origin(&next) == endpoint::origin(base) => Ok(Some(next)),
        _ => Err(unavailable(site.name(), "continues its list of referrers on another server").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_at_the_same_server_or_not_at_all() {
        let site = Site::registry("r.example", None);
        let base: Uri = "https://r.example/v2/app/referrers/sha256:aa".parse().unwrap();
        let next = |link: &str| {
            let headers = [(LINK, link.parse().unwrap())].into_iter().collect();
            next_page(&site, &base, &headers).map(|uri| uri.map(|uri| uri.to_string())).map_err(|_| ())
        };
        let same = "https://r.example/v2/app/referrers/sha256:aa?last=b".to_owned();
        for link in ["</v2/app/referrers/sha256:aa?last=b>; rel=\"next\"", "<sha256:aa?last=b>; rel=next"] {
            assert_eq!(next(link), Ok(Some(same.clone())), "{link}");
        }
        assert_eq!(next("</v2/x>; rel=prev"), Ok(None));
        for link in
            ["<https://evil.example/x>; rel=next", "<//evil.example/x>; rel=next", "<http://r.example/x>; rel=next"]
        {
            assert_eq!(next(link), Err(()), "{link}");
        }
    }
}
