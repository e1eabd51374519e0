//! Errors of the forked process that becomes the container: what it was doing, and the exit code.

use std::{fmt::Display, io};

use super::channel::{Channel, Message};
use crate::error::hint::of_limit;

/// Why the container's first process could not be prepared or executed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: u8,
    pub(super) message: String,
    pub(super) next: Option<String>,
}

impl Failed {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            next: None,
        }
    }

    pub(super) fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Tells the supervisor; the exit code for this process.
    pub(super) fn tell(self, channel: &Channel) -> i32 {
        let code = self.code;
        // Nobody to tell means that nobody is left who wants to know.
        let _ = channel.send(&Message::Failed(code, self.message, self.next), None);
        i32::from(code)
    }
}

/// `result.doing("mount /proc")?`
pub(super) trait Doing<T> {
    /// An engine error (125) that says what was being done.
    fn doing(self, what: impl Display) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T, Failed> {
        self.map_err(|e| {
            let e: io::Error = e.into();
            let next = e.raw_os_error().and_then(of_limit).map(str::to_owned);
            Failed {
                next,
                ..Failed::new(125, format!("cannot {what}: {e}"))
            }
        })
    }
}
