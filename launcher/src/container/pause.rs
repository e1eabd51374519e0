//! A running container at one moment: paused, and all that its processes wrote at the server.
//!
//! Pausing needs a cgroup of version 2. A second process resumes the container should this one be
//! killed: it waits for the end of a pipe that only this one holds.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{ContainerError, cgroup::Cgroup, process::ProcessId};

/// How long a cgroup may take until all of it stands still; a process in an uninterruptible sleep
/// holds it up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The hidden command of the second process.
pub const RESUME_COMMAND: &str = "__resume";

/// A paused container; dropping it resumes it.
#[derive(Debug)]
pub struct Paused {
    file: PathBuf,
    second: Child,
}

impl Paused {
    /// Pauses what is in `cgroup`; `None` if it cannot be paused, for want of a cgroup.
    ///
    /// # Errors
    /// The host's, or [`ContainerError::Host`] if it does not come to a halt.
    pub fn pause(cgroup: &Cgroup) -> Result<Option<Self>, ContainerError> {
        let Some(file) = cgroup.freezer() else {
            return Ok(None);
        };
        let failed = |source| ContainerError::Host {
            doing: "pause the container".to_owned(),
            source,
        };
        let second = Command::new("/proc/self/exe")
            .arg(RESUME_COMMAND)
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let paused = Self { file, second };
        write(&paused.file, "1").map_err(failed)?;
        let events = paused.file.with_file_name("cgroup.events");
        let until = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&events).map_err(failed)?;
            if text.lines().any(|line| line == "frozen 1") {
                return Ok(Some(paused));
            }
            if Instant::now() > until {
                let why = io::Error::new(io::ErrorKind::TimedOut, "it did not stop within 10 s");
                return Err(failed(why));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = write(&self.file, "0") {
            tracing::warn!(%error, file = %self.file.display(), "cannot resume the container");
        }
        // The second process sees the end of its pipe, and writes the same again.
        drop(self.second.stdin.take());
        let _ = self.second.wait();
    }
}

/// What the second process does: waits until the first is done or gone, and resumes the container.
///
/// # Errors
/// The host's.
pub fn resume_later(file: &Path) -> io::Result<()> {
    let waited = io::copy(&mut io::stdin().lock(), &mut io::sink());
    write(file, "0").and(waited.map(drop))
}

/// Writes to a file of a cgroup, which must be there.
fn write(file: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    file.write_all(text.as_bytes())
}

/// Has the kernel hand everything to the server that `process`, the container's first, and the others
/// wrote into mapped files of its root.
///
/// # Errors
/// The host's: also where this user may not look into the container.
pub fn flush(process: &ProcessId) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotFound);
    let pidfd = process.open().ok_or_else(gone)?;
    let root = fs::File::open(format!("/proc/{}/root", process.pid))?;
    // Still the same process: then it was its root that was opened.
    drop(pidfd);
    process.open().ok_or_else(gone)?;
    Ok(rustix::fs::syncfs(root)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a hierarchy of version 2 is mounted, if this process may make cgroups in it.
    fn hierarchy() -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let line = mounts.lines().find(|l| l.contains(" - cgroup2 "))?;
        let own = PathBuf::from(line.split(' ').nth(4)?);
        let dir = own.join(format!("pellicle-test-{}", std::process::id()));
        fs::create_dir(&dir).ok()?;
        Some(dir)
    }

    #[test]
    fn what_is_paused_stands_still_until_it_is_let_go() {
        let Some(dir) = hierarchy() else {
            eprintln!("skipped: no cgroup of version 2 can be made here");
            return;
        };
        let mut busy = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        fs::write(dir.join("cgroup.procs"), busy.id().to_string()).unwrap();
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", busy.id())).unwrap();
            let fields: Vec<&str> = stat.split(' ').collect();
            fields[13].parse::<u64>().unwrap()
        };
        let moves = || {
            let before = ticks();
            (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                ticks() > before
            })
        };
        let cgroup: Cgroup = serde_json::from_value(serde_json::json!({"dirs": [&dir]})).unwrap();
        assert!(moves());
        let paused = Paused::pause(&cgroup).unwrap().unwrap();
        assert!(!moves(), "it is paused");
        drop(paused);
        assert!(moves(), "it goes on");
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(cgroup.remove(), "{} is left", dir.display());
        assert!(Paused::pause(&Cgroup::default()).unwrap().is_none());
    }
}
