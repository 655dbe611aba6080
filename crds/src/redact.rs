//! What is secret in a document is not shown: passwords, tokens, private keys, and user names with passwords in URLs.
use serde_json::Value;

/// What stands in a secret's place.
pub const REDACTED: &str = "REDACTED";

/// Names of fields whose values are secret, in lower case.
const SECRET: [&str; 9] =
    ["password", "secret", "token", "identitytoken", "registrytoken", "bearertoken", "auth", "keypem", "privatekey"];

/// Replaces every secret in a value.
pub fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.to_ascii_lowercase();
                match value {
                    Value::String(text) if SECRET.iter().any(|s| name == *s || name.ends_with("keypem")) => {
                        *text = REDACTED.to_owned();
                    }
                    // Of HTTP headers any may be a credential.
                    Value::Object(headers) if name == "headers" => {
                        headers.values_mut().for_each(|v| *v = Value::String(REDACTED.to_owned()));
                    }
                    other => redact(other),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::String(text) => {
            if let Some(clean) = without_userinfo(text) {
                *text = clean;
            }
            if text.contains("PRIVATE KEY-----") {
                *text = REDACTED.to_owned();
            }
        }
        _ => {}
    }
}

/// A URL without who uses it, if it says so.
fn without_userinfo(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (_, host) = rest[..end].rsplit_once('@')?;
    Some(format!("{scheme}://{REDACTED}@{host}{}", &rest[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let mut value = json!({
            "registries": [{"host": "a", "auth": {"username": "u", "password": "planted"}, "tls": {"clientKeyPem": "planted"},
                "headers": {"X-Key": "planted"}}],
            "proxy": "http://u:planted@proxy:3128/x", "tokenTTL": "60s", "keys": "-----BEGIN PRIVATE KEY-----planted",
        });
        redact(&mut value);
        let text = value.to_string();
        assert!(!text.contains("planted"), "{text}");
        assert!(text.contains("\"60s\"") && text.contains("@proxy:3128/x") && text.contains("\"u\""), "{text}");
    }
}
