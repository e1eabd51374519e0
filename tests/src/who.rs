//! The identities that tests run as.

use std::{
    env,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use nix::unistd::{Uid, User, geteuid};

/// The ordinary user that a test run by root becomes; `tools/test` makes it.
const TEST_USER: &str = "pellicle-test";

/// Whom a command runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Real root.
    Root,
    /// An ordinary user, with subordinate ids where the machine gives any.
    User,
}

impl Who {
    /// Those that can be had here, the ordinary user first.
    #[must_use]
    pub fn all() -> Vec<Who> {
        [Who::User, Who::Root]
            .into_iter()
            .filter(|who| who.missing().is_none())
            .collect()
    }

    /// Why this identity cannot be had here, if so.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match (self, geteuid().is_root()) {
            (Who::Root, false) => Some("needs root".to_owned()),
            (Who::User, true) if self.account().is_none() => Some(format!(
                "there is no user {TEST_USER} (tools/test makes one)"
            )),
            (Who::Root, true) | (Who::User, _) => None,
        }
    }

    /// Uid and gid.
    ///
    /// # Panics
    /// If the identity is [`missing`](Self::missing).
    #[must_use]
    pub fn ids(self) -> (u32, u32) {
        let account = self.account().expect("the identity exists");
        (account.uid.as_raw(), account.gid.as_raw())
    }

    fn account(self) -> Option<User> {
        match self {
            Who::Root => User::from_uid(Uid::from_raw(0)).ok().flatten(),
            Who::User if geteuid().is_root() => User::from_name(TEST_USER).ok().flatten(),
            Who::User => User::from_uid(geteuid()).ok().flatten(),
        }
    }

    /// A command that runs `program` as this identity, with a small environment of its own.
    ///
    /// # Panics
    /// If the identity is [`missing`](Self::missing).
    #[must_use]
    pub fn command(self, program: &Path) -> Command {
        let account = self.account().expect("the identity exists");
        let mut command = if self == Who::User && geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={}", account.uid))
                .arg(format!("--regid={}", account.gid))
                .arg("--init-groups")
                .arg(readable_copy(program));
            command
        } else {
            Command::new(program)
        };
        command
            .env_clear()
            .env("HOME", &account.dir)
            .env("USER", &account.name)
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm")
            .env(
                "PATH",
                "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            )
            .current_dir("/");
        for name in ["PELLICLE_LOG", "PELLICLE_TRANSPORT", "RUST_BACKTRACE"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }
}

/// A path of `program` that every user can execute: a copy in the scratch directory of what was
/// built here, which may be in a home directory or the like.
pub(crate) fn readable_copy(program: &Path) -> PathBuf {
    let ours = ["pellicle", "pellicle-overlay"];
    let name = program.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|name| ours.contains(name) && program.is_absolute()) else {
        return program.into();
    };
    let data = std::fs::metadata(program).expect("the program is there");
    let changed = data
        .modified()
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |d| d.as_nanos());
    // One copy for all test processes of a build. Put in place by rename: they race. By another process:
    // what is open here for writing a child of another thread holds until it executes, and meanwhile
    // nobody can execute the copy.
    let dir = crate::store::scratch().join(format!("pellicle-bin-{}-{changed}", data.len()));
    let copy = dir.join(name);
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    if !copy.is_file() {
        std::fs::create_dir_all(&dir).expect("scratch directory");
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let part = dir.join(format!("part-{}", std::process::id()));
        let copied = Command::new("cp").arg(program).arg(&part).status();
        assert!(copied.expect("cp").success(), "copy of the program");
        std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        std::fs::rename(&part, &copy).expect("rename");
    }
    copy
}
