//! A mount that is there for as long as it is held, and what its server tells.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::setup::Setup;

/// How long a server may take to mount, and to end. One that scans a large tree first takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a mount may be busy once its workload is done.
const BUSY: Duration = Duration::from_secs(10);

/// The attribute that our servers answer (`pellicle_fuse::SERVER_XATTR`).
const SERVER: &str = "user.pellicle.server";

/// The directories of one mount.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    pub(crate) at: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
}

impl Place {
    /// New ones.
    pub(crate) fn new(setup: &Setup) -> Result<Self> {
        let root = setup.path("mount");
        if root.exists() {
            unmount_all_under(&root);
            fs::remove_dir_all(&root)
                .with_context(|| format!("cannot clear {}", root.display()))?;
        }
        let of = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            anyhow::Ok(path)
        };
        Ok(Self {
            at: of("at")?,
            upper: of("upper")?,
            work: of("work")?,
            root,
        })
    }

    /// `upperdir=` and `workdir=`.
    pub(crate) fn options(&self) -> String {
        format!(
            "upperdir={},workdir={}",
            self.upper.display(),
            self.work.display()
        )
    }
}

/// A tree that can be seen at [`at`](Self::at) until it is unmounted or dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: PathBuf,
    mounted: bool,
    server: Option<Child>,
    place: Option<Place>,
}

impl Mounted {
    /// The directory `at`, which stays. `place` goes.
    pub(crate) fn directory(at: PathBuf, place: Option<Place>) -> Self {
        Self {
            at,
            mounted: false,
            server: None,
            place,
        }
    }

    /// What is mounted on `at` already, by the kernel.
    pub(crate) fn kernel(at: PathBuf, place: Option<Place>) -> Self {
        let mut mounted = Self::directory(at, place);
        mounted.mounted = true;
        mounted
    }

    /// Starts `server`, which mounts on the place's directory and serves in the foreground, and
    /// waits until it has mounted. It ends with this process, however that ends.
    pub(crate) fn serve(setup: &Setup, server: &Command, place: Place) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(server.get_program())
            .args(server.get_args())
            // Signals of the terminal are for us, who unmounts before the server ends.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(place.root.join("log"))?);
        for (name, value) in server.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        let child = command.spawn().context("cannot run setpriv")?;
        let mut mounted = Self {
            at: place.at.clone(),
            mounted: true,
            server: Some(child),
            place: Some(place),
        };
        mounted.wait_until_mounted(setup)?;
        Ok(mounted)
    }

    fn wait_until_mounted(&mut self, setup: &Setup) -> Result<()> {
        let start = Instant::now();
        while !is_mounted(&self.at) {
            let server = self.server.as_mut();
            if let Some(status) = server.and_then(|server| server.try_wait().ok().flatten()) {
                bail!("the server ended with {status}: {}", self.log());
            }
            if start.elapsed() > PATIENCE {
                bail!("nothing is mounted after {PATIENCE:?}: {}", self.log());
            }
            setup.go_on()?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// What the server has said.
    fn log(&self) -> String {
        let log = self.place.as_ref().map(|place| place.root.join("log"));
        let text = log.and_then(|log| fs::read_to_string(log).ok());
        text.unwrap_or_default().trim().replace('\n', "; ")
    }

    /// Where the tree is.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Bytes on the disk of what changes are kept in, and bytes of file content in it.
    pub(crate) fn space(&self) -> Result<Option<(u64, u64)>> {
        let Some(place) = self.place.as_ref().filter(|_| self.mounted) else {
            return Ok(None);
        };
        let mut space = (0, 0);
        let mut dirs = vec![place.upper.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                let taken = meta.blocks() * 512;
                space.0 += taken;
                let is_log = entry.file_name().to_string_lossy().starts_with("journal");
                if meta.is_dir() {
                    dirs.push(entry.path());
                } else if meta.is_file() && !is_log {
                    space.1 += taken;
                }
            }
        }
        Ok(Some(space))
    }

    /// Unmounts, waits for the server to end, and says if that fails.
    pub(crate) fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.mounted) && is_mounted(&self.at) {
            let begun = Instant::now();
            loop {
                match umount2(&self.at, MntFlags::empty()) {
                    // A process of the workload may be just about to end.
                    Err(Errno::EBUSY) if begun.elapsed() < BUSY => {
                        thread::sleep(Duration::from_millis(20));
                    }
                    done => {
                        done.with_context(|| format!("cannot unmount {}", self.at.display()))?;
                        break;
                    }
                }
            }
        }
        if let Some(mut server) = self.server.take() {
            let start = Instant::now();
            while server.try_wait()?.is_none() {
                if start.elapsed() > PATIENCE {
                    server.kill()?;
                    server.wait()?;
                    bail!("the server outlived its mount by {PATIENCE:?}; it was killed");
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        if let Some(place) = self.place.take() {
            fs::remove_dir_all(&place.root)
                .with_context(|| format!("cannot clear {}", place.root.display()))?;
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.server.is_none() && self.place.is_none() && !self.mounted {
            return;
        }
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        if let Some(mut server) = self.server.take() {
            if let Ok(id) = i32::try_from(server.id()) {
                let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
            let _ = server.wait();
        }
        if let Some(place) = self.place.take() {
            let _ = fs::remove_dir_all(&place.root);
        }
    }
}

fn is_mounted(at: &Path) -> bool {
    mount_points().iter().any(|point| point == at)
}

/// Where anything is mounted, in the order it was.
fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(PathBuf::from).collect()
}

/// Takes away whatever is mounted in `dir`: what a crashed workload may have left.
pub(crate) fn unmount_all_under(dir: &Path) {
    for point in mount_points().iter().rev().filter(|p| p.starts_with(dir)) {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// How many messages of each kind came to the server of the mount at `at`, this question not
/// counted; nothing where it does not tell.
pub(crate) fn messages(at: &Path) -> BTreeMap<String, u64> {
    let mut text = vec![0; 64 << 10];
    let got = rustix::fs::getxattr(at, SERVER, &mut text);
    text.truncate(got.unwrap_or(0));
    let mut counts = parse_messages(&String::from_utf8_lossy(&text));
    if let Some(asked) = counts.get_mut("GETXATTR") {
        *asked = asked.saturating_sub(1);
    }
    counts
}

/// The first two columns of the table after the line that begins with OPERATION.
fn parse_messages(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .skip_while(|line| !line.starts_with("OPERATION"))
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, count) = (words.next()?, words.next()?.parse().ok()?);
            (name != "all").then(|| (name.to_owned(), count))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_table_is_read_without_its_sum() {
        let text = "io_uring, 5 threads\n\
            OPERATION         MESSAGES           BYTES       TOTAL\n\
            READ                    12          131072       2.0ms\n\
            LOOKUP                   3               0       3.0us\n\
            all                     15          131072       2.0ms\n";
        let counts = parse_messages(text);
        assert_eq!(counts.len(), 2);
        assert_eq!((counts["READ"], counts["LOOKUP"]), (12, 3));
        assert!(parse_messages("").is_empty());
    }

    #[test]
    fn a_directory_without_a_server_tells_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(messages(dir.path()).is_empty());
        assert!(!is_mounted(dir.path()));
    }
}
