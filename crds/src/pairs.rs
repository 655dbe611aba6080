//! Fields that are nothing without one another, and that several documents may set between them: what is merged is judged, and no document by itself.
use crate::registry::Credentials;
use crate::runtime_config::{RuntimeConfigSpec, Streaming};
use berth_model::{Error, Result};

/// The rules that only what documents come to can be judged by, beside those of a document. Errors: `InvalidArgument` naming the field that is missing.
pub fn check_merged(spec: &RuntimeConfigSpec) -> Result<()> {
    streaming_tls(&spec.runtime.streaming)?;
    credential_providers(&spec.credentials).map(drop)
}

/// Files of the streaming server's certificate and key; `None`: it speaks plain HTTP. Errors: one without the other.
pub fn streaming_tls(streaming: &Streaming) -> Result<Option<(&str, &str)>> {
    let (cert, key) = (streaming.tls_cert_file.as_deref(), streaming.tls_key_file.as_deref());
    pair("spec.runtime.streaming", ("tlsCertFile", cert), ("tlsKeyFile", key))
}

/// The configuration of credential providers, and the directory of their programs; `None`: there are none. Errors: one without the other.
pub fn credential_providers(credentials: &Credentials) -> Result<Option<(&str, &str)>> {
    let (config, programs) = (credentials.provider_config_file.as_deref(), credentials.provider_bin_dir.as_deref());
    pair("spec.credentials", ("providerConfigFile", config), ("providerBinDir", programs))
}

fn pair<'a>(
    at: &str,
    (one, value): (&str, Option<&'a str>),
    (other, with): (&str, Option<&'a str>),
) -> Result<Option<(&'a str, &'a str)>> {
    let missing = |field: &str, beside: &str| {
        Err(Error::invalid(format!("{at}.{field}"), format!("must be set together with {beside}")))
    };
    match (value, with) {
        (Some(value), Some(with)) => Ok(Some((value, with))),
        (None, None) => Ok(None),
        (Some(_), None) => missing(other, one),
        (None, Some(_)) => missing(one, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn half_a_pair_is_refused_by_the_name_of_the_other_half() {
        let checked = |spec: Value| check_merged(&serde_json::from_value(spec).unwrap());
        let pairs = [
            ("/runtime/streaming", "spec.runtime.streaming", ["tlsCertFile", "tlsKeyFile"]),
            ("/credentials", "spec.credentials", ["providerConfigFile", "providerBinDir"]),
        ];
        for (at, path, names) in pairs {
            let with = |set: &[&str]| {
                let mut spec = json!({"runtime": {"streaming": {}}, "credentials": {}});
                set.iter().for_each(|name| spec.pointer_mut(at).unwrap()[*name] = json!("/etc/a"));
                spec
            };
            assert!(checked(with(&[])).is_ok() && checked(with(&names)).is_ok(), "{path}");
            for (set, missing) in [(names[0], names[1]), (names[1], names[0])] {
                let refused = checked(with(&[set])).unwrap_err();
                assert_eq!(refused.message(), format!("{path}.{missing}: must be set together with {set}"));
            }
        }
    }
}
