//! Times of objects: RFC 3339 there, Unix seconds in plans. Must not: read the clock.
use jiff::Timestamp;

/// As objects have it, in UTC.
pub fn text(seconds: u64) -> String {
    i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok()).unwrap_or_default().to_string()
}

/// Of a text; `None` if it is none, or before 1970.
pub fn seconds(text: &str) -> Option<u64> {
    u64::try_from(text.parse::<Timestamp>().ok()?.as_second()).ok()
}

/// Of a text that may not be there.
pub fn of(text: Option<&String>) -> Option<u64> {
    seconds(text?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        assert_eq!(text(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(seconds("2023-11-14T22:13:20.5Z"), Some(1_700_000_000));
        assert_eq!(seconds("yesterday"), None);
    }
}
