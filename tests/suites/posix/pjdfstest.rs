//! pjdfstest: what each system call does and on which errno, 400 cases.

use std::{fs, path::Path, process::Command, time::Duration};

use pellicle_tests::{Cmd, Overlay, Way, write_program};

use crate::{can_run, some_files, tool};

/// What cannot be had here, by cause. The suite reads `LINK_MAX` with pathconf(3), for which the C
/// library has a table of file systems; FUSE is not in it.
const SKIPPED: &[&str] = &["link::link_count_max"];

/// Everything that is an option; the users are those that `tools/test` makes. What is left out
/// (`chflags`, NFSv4 lists, `st_birthtime`) is BSD's.
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
allow_remount = REMOUNT
[dummy_auth]
entries = [["nobody", "nogroup"], ["pellicle-test", "pellicle-test"]]
"#;

/// The suite remounts read-only and back by `mount -o remount`. For `fuse.*` mount(8) would call the
/// server's own program, so `-i`; and the kernel refuses (EBUSY) while the last close of a file
/// without names is on its way to a server that answers opens, so another try until then.
const MOUNT: &str = "#!/bin/sh
PATH=/usr/bin:/bin
try=0
while [ $((try += 1)) -lt 600 ]; do
  mount -i \"$@\" 2>/dev/null && exit
  sleep 0.1
done
exec mount -i \"$@\"
";

/// What a run of the suite said of its cases.
struct Said {
    passed: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<String>,
    all: String,
}

fn run(program: &Path, overlay: &Overlay, only: &[&str]) -> Said {
    let path = std::env::var("PATH").unwrap_or_default();
    let config = CONFIG.replace("REMOUNT", if only.is_empty() { "false" } else { "true" });
    fs::write(overlay.path("pjdfstest.toml"), config).expect("write");
    let done = Cmd::new(Command::new(program))
        .arg("-c")
        .arg(overlay.path("pjdfstest.toml"))
        .arg("-p")
        .arg(overlay.at().join("work"))
        .arg("--secondary-fs")
        .arg(overlay.path("other"))
        .args(only)
        .env("PATH", format!("{}:{path}", overlay.path("bin").display()))
        .limit(Duration::from_secs(900))
        .run();
    let all = done.to_string();
    let of = |what: &str| {
        let lines = all.lines().filter_map(|line| line.strip_suffix(what));
        lines.map(|line| line.trim().to_owned()).collect()
    };
    Said {
        passed: of(" ok"),
        failed: of(" FAILED"),
        skipped: of(" skipped"),
        all,
    }
}

#[test]
fn pjdfstest_finds_no_failure() {
    let test = "pjdfstest_finds_no_failure";
    let Some(program) = can_run(test).then(|| tool(test, "pjdfstest")).flatten() else {
        return;
    };
    for way in Way::all() {
        let overlay = Overlay::new(way, some_files);
        for dir in ["bin", "other"] {
            fs::create_dir(overlay.path(dir)).expect("mkdir");
        }
        write_program(&overlay.path("bin/mount"), MOUNT);

        // Its cases that remount need a process of their own: others leave a file open that has no
        // name, and no file system turns read-only then.
        let most = run(&program, &overlay, &[]);
        let rest = run(&program, &overlay, &["erofs"]);
        let (remounting, skipped): (Vec<_>, Vec<_>) =
            most.skipped.iter().partition(|case| case.contains("erofs"));
        eprintln!(
            "pjdfstest, {way}: {} passed, {} failed, {} skipped",
            most.passed.len() + rest.passed.len(),
            most.failed.len() + rest.failed.len(),
            skipped.len() + rest.skipped.len()
        );
        for said in [&most, &rest] {
            assert!(
                said.failed.is_empty(),
                "{way}: {:#?}\n{}",
                said.failed,
                said.all
            );
        }
        assert_eq!(skipped, SKIPPED, "{way}: {}", most.all);
        assert_eq!(rest.passed.len(), remounting.len(), "{way}: {}", rest.all);
        assert!(rest.skipped.is_empty(), "{way}: {}", rest.all);
        assert!(most.passed.len() > 380, "{way}: {}", most.all);
    }
}
