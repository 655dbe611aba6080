//! `--filter KEY=VALUE`: what a list keeps. As docker has it, values of one key are alternatives and keys must all hold; only
//! labels must all be there. `KEY!=VALUE` turns one round. Pure.
use crate::commands::names::nearest;
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// Most filters of one call.
const MAX_FILTERS: usize = 64;

/// A key that a list can be filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The value is a part of it; `^` and `$` bind it to the beginning and to the end.
    Part,
    /// As `Part`; with `*`, `?` or `[` in it the value is a pattern of all of it, in which these do not stand for `/`.
    Pattern,
    /// The value is the beginning of it.
    Prefix,
    /// The value is it, whatever the case.
    Whole,
    /// `KEY` or `KEY=VALUE` of a map.
    Label,
    /// Not decided by text: the list does it.
    Other,
}

/// The filters of a call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters(Vec<Filter>);

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    key: &'static str,
    how: Match,
    not: bool,
    value: String,
}

/// What a row says to a key.
pub enum Seen<'a> {
    /// Any of these.
    Texts(Vec<&'a str>),
    /// Any of these names, or this id by its beginning.
    Named(Vec<&'a str>, &'a str),
    /// Labels.
    Labels(&'a BTreeMap<String, String>),
}

/// So many characters of an id must be given where a name could be meant: short words like `db` stand in many ids.
const LEAST_ID: usize = 6;

impl Filters {
    /// Reads them. Errors name the key and those that there are.
    pub fn parse(texts: &[String], known: &[(&'static str, Match)]) -> Result<Self> {
        let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        if texts.len() > MAX_FILTERS {
            bail!("--filter: is there {} times, which is more than {MAX_FILTERS}", texts.len());
        }
        let mut filters = Vec::new();
        for text in texts {
            let Some((key, value)) = text.split_once('=') else {
                bail!("--filter {text:?}: must be KEY=VALUE; the keys are {}", names());
            };
            let (key, not) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
            let Some((key, how)) = known.iter().find(|(name, _)| *name == key.trim()) else {
                let hint = nearest(key, known.iter().map(|(n, _)| *n)).map(|n| format!("; did you mean {n}?"));
                bail!(
                    "--filter: there is no key {key:?}{} The keys are {}",
                    hint.unwrap_or_else(|| ".".to_owned()),
                    names()
                );
            };
            if value.is_empty() {
                bail!("--filter {key}: its value is empty");
            }
            if not && *how == Match::Other {
                bail!("--filter {key}: cannot be turned round by !=");
            }
            filters.push(Filter { key, how: *how, not, value: value.to_owned() });
        }
        Ok(Self(filters))
    }

    /// Whether a key is asked for.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|f| f.key == key)
    }

    /// The values of a key, for keys that the list decides on itself.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |f| f.key == key && !f.not).map(|f| f.value.as_str())
    }

    /// Those that must not be.
    pub fn unwanted(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |f| f.key == key && f.not).map(|f| f.value.as_str())
    }

    /// Whether a row is kept. `see` tells what it has for a key.
    pub fn keep<'a>(&self, see: impl Fn(&str) -> Seen<'a>) -> bool {
        let holds = |filter: &Filter| filter.holds(&see(filter.key)) != filter.not;
        self.0.iter().filter(|f| f.how != Match::Other).all(|filter| {
            if filter.not || filter.how == Match::Label {
                return holds(filter);
            }
            self.0.iter().filter(|f| f.key == filter.key && !f.not).any(holds)
        })
    }
}

impl Filter {
    fn holds(&self, seen: &Seen<'_>) -> bool {
        match seen {
            Seen::Texts(texts) => texts.iter().any(|text| self.fits(text)),
            Seen::Named(names, id) => {
                let digits = id.split_once(':').map_or(*id, |(_, digits)| digits);
                let by_id = id.starts_with(&self.value) || digits.starts_with(&self.value);
                names.iter().any(|name| self.fits(name)) || (self.value.len() >= LEAST_ID && by_id)
            }
            Seen::Labels(labels) => match self.value.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|has| has == value),
                None => labels.contains_key(&self.value),
            },
        }
    }

    fn fits(&self, text: &str) -> bool {
        let value = self.value.as_str();
        match self.how {
            Match::Whole => text.eq_ignore_ascii_case(value),
            Match::Prefix => text.starts_with(value),
            Match::Label | Match::Other => false,
            Match::Pattern if value.contains(['*', '?', '[']) => {
                let chars = |text: &str| text.chars().collect::<Vec<_>>();
                glob(&chars(value), &chars(text))
            }
            Match::Part | Match::Pattern => match (value.strip_prefix('^'), value.strip_suffix('$')) {
                (Some(_), Some(_)) => text == &value[1..value.len() - 1],
                (Some(start), None) => text.starts_with(start),
                (None, Some(end)) => text.ends_with(end),
                (None, None) => text.contains(value),
            },
        }
    }
}

/// Whether a text is what a pattern stands for (Go's `path.Match`, which docker has for names of images). A class that does not end
/// matches nothing.
fn glob(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => {
            let most = text.iter().position(|c| *c == '/').unwrap_or(text.len());
            (0..=most).any(|taken| glob(rest, &text[taken..]))
        }
        ['?', rest @ ..] => matches!(text, [c, behind @ ..] if *c != '/' && glob(rest, behind)),
        ['[', rest @ ..] => {
            let Some(end) = rest.iter().position(|c| *c == ']') else { return false };
            let (class, not) = match &rest[..end] {
                ['^', class @ ..] => (class, true),
                class => (class, false),
            };
            matches!(text, [c, behind @ ..] if *c != '/' && in_class(class, *c) != not && glob(&rest[end + 1..], behind))
        }
        [one, rest @ ..] => matches!(text, [c, behind @ ..] if c == one && glob(rest, behind)),
    }
}

/// `abc` and `a-c`.
fn in_class(class: &[char], c: char) -> bool {
    match class {
        [] => false,
        [low, '-', high, rest @ ..] => (*low <= c && c <= *high) || in_class(rest, c),
        [one, rest @ ..] => *one == c || in_class(rest, c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Match)] = &[
        ("name", Match::Part),
        ("id", Match::Prefix),
        ("status", Match::Whole),
        ("label", Match::Label),
        ("x", Match::Other),
    ];

    fn filters(texts: &[&str]) -> Result<Filters> {
        Filters::parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>(), KNOWN)
    }

    #[test]
    fn keys_must_hold_and_values_are_alternatives() {
        let labels: BTreeMap<String, String> =
            [("a", "1"), ("b", "")].into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let keep = |texts: &[&str]| {
            filters(texts).unwrap().keep(|key| match key {
                "name" => Seen::Texts(vec!["web", "default/web"]),
                "id" => Seen::Texts(vec!["0123"]),
                "status" => Seen::Texts(vec!["Running"]),
                _ => Seen::Labels(&labels),
            })
        };
        for good in [
            &[][..],
            &["name=eb"],
            &["name=^web$"],
            &["name=^default"],
            &["name=no", "name=we"],
            &["status=running"],
            &["id=01"],
            &["label=a"],
            &["label=a=1", "label=b"],
            &["name!=db"],
            &["x=y"],
            &["label!=a=2"],
        ] {
            assert!(keep(good), "{good:?}");
        }
        for bad in [
            &["name=no"][..],
            &["name=web", "id=9"],
            &["status=run"],
            &["label=a=2"],
            &["label=a", "label=c"],
            &["name!=web"],
            &["name=web", "name!=eb"],
            &["name=^eb"],
        ] {
            assert!(!keep(bad), "{bad:?}");
        }
    }

    #[test]
    fn patterns_are_of_the_whole_and_stop_at_slashes() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let fits = |pattern: &str, text: &str| glob(&chars(pattern), &chars(text));
        for (pattern, text) in [
            ("busy*:*libc", "busybox:uclibc"),
            ("*", ""),
            ("*/web:?", "team/web:1"),
            ("web:[12]", "web:2"),
            ("web:v[0-9]*", "web:v12"),
            ("web:[^a-z]", "web:1"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("busy*", "x/busybox"),
            ("*", "a/b"),
            ("?", "/"),
            ("web:[12]", "web:3"),
            ("web:[", "web:["),
            ("web", "web:1"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        let filters = |text: &str| Filters::parse(&[text.to_owned()], &[("reference", Match::Pattern)]).unwrap();
        let keeps = |text: &str| filters(text).keep(|_| Seen::Texts(vec!["team/web:1"]));
        assert!(keeps("reference=eb:") && keeps("reference=*/web:1") && !keeps("reference=web:*"));
    }

    #[test]
    fn wrong_ones_are_told() {
        for (text, part) in [
            ("web", "must be KEY=VALUE; the keys are name, id"),
            ("nmae=x", "no key \"nmae\"; did you mean name? The keys are name, id"),
            ("zzzzzz=x", "no key \"zzzzzz\". The keys are"),
            ("name=", "its value is empty"),
        ] {
            let error = filters(&[text]).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(filters(&["name=x"; MAX_FILTERS + 1]).is_err());
        assert_eq!(filters(&["x=1", "x=2"]).unwrap().values("x").collect::<Vec<_>>(), ["1", "2"]);
        let labels = filters(&["label=a", "label!=b=c"]).unwrap();
        assert_eq!(labels.values("label").chain(labels.unwanted("label")).collect::<Vec<_>>(), ["a", "b=c"]);
        assert!(filters(&["x!=1"]).is_err());
    }
}
