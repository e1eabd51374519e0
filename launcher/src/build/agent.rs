//! `RUN --mount=type=ssh`: the caller's ssh agent, behind a socket of the build's own, so that neither
//! the agent's path nor its owner matters in the container.

use std::{
    fs::{self, File, Permissions},
    io,
    net::Shutdown,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::BuildError;

/// A socket that leads to an agent as long as this lives.
#[derive(Debug)]
pub(super) struct Forward {
    path: PathBuf,
    ended: Arc<AtomicBool>,
}

impl Forward {
    /// Makes the socket `name` in `dir` that leads to the one at `agent`.
    ///
    /// # Errors
    /// If there is no agent, and the host's.
    pub(super) fn start(
        agent: &Path,
        dir: &Path,
        name: &str,
        mode: u32,
    ) -> Result<Self, BuildError> {
        // Now, so that who builds hears of it and not a command far inside.
        UnixStream::connect(agent).map_err(BuildError::io("reach the ssh agent at", agent))?;
        let path = dir.join(name);
        let listener = bind(dir, name).map_err(BuildError::io("make the socket", &path))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(BuildError::io("make the socket", &path))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (agent, over) = (agent.to_owned(), Arc::clone(&ended));
        thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || serve(&listener, &agent, &over))
            .map_err(BuildError::io("start a thread for", &path))?;
        Ok(Self { path, ended })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// By a name that is short however deep the store lies: an address has 108 bytes.
fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

fn serve(listener: &UnixListener, agent: &Path, ended: &AtomicBool) {
    for caller in listener.incoming() {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(caller) = caller else { return };
        let joined = UnixStream::connect(agent).and_then(|agent| join(caller, agent));
        if let Err(error) = joined {
            tracing::warn!(%error, "the ssh agent cannot be reached");
        }
    }
}

/// Passes everything on in both directions until one side ends.
fn join(a: UnixStream, b: UnixStream) -> io::Result<()> {
    let (from_a, from_b) = (a.try_clone()?, b.try_clone()?);
    for (mut from, mut to) in [(from_a, b), (from_b, a)] {
        thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            })?;
    }
    Ok(())
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the thread, which then ends. The path may be too long for an address.
        if let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name())
            && let Ok(dir) = File::open(dir)
        {
            let short = format!("/proc/self/fd/{}", dir.as_raw_fd());
            let _ = UnixStream::connect(Path::new(&short).join(name));
        }
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_is_asked_comes_to_the_agent_and_its_answer_back() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(150));
        fs::create_dir(&long).unwrap();
        let agent = dir.path().join("agent");
        assert!(Forward::start(&agent, &long, "s", 0o600).is_err());
        let listener = UnixListener::bind(&agent).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let mut asked = [0; 4];
                if stream.read_exact(&mut asked).is_ok() {
                    asked.reverse();
                    stream.write_all(&asked).unwrap();
                }
            }
        });
        let forward = Forward::start(&agent, &long, "s", 0o600).unwrap();
        let mode = fs::metadata(forward.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let short = File::open(&long).unwrap();
        for _ in 0..3 {
            let path = format!("/proc/self/fd/{}/s", short.as_raw_fd());
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"abcd").unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"dcba");
        }
        drop(forward);
        assert!(!long.join("s").exists());
    }
}
