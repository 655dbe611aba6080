//! Tests of the whole crate: compiled filters against a plain reading of the profile.
mod defaults;
mod differential;
mod evaluator;
mod interpreter;
mod parsing;
mod semantics;

use crate::{CompileInput, Profile, compile};
use interpreter::Data;

/// Both answers must agree; gives them.
fn answer(profile: &Profile, input: &CompileInput, data: Data) -> u32 {
    let filter = compile(profile, input).unwrap();
    let got = interpreter::run(&filter.program, &data);
    assert_eq!(got, evaluator::answer(profile, input, &data), "{data:x?} of {profile:?}");
    got
}
