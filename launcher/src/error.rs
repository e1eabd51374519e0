//! Errors as the person at the command line sees them. The only place that turns errors into text.
//!
//! Every module has a typed error; `?` in a command turns any of them into a [`CliError`], which
//! keeps the cause chain and looks up the next step to suggest in one table (`hint`).

pub(crate) mod hint;

use std::{
    error::Error,
    fmt,
    io::{self, Write as _},
};

use crate::output::Output;

/// What sort of failure it is; decides the exit code where the error names none itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The command line makes no sense.
    Usage,
    /// The command was understood and could not be done.
    Failed,
    /// Whoever read our output is gone; nothing is said about it.
    ClosedPipe,
}

impl ErrorKind {
    /// The exit code of commands that are not `run` or `exec`.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            // What a shell reports for a program that SIGPIPE ended: 128 + 13.
            Self::ClosedPipe => 141,
        }
    }
}

/// An error with everything that is said about it: message, causes, next step, exit code.
#[derive(Debug)]
pub struct CliError {
    kind: ErrorKind,
    code: Option<u8>,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<String>,
}

impl CliError {
    /// The command could not be done.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message.into())
    }

    /// The command line makes no sense.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message.into())
    }

    /// The reader of our standard output is gone.
    #[must_use]
    pub fn closed_pipe() -> Self {
        Self::new(ErrorKind::ClosedPipe, String::new())
    }

    fn new(kind: ErrorKind, message: String) -> Self {
        Self {
            kind,
            code: None,
            message,
            source: None,
            hint: None,
        }
    }

    /// Gives the cause. Takes the hint of the cause if there is none yet.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        if self.hint.is_none() {
            self.hint = hint::of(source.as_ref());
        }
        self.source = Some(source);
        self
    }

    /// Says what to do next; replaces a hint found by the table.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Exits with `code` instead of the kind's.
    #[must_use]
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = Some(code);
        self
    }

    /// Exits with `code` where nothing else decided.
    #[must_use]
    pub fn or_code(mut self, code: u8) -> Self {
        self.code = self.code.or(Some(code));
        self
    }

    /// The same error as the cause of `message`; keeps kind, code and hint.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        if self.kind == ErrorKind::ClosedPipe {
            return self;
        }
        Self {
            kind: self.kind,
            code: self.code,
            hint: self.hint.clone(),
            message: message.into(),
            source: Some(Box::new(Caused {
                message: self.message,
                source: self.source,
            })),
        }
    }

    /// The sort of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The exit code, where this error decides it.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match self.kind {
            ErrorKind::ClosedPipe => Some(self.kind.exit_code()),
            ErrorKind::Usage | ErrorKind::Failed => self.code,
        }
    }

    /// The next step that is suggested.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Writes `pellicle: error: ...`, `caused by: ...` and `hint: ...` to standard error.
    pub fn print(&self, out: &Output) {
        if self.kind != ErrorKind::ClosedPipe {
            out.to_stderr(self.render(|label, sgr| out.painted(label, sgr).into_owned()));
        }
    }

    fn render(&self, paint: impl Fn(&str, &str) -> String) -> String {
        let mut text = format!("{} {}\n", paint("pellicle: error:", "31;1"), self.message);
        for cause in self.causes() {
            text.push_str(&format!("  {} {cause}\n", paint("caused by:", "1")));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  {} {hint}\n", paint("hint:", "36;1")));
        }
        text
    }

    /// The texts of the causes, outermost first, without those that only repeat the one before.
    fn causes(&self) -> Vec<String> {
        let mut causes: Vec<String> = Vec::new();
        let mut next = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = next {
            let text = error.to_string();
            let before = causes.last().unwrap_or(&self.message);
            if !before.ends_with(&text) {
                causes.push(text);
            }
            next = error.source();
        }
        causes
    }

    /// What clap says, in our own form.
    pub(crate) fn from_clap(error: &clap::Error) -> Self {
        use clap::error::ErrorKind as Clap;

        let text = error.render().to_string();
        match error.kind() {
            // No error message, but the help itself.
            Clap::DisplayHelpOnMissingArgumentOrSubcommand => {
                Self::usage(format!("no command given\n\n{}", text.trim_end()))
            }
            Clap::MissingSubcommand => Self::usage("no command given").with_hint(
                "`pellicle --help` lists the commands, `pellicle COMMAND --help` tells more of one",
            ),
            _ => {
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                Self::usage(text.trim_end())
            }
        }
    }

    pub(crate) fn from_stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::closed_pipe()
        } else {
            Self::failed("cannot write to standard output").because(error)
        }
    }
}

/// Any typed error of a module, with the hint that the table has for it. [`CliError`] itself is no
/// [`Error`], which is what allows this.
impl<E: Error + Send + Sync + 'static> From<E> for CliError {
    fn from(error: E) -> Self {
        let mut made = Self::failed(error.to_string());
        made.hint = hint::of(&error);
        made.code = hint::exit_code_of(&error);
        // The message is the error's own text; its causes follow.
        made.source = Some(Box::new(error));
        made
    }
}

/// A [`CliError`] that became the cause of another.
#[derive(Debug)]
struct Caused {
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Display for Caused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Caused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// Flushes standard output; for the end of a command that wrote there by other means.
///
/// # Errors
/// As [`Output::write`].
pub fn flush_stdout() -> Result<(), CliError> {
    io::stdout().flush().map_err(CliError::from_stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(e: &CliError) -> String {
        e.render(|label, _| label.to_owned())
    }

    #[test]
    fn causes_are_listed_once_and_the_hint_comes_last() {
        let io = io::Error::from_raw_os_error(libc::ENOSPC);
        let e = CliError::failed("inner").because(io).context("outer");
        let text = plain(&e);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "pellicle: error: outer");
        assert_eq!(lines[1], "  caused by: inner");
        assert!(
            lines[2].starts_with("  caused by: No space left on device"),
            "{text}"
        );
        assert!(lines[3].starts_with("  hint: "), "{text}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_converted_error_does_not_name_itself_as_its_cause() {
        let e = CliError::from("nonsense".parse::<pellicle_store::Digest>().unwrap_err());
        assert_eq!(plain(&e).lines().count(), 1, "{}", plain(&e));
    }

    #[test]
    fn a_closed_pipe_keeps_its_exit_code_through_context() {
        let e = CliError::from_stdout(io::ErrorKind::BrokenPipe.into()).context("more");
        assert_eq!(e.exit_code(), Some(141));
    }
}
