//! What workloads need and share: the image's layers, the store it is imported into, the same
//! layers unpacked for the peers. Made when first asked for; what is large is kept in the cache.

mod unpack;

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, anyhow, bail};
use indicatif::ProgressBar;
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

/// The ordinary user that root measures rootless containers as; tools/lib.sh makes it.
const TEST_USER: &str = "pellicle-test";
const IMAGE: &str = "bench";

/// Everything that outlives a workload.
pub(crate) struct Setup {
    pellicle: PathBuf,
    image: Option<PathBuf>,
    cache: PathBuf,
    work: TempDir,
    bar: ProgressBar,
}

impl Setup {
    /// Makes the run's own directory; the rest comes when it is needed.
    pub(crate) fn new(
        pellicle: PathBuf,
        image: Option<PathBuf>,
        cache: &Path,
        bar: ProgressBar,
    ) -> Result<Self> {
        fs::create_dir_all(cache)
            .with_context(|| format!("cannot make the cache {}", cache.display()))?;
        // Not in a tmpfs: the drivers are to stand on the disk that the cache is on.
        let work = tempfile::Builder::new()
            .prefix("pellicle-bench-")
            .tempdir_in("/var/tmp")?;
        fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755))?;
        let copy = work.path().join("pellicle");
        // Where the ordinary user can execute it, wherever the repository is.
        fs::copy(&pellicle, &copy)
            .with_context(|| format!("cannot copy {}", pellicle.display()))?;
        Ok(Self {
            pellicle: copy,
            image,
            cache: cache.canonicalize()?,
            work,
            bar,
        })
    }

    /// A path in the run's own directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A directory in the run's own directory, owned by whom rootless commands run as.
    pub(crate) fn directory(&self, name: &str, for_user: bool) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path)?;
        if for_user && geteuid().is_root() {
            let user = test_user()?;
            nix::unistd::chown(&path, Some(user.uid), Some(user.gid))?;
        }
        Ok(path)
    }

    /// A directory that stays for the next run.
    pub(crate) fn cached(&self, name: &str) -> Result<PathBuf> {
        let path = self.cache.join("bench").join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Says what is being done.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// `pellicle` on the store `store` (a name in the run's directory).
    pub(crate) fn pellicle(&self, store: &str) -> Command {
        let mut command = Command::new(&self.pellicle);
        command
            .env("PELLICLE_ROOT", self.path(store))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// `program` as an ordinary user.
    pub(crate) fn as_user(&self, command: &mut Command) -> Result<()> {
        if geteuid().is_root() {
            let user = test_user()?;
            command
                .uid(user.uid.as_raw())
                .gid(user.gid.as_raw())
                .env("HOME", &user.dir)
                .env("USER", &user.name)
                .current_dir("/");
        }
        Ok(())
    }

    /// The directory of the image's three layers.
    pub(crate) fn layers(&mut self) -> Result<PathBuf> {
        if let Some(dir) = &self.image {
            return Ok(dir.clone());
        }
        self.say("making the image (tools/image full)");
        let tool = repository().join("tools/image");
        let made = Command::new(&tool)
            .arg("full")
            .env("PELLICLE_CACHE", &self.cache)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}; give --image DIR", tool.display()))?;
        if !made.status.success() {
            bail!(
                "{} failed; give --image DIR with three layers",
                tool.display()
            );
        }
        let dir = PathBuf::from(String::from_utf8(made.stdout)?.trim());
        self.image = Some(dir.clone());
        Ok(dir)
    }

    /// The files of the layers, lowest first.
    pub(crate) fn layer_files(&mut self) -> Result<Vec<PathBuf>> {
        let dir = self.layers()?;
        let mut files: Vec<PathBuf> = fs::read_dir(&dir)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                path.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with("layer-"))
            })
            .collect();
        files.sort();
        if files.is_empty() {
            bail!("no layer-* in {}", dir.display());
        }
        Ok(files)
    }

    /// Imports the image into `store`, as root or as the ordinary user; gives its name.
    pub(crate) fn import(&mut self, store: &str, as_user: bool) -> Result<&'static str> {
        let files = self.layer_files()?;
        let (first, rest) = files.split_first().ok_or_else(|| anyhow!("no layers"))?;
        self.directory(store, as_user)?;
        self.say("importing the image");
        let mut command = self.pellicle(store);
        command.arg("import").arg(self.readable(first)?).arg(IMAGE);
        for layer in rest {
            command.arg("--layer").arg(self.readable(layer)?);
        }
        if as_user {
            self.as_user(&mut command)?;
        }
        succeed(&mut command)?;
        Ok(IMAGE)
    }

    /// `file` under a path that the ordinary user can read.
    pub(crate) fn readable(&self, file: &Path) -> Result<PathBuf> {
        let name = file.file_name().ok_or_else(|| anyhow!("no file name"))?;
        let to = self.work.path().join(name);
        if !to.exists() && fs::hard_link(file, &to).is_err() {
            fs::copy(file, &to)?;
        }
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644))?;
        Ok(to)
    }

    /// The layers unpacked as kernel overlayfs's lower directories, lowest first. Root only.
    pub(crate) fn lower_directories(&mut self) -> Result<Vec<PathBuf>> {
        let files = self.layer_files()?;
        let key = self
            .layers()?
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let base = self.cached(&format!("lower-{key}"))?;
        let mut dirs = Vec::new();
        for (n, file) in files.iter().enumerate() {
            self.say(&format!("unpacking {}", file.display()));
            dirs.push(unpack::layer(file, &base.join(n.to_string()))?);
        }
        Ok(dirs)
    }

    /// The merged tree as a plain directory that the ordinary user can read. Root only.
    pub(crate) fn merged(&mut self) -> Result<PathBuf> {
        let lower = self.lower_directories()?;
        let base = lower
            .first()
            .and_then(|d| d.parent())
            .ok_or_else(|| anyhow!("no layers"))?;
        let merged = base.join("merged");
        if !merged.is_dir() {
            self.say("copying the merged tree");
            let (at, part) = (self.directory("merge", false)?, base.join("merged.part"));
            let overlay = crate::drivers::Mounted::overlay(&lower, &at)?;
            let _ = fs::remove_dir_all(&part);
            succeed(Command::new("cp").arg("-a").arg(&at).arg(&part))?;
            overlay.unmount()?;
            fs::rename(&part, &merged)?;
        }
        Ok(merged)
    }
}

/// Runs a command that has to succeed.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let out = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !out.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(())
}

fn test_user() -> Result<User> {
    User::from_name(TEST_USER)?.ok_or_else(|| {
        anyhow!(
            "there is no user {TEST_USER} to run rootless containers as: useradd -m {TEST_USER}"
        )
    })
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
