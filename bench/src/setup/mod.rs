//! What workloads need and share: the run's own directory, programs that everyone can execute, the
//! image's layers and other lower trees, the stores they are imported into.
//!
//! Made when first asked for. What is large and the same in every run is kept in the cache.

mod generate;
mod import;
mod layout;
mod stacks;
mod unpack;
mod work;

use std::{
    collections::HashMap,
    env, fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, anyhow, bail};
use indicatif::ProgressBar;
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

pub(crate) use generate::{Tar, git, large_file};
pub(crate) use import::Imported;
#[cfg(test)]
pub(crate) use layout::Blob;
pub(crate) use layout::{Described, Layout};
pub(crate) use stacks::{Lower, Stack};
pub(crate) use work::{WorkDir, clear_leftovers};

/// The ordinary user that root measures rootless containers as; tools/lib.sh makes it.
const TEST_USER: &str = "pellicle-test";
const IMAGE: &str = "bench";

/// Who this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Root of the machine.
    Root,
    /// Root of a user namespace that an ordinary user made.
    InNamespace,
    /// An ordinary user, who can mount nothing but with help.
    User,
}

/// Where things are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The `pellicle` that is measured.
    pub(crate) pellicle: PathBuf,
    /// The `pellicle-overlay` that is measured.
    pub(crate) overlay: PathBuf,
    /// The layers of tools/image, if they are given.
    pub(crate) image: Option<PathBuf>,
    /// What stays for the next run.
    pub(crate) cache: PathBuf,
}

/// Everything that outlives a workload.
pub(crate) struct Setup {
    pub(crate) who: Who,
    /// The programs are copies in `work`.
    places: Places,
    bench: PathBuf,
    work: WorkDir,
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    shortens: bool,
    stacks: HashMap<Lower, Rc<Stack>>,
    imported: HashMap<String, Rc<Imported>>,
}

impl Setup {
    /// Everything in `work`, the run's own directory, made when it is needed. When `stop` is raised,
    /// whatever is under way ends with an error.
    pub(crate) fn new(
        who: Who,
        places: &Places,
        work: WorkDir,
        bar: ProgressBar,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let cache = &places.cache;
        fs::create_dir_all(cache)
            .with_context(|| format!("cannot make the cache {}", cache.display()))?;
        let copy = |program: &Path, name: &str| {
            let to = work.path().join(name);
            // Where every user can execute it, wherever the repository is.
            fs::copy(program, &to).with_context(|| format!("cannot copy {}", program.display()))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
            anyhow::Ok(to)
        };
        Ok(Self {
            who,
            bench: copy(&env::current_exe()?, "pellicle-bench")?,
            places: Places {
                pellicle: copy(&places.pellicle, "pellicle")?,
                overlay: copy(&places.overlay, "pellicle-overlay")?,
                image: places.image.clone(),
                cache: cache.canonicalize()?,
            },
            work,
            bar,
            stop,
            shortens: false,
            stacks: HashMap::new(),
            imported: HashMap::new(),
        })
    }

    /// A path in the run's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A directory in the run's own directory.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// A directory in the run's own directory, owned by whom rootless commands run as.
    pub(crate) fn users_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory(name)?;
        if self.who == Who::Root {
            let user = test_user()?;
            nix::unistd::chown(&path, Some(user.uid), Some(user.gid))?;
        }
        Ok(path)
    }

    /// A directory with a short path, for sockets and what else does not take a long one; of whom rootless
    /// commands run as if it is to be an ordinary `user`'s.
    pub(crate) fn short_directory(&self, user: bool) -> Result<TempDir> {
        let dir = self.work.short_directory()?;
        if user && self.who == Who::Root {
            let user = test_user()?;
            nix::unistd::chown(dir.path(), Some(user.uid), Some(user.gid))?;
        }
        Ok(dir)
    }

    /// A directory that stays for the next run.
    pub(crate) fn cached(&self, name: &str) -> Result<PathBuf> {
        let path = self.places.cache.join("bench").join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Says what is being done. An error once the run is to stop.
    pub(crate) fn say(&self, what: impl Into<String>) -> Result<()> {
        self.bar.set_message(what.into());
        self.go_on()
    }

    /// One step more of those that the bar counts is done.
    pub(crate) fn stepped(&self) {
        self.bar.inc(1);
    }

    /// Fewer rounds from now on of what takes long.
    pub(crate) fn shorten(&mut self) {
        self.shortens = true;
    }

    /// Whether what takes long gets fewer rounds.
    pub(crate) fn shortens(&self) -> bool {
        self.shortens
    }

    /// An error once the run is to stop.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            bail!(Interrupted);
        }
        Ok(())
    }

    /// This program, where every user can execute it.
    pub(crate) fn bench(&self) -> &Path {
        &self.bench
    }

    /// The `pellicle-overlay` that is measured.
    pub(crate) fn overlay(&self) -> &Path {
        &self.places.overlay
    }

    /// `pellicle` on the store `store` (a name in the run's directory).
    pub(crate) fn pellicle(&self, store: &str) -> Command {
        let mut command = quiet(&self.places.pellicle);
        command.env("PELLICLE_ROOT", self.path(store));
        command
    }

    /// Makes `command` run as an ordinary user, if this process is root.
    pub(crate) fn as_user(&self, command: &mut Command) -> Result<()> {
        if self.who == Who::Root {
            let user = test_user()?;
            command
                .uid(user.uid.as_raw())
                .gid(user.gid.as_raw())
                .env("HOME", &user.dir)
                .env("USER", &user.name)
                .env_remove("XDG_RUNTIME_DIR")
                .current_dir("/");
        }
        Ok(())
    }

    /// The files of the image's layers, lowest first, readable by everyone.
    pub(crate) fn layer_files(&mut self) -> Result<Vec<PathBuf>> {
        let dir = self.layers()?;
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)
            .with_context(|| format!("cannot list the image's layers in {}", dir.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().map(|n| n.to_string_lossy());
                name.is_some_and(|n| n.starts_with("layer-") && n.contains(".tar"))
            })
            .collect();
        files.sort();
        if files.is_empty() {
            bail!(
                "no layer-* in {}: tools/image full makes them",
                dir.display()
            );
        }
        files.iter().map(|file| self.readable(file)).collect()
    }

    /// The directory of the image's layers.
    fn layers(&mut self) -> Result<PathBuf> {
        if let Some(dir) = &self.places.image {
            return Ok(dir.clone());
        }
        self.say("making the image (tools/image full)")?;
        let tool = repository().join("tools/image");
        let made = Command::new(&tool)
            .arg("full")
            .env("PELLICLE_CACHE", &self.places.cache)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}; give --image DIR", tool.display()))?;
        if !made.status.success() {
            bail!(
                "{} failed; give --image DIR with layer-*.tar files",
                tool.display()
            );
        }
        let dir = PathBuf::from(String::from_utf8(made.stdout)?.trim());
        self.places.image = Some(dir.clone());
        Ok(dir)
    }

    /// `file` under a path that the ordinary user can read.
    fn readable(&self, file: &Path) -> Result<PathBuf> {
        let name = file.file_name().ok_or_else(|| anyhow!("no file name"))?;
        let to = self.work.path().join(name);
        if !to.exists() {
            let linked = fs::hard_link(file, &to);
            let readable = linked.is_ok()
                && fs::metadata(&to).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0);
            if !readable {
                // The original is somebody else's: its mode stays.
                let _ = fs::remove_file(&to);
                fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
                fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
            }
        }
        Ok(to)
    }
}

/// Why a run ended that somebody ended.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// `program` without input, whose output is not shown.
pub(crate) fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs a command that has to succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    said(command).map(drop)
}

/// Runs a command that has to succeed; gives its standard output if that is piped.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out: Output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let last: Vec<&str> = said.lines().rev().take(4).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!(
            "`{}` ended with {}: {}",
            shown(command),
            out.status,
            last.join("; ")
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A command as a person types it, cut where it gets long.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|w| w.to_string_lossy()).collect();
    let mut line = line.join(" ");
    if let Some((at, _)) = line.char_indices().nth(200) {
        line.truncate(at);
        line.push('…');
    }
    line
}

/// Why `program` cannot be run, if so.
pub(crate) fn program_missing(program: &str) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|dir| dir.join(program).is_file());
    (!found).then(|| format!("{program} is not installed"))
}

/// The user that root becomes for what is measured without root.
pub(crate) fn test_user() -> Result<User> {
    User::from_name(TEST_USER)?.ok_or_else(|| {
        anyhow!(
            "there is no user {TEST_USER} to run rootless containers as: useradd -m {TEST_USER}"
        )
    })
}

/// Whether this process is root, of the machine or of a namespace.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

fn repository() -> PathBuf {
    // The source tree this was built from; where that is gone, the working directory.
    let built = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf);
    built
        .filter(|p| p.is_dir())
        .or_else(|| env::current_dir().ok())
        .unwrap_or_default()
}
