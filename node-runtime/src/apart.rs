//! A process of the runtime in a control group of its own, for programs that nobody gives one: what ends the group that they were started in
//! must not end them.
//!
//! Owns: saying so where it is not possible. Must not: choose groups.
use berth_cgroups::{Apart, Cgroups, Driver};
use berth_model::Result;

/// Where to go back to at the end, if anything was moved.
pub type Left = Option<(Cgroups, Apart)>;

/// Moves this process as `how` does; `complain` is told why it stays where it was.
pub fn leave(how: impl FnOnce(&Cgroups) -> Result<Option<Apart>>, complain: impl FnOnce(berth_model::Error)) -> Left {
    let moved = Cgroups::probe(Driver::Cgroupfs).and_then(|cgroups| Ok(how(&cgroups)?.map(|apart| (cgroups, apart))));
    moved.unwrap_or_else(|e| {
        complain(e);
        None
    })
}
