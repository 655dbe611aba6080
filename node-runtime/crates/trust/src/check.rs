//! The rules of one policy, each a function of a reference.
use crate::pattern::Scope;
use berth_model::Reference;

/// Registry rules: deny first, beats everything; then the allow list, if there is one.
pub(crate) fn registry(allow: &[Scope], deny: &[Scope], reference: &Reference) -> Result<(), String> {
    if let Some(scope) = deny.iter().find(|s| s.contains(reference)) {
        return Err(format!("{} is denied by {:?}", reference.repository(), scope.as_str()));
    }
    if !allow.is_empty() && !allow.iter().any(|s| s.contains(reference)) {
        return Err(format!("{} is in none of the allowed registries", reference.repository()));
    }
    Ok(())
}

/// Rules on how the user writes a reference.
pub(crate) fn form(require_digest: bool, forbid_tags: &[String], reference: &Reference) -> Result<(), String> {
    if reference.digest().is_some() {
        return Ok(());
    }
    if require_digest {
        return Err(format!("{reference} has no digest; write {}@sha256:...", reference.repository()));
    }
    match reference.tag() {
        Some(tag) if forbid_tags.iter().any(|t| t == tag.as_str()) => {
            Err(format!("tag {:?} is forbidden; write another tag or a digest", tag.as_str()))
        }
        _ => Ok(()),
    }
}
