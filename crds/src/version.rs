//! Which of two versions of the runtime is the newer one. Must not: refuse any text; what is no number is compared as text.
use std::cmp::Ordering;

/// Numbers count as numbers, part by part; a pre-release (`1.0.0-rc.1`) is older than what it precedes (semver.org, 11).
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let split = |text: &str| match text.split_once('-') {
        Some((core, pre)) => (core.to_owned(), Some(pre.to_owned())),
        None => (text.to_owned(), None),
    };
    let ((a, a_pre), (b, b_pre)) = (split(a), split(b));
    parts(&a, &b).then_with(|| match (a_pre, b_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => parts(&a, &b),
    })
}

fn parts(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (one, other) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(one), Some(other)) => (one, other),
        };
        let order = match (one.parse::<u64>(), other.parse::<u64>()) {
            (Ok(one), Ok(other)) => one.cmp(&other),
            _ => one.cmp(other),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_and_newer() {
        for (older, newer) in
            [("0.1.0", "0.2.0"), ("0.9.0", "0.10.0"), ("1.0.0-rc.2", "1.0.0"), ("1.0.0-rc.2", "1.0.0-rc.10")]
        {
            assert_eq!(compare_versions(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare_versions(newer, older), Ordering::Greater);
        }
        assert_eq!(compare_versions("0.1.0", "0.1.0"), Ordering::Equal);
    }
}
