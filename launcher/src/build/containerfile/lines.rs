//! From the bytes of a Containerfile to its instructions, each with its line: parser directives,
//! comments, continuation lines and heredocs.
//!
//! The rules are those of the Dockerfile reference ("Parser directives", "Here-Documents"); where it
//! is silent, of BuildKit.

use std::sync::Arc;

use super::{Heredoc, words};
use crate::build::{BuildError, Place};

/// More than any real file has; bounds what a hostile one can cost.
pub(super) const FILE_MAX: usize = 1 << 20;

/// An instruction as it is written: continuation lines joined, comments gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) place: Place,
    /// In capitals.
    pub(super) keyword: String,
    /// All behind the keyword, without spaces around it.
    pub(super) rest: String,
    pub(super) heredocs: Vec<Heredoc>,
}

/// The character that ends a line that goes on, and the instructions.
pub(super) fn split(file: &Arc<str>, text: &[u8]) -> Result<(char, Vec<Raw>), BuildError> {
    let place = |line: usize| Place {
        file: Arc::clone(file),
        line,
    };
    if text.len() > FILE_MAX {
        return Err(BuildError::bad(
            &place(1),
            format!("the file has more than {FILE_MAX} bytes"),
            "give the Containerfile with -f FILE",
        ));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let text = std::str::from_utf8(text).map_err(|e| {
        let valid = text.get(..e.valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|b| **b == b'\n').count() + 1;
        BuildError::bad(
            &place(line),
            "the text is not UTF-8",
            "save the file as UTF-8",
        )
    })?;
    let lines: Vec<&str> = text
        .split('\n')
        .map(|l| l.strip_suffix('\r').unwrap_or(l))
        .collect();
    let escape = escape_directive(&lines, &place)?;
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(first) = lines.get(at) {
        let start = place(at + 1);
        at += 1;
        if is_comment(first) || first.trim().is_empty() {
            continue;
        }
        let mut whole = String::new();
        let mut line = first.trim_start();
        loop {
            match continued(line, escape) {
                Some(part) => whole.push_str(part),
                None => {
                    whole.push_str(line);
                    break;
                }
            }
            // Comments and empty lines in between do not end it.
            while lines
                .get(at)
                .is_some_and(|l| is_comment(l) || l.trim().is_empty())
            {
                at += 1;
            }
            match lines.get(at) {
                Some(next) => line = next,
                None => break,
            }
            at += 1;
        }
        let whole = whole.trim();
        let (keyword, rest) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
        let keyword = keyword.to_ascii_uppercase();
        let rest = rest.trim().to_owned();
        let mut heredocs = Vec::new();
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for mut doc in words::heredocs(&rest, escape) {
                doc.body = body(&lines, &mut at, &doc, &start)?;
                heredocs.push(doc);
            }
        }
        all.push(Raw {
            place: start,
            keyword,
            rest,
            heredocs,
        });
    }
    Ok((escape, all))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// `line` without the character at its end that says it goes on.
fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches([' ', '\t']).strip_suffix(escape)
}

/// `# escape=` among the directives, which are the comments before anything else.
fn escape_directive(lines: &[&str], place: &dyn Fn(usize) -> Place) -> Result<char, BuildError> {
    let mut escape = None;
    for (at, line) in lines.iter().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix('#') else {
            break;
        };
        let Some((name, value)) = comment.split_once('=') else {
            break;
        };
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            break;
        }
        if !name.eq_ignore_ascii_case("escape") {
            continue;
        }
        let found = match value.trim() {
            "\\" => '\\',
            "`" => '`',
            other => {
                return Err(BuildError::bad(
                    &place(at + 1),
                    format!("{other:?} cannot be the escape character"),
                    "write # escape=\\ or # escape=`",
                ));
            }
        };
        if escape.replace(found).is_some() {
            return Err(BuildError::bad(
                &place(at + 1),
                "the directive escape is given twice",
                "keep one of them",
            ));
        }
    }
    Ok(escape.unwrap_or('\\'))
}

/// The lines up to the one that is the name of `doc`.
fn body(
    lines: &[&str],
    at: &mut usize,
    doc: &Heredoc,
    start: &Place,
) -> Result<String, BuildError> {
    let mut body = String::new();
    while let Some(line) = lines.get(*at) {
        *at += 1;
        let shown = if doc.strip_tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        if shown == doc.name {
            return Ok(body);
        }
        body.push_str(shown);
        body.push('\n');
    }
    Err(BuildError::bad(
        start,
        format!("the heredoc <<{} never ends", doc.name),
        format!("put a line with nothing but {} behind it", doc.name),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String, String)> {
        let (_, all) = split(&"F".into(), text.as_bytes()).unwrap();
        all.into_iter()
            .map(|r| (r.place.line, r.keyword, r.rest))
            .collect()
    }

    fn one(line: usize, keyword: &str, rest: &str) -> (usize, String, String) {
        (line, keyword.to_owned(), rest.to_owned())
    }

    #[test]
    fn lines_are_joined_and_comments_left_out() {
        let text = "# a comment\nFrom x\n\n  run a \\\n  # not part of it\n\n    && b \\ \n  && c\r\nCMD d";
        assert_eq!(
            lines(text),
            [
                one(2, "FROM", "x"),
                one(4, "RUN", "a     && b   && c"),
                one(9, "CMD", "d")
            ]
        );
    }

    #[test]
    fn the_escape_directive_counts_only_at_the_top() {
        let text = "# syntax=docker/dockerfile:1\n# escape=`\nRUN dir C:\\ `\n x";
        assert_eq!(lines(text), [one(3, "RUN", "dir C:\\  x")]);
        assert_eq!(
            lines("FROM x\n# escape=`\nRUN a `\nRUN b"),
            [
                one(1, "FROM", "x"),
                one(3, "RUN", "a `"),
                one(4, "RUN", "b")
            ]
        );
        assert!(split(&"F".into(), b"# escape=x\n").is_err());
    }

    #[test]
    fn heredocs_are_taken_as_they_are() {
        let text = "RUN <<EOF\nFROM not\n# kept\nend \\\nEOF\nCOPY <<-A <<'B' /d/\n\t\tone\n\tA\n two\nB\nCMD x";
        let (_, all) = split(&"F".into(), text.as_bytes()).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].heredocs[0].body, "FROM not\n# kept\nend \\\n");
        assert_eq!(all[1].heredocs[0].body, "one\n");
        assert!(all[1].heredocs[0].expand && !all[1].heredocs[1].expand);
        assert_eq!(all[1].heredocs[1].body, " two\n");
        assert_eq!(all[2].place.line, 11);
    }

    #[test]
    fn what_is_torn_is_refused_with_its_line() {
        let e = split(&"F".into(), b"FROM x\nRUN <<EOF\nabc").unwrap_err();
        assert!(e.to_string().starts_with("F:2: "), "{e}");
        let e = split(&"F".into(), b"FROM x\nRUN \xff\n").unwrap_err();
        assert!(e.to_string().starts_with("F:2: "), "{e}");
        assert!(split(&"F".into(), &vec![b'\n'; FILE_MAX + 1]).is_err());
    }
}
