//! The same suite for users who may do less: in a user namespace of one id, and by `fusermount3`.

use std::process::Command;

use crate::{
    fixture::{MOUNT_BY, TRANSPORT, real_root},
    rings::Offer,
};

const NOBODY: &[&str] = &["--reuid=65534", "--regid=65534", "--clear-groups"];

/// Runs this program's other tests again below `wrap`, over `/dev/fuse` and over a ring.
fn again(by: &str, wrap: &[&str]) {
    if !real_root() {
        return; // It is this run that was started from there.
    }
    over(by, wrap, "dev");
    if let Some(_offered) = Offer::set(true) {
        over(by, wrap, "ring");
    }
}

fn over(by: &str, wrap: &[&str], transport: &str) {
    // The build directory may be closed to others. Copied by another process: what is open here for
    // writing a child of another thread holds until it executes, and meanwhile nobody can execute it.
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let copied = Command::new("cp")
        .arg(std::env::current_exe().unwrap())
        .arg(&*path)
        .status();
    assert!(copied.unwrap().success());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let done = Command::new("setpriv")
        .args(NOBODY)
        .args(wrap)
        .arg(&*path)
        .args(["--test-threads=1", "--nocapture"])
        .args(["--skip", "others::", "--skip", "rings::"])
        .env(MOUNT_BY, by)
        .env(TRANSPORT, transport)
        .env("TMPDIR", "/tmp")
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .output();
    match done {
        Ok(done) if done.status.success() => {
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(said.contains("test result: ok"), "{said}");
            for line in said.lines().filter(|l| l.contains("skipped:")) {
                println!("{by}, {transport}: {line}");
            }
        }
        Ok(done) => panic!(
            "{by}, {transport}:\n{}\n{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        ),
        Err(e) => println!("skipped: setpriv: {e}"),
    }
}

fn device_is_open_to_all() -> bool {
    let open = std::fs::metadata("/dev/fuse")
        .is_ok_and(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o006 == 0o006);
    if !open {
        println!("skipped: /dev/fuse is closed to ordinary users");
    }
    open
}

#[test]
fn an_ordinary_user_mounts_in_a_namespace_of_one_id() {
    if device_is_open_to_all() {
        let works = Command::new("setpriv")
            .args(NOBODY)
            .args(["unshare", "-Urm", "true"])
            .status();
        if works.is_ok_and(|s| s.success()) {
            again(
                "namespace",
                &["unshare", "--user", "--map-root-user", "--mount"],
            );
        } else {
            println!("skipped: user namespaces are switched off");
        }
    }
}

#[test]
fn an_ordinary_user_mounts_through_the_helper() {
    if device_is_open_to_all() {
        if Command::new("fusermount3").arg("-V").output().is_ok() {
            again("helper", &[]);
        } else {
            println!("skipped: fusermount3 is not installed");
        }
    }
}
