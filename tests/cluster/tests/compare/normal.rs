//! Answers without what differs by accident: addresses, ids, times. Must not: hide what a user would see as different.

/// The answer's normal form, a line each.
pub fn form(answer: &str) -> Vec<String> {
    answer
        .lines()
        .map(|line| line.split_inclusive(is_edge).map(word).collect::<String>().trim_end().to_owned())
        .collect()
}

fn is_edge(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'))
}

/// One word with what ends it.
fn word(text: &str) -> String {
    let end = text.chars().next_back().filter(|c| is_edge(*c)).map_or(0, char::len_utf8);
    let (word, edge) = text.split_at(text.len() - end);
    let name = if word.starts_with("10.88.0.") {
        "POD-ADDRESS"
    } else if word.starts_with("10.96.") {
        "SERVICE-ADDRESS"
    } else if word.starts_with("berth-cl-") {
        "NODE"
    } else if is_long_number(word, 30) {
        "ID"
    } else if is_time(word) {
        "TIME"
    } else {
        word
    };
    format!("{name}{edge}")
}

/// Hexadecimal digits and dashes: ids of containers and of objects, digests.
fn is_long_number(word: &str, least: usize) -> bool {
    word.len() >= least && word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// RFC 3339.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[bytes.len() - 1] == b'Z'
}

/// Lines that only one side has.
pub fn difference(berth: &[String], containerd: &[String]) -> String {
    let only = |side: &[String], other: &[String], sign: &str| -> String {
        let lines = side.iter().filter(|line| !other.contains(line));
        lines.map(|line| format!("       {sign} {line}\n")).collect()
    };
    let text = only(berth, containerd, "berth     ") + &only(containerd, berth, "containerd");
    if text.is_empty() { "       the same lines in another order or number".into() } else { text.trim_end().to_owned() }
}
