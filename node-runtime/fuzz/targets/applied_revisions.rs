//! Revisions of a cluster: as the agent hands them over node.sock, and as they lie on the disk. Any bytes are a revision or an error, and
//! what is read is written again in the same way.
#![no_main]
#[path = "../../crates/settings/src/revision.rs"]
#[allow(dead_code, unreachable_pub)]
mod revision;

use revision::{Revision, Revisions, decode, encode};

libfuzzer_sys::fuzz_target!(|input: (bool, String, String)| {
    let (named, name, text) = input;
    if let Ok(revisions) = decode(text.as_bytes()) {
        assert_eq!(decode(&encode(&revisions, 7).unwrap()).unwrap(), revisions);
    }
    // Nobody guesses a hash: with the right one, what is behind the check is reached.
    let own = serde_json::from_str::<berth_crds::RuntimeRevisionSpec>(&text).map(|content| content.name());
    let name = if named { own.unwrap_or(name) } else { name };
    let Ok(revision) = Revision::parse(&name, &text) else { return };
    let revisions = Revisions::of(revision.clone()).over(&Revisions::default());
    assert_eq!(decode(&encode(&revisions, 7).unwrap()).unwrap(), revisions);
    let _ = (revision.content.config(), revision.content.policies());
});
