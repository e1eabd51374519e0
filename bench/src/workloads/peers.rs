//! Other programs that start containers and import images, each with a storage of its own in the
//! run's directory.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use tempfile::TempDir;

use crate::setup::{Setup, Who, quiet, said, succeed, test_user};

/// No configuration of the host has a part in it, and no daemon.
const CONTAINERS: &str = r#"
[containers]
cgroups = "disabled"
netns = "none"
pids_limit = 0
log_driver = "k8s-file"
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"#;

const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

/// Makes a mount namespace with control groups of the second version only, which crun asks for, and
/// stays in it.
const HOLD: &str = "\
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  umount -R -l /sys/fs/cgroup 2>/dev/null
  mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
fi
echo made
exec sleep 86400";

/// podman, buildah, skopeo, umoci and crun, run so that they find what they need and nothing else.
pub(super) struct Peers {
    dir: PathBuf,
    /// Where they keep sockets and state. podman refuses a runroot of more than 50 characters, but only
    /// where its process that clears up behind a container gives it as an option: then nobody notes the
    /// container's exit code, and `podman run` waits 20 seconds for it.
    runtime: TempDir,
    namespace: Option<Child>,
    as_user: bool,
}

impl Peers {
    /// With a new, empty storage.
    pub(super) fn new(setup: &Setup, as_user: bool) -> Result<Self> {
        let make = |name: &str| {
            if as_user {
                setup.users_directory(name)
            } else {
                setup.directory(name)
            }
        };
        let dir = make("peers")?;
        let sub = [
            "peers/home",
            "peers/home/.config",
            "peers/home/.config/containers",
            "peers/tmp",
        ];
        for name in sub {
            make(name)?;
        }
        fs::write(dir.join("containers.conf"), CONTAINERS)?;
        fs::write(dir.join("home/.config/containers/policy.json"), POLICY)?;
        let runtime = setup.short_directory(as_user)?;
        fs::write(
            dir.join("storage.conf"),
            // Without root graphroot and runroot do not count.
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/storage\"\n\
                 rootless_storage_path = \"{0}/storage\"\nrunroot = \"{1}/containers\"\n",
                dir.display(),
                runtime.path().display()
            ),
        )?;
        Ok(Self {
            runtime,
            namespace: (setup.who == Who::Root).then(namespace).transpose()?,
            dir,
            as_user,
        })
    }

    /// A path in their directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `program`, as whom it is to run.
    pub(super) fn command(&self, program: &str) -> Result<Command> {
        let mut words: Vec<String> = Vec::new();
        if let Some(holder) = &self.namespace {
            words.push("nsenter".to_owned());
            words.push(format!("--mount=/proc/{}/ns/mnt", holder.id()));
        }
        if self.as_user && self.namespace.is_some() {
            let user = test_user()?;
            words.extend([
                "setpriv".to_owned(),
                format!("--reuid={}", user.uid),
                format!("--regid={}", user.gid),
                "--init-groups".to_owned(),
            ]);
        }
        words.push(program.to_owned());
        let (first, rest) = words.split_first().context("no program")?;
        let mut command = quiet(first);
        command
            .args(rest)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .env("TMPDIR", self.path("tmp"))
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"))
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            .current_dir("/");
        Ok(command)
    }

    /// `podman run --rm` of `image`, with nothing of it on any network.
    pub(super) fn podman_run(&self, image: &str) -> Result<Command> {
        let mut command = self.command("podman")?;
        command.args(["run", "--rm", "--network", "none", image, "/bin/true"]);
        Ok(command)
    }

    /// A bundle for crun over `rootfs`, whose process is `true`.
    pub(super) fn bundle(&self, rootfs: &Path) -> Result<PathBuf> {
        let bundle = self.path("bundle");
        let mut made = self.command("mkdir")?;
        succeed(made.arg("-p").arg(&bundle))?;
        // nsenter leaves the working directory.
        let mut spec = self.command("sh")?;
        spec.args(["-ec", "cd \"$1\"; shift; crun spec \"$@\"", "sh"])
            .arg(&bundle);
        if self.as_user {
            spec.arg("--rootless");
        }
        if !bundle.join("config.json").exists() {
            succeed(&mut spec)?;
        }
        let path = bundle.join("config.json");
        let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let set = |config: &mut serde_json::Value, at: &str, to: serde_json::Value| {
            if let Some(place) = config.pointer_mut(at) {
                *place = to;
            }
        };
        set(&mut config, "/process/terminal", false.into());
        set(
            &mut config,
            "/process/args",
            serde_json::json!(["/bin/true"]),
        );
        let root = serde_json::json!({ "path": rootfs, "readonly": true });
        set(&mut config, "/root", root);
        fs::write(&path, config.to_string())?;
        Ok(bundle)
    }

    /// `crun run` of the bundle.
    pub(super) fn crun_run(&self, bundle: &Path, id: u32) -> Result<Command> {
        let mut command = self.command("crun")?;
        command
            .args(["--cgroup-manager=disabled", "run", "--bundle"])
            .arg(bundle)
            .arg(format!("pellicle-bench-{}-{id}", std::process::id()));
        Ok(command)
    }

    /// Forgets every image and container.
    pub(super) fn clear(&self) -> Result<()> {
        self.let_go();
        for name in ["storage", "unpacked", "layout"] {
            self.set_aside(&self.path(name))?;
        }
        self.remove(&self.runtime.path().join("containers"))
    }

    /// Moves `path` aside, to be removed with these, if it is there: a file system that has just removed many
    /// files may be slow to make new ones (ext4 looks for inodes that were not freed in the last minutes),
    /// and that is not what is measured.
    pub(super) fn set_aside(&self, path: &Path) -> Result<()> {
        if !path.exists() {
            return Ok(());
        }
        let aside = self.path(&format!("{ASIDE}{}", self.aside().len()));
        fs::rename(path, &aside).with_context(|| format!("cannot move {} aside", path.display()))
    }

    fn aside(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let is_aside = |name: &OsStr| name.to_string_lossy().starts_with(ASIDE);
        entries
            .filter(|entry| is_aside(&entry.file_name()))
            .map(|entry| entry.path())
            .collect()
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if path.exists() && fs::remove_dir_all(path).is_err() {
            // Files of subordinate ids.
            let mut remove = self.command("podman")?;
            succeed(remove.args(["unshare", "rm", "-rf"]).arg(path))?;
        }
        Ok(())
    }

    /// Rootless podman keeps a process that holds its namespaces.
    fn let_go(&self) {
        let pause = self.runtime.path().join("libpod/tmp/pause.pid");
        let id = fs::read_to_string(pause).ok();
        if let Some(id) = id.and_then(|text| text.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

const ASIDE: &str = "aside-";

impl Drop for Peers {
    fn drop(&mut self) {
        let _ = self.clear();
        for aside in self.aside() {
            let _ = self.remove(&aside);
        }
        self.let_go();
        if let Some(mut holder) = self.namespace.take() {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn namespace() -> Result<Child> {
    let mut holder = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "unshare", "--mount"])
        .args(["--propagation=private", "sh", "-c", HOLD])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn()
        .context("cannot run unshare")?;
    let mut line = String::new();
    if let Some(out) = holder.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    if line != "made\n" {
        let _ = holder.kill();
        let _ = holder.wait();
        bail!("no mount namespace with control groups of version 2 for the peers");
    }
    Ok(holder)
}

/// The last line that a command says, which is an id.
pub(super) fn id_said(command: &mut Command) -> Result<String> {
    let text = said(command.stdout(Stdio::piped()))?;
    let id = text.lines().last().map(str::trim).unwrap_or_default();
    if id.is_empty() {
        bail!("it printed no id");
    }
    Ok(id.to_owned())
}
