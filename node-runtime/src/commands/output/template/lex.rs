//! Texts and actions, and the tokens of an action.
use anyhow::{Result, bail};

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// `.`, or `.a.b` with its names.
    Field(Vec<String>),
    /// `$` or `$x`, with names that follow.
    Variable(String, Vec<String>),
    Word(String),
    Text(String),
    Number(f64),
    Pipe,
    Assign,
    Comma,
    Open,
    /// With the names that follow.
    Close(Vec<String>),
}

/// Splits a template.
pub fn tokens(text: &str) -> Result<Vec<Piece>> {
    let (mut pieces, mut rest, mut trim) = (Vec::new(), text, false);
    loop {
        let Some(at) = rest.find("{{") else {
            push_text(&mut pieces, rest, trim, false);
            return Ok(pieces);
        };
        let (before, after) = rest.split_at(at);
        let after = &after[2..];
        let trims_left = after.starts_with("- ");
        push_text(&mut pieces, before, trim, trims_left);
        let inside = if trims_left { &after[1..] } else { after };
        let (action, next, trims_right) = action(inside)?;
        if let Some(action) = action {
            pieces.push(Piece::Action(action));
        }
        (rest, trim) = (next, trims_right);
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// The tokens up to the end of an action (none of a comment), what follows, and whether its spaces go.
fn action(text: &str) -> Result<(Option<Vec<Token>>, &str, bool)> {
    if let Some(comment) = text.trim_start().strip_prefix("/*") {
        let Some((_, after)) = comment.split_once("*/") else { bail!("a comment is not closed") };
        let after = after.trim_start();
        return match (after.strip_prefix("}}"), after.strip_prefix("-}}")) {
            (Some(next), _) => Ok((None, next, false)),
            (_, Some(next)) => Ok((None, next, true)),
            _ => bail!("a comment must stand alone in its action"),
        };
    }
    let (mut tokens, mut rest) = (Vec::new(), text);
    loop {
        let spaced = rest.starts_with(char::is_whitespace);
        rest = rest.trim_start();
        if let Some(next) = rest.strip_prefix("}}") {
            return Ok((Some(tokens), next, false));
        }
        if let Some(next) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((Some(tokens), next, true));
        }
        if rest.is_empty() {
            bail!("an action is not closed by }}}}");
        }
        let (token, next) = token(rest)?;
        tokens.push(token);
        rest = next;
    }
}

fn token(text: &str) -> Result<(Token, &str)> {
    let first = text.chars().next().unwrap_or_default();
    let after = &text[first.len_utf8()..];
    Ok(match first {
        '|' => (Token::Pipe, after),
        ',' => (Token::Comma, after),
        '(' => (Token::Open, after),
        ')' => {
            let (names, rest) = chain(after);
            (Token::Close(names), rest)
        }
        ':' if after.starts_with('=') => (Token::Assign, &after[1..]),
        '"' => quoted(after)?,
        '`' => match after.split_once('`') {
            Some((raw, rest)) => (Token::Text(raw.to_owned()), rest),
            None => bail!("a string is not closed"),
        },
        '.' => {
            let (names, rest) = chain(text);
            (Token::Field(names), if rest.len() == text.len() { after } else { rest })
        }
        '$' => {
            let (name, rest) = word(after);
            let (names, rest) = chain(rest);
            (Token::Variable(name.to_owned(), names), rest)
        }
        c if c.is_ascii_digit() || (c == '-' && after.starts_with(|c: char| c.is_ascii_digit())) => number(text)?,
        c if c.is_alphabetic() || c == '_' => {
            let (name, rest) = word(text);
            (Token::Word(name.to_owned()), rest)
        }
        c => bail!("{c:?} is not expected in an action"),
    })
}

/// The names of `.a.b`.
fn chain(text: &str) -> (Vec<String>, &str) {
    let (mut names, mut rest) = (Vec::new(), text);
    while let Some(after) = rest.strip_prefix('.') {
        let (name, next) = word(after);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        rest = next;
    }
    (names, rest)
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

fn number(text: &str) -> Result<(Token, &str)> {
    let end =
        text.char_indices().skip(1).find(|(_, c)| !c.is_ascii_digit() && *c != '.').map_or(text.len(), |(i, _)| i);
    match text[..end].parse() {
        Ok(value) => Ok((Token::Number(value), &text[end..])),
        Err(_) => bail!("{:?} is not a number", &text[..end]),
    }
}

fn quoted(text: &str) -> Result<(Token, &str)> {
    let (mut out, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Text(out), &text[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c @ ('"' | '\\' | '\'')) => out.push(c),
                Some(c) => bail!("\\{c} is not known in a string; there are \\n, \\t, \\\" and \\\\"),
                None => break,
            },
            c => out.push(c),
        }
    }
    bail!("a string is not closed")
}
