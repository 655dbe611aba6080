//! A tree and its data to text.
use super::Data;
use super::functions::{self, shown, truth};
use super::parse::{Command, Node, Operand, Pipeline};
use crate::commands::names::nearest;
use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Longest result in bytes: what ranges in ranges can make of little data.
const MAX_OUTPUT: usize = 64 << 20;

/// Fills a template in.
pub fn run(nodes: &[Node], data: Data<'_>) -> Result<String> {
    let mut scope = Scope { data, variables: vec![(String::new(), data.root.clone())], out: String::new() };
    scope.nodes(nodes, data.root)?;
    Ok(scope.out)
}

struct Scope<'a> {
    data: Data<'a>,
    /// The innermost last; the nameless one is the root.
    variables: Vec<(String, Value)>,
    out: String,
}

/// How to go on in a range.
#[derive(Clone, Copy, PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow> {
        let known = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Show(None, pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.out.push_str(&shown(&value));
            }
            Node::Show(Some(name), pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If(condition, body, otherwise) => {
                let chosen = if truth(&self.pipeline(condition, dot)?) { body } else { otherwise };
                return self.nodes(chosen, dot);
            }
            Node::With(what, body, otherwise) => {
                let value = self.pipeline(what, dot)?;
                return if truth(&value) { self.nodes(body, &value) } else { self.nodes(otherwise, dot) };
            }
            Node::Range { names, over, body, otherwise } => {
                let items = items(self.pipeline(over, dot)?)?;
                if items.is_empty() {
                    return self.nodes(otherwise, dot);
                }
                self.range(names, items, body)?;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        if self.out.len() > MAX_OUTPUT {
            bail!("the result is longer than {MAX_OUTPUT} bytes");
        }
        Ok(Flow::On)
    }

    fn range(&mut self, names: &[String], items: Vec<(Value, Value)>, body: &[Node]) -> Result<()> {
        let known = self.variables.len();
        for (key, value) in items {
            match names {
                [one] => self.variables.push((one.clone(), value.clone())),
                [first, second] => {
                    self.variables.extend([(first.clone(), key), (second.clone(), value.clone())]);
                }
                _ => {}
            }
            let flow = self.nodes(body, &value)?;
            self.variables.truncate(known);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value> {
        let mut value = None;
        for command in pipeline {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Value::Null))
    }

    fn command(&self, command: &Command, dot: &Value, piped: Option<Value>) -> Result<Value> {
        let mut arguments = Vec::with_capacity(command.arguments.len() + 1);
        for argument in &command.arguments {
            arguments.push(self.operand(argument, dot)?);
        }
        arguments.extend(piped);
        match &command.head {
            Operand::Function(name) => functions::call(name, arguments),
            Operand::Field(names) if names == &["Label"] && !arguments.is_empty() => match arguments.as_slice() {
                [Value::String(key)] => Ok(self.data.labels.get(key).cloned().unwrap_or(Value::String(String::new()))),
                _ => bail!(".Label takes one string"),
            },
            head if arguments.is_empty() => self.operand(head, dot),
            _ => bail!("a value that is no function has arguments"),
        }
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value> {
        Ok(match operand {
            Operand::Field(names) => self.fields(dot, names)?,
            Operand::Variable(name, names) => {
                let Some((_, value)) = self.variables.iter().rev().find(|(known, _)| known == name) else {
                    bail!("there is no variable ${name}");
                };
                self.fields(value, names)?
            }
            Operand::Function(name) => functions::call(name, Vec::new())?,
            Operand::Text(text) => Value::String(text.clone()),
            Operand::Number(number) => functions::number(*number),
            Operand::Bool(value) => Value::Bool(*value),
            Operand::Nil => Value::Null,
            Operand::Group(pipeline, names) => self.fields(&self.pipeline(pipeline, dot)?, names)?,
        })
    }

    fn fields(&self, of: &Value, names: &[String]) -> Result<Value> {
        let mut value = of;
        for name in names {
            value = match value {
                Value::Object(object) => match field(object, name) {
                    Some(found) => found,
                    None if self.data.strict && value == self.data.root => return Err(unknown(object, name)),
                    None => return Ok(Value::Null),
                },
                Value::Null => return Ok(Value::Null),
                _ => bail!(".{name} of something that is no object"),
            };
        }
        Ok(value.clone())
    }
}

/// As written, or else without regard to case: Go's names begin with capitals, those of JSON documents do not.
fn field<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    object.get(name).or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn unknown(object: &Map<String, Value>, name: &str) -> anyhow::Error {
    let mut known: Vec<&str> = object.keys().map(String::as_str).collect();
    known.sort_unstable();
    let all = known.join(", ");
    match nearest(name, known.iter().copied()) {
        Some(near) => anyhow::anyhow!("there is no field {name}; did you mean {near}? There are {all}"),
        None => anyhow::anyhow!("there is no field {name}; there are {all}"),
    }
}

/// Keys and values in their order.
fn items(value: Value) -> Result<Vec<(Value, Value)>> {
    Ok(match value {
        Value::Array(list) => list.into_iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect(),
        Value::Object(object) => {
            let mut items: Vec<_> = object.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            items.into_iter().map(|(k, v)| (Value::String(k), v)).collect()
        }
        Value::Null => Vec::new(),
        _ => bail!("range goes over lists and maps only"),
    })
}
