//! `$(NAME)` in commands, arguments and environment, as a kubelet expands it: a name that is not known stays as written, and
//! `$$` is a `$` that begins nothing.
use std::collections::BTreeMap;

/// Expands one text.
pub fn expand(text: &str, known: &BTreeMap<&str, &str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
            continue;
        }
        let Some((name, next)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) else {
            out.push('$');
            rest = after;
            continue;
        };
        match known.get(name) {
            Some(value) => out.push_str(value),
            None => out.push_str(&rest[at..rest.len() - next.len()]),
        }
        rest = next;
    }
    out.push_str(rest);
    out
}

/// Expands an environment: each value may name those before it.
pub fn environment(variables: &[(String, String)]) -> Vec<(String, String)> {
    let mut done: Vec<(String, String)> = Vec::with_capacity(variables.len());
    for (name, value) in variables {
        let value = expand(value, &known(&done));
        done.push((name.clone(), value));
    }
    done
}

/// What names stand for; a later one of the same name wins.
pub fn known(variables: &[(String, String)]) -> BTreeMap<&str, &str> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_are_replaced() {
        let known = BTreeMap::from([("A", "1"), ("B", "$(A)")]);
        let table = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(NOPE)", "$(NOPE)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("$(B)", "$(A)"),
            ("$()", "$()"),
            ("ä$(A)ö", "ä1ö"),
        ];
        for (text, wanted) in table {
            assert_eq!(expand(text, &known), wanted, "{text}");
        }
    }

    #[test]
    fn variables_see_those_before_them() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let done = environment(&[pair("A", "$(B)"), pair("B", "2"), pair("C", "$(B)$(A)"), pair("B", "$(B)!")]);
        assert_eq!(done, [pair("A", "$(B)"), pair("B", "2"), pair("C", "2$(B)"), pair("B", "2!")]);
    }
}
