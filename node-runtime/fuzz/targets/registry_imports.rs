//! hosts.toml and registries.conf: any text gives registries that a document may have, or is told with its place. What a header holds is in no
//! sentence.
#![no_main]

// The importer names the rules by way of the settings, whose crate would bring an async runtime.
extern crate berth_crds as berth_settings;

#[path = "../../src/commands/node/config/import/hosts.rs"]
mod hosts;
#[path = "../../src/commands/node/config/import/part.rs"]
mod part;
#[path = "../../src/commands/node/config/import/registries_conf.rs"]
mod registries_conf;

use std::path::Path;

libfuzzer_sys::fuzz_target!(|input: (&str, &str)| {
    let (directory, text) = input;
    let both = [
        hosts::hosts_toml(&hosts::host_of(directory), Path::new("/certs.d/x"), text),
        registries_conf::registries_conf(text),
    ];
    for imported in both.into_iter().flatten() {
        for registry in &imported.registries {
            berth_settings::check_registries(std::slice::from_ref(registry))
                .expect("what is kept may stand in a document");
        }
        let values = imported.registries.iter().flat_map(|r| r.headers.keys());
        values.for_each(|name| assert!(!name.eq_ignore_ascii_case("authorization")));
    }
});
