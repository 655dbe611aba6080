//! Documents: refused, or waiting for a restart.
use crate::doctor::facts::Facts;
use crate::doctor::finding::{DOCUMENT_PENDING, DOCUMENT_REFUSED, Finding};

pub(super) fn documents(facts: &Facts, found: &mut Vec<Finding>) {
    let daemon = &facts.daemon;
    let told = daemon.info.as_ref().map(|i| i.refused_documents.clone()).filter(|r| !r.is_empty());
    if let Some(refused) = told.or_else(|| daemon.documents.clone()) {
        found.push(
            DOCUMENT_REFUSED
                .found(refused, format!("correct it; berth{} config check says when it is right", daemon.flags)),
        );
    }
    let pending = daemon.told.as_ref().map(|t| t.pending_settings.as_slice()).unwrap_or_default();
    if !pending.is_empty() {
        let what = format!("{} changed and wait for the daemon's next start", pending.join(", "));
        let fix =
            if daemon.flags.is_empty() { "systemctl restart berth" } else { "start the daemon of this root anew" };
        found.push(DOCUMENT_PENDING.found(what, format!("{fix}; pods live on")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::node::{DiagnoseResponse, InfoResponse};

    #[test]
    fn refused_and_pending_documents_are_told() {
        let mut facts = Facts::default();
        let mut found = Vec::new();
        documents(&facts, &mut found);
        assert!(found.is_empty());
        facts.daemon.info = Some(InfoResponse { refused_documents: "a.yaml: colour".into(), ..Default::default() });
        facts.daemon.documents = Some("not this one".into());
        facts.daemon.told =
            Some(DiagnoseResponse { pending_settings: vec!["spec.network.mode".into()], ..Default::default() });
        documents(&facts, &mut found);
        assert_eq!(found.iter().map(|f| f.id).collect::<Vec<_>>(), ["document-refused", "document-pending"]);
        assert!(found[0].what.contains("colour") && found[1].what.contains("spec.network.mode"));
    }
}
