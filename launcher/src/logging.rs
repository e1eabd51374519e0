//! What the program and its libraries tell of by `tracing`, on standard error.
//!
//! Warnings always, as the program's own are written; all of it, with times, once `--log-level` asks.

use std::{
    fmt::{self, Write as _},
    io,
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format},
    registry::LookupSpan,
};

use crate::{error::CliError, output::Output};

/// Starts it. `filter` is what `--log-level` says.
///
/// # Errors
/// A usage error if that is no filter.
pub(crate) fn start(filter: Option<&str>, out: Output) -> Result<(), CliError> {
    let log = tracing_subscriber::fmt().with_writer(io::stderr);
    // Both fail only if logging was started before, which is then as good.
    let _ = match filter {
        None => log
            .with_max_level(LevelFilter::WARN)
            .event_format(AsWarning(out))
            .try_init(),
        Some(filter) => {
            let filter = EnvFilter::try_new(filter).map_err(|e| {
                CliError::usage(format!("{filter:?} is no log level"))
                    .because(e)
                    .with_hint("give one of error, warn, info, debug, trace")
            })?;
            log.with_env_filter(filter)
                .with_ansi(out.has_colors())
                .try_init()
        }
    };
    Ok(())
}

/// A line as [`Output::warn`] has it.
struct AsWarning(Output);

impl<S, N> FormatEvent<S, N> for AsWarning
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: format::Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut said = Said::default();
        event.record(&mut said);
        writeln!(writer, "{}: {said}", self.0.warning_mark())
    }
}

/// An event's text, the fields that belong to it, and its cause.
#[derive(Default)]
struct Said {
    message: String,
    details: String,
    cause: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "error" => write!(self.cause, ": {value:?}"),
            name => write!(self.details, " ({name} {value:?})"),
        };
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.message, self.details, self.cause)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_warning_of_a_library_reads_as_one_of_the_programs_own() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::WARN)
            .with_writer(move || writer.clone())
            .event_format(AsWarning(Output::detect()))
            .finish();
        tracing::subscriber::with_default(log, || {
            let error = io::Error::from_raw_os_error(28);
            tracing::warn!(%error, path = %"/a/b", "cannot tidy {}", 7);
            tracing::info!("not said");
            tracing::warn!("plain");
        });
        let text = String::from_utf8(kept.0.lock().expect("lock").clone()).expect("text");
        assert_eq!(
            text,
            "pellicle: warning: cannot tidy 7 (path /a/b): No space left on device (os error 28)\n\
             pellicle: warning: plain\n"
        );
    }
}
