//! `Content-Range` (RFC 9110, 14.4) and the next page in `Link` (RFC 8288): what a partial answer says of itself.
//!
//! Owns: parsing. Must not: decide whether it is what was asked for.

/// Longest header that is read.
const MAX_HEADER: usize = 8192;

/// First byte, last byte, and the length of the whole where it is said. `None` for anything else.
pub fn parse_content_range(header: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    (first <= last && total.is_none_or(|t| last < t)).then_some((first, last, total))
}

/// The target of `rel="next"`.
pub fn parse_next_link(header: &str) -> Option<&str> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let mut rest = header;
    while let Some(start) = rest.find('<') {
        let (target, after) = rest[start + 1..].split_once('>')?;
        let end = after.find('<').unwrap_or(after.len());
        let next = after[..end].split([';', ',']).any(|parameter| {
            let Some((name, value)) = parameter.split_once('=') else { return false };
            let is_next = value.trim().trim_matches('"').split(' ').any(|v| v.eq_ignore_ascii_case("next"));
            name.trim().eq_ignore_ascii_case("rel") && is_next
        });
        if next {
            return Some(target);
        }
        rest = &after[end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        assert_eq!(parse_content_range("bytes 0-9/10"), Some((0, 9, Some(10))));
        assert_eq!(parse_content_range("bytes 5-5/*"), Some((5, 5, None)));
        for bad in [
            "",
            "bytes */10",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes +1-2/10",
            "items 0-1/2",
            "bytes 0-9",
            "bytes -1-2/3",
        ] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn links() {
        assert_eq!(parse_next_link(r#"</v2/a/tags/list?last=b&n=5>; rel="next""#), Some("/v2/a/tags/list?last=b&n=5"));
        assert_eq!(parse_next_link(r#"<a>; rel=prev, <b>; title="x"; rel="last next""#), Some("b"));
        for none in ["", "<", "<a", "<a>", "<a>; rel=prev", "rel=next"] {
            assert_eq!(parse_next_link(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_header_ends(header in "[ -~]{0,80}") {
            let _ = (parse_content_range(&header), parse_next_link(&header));
        }
    }
}
