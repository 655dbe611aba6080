//! A look at a document before its types are: how much it is, how deep, whether a key stands twice, and where a field stands.
//!
//! Nothing is kept of what is read, so that a text whose aliases multiply costs time up to the limit and no memory. Must not: know
//! fields.
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

/// Most values, keys included, aliases expanded.
const MAX_NODES: usize = 100_000;
/// Deepest nesting; ours need six.
pub(crate) const MAX_DEPTH: usize = 32;

/// Errors: the YAML library's, with line and column; too much, too deep, a key twice, a key that is no string, a tag.
pub(crate) fn check(text: &str) -> Result<(), serde_yaml::Error> {
    let nodes = Cell::new(0);
    Node { nodes: &nodes, depth: 0 }.deserialize(serde_yaml::Deserializer::from_str(text))
}

#[derive(Clone, Copy)]
struct Node<'a> {
    nodes: &'a Cell<usize>,
    depth: usize,
}

impl Node<'_> {
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        self.nodes.set(self.nodes.get() + 1);
        if self.nodes.get() > MAX_NODES {
            return Err(E::custom(format_args!(
                "more than {MAX_NODES} values, aliases counted as often as they are used"
            )));
        }
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn inner(&self) -> Self {
        Self { depth: self.depth + 1, ..*self }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_i128<E>(self, _: i128) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u128<E>(self, _: u128) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            self.count()?;
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
            }
            keys.insert(key);
            map.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}

/// Line and column of a field, by a path such as `spec.registries[0].host`; that of the nearest field above it that is there.
pub(crate) fn locate(text: &str, path: &str) -> Option<(usize, usize)> {
    let steps: Vec<Step<'_>> = path.split('.').flat_map(steps).collect();
    // What is asked for answers with an error, because only errors carry a place.
    let found = Seek { steps: &steps }.deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let place = found.location()?;
    Some((place.line(), place.column()))
}

#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Key(&'a str),
    Entry(usize),
}

fn steps(part: &str) -> Vec<Step<'_>> {
    let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
    let mut steps = vec![Step::Key(name)];
    while let Some((number, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
        match number.parse() {
            Ok(number) => steps.push(Step::Entry(number)),
            Err(_) => break,
        }
        rest = after;
    }
    steps
}

struct Seek<'a> {
    steps: &'a [Step<'a>],
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    /// Scalars come here: the library makes an error of them that has their place.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Entry(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Err(A::Error::custom("here"));
            }
        }
        list.next_element_seed(Seek { steps: rest })?;
        Err(A::Error::custom("here"))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted {
                map.next_value_seed(Seek { steps: rest })?;
                return Err(A::Error::custom("here"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Err(A::Error::custom("here"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bombs_end_at_the_limit() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let one = format!("*a{}", n - 1);
            text += &format!("a{n}: &a{n} [{}]\n", vec![one; 10].join(", "));
        }
        let message = check(&text).unwrap_err().to_string();
        assert!(message.contains("more than 100000 values") || message.contains("repetition limit"), "{message}");
    }

    #[test]
    fn twice_tagged_and_odd_keys_are_refused_and_aliases_are_not() {
        for (bad, why) in [("a: 1\nb: {c: 1, c: 2}", "stands twice"), ("a: !x y", "tag"), ("{a: 1}: 2", "string")] {
            let message = check(bad).unwrap_err().to_string();
            assert!(message.contains(why), "{bad:?}: {message}");
        }
        assert!(check("a: &x [1, 2]\nb: *x\nc: ~\nd: 1.5\ne: -3").is_ok());
        assert!(check("").is_ok());
    }

    #[test]
    fn fields_are_found() {
        let text = "\n\nspec:\n  list:\n  - a: 1\n  - a: 2\n    b: {c: 3}\n  x: y\n";
        assert_eq!(locate(text, "spec.x"), Some((8, 6)));
        assert_eq!(locate(text, "spec.list[1].b.c"), Some((7, 12)));
        assert_eq!(locate(text, "spec.list[1].missing").map(|p| p.0), Some(6), "the nearest there is");
    }
}
