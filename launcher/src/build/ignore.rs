//! `.dockerignore` and `.containerignore`: which files of the context a build does not see.
//!
//! The rules are docker's (Dockerfile reference, ".dockerignore file"): patterns count from the
//! context's root, `*` and `?` stop at slashes, `**` does not, the last line that fits decides, and a
//! directory that is left out takes with it what no later `!` line brings back.

use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

/// More lines than any real file has.
const LINES_MAX: usize = 10_000;

/// The lines of an ignore file.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
    /// Some line begins with `!`.
    brings_back: bool,
}

#[derive(Debug)]
struct Rule {
    matcher: GlobMatcher,
    /// `!`
    keeps: bool,
}

impl Ignore {
    /// Reads the lines of an ignore file.
    ///
    /// # Errors
    /// The line, and what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut ignore = Self::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (at, line) in text.lines().enumerate() {
            if at >= LINES_MAX {
                return Err((at + 1, format!("there are more than {LINES_MAX} lines")));
            }
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            if pattern.is_empty() {
                continue;
            }
            let matcher = matcher(&pattern).map_err(|why| (at + 1, why))?;
            ignore.brings_back |= keeps;
            ignore.rules.push(Rule { matcher, keeps });
        }
        Ok(ignore)
    }

    /// Whether nothing is left out.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.iter().all(|r| r.keeps)
    }

    /// Whether something inside a directory that is left out may still be seen.
    pub(super) fn brings_back(&self) -> bool {
        self.brings_back
    }

    /// Whether `path`, relative to the context, is left out.
    pub(super) fn hides(&self, path: &Path) -> bool {
        let mut hidden = false;
        for rule in &self.rules {
            // A rule that fits a directory fits all in it.
            let fits = || {
                path.ancestors()
                    .filter(|p| !p.as_os_str().is_empty())
                    .any(|p| rule.matcher.is_match(p))
            };
            if rule.keeps == hidden && fits() {
                hidden = !rule.keeps;
            }
        }
        hidden
    }
}

/// Without slashes around it, `.` and what `..` takes back, as Go's `filepath.Clean` makes it.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A pattern of Go's `filepath.Match`, with `**`.
pub(crate) fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    // Braces are plain characters to docker.
    let plain: String = pattern.chars().fold(String::new(), |mut all, c| {
        if matches!(c, '{' | '}') {
            all.push('\\');
        }
        all.push(c);
        all
    });
    GlobBuilder::new(&plain)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|e| format!("{pattern:?} is no pattern: {}", e.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(lines: &str, path: &str) -> bool {
        Ignore::parse(lines).unwrap().hides(Path::new(path))
    }

    #[test]
    fn patterns_count_from_the_root_and_take_all_below() {
        for (lines, path, want) in [
            ("a", "a", true),
            ("a", "b/a", false),
            ("/a/", "a/b/c", true),
            ("./a", "a", true),
            ("*.md", "x.md", true),
            ("*.md", "d/x.md", false),
            ("**/*.md", "d/e/x.md", true),
            ("**/*.md", "x.md", true),
            ("d/**", "d/e", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[ab]", "b", true),
            ("# a\n#", "#", false),
            ("{a,b}", "a", false),
            ("{a,b}", "{a,b}", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("", "a", false),
            ("x/../a", "a", true),
        ] {
            assert_eq!(hides(lines, path), want, "{lines:?} {path}");
        }
    }

    #[test]
    fn the_last_line_that_fits_decides() {
        let lines = "*\n!src\nsrc/*.tmp\n!src/keep.tmp";
        assert!(hides(lines, "other"));
        assert!(!hides(lines, "src/a/b"));
        assert!(hides(lines, "src/x.tmp"));
        assert!(!hides(lines, "src/keep.tmp"));
        assert!(hides("!a\na", "a"));
    }

    #[test]
    fn a_broken_pattern_is_told_by_its_line() {
        assert_eq!(Ignore::parse("a\n\n[b").unwrap_err().0, 3);
    }
}
