//! A pseudo terminal to run a command on, as a person at a terminal does.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{Cmd, wait_for};

/// A command running on a terminal of its own.
pub struct Terminal {
    master: File,
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `cmd` as the session leader of a new terminal of 24 lines by 80 columns.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn start(cmd: Cmd) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("openpt");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let slave = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().expect("a plain path"))
            .expect("the terminal's other side");
        set_size(&master, 24, 80);
        let inner = cmd.into_command();
        // setsid(1) takes the terminal as the controlling one, which needs code between fork and exec.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.env_clear();
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        let side = || Stdio::from(OwnedFd::from(slave.try_clone().expect("dup")));
        let child = command
            .current_dir("/")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("setsid");
        drop(slave);
        let master = File::from(master);
        let this = Self {
            master,
            child,
            screen: Arc::default(),
        };
        let (mut from, screen) = (
            this.master.try_clone().expect("dup"),
            Arc::clone(&this.screen),
        );
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is how a terminal says that its other side is closed.
            while let Ok(read) = from.read(&mut buffer) {
                if read == 0 {
                    break;
                }
                screen
                    .lock()
                    .expect("screen")
                    .extend_from_slice(&buffer[..read]);
            }
        });
        this
    }

    /// Types `text`.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("terminal");
    }

    /// Changes the size.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    /// All that has been shown so far.
    ///
    /// # Panics
    /// Never in practice.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("screen")).into_owned()
    }

    /// Waits until `text` has been shown.
    ///
    /// # Panics
    /// If it does not appear.
    pub fn expect(&self, text: &str) {
        let start = std::time::Instant::now();
        while !self.screen().contains(text) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{text:?} did not appear on the terminal:\n{}",
                self.screen()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the command's end and gives its exit code.
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn exit_code(mut self) -> i32 {
        let status = wait_for(
            "the command on the terminal to end",
            Duration::from_secs(60),
            || self.child.try_wait().expect("wait"),
        );
        status.code().unwrap_or(-1)
    }
}

fn set_size(master: impl AsFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(master, size).expect("resize");
}
