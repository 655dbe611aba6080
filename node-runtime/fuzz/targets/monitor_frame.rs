//! The monitor protocol, both directions, and init's messages to the monitor: any bytes give a message or an error, and a
//! message is written as the bytes that it was read from, the version aside.
#![no_main]
use berth_monitor_api::child::ChildMessage;
use berth_monitor_api::frame::{Reply, Request, Tagged};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Tagged::<Request>::decode(bytes) {
        assert_eq!(request.encode()[2..], bytes[2..]);
    }
    if let Ok(reply) = Tagged::<Reply>::decode(bytes) {
        assert_eq!(Tagged::<Reply>::decode(&reply.encode()).as_ref(), Ok(&reply));
    }
    if let Ok(message) = ChildMessage::decode(bytes) {
        assert_eq!(ChildMessage::decode(&message.encode()), Ok(message));
    }
});
