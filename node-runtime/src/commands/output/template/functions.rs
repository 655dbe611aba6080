//! The functions of templates: Go's own and docker's, as docker documents them ("Format command and log output").
use anyhow::{Result, bail};
use serde_json::{Number, Value};
use std::cmp::Ordering;

/// Calls one.
pub fn call(name: &str, arguments: Vec<Value>) -> Result<Value> {
    Ok(match (name, arguments.as_slice()) {
        ("json", [value]) => Value::String(serde_json::to_string(value)?),
        ("upper", [value]) => Value::String(shown(value).to_uppercase()),
        ("lower", [value]) => Value::String(shown(value).to_lowercase()),
        ("title", [value]) => Value::String(title(&shown(value))),
        ("println", values) => Value::String(format!("{}\n", spaced(values))),
        ("print", values) => Value::String(values.iter().map(shown).collect()),
        ("printf", [Value::String(format), values @ ..]) => Value::String(printf(format, values)),
        ("len", [value]) => length(value)?.into(),
        ("join", [Value::Array(list), Value::String(between)]) => {
            Value::String(list.iter().map(shown).collect::<Vec<_>>().join(between))
        }
        ("split", [Value::String(text), Value::String(at)]) => {
            text.split(at.as_str()).map(|part| Value::String(part.to_owned())).collect()
        }
        // The length first is what a pipe makes of it.
        ("truncate", [Value::Number(n), text] | [text, Value::Number(n)]) => {
            let keep = n.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            Value::String(shown(text).chars().take(keep).collect())
        }
        ("pad", [text, Value::Number(before), Value::Number(after)]) => {
            let spaces = |n: &Number| " ".repeat(n.as_u64().unwrap_or(0).min(256) as usize);
            Value::String(format!("{}{}{}", spaces(before), shown(text), spaces(after)))
        }
        ("index", [value, keys @ ..]) => index(value, keys)?,
        ("eq", [value, others @ ..]) if !others.is_empty() => Value::Bool(others.iter().any(|o| equal(value, o))),
        ("ne", [a, b]) => Value::Bool(!equal(a, b)),
        ("lt", [a, b]) => Value::Bool(order(a, b)? == Ordering::Less),
        ("le", [a, b]) => Value::Bool(order(a, b)? != Ordering::Greater),
        ("gt", [a, b]) => Value::Bool(order(a, b)? == Ordering::Greater),
        ("ge", [a, b]) => Value::Bool(order(a, b)? != Ordering::Less),
        ("not", [value]) => Value::Bool(!truth(value)),
        ("and", [.., last]) => arguments.iter().find(|v| !truth(v)).unwrap_or(last).clone(),
        ("or", [.., last]) => arguments.iter().find(|v| truth(v)).unwrap_or(last).clone(),
        (known, _) if FUNCTIONS.contains(&known) => bail!("{known} does not take these arguments"),
        _ => bail!("there is no function {name:?}; there are {}", FUNCTIONS.join(", ")),
    })
}

const FUNCTIONS: &[&str] = &[
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad", "print",
    "printf", "println", "split", "title", "truncate", "upper",
];

/// A value as Go writes it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", spaced(list)),
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().map(|(k, v)| format!("{k}:{}", shown(v))).collect();
            fields.sort();
            format!("map[{}]", fields.join(" "))
        }
    }
}

fn spaced(values: &[Value]) -> String {
    values.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// What `if` takes for true: all but zero, false, nothing and the empty.
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

/// A whole number as such.
pub fn number(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn length(value: &Value) -> Result<usize> {
    Ok(match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        Value::Object(object) => object.len(),
        Value::Null => 0,
        _ => bail!("len takes a text, a list or a map"),
    })
}

fn index(value: &Value, keys: &[Value]) -> Result<Value> {
    let mut value = value;
    for key in keys {
        value = match (value, key) {
            (Value::Object(object), Value::String(key)) => object.get(key).unwrap_or(&Value::Null),
            (Value::Array(list), Value::Number(n)) => {
                let at = n.as_u64().and_then(|n| usize::try_from(n).ok());
                match at.and_then(|at| list.get(at)) {
                    Some(found) => found,
                    None => bail!("index {n} is out of a list of {}", list.len()),
                }
            }
            (Value::Null, _) => &Value::Null,
            _ => bail!("index takes a map and strings, or a list and numbers"),
        };
    }
    Ok(value.clone())
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering> {
    let order = match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    };
    match order {
        Some(order) => Ok(order),
        None => bail!("only numbers with numbers and texts with texts are compared"),
    }
}

/// `%s`, `%v` and `%d` are the value, `%q` the value in quotes; what is missing stays as written.
fn printf(format: &str, values: &[Value]) -> String {
    let (mut out, mut values, mut chars) = (String::new(), values.iter(), format.chars());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(verb @ ('s' | 'v' | 'd' | 'q')) => match (values.next(), verb) {
                (Some(value), 'q') => out.push_str(&format!("{:?}", shown(value))),
                (Some(value), _) => out.push_str(&shown(value)),
                (None, _) => out.extend(['%', verb]),
            },
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}
