//! `pellicle logs`: what a container wrote.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;

use super::containers;
use crate::{
    CliError, Context,
    container::{
        log::{Entry, Stream},
        registry::Watch,
    },
};

/// How soon new output is shown with -f.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);

/// Print a container's output
///
/// What it wrote to standard error goes to standard error.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle logs web
  pellicle logs -f --tail 20 web")]
pub struct LogsArgs {
    /// Go on until it stops
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many lines from the end, or all
    #[arg(short = 'n', long, default_value = "all", value_name = "NUMBER")]
    pub tail: String,
    /// Say when each line was written
    #[arg(short, long)]
    pub timestamps: bool,
    /// Name or id of a container
    pub container: String,
}

/// Runs the command.
///
/// # Errors
/// If there is no such container or its log cannot be read.
pub fn run(cx: &Context, args: LogsArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    let id = registry.find(&args.container)?;
    let path = registry.dir(&id).join("log");
    let watch = registry.watch(&id)?;
    let tail = match args.tail.as_str() {
        "all" => None,
        number => Some(number.parse::<usize>().map_err(|_| {
            CliError::usage(format!("--tail {number:?} is neither a number nor `all`"))
        })?),
    };
    let mut log = match open(&path, args.follow, &watch)? {
        Some(file) => BufReader::new(file),
        None => return Ok(ExitCode::SUCCESS),
    };
    if let Some(lines) = tail {
        skip_to_tail(&mut log, lines)?;
    }
    let mut line = Vec::new();
    loop {
        // Asked before reading: what was written before the end is read after this.
        let ended = !args.follow || watch.wait_until(Instant::now());
        while log.read_until(b'\n', &mut line)? > 0 {
            // A line that is being written, or was torn by a crash.
            if !line.ends_with(b"\n") {
                break;
            }
            print(&line, args.timestamps)?;
            line.clear();
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

/// `None` if nothing was written and, with `follow`, nothing will be.
fn open(path: &Path, follow: bool, watch: &Watch) -> Result<Option<File>, CliError> {
    loop {
        let ended = !follow || watch.wait_until(Instant::now());
        match File::open(path) {
            Ok(file) => return Ok(Some(file)),
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(CliError::failed(format!("cannot read {}", path.display())).because(e));
            }
            Err(_) if ended => return Ok(None),
            Err(_) => std::thread::sleep(FOLLOW_INTERVAL),
        }
    }
}

/// Moves to the `lines`-th line from the end. Only the starts of that many lines are kept.
fn skip_to_tail(log: &mut BufReader<File>, lines: usize) -> io::Result<()> {
    use std::io::{Seek as _, SeekFrom};

    let mut starts = std::collections::VecDeque::new();
    let mut at = 0_u64;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = log.read_until(b'\n', &mut line)?;
        if read == 0 || !line.ends_with(b"\n") {
            break;
        }
        starts.push_back(at);
        at += read as u64;
        if starts.len() > lines {
            starts.pop_front();
        }
    }
    log.seek(SeekFrom::Start(starts.front().copied().unwrap_or(at)))?;
    Ok(())
}

fn print(line: &[u8], timestamps: bool) -> Result<(), CliError> {
    let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
        tracing::warn!("a line of the log is damaged and left out");
        return Ok(());
    };
    let mut bytes = Vec::new();
    if timestamps {
        bytes.extend_from_slice(entry.time.as_bytes());
        bytes.push(b' ');
    }
    bytes.extend(entry.bytes());
    let written = match entry.stream {
        Stream::Stdout => io::stdout()
            .write_all(&bytes)
            .and_then(|()| io::stdout().flush()),
        Stream::Stderr => io::stderr().write_all(&bytes),
    };
    written.map_err(CliError::from_stdout)
}
