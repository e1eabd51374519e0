//! Text into pieces, and actions into tokens.

use serde_json::Value;

use super::TemplateError;

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    /// What stands between the braces, and where it begins.
    Action(Vec<(Token, usize)>, usize),
}

/// A token of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.`
    Dot,
    /// `.Name`; whether it follows what is before it without a space.
    Field(String, bool),
    /// `$` or `$name`, without the `$`.
    Variable(String),
    /// A word.
    Word(String),
    /// A string, number or character.
    Literal(Value),
    Pipe,
    Open,
    Close,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

pub(super) fn syntax(at: usize, why: impl Into<String>) -> TemplateError {
    TemplateError::Syntax {
        at: at + 1,
        why: why.into(),
    }
}

/// Cuts a template at its braces. `{{-` and `-}}` take the white space outside of them away.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let at = text.len() - rest.len();
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let inner = action.map(|a| match a.strip_prefix('-') {
            Some(rest) if rest.starts_with(char::is_whitespace) => (true, rest),
            _ => (false, a),
        });
        let mut plain = before;
        if trim_next {
            plain = plain.trim_start();
        }
        if inner.is_some_and(|(trims, _)| trims) {
            plain = plain.trim_end();
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        let Some((_, inner)) = inner else {
            return Ok(pieces);
        };
        let begin = at + before.len();
        if let Some(comment) = inner.trim_start().strip_prefix("/*") {
            let end = comment.find("*/");
            let after = end.and_then(|end| comment.get(end + 2..));
            let after = after.ok_or_else(|| syntax(begin, "a comment has no end"))?;
            (rest, trim_next) = close(after)
                .ok_or_else(|| syntax(begin, "a comment must be all that is between {{ and }}"))?;
            continue;
        }
        let start = text.len() - inner.len();
        let mut lexer = Lexer {
            text,
            at: start,
            tokens: Vec::new(),
        };
        (rest, trim_next) = lexer.action(begin)?;
        pieces.push(Piece::Action(lexer.tokens, begin));
    }
}

/// What follows the closing braces that `text` begins with, and whether they take white space away.
fn close(text: &str) -> Option<(&str, bool)> {
    let trimmed = text.trim_start();
    if trimmed.len() < text.len()
        && let Some(rest) = trimmed.strip_prefix("-}}")
    {
        return Some((rest, true));
    }
    trimmed.strip_prefix("}}").map(|rest| (rest, false))
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<(Token, usize)>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Reads to the closing braces; gives what follows.
    fn action(&mut self, begin: usize) -> Result<(&'a str, bool), TemplateError> {
        let mut spaced = true;
        loop {
            if let Some(closed) = close(self.rest()) {
                return Ok(closed);
            }
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return Err(syntax(begin, "{{ is not closed by }}"));
            };
            if first.is_whitespace() {
                self.at += first.len_utf8();
                spaced = true;
                continue;
            }
            let at = self.at;
            let token = self.token(first, rest, spaced)?;
            spaced = false;
            self.tokens.push((token, at));
        }
    }

    fn token(&mut self, first: char, rest: &str, spaced: bool) -> Result<Token, TemplateError> {
        let at = self.at;
        let (token, len) = match first {
            '|' => (Token::Pipe, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' | '`' | '\'' => return self.quoted(first, rest),
            '$' => {
                let name = word(rest.get(1..).unwrap_or_default());
                (Token::Variable(name.to_owned()), 1 + name.len())
            }
            '.' => {
                let behind = rest.get(1..).unwrap_or_default();
                let name = word(behind);
                if name.is_empty() {
                    if behind.starts_with(|c: char| c.is_ascii_digit()) {
                        return Err(syntax(at, "a number begins with a digit"));
                    }
                    (Token::Dot, 1)
                } else if name.starts_with(|c: char| c.is_ascii_digit()) {
                    return Err(syntax(at, "a field's name begins with a letter"));
                } else {
                    (Token::Field(name.to_owned(), !spaced), 1 + name.len())
                }
            }
            '0'..='9' | '+' | '-' => {
                let len = rest
                    .char_indices()
                    .find(|(n, c)| !(c.is_ascii_alphanumeric() || *c == '.' || *c == '_') && *n > 0)
                    .map_or(rest.len(), |(n, _)| n);
                let text = rest.get(..len).unwrap_or_default();
                (
                    Token::Literal(
                        number(text).ok_or_else(|| syntax(at, format!("{text:?} is no number")))?,
                    ),
                    len,
                )
            }
            c if c.is_alphabetic() || c == '_' => {
                let name = word(rest);
                (Token::Word(name.to_owned()), name.len())
            }
            other => return Err(syntax(at, format!("{other:?} means nothing here"))),
        };
        self.at += len;
        Ok(token)
    }

    fn quoted(&mut self, quote: char, rest: &str) -> Result<Token, TemplateError> {
        let at = self.at;
        let open = || syntax(at, format!("what begins with {quote} does not end"));
        if quote == '`' {
            let (inside, _) = rest
                .get(1..)
                .and_then(|r| r.split_once('`'))
                .ok_or_else(open)?;
            self.at += inside.len() + 2;
            return Ok(Token::Literal(inside.into()));
        }
        let mut text = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((n, c)) = chars.next() {
            match c {
                '\n' => return Err(open()),
                '\\' => {
                    let (_, escaped) = chars.next().ok_or_else(open)?;
                    text.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        '0' => '\0',
                        '\\' | '"' | '\'' | '`' => escaped,
                        other => {
                            return Err(syntax(at + n, format!("\\{other} means nothing")));
                        }
                    });
                }
                c if c == quote => {
                    self.at += n + 1;
                    if quote == '"' {
                        return Ok(Token::Literal(text.into()));
                    }
                    let mut inside = text.chars();
                    return match (inside.next(), inside.next()) {
                        (Some(one), None) => Ok(Token::Literal(u32::from(one).into())),
                        _ => Err(syntax(at, "between ' and ' is one character")),
                    };
                }
                c => text.push(c),
            }
        }
        Err(open())
    }
}

/// The letters, digits and underscores that `text` begins with.
fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

fn number(text: &str) -> Option<Value> {
    if let Ok(n) = text.parse::<i64>() {
        return Some(n.into());
    }
    let hex = text
        .strip_prefix("0x")
        .and_then(|h| i64::from_str_radix(h, 16).ok());
    if let Some(n) = hex {
        return Some(n.into());
    }
    // `inf` and `nan` are words to Rust, and no numbers here.
    if !text.ends_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let n = text.parse::<f64>().ok()?;
    serde_json::Number::from_f64(n).map(Value::Number)
}
