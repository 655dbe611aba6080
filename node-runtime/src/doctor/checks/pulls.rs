//! Pulls that failed lately, by what stood in their way.
use crate::doctor::facts::Facts;
use crate::doctor::finding::{
    Finding, Kind, PULL_AUTH, PULL_DNS, PULL_MISSING, PULL_OTHER, PULL_POLICY, PULL_PROXY, PULL_RATE, PULL_TLS,
    PULL_UNREACHABLE,
};
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

/// What stood in the way, by the error's kind and the words of the registry client and the system below it.
fn cause(trouble: &Trouble) -> &'static Kind {
    let text = trouble.message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    match trouble.error.as_str() {
        "PolicyDenied" => return &PULL_POLICY,
        "NotFound" => return &PULL_MISSING,
        _ => {}
    }
    if has(&["429", "too many requests", "rate limit", "asks to come back"]) {
        &PULL_RATE
    } else if has(&["proxy"]) {
        &PULL_PROXY
    } else if has(&["certificate", "is not trusted", "tls"]) {
        &PULL_TLS
    } else if has(&["lookup address", "name or service not known", "dns", "name resolution", "no such host"]) {
        &PULL_DNS
    } else if trouble.error == "PermissionDenied" || has(&["401", "403", "unauthorized", "credentials"]) {
        &PULL_AUTH
    } else if has(&["registryunavailable", "cannot be reached", "stalled", "broke off"]) {
        &PULL_UNREACHABLE
    } else {
        &PULL_OTHER
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
        let cases = [
            ("Unknown", "RegistryUnavailable: registry r.example answered 429 Too Many Requests", "pull-rate-limit"),
            ("Unknown", "RegistryUnavailable: registry r.example asks to come back after 60 s", "pull-rate-limit"),
            ("Unknown", "RegistryUnavailable: registry r.example is not trusted: invalid peer certificate", "pull-tls"),
            (
                "Unknown",
                "RegistryUnavailable: registry r.example cannot be reached: failed to lookup address information",
                "pull-dns",
            ),
            ("Unknown", "RegistryUnavailable: registry r.example: the proxy p:3128 refused the tunnel", "pull-proxy"),
            (
                "Unknown",
                "RegistryUnavailable: registry r.example cannot be reached: Connection refused",
                "pull-unreachable",
            ),
            (
                "PermissionDenied",
                "registry r.example refuses access to repository app: insufficient scope",
                "pull-auth",
            ),
            ("NotFound", "manifest v9 of r.example/app not found", "pull-not-found"),
            ("PolicyDenied", "policy deny-some", "pull-denied"),
            ("ResourceExhausted", "layer is larger than the limit", "pull-failed"),
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
