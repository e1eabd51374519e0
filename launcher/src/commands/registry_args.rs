//! Options of the commands that speak to registries, and how they show what moves.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::Args;
use parking_lot::Mutex;
use pellicle_store::{
    Digest,
    import::{Cancel, Progress},
};

use super::short_name::ask;
use crate::{
    CliError, Output,
    image::{Reference, short_id},
    output::{Step, Steps, bytes},
    registry::{
        Access, Credentials, Registries, RegistryError, Retry, Source,
        pull::{Show, Shown},
    },
};

/// How long nothing may come from a registry, in seconds, unless `PELLICLE_REGISTRY_TIMEOUT` says so.
const STALL: u64 = 60;

/// How registries are reached; podman's names and meanings.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registry options")]
pub struct RegistryArgs {
    /// Demand TLS and check certificates [default: true, unless registries.conf marks the registry insecure]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Directory with the registry's CA (*.crt), and what this side shows (*.cert, *.key)
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// File with credentials [default: $REGISTRY_AUTH_FILE, podman's auth.json, docker's config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

/// What commands that move images take besides.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Registry options")]
pub struct TransferArgs {
    /// How the registry is reached.
    #[command(flatten)]
    pub registry: RegistryArgs,
    /// Credentials for this once
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub creds: Option<String>,
    /// How often to try again after a failure of the network or the registry [default: 5]
    #[arg(long, value_name = "N")]
    pub retry: Option<u32>,
    /// Pause before the first further try, doubled for each next: 2s, 500ms, 1m [default: 500ms]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub retry_delay: Option<Duration>,
}

impl RegistryArgs {
    /// What was asked for.
    ///
    /// # Errors
    /// If `registries.conf` or the environment makes no sense.
    pub fn access(&self, cancel: Cancel) -> Result<Access, RegistryError> {
        Ok(Access {
            registries: Registries::load()?,
            credentials: match &self.authfile {
                Some(path) => Source::File(path.clone()),
                None => Source::Usual,
            },
            tls_verify: self.tls_verify,
            cert_dir: self.cert_dir.clone(),
            retry: Retry::default(),
            stall: stall()?,
            cancel,
            watched: true,
        })
    }
}

impl TransferArgs {
    /// What was asked for.
    ///
    /// # Errors
    /// As [`RegistryArgs::access`]; if the password is to be asked for and there is no terminal.
    pub fn access(&self, cancel: Cancel) -> Result<Access, CliError> {
        let mut access = self.registry.access(cancel)?;
        if let Some(creds) = &self.creds {
            let (user, password) = match creds.split_once(':') {
                Some((user, password)) => (user.to_owned(), password.to_owned()),
                None => (creds.clone(), ask_password()?),
            };
            access.credentials = Source::Given(Credentials::new(user, password));
        }
        if let Some(times) = self.retry {
            access.retry.times = times;
        }
        if let Some(delay) = self.retry_delay {
            access.retry.delay = delay;
        }
        Ok(access)
    }
}

/// Asks the person at the terminal, who does not see what is typed.
pub(super) fn ask_password() -> Result<String, CliError> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

    let no_terminal = |e: std::io::Error| {
        CliError::usage("a password is needed, and there is no terminal to ask for it")
            .because(e)
            .with_hint("give it with --password-stdin (login) or --creds USER:PASSWORD")
    };
    let tty = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(no_terminal)?;
    let before = tcgetattr(&tty).map_err(|e| no_terminal(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes -= LocalModes::ECHO;
    let mut shown = &tty;
    let _ = std::io::Write::write_all(&mut shown, b"Password: ");
    tcsetattr(&tty, OptionalActions::Flush, &silent).map_err(|e| no_terminal(e.into()))?;
    let line = read_line(&mut &tty);
    let _ = tcsetattr(&tty, OptionalActions::Flush, &before);
    let _ = std::io::Write::write_all(&mut shown, b"\n");
    line.map_err(no_terminal)
}

/// One line, without what ends it; no byte behind it is taken.
pub(super) fn read_line(from: &mut dyn std::io::Read) -> std::io::Result<String> {
    const LINE_MAX: usize = 64 << 10;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_MAX && from.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(std::io::Error::other)
}

fn stall() -> Result<Duration, RegistryError> {
    const NAME: &str = "PELLICLE_REGISTRY_TIMEOUT";
    let Some(text) = std::env::var_os(NAME).filter(|v| !v.is_empty()) else {
        return Ok(Duration::from_secs(STALL));
    };
    let seconds = text.to_str().and_then(|t| t.parse::<u64>().ok());
    seconds
        .filter(|s| (1..=86_400).contains(s))
        .map(Duration::from_secs)
        .ok_or_else(|| RegistryError::Invalid {
            what: format!("the environment variable {NAME}"),
            why: "it is no number of seconds from 1 to 86400".to_owned(),
        })
}

fn duration(text: &str) -> Result<Duration, String> {
    const WHY: &str = "write a time such as 2s, 500ms or 1m";
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).ok_or(WHY)?;
    let n: u64 = number.parse().map_err(|_| WHY)?;
    let seconds = |s: u64| n.checked_mul(s).map(Duration::from_secs).ok_or(WHY);
    let time = match unit {
        "ms" => Duration::from_millis(n),
        "" | "s" => seconds(1)?,
        "m" => seconds(60)?,
        "h" => seconds(3600)?,
        _ => return Err(WHY.to_owned()),
    };
    Ok(time)
}

/// Shows blobs on their way: a bar each on a terminal, a line each when it is there.
pub(super) struct Bars {
    steps: Steps,
    /// What short names were said to mean.
    chosen: Mutex<BTreeMap<String, Reference>>,
}

impl Bars {
    pub(super) fn new(out: Output) -> Self {
        Self {
            steps: out.steps(),
            chosen: Mutex::default(),
        }
    }
}

impl Show for Bars {
    fn begin(&self, blob: &Digest, size: u64) -> Box<dyn Shown + '_> {
        let total = Some(size).filter(|s| *s > 0);
        Box::new(Bar(
            self.steps.step(format!("blob {}", short_id(blob)), total),
            size,
        ))
    }

    fn skip(&self, blob: &Digest, size: u64, why: &str) {
        self.steps
            .note(format!("blob {}: {why}, {}", short_id(blob), bytes(size)));
    }

    fn warn(&self, text: &str) {
        self.steps.warn(text);
    }

    /// One question at a time, and none twice: stages of a build ask from several threads.
    fn choose(
        &self,
        short: &str,
        among: &[Reference],
        cancel: &Cancel,
    ) -> Result<Option<Reference>, RegistryError> {
        let mut chosen = self.chosen.lock();
        if let Some(known) = chosen.get(short) {
            return Ok(Some(known.clone()));
        }
        let answer = self.steps.pause(|| ask(short, among, cancel))?;
        if let Some(name) = &answer {
            chosen.insert(short.to_owned(), name.clone());
        }
        Ok(answer)
    }
}

struct Bar(Step, u64);

impl Progress for Bar {
    fn bytes(&self, n: u64) {
        self.0.advance(n);
    }
}

impl Shown for Bar {
    fn done(self: Box<Self>, what: &str) {
        let size = self.1.max(self.0.bytes());
        self.0.done(format_args!("{what}, {}", bytes(size)));
    }
}

/// An interrupted transfer exits as the signal would have ended it: 128 + SIGINT.
pub(super) fn clearly(error: RegistryError) -> CliError {
    let code = matches!(error, RegistryError::Cancelled).then_some(130);
    code.into_iter()
        .fold(CliError::from(error), CliError::with_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_written_with_a_unit() {
        assert_eq!(duration("2s").unwrap(), Duration::from_secs(2));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("1m").unwrap(), Duration::from_secs(60));
        for bad in ["", "s", "2x", "-1s", "99999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_line_ends_where_it_ends() {
        let mut from = &b"secret\r\nmore"[..];
        assert_eq!(read_line(&mut from).unwrap(), "secret");
        assert_eq!(read_line(&mut from).unwrap(), "more");
        assert_eq!(read_line(&mut from).unwrap(), "");
    }
}
