//! What an HTTP request asks for.
//!
//! Owns: paths, tokens, the kind of upgrade, ports of a query. Must not: answer.
use crate::protocol::Kind;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Longest token that is looked at, in bytes. The daemon's are shorter.
const MAX_TOKEN: usize = 128;
/// Most ports of one query.
pub const MAX_PORTS: usize = 64;

/// Splits `/exec/TOKEN` and its like. `None` for every other path.
pub fn target(path: &str) -> Option<(Kind, &str)> {
    let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
    let kind = match kind {
        "exec" => Kind::Exec,
        "attach" => Kind::Attach,
        "portforward" => Kind::PortForward,
        _ => return None,
    };
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    ((1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(good)).then_some((kind, token))
}

/// What the connection shall become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// SPDY/3.1, as Kubernetes clients ask for it.
    Spdy,
    /// WebSocket (RFC 6455).
    WebSocket,
}

/// The upgrade that a request asks for. Errors say what is missing.
pub fn upgrade(headers: &HeaderMap) -> Result<Upgrade, &'static str> {
    if !list(headers, &CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade")) {
        return Err(
            "this address serves SPDY/3.1 and WebSocket upgrades only; the request has no \"Connection: Upgrade\"",
        );
    }
    let mut names = list(headers, &UPGRADE);
    match names.next() {
        Some(name) if name.eq_ignore_ascii_case("SPDY/3.1") => Ok(Upgrade::Spdy),
        Some(name) if name.eq_ignore_ascii_case("websocket") => Ok(Upgrade::WebSocket),
        _ => Err("the request's \"Upgrade\" is neither SPDY/3.1 nor websocket"),
    }
}

/// The words of a header that is a list: several headers, commas, blanks.
pub fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// The ports of a query: `port` any number of times, each a list with commas. Errors name the part that is wrong.
pub fn ports(query: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for value in query.split('&').filter_map(|part| part.strip_prefix("port=")) {
        // The comma is the only character that a client may have escaped.
        for text in value.replace("%2C", ",").replace("%2c", ",").split(',') {
            let port = text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
            ports.push(port.ok_or_else(|| format!("port {text:?} of the query is not a number from 1 to 65535"))?);
            if ports.len() > MAX_PORTS {
                return Err(format!("the query has more than {MAX_PORTS} ports"));
            }
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(pair).collect()
    }

    #[test]
    fn paths() {
        assert_eq!(target("/exec/a-B_9"), Some((Kind::Exec, "a-B_9")));
        assert_eq!(target("/attach/x"), Some((Kind::Attach, "x")));
        assert_eq!(target("/portforward/x"), Some((Kind::PortForward, "x")));
        for bad in ["", "/", "/exec", "/exec/", "/exec/a/b", "/exec/a.b", "/Exec/a", "exec/a", "//exec/a"] {
            assert_eq!(target(bad), None, "{bad}");
        }
        assert_eq!(target(&format!("/exec/{}", "a".repeat(MAX_TOKEN + 1))), None);
    }

    #[test]
    fn upgrades() {
        let spdy = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert_eq!(upgrade(&spdy), Ok(Upgrade::Spdy));
        let socket = headers(&[("connection", "keep-alive"), ("connection", "upgrade"), ("upgrade", "WebSocket")]);
        assert_eq!(upgrade(&socket), Ok(Upgrade::WebSocket));
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_err());
        assert!(upgrade(&headers(&[("connection", "upgrade")])).is_err());
        assert!(upgrade(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])).is_err());
    }

    #[test]
    fn port_lists() {
        assert_eq!(ports("port=80&x=1&port=443,8080"), Ok(vec![80, 443, 8080]));
        assert_eq!(ports("port=80%2C81"), Ok(vec![80, 81]));
        assert_eq!(ports("ports=80"), Ok(vec![]));
        for bad in ["port=", "port=0", "port=65536", "port=80,,81", "port=+80", "port=-1", "port=http"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
        assert!(ports(&"port=1&".repeat(MAX_PORTS + 1)).is_err());
    }
}
