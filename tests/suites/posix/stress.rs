//! stress-ng's file system stressors all at once, then the whole tree: what the kernel shows, and
//! what a fresh server makes of the writable layer.

use std::{fs, process::Command, time::Duration};

use pellicle_tests::{
    Cmd, Overlay, Way,
    tree::{assert_same, tree},
};

use crate::{can_run, full, some_files, tool};

/// Those of its class `filesystem` that work in a directory of ours. Left out: what is about other
/// file systems or about the kernel alone (`bind-mount`, `binderfs`, `eventfd`, `fanotify`,
/// `inotify`, `io`, `ioprio`, `procfs`), and ioctls that FUSE does not carry (`fiemap`,
/// `file-ioctl`, `inode-flags`, `verity`).
const STRESSORS: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fcntl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "iomix",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

#[test]
fn the_tree_is_whole_after_stress_ng() {
    let test = "the_tree_is_whole_after_stress_ng";
    let Some(program) = can_run(test).then(|| tool(test, "stress-ng")).flatten() else {
        return;
    };
    for way in Way::all() {
        let mut overlay = Overlay::new(way, some_files);
        let before = tree(&overlay.at());
        let dir = overlay.at().join("both/stress");
        fs::create_dir(&dir).expect("mkdir");
        let seconds = if full() { 120 } else { 8 };
        let mut command = Command::new(&program);
        // Some of it makes files where it is begun.
        command.current_dir(&dir);
        let mut stress = Cmd::new(command)
            .arg("--temp-path")
            .arg(&dir)
            .args(["--verify", "--timeout", &format!("{seconds}s")])
            // The disk of the machine is not what is tried.
            .args(["--hdd-bytes", "16M", "--iomix-bytes", "16M"])
            .args(["--fallocate-bytes", "16M", "--dirdeep-inodes", "2000"])
            .limit(Duration::from_secs(seconds + 600));
        for stressor in STRESSORS {
            stress = stress.arg(format!("--{stressor}")).arg("1");
        }
        let done = stress.run();
        assert_eq!(done.code(), 0, "{way}: {done}");

        let after = tree(&overlay.at());
        for (path, node) in &before {
            let now = after
                .get(path)
                .unwrap_or_else(|| panic!("{} is gone", path.display()));
            assert_eq!(now.content, node.content, "{}", path.display());
            assert_eq!(now.ino, node.ino, "{}", path.display());
        }
        overlay.remount();
        assert_same(
            &way.lasting(after),
            &way.lasting(tree(&overlay.at())),
            &format!("{way}, remounted"),
        );
    }
}
