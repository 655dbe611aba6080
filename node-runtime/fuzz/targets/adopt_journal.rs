//! The journal of adoptions, as a crash or a bad disk may have left it: any bytes are a journal or an error, what is read is written again
//! in the same way, and it has a meaning.
#![no_main]
use berth_adopt::journal::{HEADER, InForce, State, decode, encode};

libfuzzer_sys::fuzz_target!(|input: (bool, Vec<u8>)| {
    let (with_header, rest) = input;
    let mut bytes = if with_header { HEADER.as_bytes().to_vec() } else { Vec::new() };
    bytes.extend(rest);
    let Ok(journal) = decode(&bytes) else { return };
    assert!(journal.whole <= bytes.len());
    let mut again = HEADER.to_owned();
    for record in &journal.records {
        again.push_str(&encode(record).unwrap());
    }
    assert_eq!(decode(again.as_bytes()).unwrap().records, journal.records);
    let _ = (State::last(&journal.records).map(|state| state.way()), InForce::of(&journal.records));
});
