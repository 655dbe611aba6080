//! Whether the node may be interrupted.
use super::View;
use crate::time;
use berth_crds::Disruption;

/// Leave that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leave {
    /// Its name, for the node's records.
    pub(super) id: String,
    /// When it ends, in Unix seconds.
    pub(super) expires: u64,
}

/// Changes that interrupt nothing need nobody's leave.
pub(super) fn needed(disruption: Disruption) -> bool {
    disruption > Disruption::NewPods
}

/// The node's grant, if it is for that revision, for as much as that, and not over.
pub(super) fn leave(view: &View<'_>, revision: &str, disruption: Disruption) -> Option<Leave> {
    // Who knows no clock but its own begins nothing.
    let grant = view.wish.grant.as_ref().filter(|_| view.certain)?;
    let expires = time::seconds(&grant.expires_at)?;
    let good = grant.revision == revision && grant.disruption >= disruption && expires > view.now;
    // A name is a word of a command line.
    good.then(|| Leave { id: format!("{}@{expires}", grant.revision), expires })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Facts;
    use crate::journal::Journal;
    use crate::plan::Known;
    use berth_crds::{Grant, RuntimeNodeSpec};

    #[test]
    fn leave_is_for_one_revision_one_kind_of_interruption_and_a_while() {
        let grant =
            Grant { revision: "r".to_owned(), disruption: Disruption::DaemonRestart, expires_at: time::text(1000) };
        let wish = RuntimeNodeSpec { grant: Some(grant), ..RuntimeNodeSpec::default() };
        let (journal, facts, known) = (Journal::default(), Facts::default(), Known::default());
        let at = |now| View { wish: &wish, journal: &journal, facts: &facts, known: &known, now, certain: true };
        assert_eq!(leave(&at(999), "r", Disruption::DaemonRestart).map(|l| l.expires), Some(1000));
        assert!(leave(&at(1000), "r", Disruption::DaemonRestart).is_none(), "it is over");
        assert!(leave(&at(999), "s", Disruption::DaemonRestart).is_none(), "for another revision");
        assert!(leave(&at(999), "r", Disruption::Drain).is_none(), "for less");
        let own = View { certain: false, ..at(999) };
        assert!(leave(&own, "r", Disruption::DaemonRestart).is_none(), "by the node's own clock");
        assert!(needed(Disruption::DaemonRestart) && !needed(Disruption::NewPods));
    }
}
