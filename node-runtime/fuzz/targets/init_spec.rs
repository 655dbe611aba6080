//! What daemon and init tell each other: any bytes give a value or an error, and a value survives its own encoding.
#![no_main]
use berth_monitor_api::spec::InitSpec;
use berth_monitor_api::sync::{self, FromInit, ToInit};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(spec) = InitSpec::decode(bytes) {
        assert_eq!(InitSpec::decode(&spec.encode()).as_ref(), Ok(&spec));
    }
    if let Ok(message) = sync::decode::<FromInit>(bytes) {
        assert_eq!(sync::decode::<FromInit>(&sync::encode(&message)).as_ref(), Ok(&message));
    }
    if let Ok(message) = sync::decode::<ToInit>(bytes) {
        assert_eq!(sync::decode::<ToInit>(&sync::encode(&message)), Ok(message));
    }
});
