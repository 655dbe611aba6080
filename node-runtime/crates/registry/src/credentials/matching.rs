//! Which images an entry of credentials is for.
//!
//! Owns: the patterns. Must not: know where entries come from.
//! Source: the kubelet's `matchImages` (CredentialProviderConfig, KEP-2133): `*` within a part of the host's name and never
//! across dots, the same number of parts, equal ports, and a path that the image's begins with.
use super::host_and_path;
use crate::endpoint::without_port;

/// Whether `pattern` means `image` (`host[:port]/path`).
pub fn matches_image(pattern: &str, image: &str) -> bool {
    let ((glob, prefix), (host, path)) = (host_and_path(pattern), host_and_image(image));
    let (glob_name, name) = (without_port(&glob), without_port(&host));
    if glob[glob_name.len()..] != host[name.len()..] || !path.starts_with(&prefix) {
        return false;
    }
    if glob_name.starts_with('[') || name.starts_with('[') {
        return glob_name == name;
    }
    let (parts, wanted): (Vec<&str>, Vec<&str>) = (glob_name.split('.').collect(), name.split('.').collect());
    parts.len() == wanted.len() && parts.iter().zip(&wanted).all(|(glob, part)| part_matches(glob, part))
}

/// An image's path may begin with `v1` or `v2`, where a pattern's cannot.
fn host_and_image(image: &str) -> (String, &str) {
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    (crate::endpoint::registry_of(host), path)
}

/// `*` is any number of characters. Linear: after each star the first fit is taken, which is enough for a pattern with stars only.
fn part_matches(glob: &str, part: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else { return glob == part };
    let Some(mut left) = part.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = rest.split('*').collect();
    for (i, piece) in pieces.iter().enumerate() {
        if i + 1 == pieces.len() {
            return left.ends_with(piece);
        }
        match left.find(piece) {
            Some(at) => left = &left[at + piece.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_mean_what_the_kubelet_says() {
        let cases = [
            ("123456789.dkr.ecr.us-east-1.amazonaws.com", "123456789.dkr.ecr.us-east-1.amazonaws.com/app", true),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-1.amazonaws.com/a/b", true),
            ("*.dkr.ecr.*.amazonaws.com", "1.2.dkr.ecr.eu-1.amazonaws.com/a", false),
            ("*.azurecr.io", "azurecr.io/a", false),
            ("gcr.io", "gcr.io/project/app", true),
            ("gcr.io", "eu.gcr.io/project/app", false),
            ("*.*.registry.io", "a.b.registry.io/x", true),
            ("registry.io:8080/path", "registry.io:8080/path/app", true),
            ("registry.io:8080/path", "registry.io:8080/other", false),
            ("registry.io", "registry.io:8080/app", false),
            ("registry.io:8080", "registry.io/app", false),
            ("app*.k8s.io", "application.k8s.io/x", true),
            ("a*b*c.io", "aXbYc.io/x", true),
            ("a*b*c.io", "aXc.io/x", false),
            ("*", "localhost/x", true),
            ("*", "a.b/x", false),
            ("https://index.docker.io/v1/", "docker.io/library/app", true),
            ("docker.io", "docker.io/library/app", true),
            ("https://r.io/v2/", "r.io/x", true),
            ("r.io", "r.io/v2/x", true),
            ("[::1]:5000", "[::1]:5000/x", true),
        ];
        for (pattern, image, expected) in cases {
            assert_eq!(matches_image(pattern, image), expected, "{pattern} {image}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_survived(pattern in "\\PC{0,40}", image in "\\PC{0,40}") {
            matches_image(&pattern, &image);
        }

        #[test]
        fn a_star_is_anything(part in "[a-z]{0,8}", before in "[a-z]{0,3}", after in "[a-z]{0,3}") {
            let whole = format!("{before}{part}{after}");
            let glob = format!("{before}*{after}");
            prop_assert!(part_matches(&glob, &whole));
        }
    }
}
