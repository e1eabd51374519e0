//! `--ssh ID=KEY`: an ssh agent of the build's own that has the keys of these files.
//!
//! The agent is OpenSSH's, which who has such keys has: it knows all kinds of keys, asks for passphrases, and no
//! key comes into this process. It lives as long as a program that waits for the end of its input, and so
//! never much longer than the build, however that ends.

use std::{
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::CliError;

/// Tells the agent's number, and waits.
const WAIT: &str = "echo \"$SSH_AGENT_PID\"; exec cat";

/// An agent with keys; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct KeyAgent {
    waiting: Child,
    pid: Option<Pid>,
    dir: tempfile::TempDir,
}

impl KeyAgent {
    /// Starts an agent and gives it the keys of `files`.
    ///
    /// # Errors
    /// If there is no OpenSSH, or one of the files is no key, or one that it does not take.
    pub(super) fn start(files: &[&Path]) -> Result<Self, CliError> {
        let host = |e| CliError::failed("cannot start an ssh agent for the build").because(e);
        let dir = tempfile::Builder::new()
            .prefix("pellicle-ssh-")
            .tempdir()
            .map_err(host)?;
        let mut command = Command::new("ssh-agent");
        command.arg("-a").arg(socket(dir.path()));
        let waiting = command
            .args(["sh", "-c", WAIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| missing("ssh-agent", e))?;
        let mut agent = Self {
            waiting,
            pid: None,
            dir,
        };
        agent.pid = Some(agent.told().map_err(host)?);
        for file in files {
            agent.add(file)?;
        }
        Ok(agent)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// The agent's number, once it listens.
    fn told(&mut self) -> io::Result<Pid> {
        let no_number = || io::Error::other("ssh-agent did not tell its number");
        let mut line = String::new();
        let said = self.waiting.stdout.take().ok_or_else(no_number)?;
        BufReader::new(said).read_line(&mut line)?;
        let number = line.trim().parse().ok();
        number.and_then(Pid::from_raw).ok_or_else(no_number)
    }

    /// A passphrase is asked for at the terminal, by ssh-add.
    fn add(&self, file: &Path) -> Result<(), CliError> {
        let said = Command::new("ssh-add")
            .arg("-q")
            .arg("--")
            .arg(file)
            .env("SSH_AUTH_SOCK", self.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()
            .map_err(|e| missing("ssh-add", e))?;
        if said.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&said.stderr);
        let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
        let why: String = why.chars().filter(|c| !c.is_control()).take(500).collect();
        Err(
            CliError::failed(format!("ssh-add does not take {} as a key", file.display()))
                .because(io::Error::other(why))
                .with_hint(
                    "give the file of a private key that only you may read, or the socket of an agent; one with a passphrase needs a terminal, or an agent that has it already (--ssh default)",
                ),
        )
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        // The end of its input ends what waits.
        drop(self.waiting.stdin.take());
        let _ = self.waiting.wait();
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("agent")
}

fn missing(program: &str, error: io::Error) -> CliError {
    let none = error.kind() == io::ErrorKind::NotFound;
    let failed = CliError::failed(format!("cannot run {program}")).because(error);
    match none {
        true => failed.with_hint(
            "keys in files need OpenSSH's client on this machine; without it, give the socket of an agent: --ssh ID=SOCKET",
        ),
        false => failed,
    }
}
