//! Pulls that failed lately, by what stood in their way.
use crate::doctor::facts::Facts;
use crate::doctor::finding::{
    Finding, Kind, PULL_AUTH, PULL_DNS, PULL_MISSING, PULL_OTHER, PULL_POLICY, PULL_PROXY, PULL_RATE, PULL_TLS,
    PULL_UNREACHABLE,
};
use berth_model::ErrorKind;
use berth_proto::node::Trouble;
use std::collections::BTreeMap;

/// Failures older than this are history.
pub(super) const LATELY: u64 = 3600;

pub(super) fn pulls(facts: &Facts, found: &mut Vec<Finding>) {
    let Some(told) = &facts.daemon.told else { return };
    // One finding for each registry and cause.
    let mut causes: BTreeMap<(&str, String), (&'static Kind, Vec<&Trouble>)> = BTreeMap::new();
    for trouble in told.troubles.iter().filter(|t| t.kind == "pull" && is_late(facts, t)) {
        let kind = cause(trouble);
        let host = registry(&trouble.object);
        let object = if std::ptr::eq(kind, &PULL_MISSING) { trouble.object.clone() } else { host };
        causes.entry((kind.id, object)).or_insert_with(|| (kind, Vec::new())).1.push(trouble);
    }
    for ((_, object), (kind, troubles)) in causes {
        let Some(last) = troubles.last() else { continue };
        let ago = facts.now.saturating_sub(seconds(last.at));
        let times = if troubles.len() == 1 { "once".to_owned() } else { format!("{} times", troubles.len()) };
        let what = format!("{object}: {times} within the hour, last {ago} s ago for {}: {}", last.object, last.message);
        found.push(kind.found(what, remedy(kind, &object, &facts.daemon.flags)));
    }
}

pub(super) fn is_late(facts: &Facts, trouble: &Trouble) -> bool {
    facts.now.saturating_sub(seconds(trouble.at)) <= LATELY
}

pub(super) fn seconds(nanos: i64) -> u64 {
    u64::try_from(nanos / 1_000_000_000).unwrap_or_default()
}

/// The registry of a reference as it was written.
fn registry(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => "docker.io".to_owned(),
    }
}

/// What stood in the way: by the error's kind, and where that leaves it open by the registry client's own sentences.
fn cause(trouble: &Trouble) -> &'static Kind {
    let is = |kind: ErrorKind| trouble.error == format!("{kind:?}");
    if is(ErrorKind::PolicyDenied) {
        &PULL_POLICY
    } else if is(ErrorKind::NotFound) {
        &PULL_MISSING
    } else if is(ErrorKind::PermissionDenied) {
        &PULL_AUTH
    } else {
        said(&trouble.message).map_or(&PULL_OTHER, unavailable)
    }
}

/// What the client says of a registry or mirror (registry/src/error.rs, `unavailable`), without its name, which may be any word.
fn said(message: &str) -> Option<&str> {
    let (_, said) = message.strip_prefix("RegistryUnavailable: registry ")?.split_once(' ')?;
    Some(said)
}

/// The sentences are those of registry/src/exchange.rs, retry.rs, token.rs, transport.rs and connect.rs, and that of std for a name
/// without an address.
fn unavailable(said: &str) -> &'static Kind {
    let begins = |words: &[&str]| words.iter().any(|w| said.starts_with(w));
    if begins(&[
        "limits the rate of pulls (429)",
        "asks to come back after ",
        "cannot be used: its token server answers 429",
    ]) {
        &PULL_RATE
    } else if begins(&["cannot be reached: proxy ", "answers 407"]) {
        &PULL_PROXY
    } else if begins(&["is not trusted: "]) {
        &PULL_TLS
    } else if begins(&["cannot be reached: failed to lookup address information"]) {
        &PULL_DNS
    } else {
        &PULL_UNREACHABLE
    }
}

fn remedy(kind: &'static Kind, object: &str, flags: &str) -> String {
    match kind.id {
        "pull-auth" => format!("berth{flags} login {object}; or check the pod's imagePullSecrets"),
        "pull-rate-limit" => {
            format!("berth{flags} login {object} for a higher limit, or name a mirror for {object} in spec.registries")
        }
        "pull-tls" => format!("put the CA's certificate into spec.registries (host: {object}, tls.caPem)"),
        "pull-dns" => format!("getent hosts {object}; cat /etc/resolv.conf"),
        "pull-proxy" => "systemctl show berth -p Environment; the proxy's address and noProxy must be right".to_owned(),
        "pull-not-found" => format!("correct the name or tag in the pod, or push {object}"),
        "pull-denied" => format!("berth{flags} info names the policies in force; change the image or the ImagePolicy"),
        "pull-unreachable" => format!("curl -v https://{object}/v2/"),
        _ => "journalctl -u berth --since -1h | grep pull".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::node::DiagnoseResponse;

    fn trouble(object: &str, error: &str, message: &str) -> Trouble {
        Trouble {
            kind: "pull".into(),
            at: 10_000_000_000_000,
            object: object.into(),
            error: error.into(),
            message: message.into(),
        }
    }

    #[test]
    fn causes_are_told_apart() {
        let client = [
            ("limits the rate of pulls (429)", "pull-rate-limit"),
            ("asks to come back after 600 s, longer than the 60 s that a pull waits", "pull-rate-limit"),
            ("cannot be used: its token server answers 429", "pull-rate-limit"),
            (
                "is not trusted: invalid peer certificate: UnknownIssuer; add its CA to the registry's TLS settings",
                "pull-tls",
            ),
            ("cannot be reached: failed to lookup address information: Name or service not known", "pull-dns"),
            ("cannot be reached: proxy p:3128: wants a user name and a password (407), or other ones", "pull-proxy"),
            (
                "cannot be reached: proxy p:3128: failed to lookup address information: Name or service not known",
                "pull-proxy",
            ),
            ("cannot be reached: Connection refused (os error 111)", "pull-unreachable"),
            ("stalled in the middle of a blob: nothing came for 10000 ms", "pull-unreachable"),
            ("answers 500", "pull-unreachable"),
        ];
        // Names of hosts and repositories that hold the words of other causes.
        for host in ["r.example", "tls-proxy.dns.example:4290", "https://proxy.401.example/v2"] {
            for (sentence, id) in client {
                let message = format!("RegistryUnavailable: registry {host} {sentence}");
                assert_eq!(cause(&trouble(&format!("{host}/429/proxy:dns"), "Unknown", &message)).id, id, "{message}");
            }
        }
        let cases = [
            (
                "PermissionDenied",
                "registry r.example refuses access to repository 429/proxy: the credentials do not allow it",
                "pull-auth",
            ),
            ("NotFound", "registry r.example has no manifest 429 in repository app", "pull-not-found"),
            ("PolicyDenied", "image r.example/proxy:429 is denied: deny-some", "pull-denied"),
            (
                "ResourceExhausted",
                "registry r.example: the answer is larger than the 429 bytes allowed here",
                "pull-failed",
            ),
            (
                "FailedPrecondition",
                "layer has content of another digest; the registry or a proxy altered it",
                "pull-failed",
            ),
        ];
        for (error, message, id) in cases {
            assert_eq!(cause(&trouble("r.example/app:v1", error, message)).id, id, "{message}");
        }
    }

    #[test]
    fn equal_causes_are_one_finding_and_old_ones_none() {
        let told = |now| {
            let troubles = vec![
                trouble("r.example:5000/a:1", "PermissionDenied", "refuses access"),
                trouble("r.example:5000/b:1", "PermissionDenied", "refuses access"),
                trouble("busybox", "PermissionDenied", "refuses access"),
            ];
            let mut facts = Facts { now, ..Facts::default() };
            facts.daemon.told = Some(DiagnoseResponse { troubles, ..Default::default() });
            let mut found = Vec::new();
            pulls(&facts, &mut found);
            found
        };
        let found = told(10_007);
        assert_eq!(found.len(), 2);
        assert!(found[0].what.starts_with("docker.io: once"), "{}", found[0].what);
        assert!(
            found[1].what.starts_with("r.example:5000: 2 times within the hour, last 7 s ago"),
            "{}",
            found[1].what
        );
        assert!(told(10_000 + LATELY + 1).is_empty());
    }
}
