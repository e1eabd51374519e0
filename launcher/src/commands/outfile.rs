//! Where `export` and `save` write their archive: standard output, but no terminal, or a file that is
//! there only when it is whole.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use pellicle_union::CommitError;
use tempfile::NamedTempFile;

use crate::CliError;

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// What is written to.
pub(super) struct OutFile {
    out: BufWriter<Box<dyn Write>>,
    /// The file that gets its name at the end.
    unnamed: Option<(NamedTempFile, PathBuf)>,
}

impl OutFile {
    /// The file `path`, or standard output without one. `what` is for the message about a terminal.
    ///
    /// # Errors
    /// If standard output is a terminal, or the file cannot be made.
    pub(super) fn new(path: Option<&Path>, what: &str) -> Result<Self, CliError> {
        let Some(path) = path.filter(|p| *p != Path::new("-")) else {
            let stdout = io::stdout();
            if stdout.is_terminal() {
                return Err(CliError::usage(format!(
                    "standard output is a terminal, and {what} is not for reading"
                ))
                .with_hint("give a file with -o FILE, or redirect the output"));
            }
            return Ok(Self::of(Box::new(stdout), None));
        };
        let fail = |e| CliError::failed(format!("cannot write {}", path.display())).because(e);
        // A device or a pipe is written to as it is.
        if fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            let file = fs::OpenOptions::new().write(true).open(path);
            return Ok(Self::of(Box::new(file.map_err(fail)?), None));
        }
        if path.is_dir() {
            return Err(CliError::usage(format!(
                "{} is a directory",
                path.display()
            )));
        }
        let dir = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".pellicle-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(fail)?;
        let handle: File = file.as_file().try_clone().map_err(fail)?;
        Ok(Self::of(Box::new(handle), Some((file, path.to_owned()))))
    }

    fn of(out: Box<dyn Write>, unnamed: Option<(NamedTempFile, PathBuf)>) -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER, out),
            unnamed,
        }
    }

    /// Writes out what was gathered, and gives the file its name.
    ///
    /// # Errors
    /// The host's; the file is then not there.
    pub(super) fn finish(mut self) -> Result<(), CliError> {
        let flushed = self.out.flush();
        flushed.map_err(|source| cancelled(CommitError::Write { source }))?;
        if let Some((file, path)) = self.unnamed {
            file.persist(&path).map_err(|e| {
                CliError::failed(format!("cannot write {}", path.display())).because(e.error)
            })?;
        }
        Ok(())
    }
}

impl Write for OutFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.out.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What was interrupted exits as the signal would have ended it, and a reader that went away is no
/// error worth a message.
pub(super) fn cancelled(error: CommitError) -> CliError {
    match &error {
        CommitError::Cancelled => CliError::from(error).with_code(130),
        CommitError::Write { source } if source.kind() == io::ErrorKind::BrokenPipe => {
            CliError::closed_pipe()
        }
        CommitError::Union(_) | CommitError::Store(_) | CommitError::Write { .. } => error.into(),
    }
}
