//! What a person or a pipe gets to see.
//!
//! Results go to standard output; everything else (progress, notes, warnings, errors) to standard
//! error, so that a pipe carries results only. A reader that goes away is no error worth a
//! message: it comes back as [`CliError::closed_pipe`] and ends the program quietly.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal as _, Write},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::CliError;

/// Knows whether a terminal listens, and whether it wants colours (<https://no-color.org>).
#[derive(Clone, Copy, Debug)]
pub struct Output {
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    colors: bool,
    quiet: bool,
}

impl Output {
    /// Looks at the process's streams and environment.
    #[must_use]
    pub fn detect() -> Self {
        let stderr_is_terminal = io::stderr().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        Self {
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal,
            colors: stderr_is_terminal
                && !set("NO_COLOR")
                && std::env::var_os("TERM").is_none_or(|t| t != "dumb"),
            quiet: false,
        }
    }

    /// The same, without notes and progress if `quiet`.
    #[must_use]
    pub fn quiet_if(self, quiet: bool) -> Self {
        Self {
            quiet: self.quiet || quiet,
            ..self
        }
    }

    /// Whether standard output is a terminal.
    #[must_use]
    pub fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Prints one line of result.
    ///
    /// # Errors
    /// If standard output takes no more: the reader is gone, or the disk it goes to is full.
    pub fn line(&self, text: impl Display) -> Result<(), CliError> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Writes bytes of result as they are.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(CliError::from_stdout)
    }

    /// Tells what was done, in one line on standard error; not if quiet.
    pub fn note(&self, text: impl Display) {
        if !self.quiet {
            self.to_stderr(format!("{text}\n"));
        }
    }

    /// Tells of something that is likely not as wished but does not stop the command.
    pub fn warn(&self, text: impl Display) {
        self.to_stderr(format!("{}: {text}\n", self.warning_mark()));
    }

    /// What a warning begins with.
    pub(crate) fn warning_mark(&self) -> Cow<'static, str> {
        self.painted("pellicle: warning", "33;1")
    }

    /// Whether standard error is a terminal that wants colours.
    pub(crate) fn has_colors(&self) -> bool {
        self.colors
    }

    /// `text` in a colour (SGR parameters) if standard error is a terminal that wants it.
    #[must_use]
    pub fn painted<'a>(&self, text: &'a str, sgr: &str) -> Cow<'a, str> {
        if self.colors {
            Cow::Owned(format!("\x1b[{sgr}m{text}\x1b[0m"))
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Begins a step that takes time: a moving bar on a terminal, nothing before its end on a pipe.
    /// `total` is in bytes, if known.
    #[must_use]
    pub fn step(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>) -> Step {
        let what = what.into();
        let bar = if self.stderr_is_terminal && !self.quiet {
            bar_for(&what, total)
        } else {
            ProgressBar::hidden()
        };
        Step {
            what,
            bar,
            bytes: AtomicU64::new(0),
            out: *self,
            among: None,
        }
    }

    /// Steps that go on at the same time, with a bar each.
    #[must_use]
    pub fn steps(&self) -> Steps {
        Steps {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            out: *self,
        }
    }

    /// Writes to standard error at once; a closed one must not end the command.
    pub(crate) fn to_stderr(self, text: impl AsRef<[u8]>) {
        let _ = io::stderr().lock().write_all(text.as_ref());
    }
}

/// Bytes as people read them, decimal as docker has them: `12.3MB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n}B");
    }
    let mut value = n as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    // Three digits that count.
    let decimals = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.decimals$}{unit}")
}

/// How long ago a time was, as docker says it: `3 weeks ago`.
#[must_use]
pub fn ago(seconds: i64) -> String {
    const STEPS: [(i64, &str); 7] = [
        (60, "second"),
        (60, "minute"),
        (24, "hour"),
        (7, "day"),
        (4, "week"),
        (12, "month"),
        (i64::MAX, "year"),
    ];
    // A clock that was set back must not make images of the future.
    let mut n = seconds.max(0);
    if n < 1 {
        return "just now".to_owned();
    }
    let days = n / 86_400;
    for (size, unit) in STEPS {
        let value = match unit {
            "month" => days / 30,
            "year" => days / 365,
            _ => n,
        };
        if value < size || unit == "year" {
            let value = value.max(1);
            let s = if value == 1 { "" } else { "s" };
            return format!("{value} {unit}{s} ago");
        }
        n /= size;
    }
    String::new()
}

fn bar_for(what: &str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
            "{msg:30!} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
            "{spinner} {msg} {bytes} {bytes_per_sec}",
        ),
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    bar.set_style(style);
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A step in progress; its bar goes away when it is dropped.
#[derive(Debug)]
pub struct Step {
    what: Cow<'static, str>,
    bar: ProgressBar,
    bytes: AtomicU64,
    out: Output,
    /// The bars that its own is one of.
    among: Option<MultiProgress>,
}

/// Steps that go on at the same time.
#[derive(Debug)]
pub struct Steps {
    bars: MultiProgress,
    out: Output,
}

impl Steps {
    /// As [`Output::step`].
    #[must_use]
    pub fn step(&self, what: impl Into<Cow<'static, str>>, total: Option<u64>) -> Step {
        let mut step = self.out.step(what, total);
        if !step.bar.is_hidden() {
            self.bars.add(step.bar.clone());
            step.among = Some(self.bars.clone());
        }
        step
    }

    /// As [`Output::note`].
    pub fn note(&self, text: impl Display) {
        self.bars.suspend(|| self.out.note(text));
    }

    /// Does `what` while no bar is shown.
    pub fn pause<T>(&self, what: impl FnOnce() -> T) -> T {
        self.bars.suspend(what)
    }

    /// As [`Output::warn`].
    pub fn warn(&self, text: impl Display) {
        self.bars.suspend(|| self.out.warn(text));
    }
}

impl Step {
    /// So many more bytes of the source are done.
    pub fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    /// How many bytes were done so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Ends the step with one line of what came of it.
    pub fn done(self, result: impl Display) {
        self.bar.finish_and_clear();
        let tell = || self.out.note(format!("{}: {result}", self.what));
        match &self.among {
            // The other bars make room for the line.
            Some(bars) => bars.suspend(tell),
            None => tell(),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A table as docker prints them: upper-case heads, columns as wide as their widest cell, three
/// spaces between.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(&format!("{cell:<width$}   "));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

impl pellicle_store::import::Progress for Step {
    fn bytes(&self, n: u64) {
        self.advance(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_that_count() {
        for (n, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (12_345, "12.3kB"),
            (999_600, "1.00MB"),
            (123_456_789, "123MB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn ages_round_down_to_the_largest_unit() {
        for (seconds, text) in [
            (-5, "just now"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (7200, "2 hours ago"),
            (86_400 * 3, "3 days ago"),
            (86_400 * 8, "1 week ago"),
            (86_400 * 65, "2 months ago"),
            (86_400 * 800, "2 years ago"),
        ] {
            assert_eq!(ago(seconds), text);
        }
    }

    #[test]
    fn columns_of_a_table_line_up() {
        let t = table(&["A", "LONG"], &[vec!["xyz".into(), "1".into()]]);
        assert_eq!(t, "A     LONG\nxyz   1\n");
    }
}
