//! Whether an answer is the one that a page shows. A line `…` stands for any number of lines; `…` within a line for any text; runs of
//! blanks count as one, as columns are as wide as what is in them.

/// Error: the first line of the page that has no line of the answer, or the first line of the answer that the page does not show.
pub fn fits(expected: &[String], answer: &str) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    let clean = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted: Vec<String> = expected.iter().map(|line| clean(line)).filter(|line| !line.is_empty()).collect();
    let found: Vec<String> = answer.lines().map(clean).filter(|line| !line.is_empty()).collect();
    matches(&wanted, &found)
}

fn matches(wanted: &[String], found: &[String]) -> Result<(), String> {
    let Some((first, rest)) = wanted.split_first() else {
        return found.first().map_or(Ok(()), |line| Err(format!("the page does not show: {line}")));
    };
    if first == "…" {
        if rest.is_empty() {
            return Ok(());
        }
        // The error of the nearest try names what is missing.
        let mut tries = (0..=found.len()).map(|skipped| matches(rest, &found[skipped..]));
        let nearest = tries.next().unwrap_or(Ok(()));
        return if nearest.is_ok() || tries.any(|ended| ended.is_ok()) {
            Ok(())
        } else {
            Err(format!("nowhere: {}", rest[0]))
        };
    }
    match found.split_first() {
        Some((line, others)) if line_fits(first, line) => matches(rest, others),
        Some((line, _)) => Err(format!("the page has:   {first}\nthe machine has: {line}")),
        None => Err(format!("the answer ends before: {first}")),
    }
}

fn line_fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn gaps_stand_for_anything_and_blanks_for_columns() {
    let page = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let machine = "POD   STATE\nweb     Running   3s\nlast\n";
    for good in ["POD STATE\nweb Running …\nlast", "…\nlast", "POD …\n…", "…\nw…b … …s\n…", ""] {
        assert_eq!(fits(&page(good), machine), Ok(()), "{good}");
    }
    for bad in ["POD STATE", "web Running …\nlast", "…\nlost", "POD STATE\nweb … 4s\nlast", "POD STATE\n…\nlast\nmore"]
    {
        assert!(fits(&page(bad), machine).is_err(), "{bad}");
    }
}
