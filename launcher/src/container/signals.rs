//! Signals by name and number, and those that the supervisor passes on.

use nix::sys::signal::{SigSet, Signal};

use super::ContainerError;

/// Signals that reach the container's first process when they are sent to the supervisor.
pub const FORWARDED: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// What the supervisor wants to hear of: [`FORWARDED`] and `SIGWINCH`.
fn heard() -> SigSet {
    let mut set: SigSet = FORWARDED.iter().copied().collect();
    set.add(Signal::SIGWINCH);
    set
}

/// Blocks what the supervisor wants to hear of through a descriptor: [`FORWARDED`] and `SIGWINCH`.
///
/// # Errors
/// None that the kernel would give for valid signals.
pub fn block_forwarded() -> Result<SigSet, ContainerError> {
    let set = heard();
    set.thread_block()
        .map_err(ContainerError::host("block signals"))?;
    Ok(set)
}

/// Undoes [`block_forwarded`]; what came meanwhile acts now.
///
/// # Errors
/// None that the kernel would give for valid signals.
pub fn unblock_forwarded() -> Result<(), ContainerError> {
    heard()
        .thread_unblock()
        .map_err(ContainerError::host("unblock signals"))
}

/// The number of the signal that `text` names: `TERM`, `SIGTERM`, `term`, `15`, `RTMIN+3`.
///
/// # Errors
/// [`ContainerError::Invalid`].
pub fn parse(text: &str) -> Result<i32, ContainerError> {
    text.parse::<i32>()
        .ok()
        .or_else(|| by_name(&text.to_ascii_uppercase()))
        .filter(|n| (1..=libc::SIGRTMAX()).contains(n))
        .ok_or_else(|| ContainerError::invalid("signal", text, "no such signal"))
}

fn by_name(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        let offset = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('+')?.parse::<i32>().ok()?
        };
        return libc::SIGRTMIN().checked_add(offset);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        let offset = if rest.is_empty() {
            0
        } else {
            rest.strip_prefix('-')?.parse::<i32>().ok()?
        };
        return libc::SIGRTMAX().checked_sub(offset);
    }
    format!("SIG{name}")
        .parse::<Signal>()
        .ok()
        .map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(parse(text).unwrap(), libc::SIGTERM, "{text}");
        }
        assert_eq!(parse("RTMIN+3").unwrap(), libc::SIGRTMIN() + 3);
        assert_eq!(parse("SIGRTMAX-1").unwrap(), libc::SIGRTMAX() - 1);
        for text in [
            "",
            "0",
            "-9",
            "65",
            "NOPE",
            "RTMIN+99",
            "RTMIN+2147483647",
            "TERM ",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
