//! What of a configuration must not be told: some plugins carry tokens, and echo their configuration when they fail.
//! Must not: judge a text that is in no configuration.
use super::config::NetworkConfig;
use super::result::plain;
use serde_json::Value;
use std::fmt;

/// Parts of a field's name by which its value is a secret.
const WORDS: [&str; 8] =
    ["token", "password", "passwd", "secret", "credential", "apikey", "privatekey", "authorization"];
/// Shorter values are words of every message.
const SHORTEST: usize = 4;
const HIDDEN: &str = "<hidden>";

/// The secret values of a network.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Those of a configuration.
    pub(super) fn of(config: &NetworkConfig) -> Self {
        let mut found = Vec::new();
        for plugin in &config.plugins {
            plugin.raw.iter().for_each(|(name, value)| collect(name, value, false, &mut found));
        }
        // A secret that holds another one goes first.
        found.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        found.dedup();
        Self(found)
    }

    /// The text without them.
    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }
}

fn collect(name: &str, value: &Value, within: bool, found: &mut Vec<String>) {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let secret = within || WORDS.iter().any(|word| plain.contains(word));
    match value {
        Value::String(text) if secret && text.trim().len() >= SHORTEST => found.extend(forms(text.trim())),
        Value::Array(all) => all.iter().for_each(|v| collect(name, v, secret, found)),
        Value::Object(map) => map.iter().for_each(|(name, v)| collect(name, v, secret, found)),
        _ => {}
    }
}

/// A secret as it is, on one line, and as JSON writes it: plugins echo what they were told; those in Go escape three more.
fn forms(secret: &str) -> [String; 4] {
    let json = Value::String(secret.to_owned()).to_string();
    let json = json.strip_prefix('"').and_then(|j| j.strip_suffix('"')).unwrap_or(secret).to_owned();
    let go = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    [secret.to_owned(), plain(secret), json, go]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config::Form;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        let text = r#"{"cniVersion": "1.0.0", "name": "n", "type": "x", "mtu": 1500, "log_level": "info",
            "kubernetes": {"k8s_auth_token": "abc.def", "api_root": "https://10.0.0.1"}, "Client-Secret": ["one-two"]}"#;
        let secrets = Secrets::of(&NetworkConfig::parse(text.as_bytes(), Form::Single).unwrap());
        assert_eq!(
            secrets.hide("GET https://10.0.0.1 with abc.def and one-two at info"),
            "GET https://10.0.0.1 with <hidden> and <hidden> at info"
        );
        assert_eq!(format!("{secrets:?}"), "Secrets(2)");
    }

    #[test]
    fn a_secret_is_hidden_however_it_is_written() {
        let text = r#"{"cniVersion": "1.0.0", "name": "n", "type": "x", "token": "one \"two\"\n<three>\n"}"#;
        let secrets = Secrets::of(&NetworkConfig::parse(text.as_bytes(), Form::Single).unwrap());
        let cases = ["one \"two\"\n<three>", "one \"two\" <three>", text, r#"one \"two\"\n\u003cthree\u003e"#];
        for case in cases {
            let hidden = secrets.hide(case);
            assert!(!hidden.contains("two") && hidden.contains("<hidden>"), "{hidden}");
        }
    }
}
