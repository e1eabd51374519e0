//! Running a command with a time limit, and saying everything about it when an expectation fails.

use std::{
    ffi::OsStr,
    io::{ErrorKind, Read, Write as _},
    os::unix::process::CommandExt as _,
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// How long a command may take unless the test says otherwise: only one that hangs does.
const LIMIT: Duration = Duration::from_secs(180);

/// A command to be run.
pub struct Cmd {
    command: Command,
    shown: String,
    stdin: Vec<u8>,
    limit: Duration,
}

impl Cmd {
    /// Wraps `command`.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let shown = command.get_program().to_string_lossy().into_owned();
        Self {
            command,
            shown,
            stdin: Vec::new(),
            limit: LIMIT,
        }
        .noted()
    }

    fn noted(mut self) -> Self {
        for arg in self.command.get_args() {
            self.shown.push(' ');
            self.shown.push_str(&arg.to_string_lossy());
        }
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives the standard input; empty unless set.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Sets the time limit.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The command itself, for what this wrapper does not do.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts it and does not wait.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut self) -> Running {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that a timeout can end all of it.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start `{}`: {e}", self.shown));
        let mut stdin = child.stdin.take().expect("piped");
        let bytes = self.stdin;
        thread::spawn(move || {
            // The reader may well be gone before it has read all.
            let _ = stdin.write_all(&bytes);
        });
        Running {
            stdout: Stream::of(child.stdout.take().expect("piped")),
            stderr: Stream::of(child.stderr.take().expect("piped")),
            child,
            shown: self.shown,
            deadline: Instant::now() + self.limit,
            limit: self.limit,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started, or takes longer than its limit.
    #[must_use]
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Runs it; it must succeed. Gives its standard output without the last newline.
    ///
    /// # Panics
    /// If it fails.
    pub fn ok(self) -> String {
        self.run().succeeded().out()
    }
}

/// What comes out of a command, read as it comes.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Stream {
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let ((send, end), all) = (channel(), Arc::clone(&bytes));
        thread::spawn(move || {
            let mut some = [0; 16 << 10];
            loop {
                match from.read(&mut some) {
                    Ok(n @ 1..) => all.lock().expect("no panic").extend_from_slice(&some[..n]),
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
            let _ = send.send(());
        });
        Self { bytes, end }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no panic")).into_owned()
    }

    /// Everything, once nobody can write to it any more; `None` if that takes longer than `limit`.
    fn whole(&self, limit: Duration) -> Option<Vec<u8>> {
        self.end.recv_timeout(limit).ok()?;
        Some(std::mem::take(&mut *self.bytes.lock().expect("no panic")))
    }
}

/// A command that has been started.
pub struct Running {
    child: Child,
    shown: String,
    stdout: Stream,
    stderr: Stream,
    deadline: Instant,
    limit: Duration,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it is no longer there.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the process is there");
    }

    /// Whether a descriptor of the process leads to something with `part` in its name.
    #[must_use]
    pub fn has_open(&self, part: &str) -> bool {
        let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", self.pid())) else {
            return false;
        };
        open.flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|to| to.to_string_lossy().contains(part))
    }

    /// What it has said so far on its standard output.
    #[must_use]
    pub fn said(&self) -> String {
        self.stdout.so_far()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it takes longer than its limit, or something it started keeps its output open.
    #[must_use]
    pub fn wait(mut self) -> Outcome {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > self.deadline {
                let _ = killpg(self.pid(), Signal::SIGKILL);
                let _ = self.child.wait();
                panic!(
                    "`{}` took longer than {:?}\n--- stdout\n{}\n--- stderr\n{}",
                    self.shown,
                    self.limit,
                    self.stdout.so_far(),
                    self.stderr.so_far(),
                );
            }
            thread::sleep(Duration::from_millis(4));
        };
        let grace = Duration::from_secs(60);
        let held = || {
            panic!(
                "`{}` ended, but its output is still held open by another process",
                self.shown
            )
        };
        Outcome {
            stdout: self.stdout.whole(grace).unwrap_or_else(held),
            stderr: self.stderr.whole(grace).unwrap_or_else(held),
            status,
            shown: self.shown,
        }
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    status: ExitStatus,
    shown: String,
}

impl Outcome {
    /// The exit code; 128 + n for a signal, as a shell has it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Standard output as text, without the last newline.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout)
            .trim_end_matches('\n')
            .to_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Checks that it succeeded.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    #[must_use]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    /// Checks the exit code.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    #[must_use]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit code of {self}");
        self
    }

    /// Checks that it failed as a command should: not by a panic or a signal, with one message
    /// that names `words`, and within a few lines.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn failed_clearly(self, code: i32, words: &[&str]) {
        let this = self.exited(code);
        let text = this.err();
        assert!(
            text.contains("pellicle: error:"),
            "no error message from {this}"
        );
        assert_eq!(
            text.matches("error:").count(),
            1,
            "more than one message from {this}"
        );
        assert!(!text.contains("panicked"), "a panic from {this}");
        assert!(text.lines().count() <= 12, "a wall of text from {this}");
        for word in words {
            assert!(
                text.to_lowercase().contains(&word.to_lowercase()),
                "nothing about {word:?} in the message of {this}"
            );
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` (exit {})\n--- stdout\n{}\n--- stderr\n{}",
            self.shown,
            self.code(),
            self.out(),
            self.err()
        )
    }
}
