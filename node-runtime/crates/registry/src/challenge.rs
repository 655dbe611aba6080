//! `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry wants to be shown.
//!
//! Owns: parsing. Must not: answer.

/// Longest header that is read; challenges are far shorter.
const MAX_HEADER: usize = 8192;

/// A challenge that a registry may pose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token from a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// Its name for the registry.
        service: String,
        /// What to ask for; may be empty.
        scope: String,
    },
    /// User name and password.
    Basic,
}

/// All challenges of one header value that we can answer; others, and what is malformed, are left out.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    if header.len() > MAX_HEADER {
        return found;
    }
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let (scheme, after) = token(rest);
        if scheme.is_empty() {
            break;
        }
        let (params, after) = parameters(after);
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let get = |name: &str| {
                params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).unwrap_or_default()
            };
            let realm = get("realm");
            if !realm.is_empty() {
                found.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    found
}

/// A token and what follows it.
fn token(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))).unwrap_or(text.len());
    text.split_at(end)
}

/// `name=value` pairs up to the next scheme, and what follows them.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut params = Vec::new();
    loop {
        let start = text.trim_start_matches([' ', '\t', ',']);
        let (name, after) = token(start);
        let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
            // A token without "=" is the next scheme, or rubbish that ends the header.
            return (params, start);
        };
        if name.is_empty() {
            return (params, "");
        }
        let value = value.trim_start_matches([' ', '\t']);
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                Some(found) => found,
                None => return (params, ""),
            },
            None => {
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        params.push((name.to_owned(), value));
        text = after;
    }
}

/// The text up to the closing quote, and what follows; `None` where it is missing.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut out, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => {
                out.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((out, &text[at + 1..])),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() }
    }

    #[test]
    fn challenges_seen_in_the_wild() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull""#;
        let cases = [
            (hub, vec![bearer("https://auth.docker.io/token", "registry.docker.io", "repository:library/a:pull")]),
            ("Basic realm=\"Registry Realm\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            ("BEARER realm=https://a/t, service = \"s\"", vec![bearer("https://a/t", "s", "")]),
            (
                "Negotiate, Bearer realm=\"https://a/t\",scope=\"x:pull,push\", Basic realm=\"b, c\"",
                vec![bearer("https://a/t", "", "x:pull,push"), Challenge::Basic],
            ),
            ("Bearer realm=\"a\\\"b\"", vec![bearer("a\"b", "", "")]),
            ("Bearer realm=\"unclosed", vec![]),
            ("Bearer service=\"no realm\"", vec![]),
            ("=,=\"", vec![]),
            ("", vec![]),
        ];
        for (header, expected) in cases {
            assert_eq!(parse_challenges(header), expected, "{header}");
        }
        assert!(parse_challenges(&"Basic,".repeat(5000)).is_empty());
    }

    proptest! {
        #[test]
        fn any_header_ends(header in "[ -~]{0,200}") {
            parse_challenges(&header);
        }
    }
}
