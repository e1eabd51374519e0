//! Words: splitting at spaces outside quotes, variables, heredoc marks.

use super::Heredoc;

/// What `$name` may mean.
pub(in crate::build) trait Variables {
    /// The value of `name`, if it is set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Longest value that substitution may make: a file that doubles a variable with each line must not
/// fill the memory.
const VALUE_MAX: usize = 1 << 20;
/// Deepest nesting of `${a:-${b:-...}}`.
const DEPTH_MAX: usize = 32;

/// Splits `text` at spaces outside quotes; quotes and escapes stay in the words.
pub(in crate::build) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None | Some('"'), c) if c == escape => {
                word.push(c);
                word.extend(chars.next());
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The heredocs that `text` announces, without their bodies.
pub(super) fn heredocs(text: &str, escape: char) -> Vec<Heredoc> {
    split(text, escape)
        .iter()
        .filter_map(|word| mark(word))
        .collect()
}

/// `<<EOF`, `<<-EOF`, `3<<"EOF"`, as a heredoc without a body.
pub(super) fn mark(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let rest = rest.strip_prefix("<<")?;
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let quoted = |q: char| rest.strip_prefix(q).and_then(|r| r.strip_suffix(q));
    let (name, expand) = match quoted('"').or_else(|| quoted('\'')) {
        Some(name) => (name, false),
        None => (rest, true),
    };
    let good = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!name.is_empty() && name.chars().all(good)).then(|| Heredoc {
        name: name.to_owned(),
        expand,
        strip_tabs,
        body: String::new(),
    })
}

/// `word` with its variables replaced, and without quotes and escapes.
///
/// # Errors
/// What is wrong with it.
pub(in crate::build) fn expand(
    word: &str,
    escape: char,
    variables: &dyn Variables,
) -> Result<String, String> {
    let mut expander = Expander {
        chars: word.chars().peekable(),
        escape,
        variables,
        depth: 0,
        literal: false,
    };
    let (text, _) = expander.until(None)?;
    Ok(text)
}

/// The body of a heredoc with its variables replaced; quotes mean nothing there.
///
/// # Errors
/// As [`expand`].
pub(in crate::build) fn expand_body(
    body: &str,
    escape: char,
    variables: &dyn Variables,
) -> Result<String, String> {
    let mut expander = Expander {
        chars: body.chars().peekable(),
        escape,
        variables,
        depth: 0,
        literal: true,
    };
    let (text, _) = expander.until(None)?;
    Ok(text)
}

/// As [`expand`], and what variables bring is split at spaces (`EXPOSE $PORTS`).
///
/// # Errors
/// As [`expand`].
pub(in crate::build) fn expand_to_words(
    word: &str,
    escape: char,
    variables: &dyn Variables,
) -> Result<Vec<String>, String> {
    let text = expand(word, escape, variables)?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

struct Expander<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    variables: &'a dyn Variables,
    depth: usize,
    /// Quotes are characters as any other.
    literal: bool,
}

impl Expander<'_> {
    /// Up to `end`, which is taken, or the end of the text; whether `end` was there.
    fn until(&mut self, end: Option<char>) -> Result<(String, bool), String> {
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == end => return Ok((out, true)),
                '\'' if !self.literal => loop {
                    match self.chars.next() {
                        Some('\'') => break,
                        Some(c) => out.push(c),
                        None => return Err("a single quotation mark is missing".to_owned()),
                    }
                },
                '"' if !self.literal => self.double_quoted(&mut out)?,
                '$' => self.variable(&mut out)?,
                c if c == self.escape => self.escaped(&mut out, !self.literal),
                c => out.push(c),
            }
            if out.len() > VALUE_MAX {
                return Err(format!("it grows beyond {VALUE_MAX} bytes"));
            }
        }
        Ok((out, false))
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.chars.next() {
                None => return Err("a double quotation mark is missing".to_owned()),
                Some('"') => return Ok(()),
                Some('$') => self.variable(out)?,
                Some(c) if c == self.escape => self.escaped(out, false),
                Some(c) => out.push(c),
            }
        }
    }

    /// Behind the escape character: `any` character stands for itself, else only those that would
    /// mean something.
    fn escaped(&mut self, out: &mut String, any: bool) {
        let escape = self.escape;
        match self.chars.next() {
            None => out.push(escape),
            Some(c) if any || c == '$' || c == escape || (c == '"' && !self.literal) => {
                out.push(c);
            }
            Some(c) => out.extend([escape, c]),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self
            .chars
            .next_if(|c| *c == '_' || c.is_ascii_alphabetic() || (c.is_ascii_digit()))
        {
            // `$1x` is `$1` and an x.
            let special = name.is_empty() && c.is_ascii_digit();
            name.push(c);
            if special {
                break;
            }
        }
        name
    }

    fn variable(&mut self, out: &mut String) -> Result<(), String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                out.push('$');
            } else {
                out.push_str(&self.variables.get(&name).unwrap_or_default());
            }
            return Ok(());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("${ is not followed by a name".to_owned());
        }
        let value = self.variables.get(&name);
        let colon = self.chars.next_if_eq(&':').is_some();
        let operator = match self.chars.next() {
            Some('}') if !colon => {
                out.push_str(&value.unwrap_or_default());
                return Ok(());
            }
            Some(c @ ('-' | '+' | '?')) => c,
            Some(c) => {
                let colon = if colon { ":" } else { "" };
                return Err(format!(
                    "${{{name}{colon}{c}...}} is not known: ${{x}}, ${{x:-default}}, ${{x:+instead}} and ${{x:?message}} are"
                ));
            }
            None => return Err(format!("${{{name} has no closing brace")),
        };
        if self.depth >= DEPTH_MAX {
            return Err("variables are nested too deep".to_owned());
        }
        self.depth += 1;
        let (word, closed) = self.until(Some('}'))?;
        self.depth -= 1;
        if !closed {
            return Err(format!("${{{name} has no closing brace"));
        }
        // With the colon, empty counts as not set.
        let set = value.filter(|v| !colon || !v.is_empty());
        match (operator, set) {
            ('-', Some(value)) | ('?', Some(value)) => out.push_str(&value),
            ('-', None) | ('+', Some(_)) => out.push_str(&word),
            ('?', None) => return Err(format!("{name}: {word}")),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> Option<String> {
        match name {
            "a" => Some("A".to_owned()),
            "two" => Some("1 2".to_owned()),
            "empty" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_as_docker_does_it() {
        for (word, want) in [
            ("$a", "A"),
            ("${a}b", "Ab"),
            ("x$a-$none.", "xA-."),
            (r"\$a", "$a"),
            ("'$a'", "$a"),
            ("\"$a 'x'\"", "A 'x'"),
            (r#""\$a \" \x""#, r#"$a " \x"#),
            (r"a\ b", "a b"),
            ("${none:-d}", "d"),
            ("${empty:-d}", "d"),
            ("${empty-d}", ""),
            ("${none-d}", "d"),
            ("${a:+i}", "i"),
            ("${none:+i}", ""),
            ("${empty:+i}", ""),
            ("${empty+i}", "i"),
            ("${none:-${a:-x}}", "A"),
            ("$", "$"),
            ("$.", "$."),
            ("100%", "100%"),
        ] {
            assert_eq!(expand(word, '\\', &set).unwrap(), want, "{word}");
        }
        assert_eq!(expand("`$a\\x", '`', &set).unwrap(), "$a\\x");
        let ports = expand_to_words("$two", '\\', &set).unwrap();
        assert_eq!(ports, ["1", "2"]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (word, want) in [
            ("${a", "closing brace"),
            ("${a:-b", "closing brace"),
            ("${}", "name"),
            ("${a:x}", "not known"),
            ("'a", "single"),
            ("\"a", "double"),
            ("${none:?give it}", "give it"),
        ] {
            let e = expand(word, '\\', &set).unwrap_err();
            assert!(e.contains(want), "{word}: {e}");
        }
        let deep = format!("{}x{}", "${n:-".repeat(100), "}".repeat(100));
        assert!(expand(&deep, '\\', &set).is_err());
    }

    #[test]
    fn words_keep_their_quotes() {
        assert_eq!(
            split(r#"a="b c" 'd e'  f\ g"#, '\\'),
            ["a=\"b c\"", "'d e'", "f\\ g"]
        );
    }

    #[test]
    fn bodies_keep_their_quotes_and_lose_their_variables() {
        let body = "it's \"$a\" \\$a\n";
        assert_eq!(expand_body(body, '\\', &set).unwrap(), "it's \"A\" $a\n");
    }

    #[test]
    fn heredoc_marks_are_told_from_shifts() {
        assert!(mark("<<EOF").is_some_and(|h| h.expand && !h.strip_tabs));
        assert!(mark("3<<-'E-1'").is_some_and(|h| !h.expand && h.strip_tabs && h.name == "E-1"));
        for no in ["<<", "<<<x", "a<<b", "<<\"x", "<EOF", "<<$((1))"] {
            assert!(mark(no).is_none(), "{no}");
        }
    }
}
