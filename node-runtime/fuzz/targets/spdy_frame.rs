//! What a client of the streaming server sends: SPDY frames and their header blocks. Any bytes give frames or an error; a frame
//! survives its own encoding; headers keep their limits. The parsers' files are taken in by path: their crate would bring a runtime.
#![no_main]
#![allow(dead_code)] // Only the parsers are called.

#[path = "../../crates/streaming/src/spdy/dictionary.rs"]
mod dictionary;
#[path = "../../crates/streaming/src/spdy/frame.rs"]
mod frame;
#[path = "../../crates/streaming/src/spdy/headers.rs"]
mod headers;

use flate2::{Compress, Compression, FlushCompress};
use frame::{Frame, HEAD, Head};

fn decode(decoder: &mut headers::Decoder, block: &[u8]) -> bool {
    let Ok(headers) = decoder.decode(block) else { return false };
    assert!(headers.len() <= headers::MAX_HEADERS);
    assert!(headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= headers::MAX_BLOCK * 100);
    true
}

/// As a connection reads them.
fn frames(mut bytes: &[u8]) {
    let mut decoder = headers::Decoder::default();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let Ok(Head::Control { kind, flags, length }) = Head::parse(*head) else { return };
        let Some((payload, rest)) = rest.split_at_checked(length) else { return };
        bytes = rest;
        let Ok(Some(frame)) = Frame::parse(kind, flags, payload) else { continue };
        let encoded = frame.encode();
        let Some((head, payload)) = encoded.split_first_chunk::<HEAD>() else { unreachable!("a frame without a head") };
        let Ok(Head::Control { kind, flags, .. }) = Head::parse(*head) else { unreachable!("a head that is not ours") };
        assert_eq!(Frame::parse(kind, flags, payload).as_ref(), Ok(&Some(frame.clone())));
        let (Frame::SynStream { block, .. } | Frame::SynReply { block, .. } | Frame::Headers { block, .. }) = frame else {
            continue;
        };
        if !decode(&mut decoder, block) {
            return;
        }
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    frames(bytes);
    // The same bytes as what a block decompresses to: no mutation makes zlib out of itself.
    let mut zlib = Compress::new(Compression::fast(), true);
    zlib.set_dictionary(&dictionary::dictionary()).expect("the draft's dictionary");
    let mut block = Vec::with_capacity(bytes.len() + 1024);
    zlib.compress_vec(bytes, &mut block, FlushCompress::Sync).expect("there is room");
    decode(&mut headers::Decoder::default(), &block);
});
