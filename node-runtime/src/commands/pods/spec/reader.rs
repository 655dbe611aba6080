//! Reads an object field by field and refuses what is left: every problem is told with the field's full path, all at once.
//!
//! Must not: know what the fields mean.
use berth_model::Quantity;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Most problems that are told of one document.
const MAX_PROBLEMS: usize = 50;

/// What is wrong with a document.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<String>>);

impl Problems {
    /// Adds one: `path: problem`.
    pub fn add(&self, path: &str, problem: impl std::fmt::Display) {
        let mut all = self.0.borrow_mut();
        if all.len() < MAX_PROBLEMS {
            all.push(format!("{path}: {problem}"));
        }
    }

    /// All of them, in the order in which they were found.
    pub fn into_inner(self) -> Vec<String> {
        self.0.into_inner()
    }
}

/// An object whose fields are taken out one by one; `null` is absent, as it is for the API server.
pub struct Object<'a> {
    path: String,
    fields: &'a Map<String, Value>,
    taken: BTreeSet<&'static str>,
    /// Fields that Kubernetes knows here and that are not honoured.
    unsupported: &'static [&'static str],
    problems: &'a Problems,
}

impl<'a> Object<'a> {
    /// The object at `path`; `None`, with a problem told, if the value is none.
    pub fn new(
        path: String,
        value: &'a Value,
        unsupported: &'static [&'static str],
        problems: &'a Problems,
    ) -> Option<Self> {
        match value {
            Value::Object(fields) => Some(Self { path, fields, taken: BTreeSet::new(), unsupported, problems }),
            _ => {
                problems.add(if path.is_empty() { "document" } else { &path }, "must be an object");
                None
            }
        }
    }

    /// Full path of a field of this object.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Tells a problem of a field.
    pub fn refuse(&self, name: &str, problem: impl std::fmt::Display) {
        self.problems.add(&self.at(name), problem);
    }

    /// The field's value, if it is there.
    pub fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        self.taken.insert(name);
        self.fields.get(name).filter(|v| !v.is_null())
    }

    fn typed<T>(&mut self, name: &'static str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.take(name)?;
        let read = read(value);
        if read.is_none() {
            self.refuse(name, format!("must be {kind}"));
        }
        read
    }

    /// A text.
    pub fn string(&mut self, name: &'static str) -> Option<String> {
        self.typed(name, "a string", |v| v.as_str().map(str::to_owned))
    }

    /// A text that must be there and not be empty.
    pub fn required(&mut self, name: &'static str) -> String {
        match self.string(name) {
            Some(text) if !text.is_empty() => text,
            Some(_) => {
                self.refuse(name, "must not be empty");
                String::new()
            }
            None => {
                if self.take(name).is_none() {
                    self.refuse(name, "is required");
                }
                String::new()
            }
        }
    }

    /// One of some words, as the value beside it.
    pub fn word<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(name, format!("{text:?} is not supported by berth run; it can be {}", known.join(", ")));
        }
        found
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.typed(name, "true or false", Value::as_bool)
    }

    /// A whole number from `least` to `most`.
    pub fn integer(&mut self, name: &'static str, least: i64, most: i64) -> Option<i64> {
        let number = self.typed(name, "a whole number", Value::as_i64)?;
        if !(least..=most).contains(&number) {
            self.refuse(name, format!("must be from {least} to {most}"));
            return None;
        }
        Some(number)
    }

    /// A list of texts.
    pub fn strings(&mut self, name: &'static str) -> Vec<String> {
        let read = |v: &Value| v.as_array()?.iter().map(|s| s.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
        self.typed(name, "a list of strings", read).unwrap_or_default()
    }

    /// A map of texts.
    pub fn map(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let read = |v: &Value| {
            let fields = v.as_object()?.iter();
            fields.map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect::<Option<BTreeMap<_, _>>>()
        };
        self.typed(name, "a map of strings; put numbers and booleans in quotes", read).unwrap_or_default()
    }

    /// A quantity, written as a text or as a number.
    pub fn quantity(&mut self, name: &'static str) -> Option<Quantity> {
        let text = match self.take(name)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => {
                self.refuse(name, "must be a quantity, such as 500m or 128Mi");
                return None;
            }
        };
        Quantity::parse(&text).map_err(|e| self.refuse(name, format!("{text:?} {e}"))).ok()
    }

    /// An object inside.
    pub fn object(&mut self, name: &'static str, unsupported: &'static [&'static str]) -> Option<Object<'a>> {
        let value = self.take(name)?;
        Object::new(self.at(name), value, unsupported, self.problems)
    }

    /// A list of objects, each read by `read`.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        unsupported: &'static [&'static str],
        mut read: impl FnMut(Object<'a>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Some(list) = value.as_array() else {
            self.refuse(name, "must be a list");
            return Vec::new();
        };
        let entries = list.iter().enumerate();
        let objects =
            entries.filter_map(|(i, v)| Object::new(format!("{}[{i}]", self.at(name)), v, unsupported, self.problems));
        objects.map(&mut read).collect()
    }

    /// Refuses what nobody has taken.
    pub fn finish(self) {
        for (name, value) in self.fields {
            if self.taken.contains(name.as_str()) || value.is_null() {
                continue;
            }
            let known = self.unsupported.contains(&name.as_str());
            self.refuse(name, if known { "berth run does not support it" } else { "is no field of a Pod" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wrong_types_and_leftovers_are_told_by_path() {
        let value = json!({
            "text": 1, "flag": "yes", "number": 3.5, "many": ["a", 1], "map": {"a": true}, "size": "1K",
            "inner": [{"probe": {}, "tyop": 1, "gone": null}, 5], "word": "C", "empty": "",
        });
        let problems = Problems::default();
        let mut o = Object::new("spec".into(), &value, &[], &problems).unwrap();
        assert_eq!((o.string("text"), o.boolean("flag"), o.integer("number", 0, 9)), (None, None, None));
        assert!(o.strings("many").is_empty() && o.map("map").is_empty() && o.quantity("size").is_none());
        assert_eq!(o.objects("inner", &["probe"], Object::finish).len(), 1);
        assert_eq!(o.word("word", &[("A", 1), ("B", 2)]), None);
        assert_eq!(o.required("empty") + &o.required("absent"), "");
        o.finish();
        let told = problems.into_inner();
        let wanted = [
            "spec.text: must be a string",
            "spec.flag: must be true or false",
            "spec.number: must be a whole number",
            "spec.many: must be a list of strings",
            "spec.map: must be a map of strings; put numbers and booleans in quotes",
            "spec.size: \"1K\" is not a quantity; write it as 500m, 1.5, 128Mi or 1G",
            "spec.inner[1]: must be an object",
            "spec.inner[0].probe: berth run does not support it",
            "spec.inner[0].tyop: is no field of a Pod",
            "spec.word: \"C\" is not supported by berth run; it can be A, B",
            "spec.empty: must not be empty",
            "spec.absent: is required",
        ];
        assert_eq!(told.len(), wanted.len(), "{told:#?}");
        for line in wanted {
            assert!(told.contains(&line.to_owned()), "{line} is missing in {told:#?}");
        }
    }
}
