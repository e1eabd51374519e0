//! Where a run happens: in a mount namespace of its own, whose mounts end with it, however it ends;
//! without root also in a user namespace, where this program is run once more.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{
    model::Report,
    setup::{self, test_user},
};

/// Leaves the mount namespace of whoever called. Only while there is one thread.
pub(super) fn leave_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_PRIVATE | MsFlags::MS_REC,
        None::<&str>,
    )
    .context("cannot make the mounts private")
}

/// Runs this program once more, as root of a user namespace that an ordinary user makes, with
/// `arguments`; reads what it measured from `output`. Passes `stop` on.
pub(super) fn run_in_user_namespace(
    program: &Path,
    arguments: &[std::ffi::OsString],
    output: &Path,
    stop: &AtomicBool,
) -> Result<Report> {
    let mut words: Vec<String> = Vec::new();
    let mut command = Command::new("setpriv");
    words.extend(["--pdeathsig", "KILL"].map(str::to_owned));
    if setup::is_root() {
        let user = test_user()?;
        words.extend([
            format!("--reuid={}", user.uid),
            format!("--regid={}", user.gid),
            "--init-groups".to_owned(),
            "--inh-caps=-all".to_owned(),
        ]);
        command.env("HOME", &user.dir).env("USER", &user.name);
    }
    // All of the user's subordinate ids, as containers have them.
    words.extend(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--map-auto",
            "--mount",
            "--propagation=private",
            "--kill-child",
            "--fork",
        ]
        .map(str::to_owned),
    );
    let path = env::var("PATH").unwrap_or_default();
    let mut child = command
        .args(words)
        .arg(program)
        .args(arguments)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .current_dir("/")
        // Signals of the terminal are for us, who pass them on.
        .process_group(0)
        .spawn()
        .context("cannot run setpriv")?;
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !told && stop.load(Ordering::Relaxed) {
            told = true;
            if let Ok(id) = i32::try_from(child.id()) {
                let _ = killpg(Pid::from_raw(id), Signal::SIGINT);
            }
        }
        thread::sleep(Duration::from_millis(50));
    };
    if !output.is_file() {
        bail!(
            "the part of the run in a user namespace ended with {status}; \
             it needs unshare of util-linux 2.38, newuidmap and a range in /etc/subuid"
        );
    }
    Report::read(output)
}
