//! What comes with a registry's answers and from the programs that give out credentials: Docker's configuration, helpers' and
//! providers' answers, `Content-Range`, `Link`, proxies and their exceptions. The parsers' files are taken in by path: their crate would
//! bring a TLS stack, and minutes of compiling, for pure functions. What they need of their crate is the modules below.
#![no_main]
#![allow(dead_code)] // Only the parsers are called.

#[path = "../../crates/registry/src/auth.rs"]
mod auth;
#[path = "../../crates/registry/src/endpoint.rs"]
mod endpoint;
#[path = "../../crates/registry/src/proxy.rs"]
mod proxy;
#[path = "../../crates/registry/src/range.rs"]
mod range;
#[path = "../../crates/registry/src/secret.rs"]
mod secret;

/// The parsers of credentials, without what starts programs.
#[path = "../../crates/registry/src/credentials"]
mod credentials {
    pub mod docker_config;
    mod key;
    pub mod matching;
    pub mod response;

    pub(crate) use key::host_and_path;
    pub use matching::matches_image;
}

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match kind % 5 {
        0 => {
            if let Ok(mut config) = credentials::docker_config::DockerConfig::parse(bytes) {
                let _ = (config.lookup("r.example/team/app"), config.helper("r.example").is_some());
                config.set("r.example", "user", &"secret".into());
                assert!(config.has("r.example") && config.remove("r.example") && !config.has("r.example"));
            }
        }
        1 => {
            if let Ok(response) = credentials::response::Response::parse(bytes) {
                let _ = response.lookup("r.example/team/app");
            }
        }
        2 => {
            let _ = credentials::response::parse_helper(bytes);
        }
        3 => {
            if let Some((first, last, total)) = range::parse_content_range(text) {
                assert!(first <= last && total.is_none_or(|t| last < t));
            }
            let _ = range::parse_next_link(text);
        }
        _ => {
            let (one, other) = text.split_once('\n').unwrap_or((text, ""));
            let _ = (credentials::matches_image(one, other), credentials::response::go_duration(one));
            let proxy = proxy::Proxy::parse("proxy", one).ok();
            let config = proxy::ProxyConfig { https: proxy, exceptions: proxy::NoProxy::parse(other), ..Default::default() };
            let _ = config.choose(&http::Uri::from_static("https://r.example:5000/"));
        }
    }
});
