//! What clients of the streaming process send beside HTTP and SPDY: paths, queries, channel messages, sizes. Any bytes give a value or
//! an error; a message that is put together comes apart as it was; sizes do not depend on how the bytes are cut.
#![no_main]
#[path = "../../crates/streaming/src/protocol.rs"]
#[allow(dead_code)]
mod protocol;
#[path = "../../crates/streaming/src/wire/mod.rs"]
#[allow(dead_code)]
mod wire;

use bytes::Bytes;
use wire::channels::{self, Piece};
use wire::protocols::REMOTE_SOCKET;
use wire::request;
use wire::resize::SizeReader;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some((_, token)) = request::target(text) {
            assert!(text.ends_with(token) && !token.contains('/'));
        }
        if let Ok(ports) = request::ports(text) {
            assert!(ports.len() <= request::MAX_PORTS && !ports.contains(&0));
        }
    }
    let message = Bytes::copy_from_slice(bytes);
    for (_, how) in REMOTE_SOCKET {
        if let Ok(Piece::Data { channel, bytes }) = channels::take_apart(*how, &message)
            && channel < 10
        {
            let again = channels::put_together(*how, channel, &bytes);
            assert_eq!(channels::take_apart(*how, &again), Ok(Piece::Data { channel, bytes }));
        }
    }
    let mut whole = SizeReader::default();
    let last = whole.push(bytes);
    // Objects longer than the limit are read only when they come at once.
    if bytes.len() <= 512 {
        let mut single = SizeReader::default();
        let cut = bytes.iter().filter_map(|byte| single.push(std::slice::from_ref(byte))).last();
        assert_eq!(cut, last);
    }
});
