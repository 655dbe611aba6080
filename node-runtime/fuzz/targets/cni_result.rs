//! What CNI plugins print: any bytes give a result, an error or versions, or are refused; what is passed on is short and plain.
//! The parser's file is taken in by path: its crate would bring netlink and an async runtime for pure functions.
#![no_main]
#![allow(dead_code)] // Only the parsers are called.

#[path = "../../crates/network/src/cni/result.rs"]
mod result;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match result::AddResult::parse(bytes) {
        Ok(parsed) => match parsed.assigned("eth0") {
            Ok(assigned) => assert!(!assigned.addresses.is_empty()),
            Err(e) => assert!(e.message().contains("eth0")),
        },
        Err(e) => assert!(e.message().len() < 8 << 10),
    }
    if let Some(error) = result::PluginError::parse(bytes) {
        assert!(!error.msg.chars().chain(error.details.chars()).any(char::is_control));
    }
    let _ = result::supported_versions(bytes);
});
