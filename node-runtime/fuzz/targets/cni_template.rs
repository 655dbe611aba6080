//! Templates of CNI configurations: any text gives a configuration that pods can be attached by, an error, or waits for the kubelet's word;
//! what is written names its writer, and what was put in is no variable any more.
#![no_main]
#![allow(dead_code)] // Only the template is rendered.

#[path = "../../crates/network/src/cni/config.rs"]
mod config;
#[path = "../../crates/network/src/cni/template.rs"]
mod template;
#[path = "../../crates/network/src/cni/version.rs"]
mod version;

use config::{Form, NetworkConfig};

libfuzzer_sys::fuzz_target!(|input: (u8, &str)| {
    let (known, text) = input;
    let four: ipnet::IpNet = "10.1.0.0/24".parse().expect("a subnet");
    let six: ipnet::IpNet = "fd01::/64".parse().expect("a subnet");
    let cidrs: &[ipnet::IpNet] = match known % 4 {
        0 => &[],
        1 => &[four],
        2 => &[six],
        _ => &[four, six],
    };
    let checked = template::check_template(text).is_ok();
    let Ok(rendered) = template::render(text, cidrs) else {
        assert!(!checked || cidrs.len() < 2, "what is good is rendered where all is known");
        return;
    };
    let Some(rendered) = rendered else {
        assert!(cidrs.is_empty(), "who knows waits for nobody");
        return;
    };
    assert!(rendered.contains(template::MARK));
    let network = NetworkConfig::parse(rendered.as_bytes(), Form::List).expect("a configuration");
    assert!(!network.plugins.is_empty());
});
