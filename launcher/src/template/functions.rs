//! The functions of Go's templates and of docker's command line.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    TemplateError,
    printf::printf,
    run::Mode,
    value::{is_true, kind, show},
};

/// The widest padding; more is a slip.
pub(super) const WIDTH_MAX: usize = 10_000;

const KNOWN: [&str; 24] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not",
    "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper",
    "urlquery",
];

/// What leaves a head as it is.
const OF_TEXTS: [&str; 8] = [
    "join", "json", "lower", "pad", "split", "title", "truncate", "upper",
];

pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

pub(super) fn call(name: &str, arguments: &[Value], mode: Mode) -> Result<Value, TemplateError> {
    if mode == Mode::Heads
        && OF_TEXTS.contains(&name)
        && let Some(head) = arguments.iter().find(|a| a.is_string())
    {
        return Ok(head.clone());
    }
    value_of(name, arguments).map_err(|why| TemplateError::Call {
        function: name.to_owned(),
        why,
    })
}

fn value_of(name: &str, arguments: &[Value]) -> Result<Value, String> {
    Ok(match (name, arguments) {
        ("not", [value]) => (!is_true(value)).into(),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            let mut any = false;
            for other in rest {
                any |= same(first, other)?;
            }
            any.into()
        }
        ("ne", [a, b]) => (!same(a, b)?).into(),
        ("lt", [a, b]) => (order(a, b)? == Ordering::Less).into(),
        ("le", [a, b]) => (order(a, b)? != Ordering::Greater).into(),
        ("gt", [a, b]) => (order(a, b)? == Ordering::Greater).into(),
        ("ge", [a, b]) => (order(a, b)? != Ordering::Less).into(),
        ("index", [value, keys @ ..]) => index(value, keys)?,
        ("slice", [value, ends @ ..]) => slice(value, ends)?,
        ("len", [value]) => len(value)?.into(),
        ("print", values) => print(values).into(),
        ("println", values) => {
            let all: Vec<String> = values.iter().map(show).collect();
            format!("{}\n", all.join(" ")).into()
        }
        ("printf", [format, values @ ..]) => printf(text(format)?, values)?.into(),
        ("json", [value]) => value.to_string().into(),
        ("lower", [value]) => text(value)?.to_lowercase().into(),
        ("upper", [value]) => text(value)?.to_uppercase().into(),
        ("title", [value]) => title(text(value)?).into(),
        ("split", [value, by]) => split(text(value)?, text(by)?).into(),
        ("join", [Value::Null, _]) => "".into(),
        ("join", [Value::Array(list), by]) => {
            let all: Vec<String> = list.iter().map(show).collect();
            all.join(text(by)?).into()
        }
        ("pad", [value, before, after]) => pad(text(value)?, before, after)?.into(),
        ("truncate", [value, most]) => {
            let most = count(most)?;
            text(value)?.chars().take(most).collect::<String>().into()
        }
        ("urlquery", values) => url_query(&print(values)).into(),
        _ => return Err(format!("it does not take {}", listed(arguments))),
    })
}

fn listed(arguments: &[Value]) -> String {
    if arguments.is_empty() {
        return "no arguments".to_owned();
    }
    let kinds: Vec<&str> = arguments.iter().map(kind).collect();
    kinds.join(", ")
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("it takes a string, not a {}", kind(value)))
}

fn count(value: &Value) -> Result<usize, String> {
    value
        .as_u64()
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| "it takes a number from 0".to_owned())
}

fn same(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Number(a), Value::Number(b)) => Ok(match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a == b,
            _ => a.as_f64() == b.as_f64(),
        }),
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => Ok(a == b),
        _ => Err(format!(
            "a {} and a {} cannot be compared",
            kind(a),
            kind(b)
        )),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    let found = match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Some(x.cmp(&y)),
            _ => x.as_f64().partial_cmp(&y.as_f64()),
        },
        (Value::String(x), Value::String(y)) => Some(x.cmp(y)),
        _ => None,
    };
    found.ok_or_else(|| format!("a {} and a {} have no order", kind(a), kind(b)))
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut at = value;
    for key in keys {
        at = match at {
            Value::Array(list) => {
                let n = count(key)?;
                list.get(n)
                    .ok_or_else(|| format!("there is no {n} in a list of {}", list.len()))?
            }
            Value::Object(map) => map.get(text(key)?).unwrap_or(&Value::Null),
            Value::Null => &Value::Null,
            other => return Err(format!("a {} has no parts", kind(other))),
        };
    }
    Ok(at.clone())
}

fn slice(value: &Value, ends: &[Value]) -> Result<Value, String> {
    let range = |len: usize| {
        let from = ends.first().map_or(Ok(0), count)?;
        let to = ends.get(1).map_or(Ok(len), count)?;
        if ends.len() > 2 || from > to || to > len {
            return Err(format!("there is no part {from}:{to} of {len}"));
        }
        Ok(from..to)
    };
    match value {
        Value::Array(list) => {
            let range = range(list.len())?;
            Ok(list.get(range).unwrap_or_default().to_vec().into())
        }
        Value::String(s) => s
            .get(range(s.len())?)
            .map(Into::into)
            .ok_or_else(|| "it would cut a character".to_owned()),
        other => Err(format!("a {} has no parts", kind(other))),
    }
}

fn len(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(s) => Ok(s.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        other => Err(format!("a {} has no length", kind(other))),
    }
}

/// As fmt.Sprint: a space between two values of which neither is a string.
fn print(values: &[Value]) -> String {
    let mut text = String::new();
    let mut before_is_text = true;
    for value in values {
        if !before_is_text && !value.is_string() {
            text.push(' ');
        }
        text.push_str(&show(value));
        before_is_text = value.is_string();
    }
    text
}

fn title(text: &str) -> String {
    let mut out = String::new();
    let mut begins = true;
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        begins = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn split(text: &str, by: &str) -> Vec<Value> {
    if by.is_empty() {
        return text.chars().map(|c| c.to_string().into()).collect();
    }
    text.split(by).map(Into::into).collect()
}

fn pad(text: &str, before: &Value, after: &Value) -> Result<String, String> {
    let (before, after) = (count(before)?, count(after)?);
    if before.max(after) > WIDTH_MAX {
        return Err(format!("more than {WIDTH_MAX} spaces"));
    }
    if text.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("{}{text}{}", " ".repeat(before), " ".repeat(after)))
}

fn url_query(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
