//! podman and buildah with a storage of their own, in a mount namespace of their own.
//!
//! The namespace is there for the control groups: crun refuses machines that have both versions,
//! so in it there is only the second. Mounts that the engines leave end with it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pellicle_tests::{Cmd, LET_GO, TestStore, Who};
use tempfile::TempDir;

/// How long one command of theirs may take.
const LIMIT: Duration = Duration::from_secs(600);

/// A storage, and whoever works on it.
pub(crate) struct Engine {
    pub(crate) store: TestStore,
    /// Where they keep sockets and state. podman refuses a runroot (without root this and `containers`) of
    /// more than 50 characters, but only where its process that clears up behind a container gives it as
    /// an option: then nobody notes the container's exit code, and `podman run` waits 20 seconds for it.
    runtime: TempDir,
    namespace: Option<Child>,
}

/// Makes the namespace and stays in it.
const HOLD: &str = "\
eval \"$LET_GO\"
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  umount -R -l /sys/fs/cgroup 2>/dev/null
  mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit 1
fi
echo made
exec sleep 3600";

/// Everything that these machines and containers differ in is said here, so that no configuration
/// of the host has a part in it.
const CONTAINERS: &str = r#"
[containers]
cgroups = "disabled"
netns = "host"
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

impl Engine {
    pub(crate) fn new(who: Who, mount_program: &str) -> Self {
        let store = TestStore::new(who);
        for name in ["home", "home/.config", "home/.config/containers", "context"] {
            store.directory(name);
        }
        store.file("containers.conf", CONTAINERS);
        store.file("home/.config/containers/policy.json", POLICY);
        let runtime = tempfile::Builder::new()
            .prefix("r-")
            .tempdir_in("/tmp")
            .expect("temporary directory");
        if nix::unistd::geteuid().is_root() {
            let (uid, gid) = who.ids();
            std::os::unix::fs::chown(runtime.path(), Some(uid), Some(gid)).expect("chown");
        }
        let engine = Self {
            store,
            runtime,
            namespace: namespace(),
        };
        engine.mount_with(mount_program);
        engine
    }

    /// From now on `program` mounts.
    pub(crate) fn mount_with(&self, program: &str) {
        let storage = self.store.path("storage");
        let run = self.runtime.path().join("containers");
        self.store.file(
            "storage.conf",
            format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n\
                 [storage.options.overlay]\nmount_program = \"{program}\"\n",
                storage.display(),
                run.display()
            ),
        );
    }

    /// `program ARGS...` in the namespace.
    pub(crate) fn cmd(&self, program: &str, args: &[&str]) -> Cmd {
        let inner = self.store.who().command(program.as_ref());
        let mut command = match &self.namespace {
            Some(holder) => {
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--mount=/proc/{}/ns/mnt", holder.id()))
                    .arg(inner.get_program())
                    .args(inner.get_args());
                for (name, value) in inner.get_envs() {
                    if let Some(value) = value {
                        command.env(name, value);
                    }
                }
                command
            }
            None => inner,
        };
        command
            .env("HOME", self.store.path("home"))
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .env("CONTAINERS_CONF", self.store.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.store.path("storage.conf"))
            .env("BUILDAH_ISOLATION", "chroot");
        Cmd::new(command).args(args).limit(LIMIT)
    }

    pub(crate) fn podman(&self, args: &[&str]) -> Cmd {
        self.cmd("podman", args)
    }

    pub(crate) fn buildah(&self, args: &[&str]) -> Cmd {
        self.cmd("buildah", args)
    }

    /// `script` where the engine's mounts can be seen: in the user's namespaces.
    pub(crate) fn sh(&self, script: &str) -> Cmd {
        match self.store.who() {
            Who::Root => self.cmd("sh", &["-euc", script]),
            Who::User => self.podman(&["unshare", "sh", "-euc", script]),
        }
    }

    /// Everything that can be seen of the tree of `image`, with times if `times`.
    pub(crate) fn image_tree(&self, image: &str, times: bool) -> String {
        let tree = tree(times);
        let script = format!(
            "d=$(podman image mount {image})\ncd \"$d\"\n{tree}\ncd /\npodman image umount {image} >&2"
        );
        self.sh(&script).ok()
    }
}

/// Prints the tree in the current directory: names, kinds, modes, owners, links, targets, contents
/// and attributes. Sizes of directories are the file system's own affair.
pub(crate) fn tree(times: bool) -> String {
    let time = if times { "|%T@" } else { "" };
    format!(
        "find . -type d -printf '%p|%y|%m|%U:%G|%n{time}\\n' -o \
         -printf '%p|%y|%m|%U:%G|%n|%s|%l{time}\\n' | LC_ALL=C sort
         find . -type f -exec sha256sum {{}} + | LC_ALL=C sort -k2
         getfattr -R -P -d -m - . 2>/dev/null | LC_ALL=C sort"
    )
}

/// A process in a mount namespace of its own, where this one may make such.
fn namespace() -> Option<Child> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let mut holder = Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", HOLD])
        .env("LET_GO", LET_GO)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .current_dir("/")
        .spawn()
        .expect("unshare");
    let mut said = String::new();
    BufReader::new(holder.stdout.take().expect("piped"))
        .read_line(&mut said)
        .expect("unshare says something");
    assert_eq!(
        said, "made\n",
        "a mount namespace with one version of control groups"
    );
    Some(holder)
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Rootless podman keeps a process that holds its namespaces.
        let pause = self.runtime.path().join("libpod/tmp/pause.pid");
        if let Ok(text) = fs::read_to_string(pause)
            && let Ok(id) = text.trim().parse()
        {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        if let Some(mut holder) = self.namespace.take() {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        if nix::unistd::geteuid().is_root() {
            // Files of subordinate ids.
            let _ = fs::remove_dir_all(self.store.path("storage"));
        }
    }
}
