//! `printf`, with the verbs that make sense for JSON values (Go's package fmt).

use serde_json::Value;

use super::{
    functions::WIDTH_MAX,
    value::{kind, show},
};

/// What stands between % and the verb.
#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let spec = spec(&mut chars)?;
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match values.next() {
                Some(value) => out.push_str(&padded(&verb_of(verb, &spec, value), &spec)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    let rest: Vec<String> = values.map(|v| format!("{}={}", kind(v), show(v))).collect();
    if !rest.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", rest.join(", ")));
    }
    Ok(out)
}

fn spec(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Spec, String> {
    let mut spec = Spec::default();
    while let Some(c) = chars.peek() {
        match c {
            '-' => spec.left = true,
            '0' => spec.zero = true,
            '+' => spec.plus = true,
            ' ' | '#' => {}
            _ => break,
        }
        chars.next();
    }
    spec.width = number(chars)?.unwrap_or(0);
    if chars.peek() == Some(&'.') {
        chars.next();
        spec.precision = Some(number(chars)?.unwrap_or(0));
    }
    Ok(spec)
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut found: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        let n = found.unwrap_or(0) * 10 + digit as usize;
        if n > WIDTH_MAX {
            return Err(format!("a width of more than {WIDTH_MAX}"));
        }
        found = Some(n);
        chars.next();
    }
    Ok(found)
}

fn verb_of(verb: char, spec: &Spec, value: &Value) -> String {
    let bad = || format!("%!{verb}({}={})", kind(value), show(value));
    let sign = |n: f64| if spec.plus && n >= 0.0 { "+" } else { "" };
    match (verb, value) {
        ('v' | 's', Value::String(s)) => match spec.precision {
            Some(most) => s.chars().take(most).collect(),
            None => s.clone(),
        },
        ('v', other) => show(other),
        ('s', Value::Array(_) | Value::Object(_) | Value::Null) => show(value),
        ('q', Value::String(s)) => format!("{s:?}"),
        ('t', Value::Bool(b)) => b.to_string(),
        ('d', Value::Number(n)) if !n.is_f64() => {
            format!("{}{n}", sign(n.as_f64().unwrap_or(0.0)))
        }
        ('x', Value::Number(n)) if n.is_u64() => format!("{:x}", n.as_u64().unwrap_or(0)),
        ('X', Value::Number(n)) if n.is_u64() => format!("{:X}", n.as_u64().unwrap_or(0)),
        ('x', Value::String(s)) => s.bytes().map(|b| format!("{b:02x}")).collect(),
        ('f', Value::Number(n)) if n.is_f64() => {
            let n = n.as_f64().unwrap_or(0.0);
            format!("{}{n:.*}", sign(n), spec.precision.unwrap_or(6))
        }
        ('T', other) => kind(other).to_owned(),
        _ => bad(),
    }
}

fn padded(text: &str, spec: &Spec) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    if spec.left {
        return format!("{text}{}", " ".repeat(missing));
    }
    if spec.zero {
        let (sign, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) => text.split_at(text.len() - digits.len()),
            None => ("", text),
        };
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    format!("{}{text}", " ".repeat(missing))
}
