//! CNI configurations: any bytes give a network or an error; what is taken names no path, and is read again as it was written.
//! The parser's files are taken in by path: their crate would bring netlink and an async runtime for pure functions.
#![no_main]
#![allow(dead_code)] // Only the parser is called.

#[path = "../../crates/network/src/cni/config.rs"]
mod config;
#[path = "../../crates/network/src/cni/version.rs"]
mod version;

use config::{Form, NetworkConfig};

libfuzzer_sys::fuzz_target!(|input: (bool, &[u8])| {
    let (list, bytes) = input;
    let form = if list { Form::List } else { Form::Single };
    let _ = config::PluginConfig::parse(bytes);
    let Ok(network) = NetworkConfig::parse(bytes, form) else { return };
    assert!(network.version.is_spoken() && network.plugins.len() <= config::MAX_PLUGINS);
    let names = network.plugins.iter().map(|p| &p.kind).chain([&network.name]);
    names.for_each(|name| assert!(!name.is_empty() && !name.contains('/') && !name.starts_with('.')));
    if network.plugins.is_empty() {
        return;
    }
    let written = network.to_value().to_string();
    if written.len() <= config::MAX_CONFIG {
        let again = NetworkConfig::parse(written.as_bytes(), Form::List).expect("what was written is read");
        assert_eq!((again.name, again.version, again.plugins), (network.name, network.version, network.plugins));
    }
});
