//! Tokens to a tree.
use super::lex::{Piece, Token};
use anyhow::{Result, bail};
use std::collections::VecDeque;

/// Deepest nesting of blocks and of parentheses.
const MAX_DEPTH: usize = 32;

/// A part of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Text(String),
    /// Its value is written; with a name it is kept instead.
    Show(Option<String>, Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range {
        names: Vec<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// Commands, each of which gets the value of the one before as its last argument.
pub type Pipeline = Vec<Command>;

/// A word or value, and its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub head: Operand,
    pub arguments: Vec<Operand>,
}

/// A value to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Function(String),
    Text(String),
    Number(f64),
    Bool(bool),
    Nil,
    Group(Pipeline, Vec<String>),
}

impl Node {
    /// The first field that an action shows.
    pub fn first_field(&self) -> Option<String> {
        let Self::Show(None, pipeline) = self else { return None };
        let operands = pipeline.iter().flat_map(|c| std::iter::once(&c.head).chain(&c.arguments));
        operands.into_iter().find_map(|operand| match operand {
            Operand::Field(names) => names.first().cloned(),
            _ => None,
        })
    }
}

/// How a block has ended.
#[derive(PartialEq)]
enum End {
    Template,
    /// With `end`.
    Keyword,
    /// What follows `else`.
    Else(VecDeque<Token>),
}

/// The whole template.
pub fn nodes(pieces: Vec<Piece>) -> Result<Vec<Node>> {
    match block(&mut pieces.into(), 0)? {
        (nodes, End::Template) => Ok(nodes),
        (_, End::Keyword) => bail!("{{{{end}}}} without if, range or with"),
        (_, End::Else(_)) => bail!("{{{{else}}}} without if, range or with"),
    }
}

fn block(pieces: &mut VecDeque<Piece>, depth: usize) -> Result<(Vec<Node>, End)> {
    if depth > MAX_DEPTH {
        bail!("blocks are nested deeper than {MAX_DEPTH}");
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.pop_front() {
        let mut tokens: VecDeque<Token> = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens.into(),
        };
        let word = match tokens.front() {
            None => bail!("an action is empty"),
            Some(Token::Word(word)) => word.clone(),
            Some(_) => String::new(),
        };
        match word.as_str() {
            "end" => return Ok((nodes, End::Keyword)),
            "else" => {
                tokens.pop_front();
                return Ok((nodes, End::Else(tokens)));
            }
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "if" | "with" | "range" => {
                tokens.pop_front();
                nodes.push(compound(&word, tokens, pieces, depth)?);
            }
            _ => {
                let name = match declared(&mut tokens)?.as_slice() {
                    [] => None,
                    [name] => Some(name.clone()),
                    _ => bail!("only range declares two variables"),
                };
                nodes.push(Node::Show(name, whole(tokens)?));
            }
        }
    }
    Ok((nodes, End::Template))
}

fn compound(word: &str, mut head: VecDeque<Token>, pieces: &mut VecDeque<Piece>, depth: usize) -> Result<Node> {
    let names = if word == "range" { declared(&mut head)? } else { Vec::new() };
    let pipeline = whole(head)?;
    let (body, end) = block(pieces, depth + 1)?;
    let otherwise = match end {
        End::Template => bail!("{word} is not closed by {{{{end}}}}"),
        End::Keyword => Vec::new(),
        End::Else(mut rest) => match rest.pop_front() {
            None => match block(pieces, depth + 1)? {
                (nodes, End::Keyword) => nodes,
                (_, End::Else(_)) => bail!("{word} has two {{{{else}}}}"),
                (_, End::Template) => bail!("{word} is not closed by {{{{end}}}}"),
            },
            // `else if` closes with the same end.
            Some(Token::Word(next)) if next == word && word != "range" => {
                vec![compound(word, rest, pieces, depth + 1)?]
            }
            Some(_) => bail!("after else comes nothing, or {word}"),
        },
    };
    Ok(match word {
        "if" => Node::If(pipeline, body, otherwise),
        "with" => Node::With(pipeline, body, otherwise),
        _ => Node::Range { names, over: pipeline, body, otherwise },
    })
}

/// The names before `:=`.
fn declared(tokens: &mut VecDeque<Token>) -> Result<Vec<String>> {
    let Some(at) = tokens.iter().position(|t| *t == Token::Assign) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for token in tokens.drain(..=at) {
        match token {
            Token::Variable(name, fields) if fields.is_empty() && !name.is_empty() => names.push(name),
            Token::Comma | Token::Assign => {}
            _ => bail!("before := stand $variables"),
        }
    }
    if names.is_empty() || names.len() > 2 {
        bail!("before := stand one or two $variables");
    }
    Ok(names)
}

fn whole(mut tokens: VecDeque<Token>) -> Result<Pipeline> {
    let parsed = pipeline(&mut tokens, 0)?;
    match tokens.pop_front() {
        None => Ok(parsed),
        Some(Token::Close(_)) => bail!("a parenthesis is closed that was not opened"),
        Some(_) => bail!("an action goes on after its end"),
    }
}

fn pipeline(tokens: &mut VecDeque<Token>, depth: usize) -> Result<Pipeline> {
    if depth > MAX_DEPTH {
        bail!("parentheses are nested deeper than {MAX_DEPTH}");
    }
    let mut commands = vec![command(tokens, depth)?];
    while tokens.front() == Some(&Token::Pipe) {
        tokens.pop_front();
        commands.push(command(tokens, depth)?);
    }
    Ok(commands)
}

fn command(tokens: &mut VecDeque<Token>, depth: usize) -> Result<Command> {
    let mut operands = Vec::new();
    while let Some(token) = tokens.front() {
        if matches!(token, Token::Pipe | Token::Close(_)) {
            break;
        }
        if let Some(token) = tokens.pop_front() {
            operands.push(operand(token, tokens, depth)?);
        }
    }
    let mut operands = operands.into_iter();
    match operands.next() {
        Some(head) => Ok(Command { head, arguments: operands.collect() }),
        None => bail!("beside a pipe or in a parenthesis something is missing"),
    }
}

fn operand(token: Token, tokens: &mut VecDeque<Token>, depth: usize) -> Result<Operand> {
    Ok(match token {
        Token::Field(names) => Operand::Field(names),
        Token::Variable(name, names) => Operand::Variable(name, names),
        Token::Text(text) => Operand::Text(text),
        Token::Number(value) => Operand::Number(value),
        Token::Word(word) => match word.as_str() {
            "true" => Operand::Bool(true),
            "false" => Operand::Bool(false),
            "nil" => Operand::Nil,
            _ => Operand::Function(word),
        },
        Token::Open => {
            let inside = pipeline(tokens, depth + 1)?;
            match tokens.pop_front() {
                Some(Token::Close(names)) => Operand::Group(inside, names),
                _ => bail!("a parenthesis is not closed"),
            }
        }
        Token::Pipe | Token::Assign | Token::Comma | Token::Close(_) => {
            bail!("an action has a sign where a value is expected")
        }
    })
}
