//! What cannot be mounted is refused with one clear line and exit code 1, and nothing was changed.

use std::{fs, path::Path, process::Command};

use pellicle_tests::{Cmd, LET_GO, Outcome, Who, pellicle_overlay, skip};

use crate::layers::{Layers, UPPERS};

/// Checks that it was refused in one line that has all `words`.
#[track_caller]
fn refused(out: Outcome, words: &[&str]) {
    let out = out.exited(1);
    let err = out.err();
    let said: Vec<_> = err
        .lines()
        .filter(|line| !line.starts_with("unknown argument ignored"))
        .collect();
    assert_eq!(said.len(), 1, "one line from {out}");
    assert!(said[0].starts_with("pellicle-overlay: "), "{out}");
    for word in words {
        assert!(err.contains(word), "nothing of {word:?} in {out}");
    }
}

/// Tries `options` on fresh layers, after `script`, for every identity and kind of upper (`UPPER`
/// in the options). Nothing may be different afterwards, and nothing mounted.
#[track_caller]
fn refuses(script: &str, options: &str, words: &[&str]) {
    for who in Who::all() {
        for upper in UPPERS {
            if upper == "dir" && !options.contains("UPPER") && options.contains("upper=") {
                continue;
            }
            let layers = Layers::new(who);
            layers.sh(script).ok();
            let before = layers.all();
            refused(
                layers.overlay(&options.replace("UPPER", upper)).run(),
                words,
            );
            assert_eq!(layers.all(), before, "{who:?}, {upper}: {options}");
            layers.served_no_more();
        }
    }
}

const ALL: &str = "lowerdir=lower,upperdir=upper,workdir=work,upper=UPPER";

#[test]
fn options_that_contradict_each_other_are_refused() {
    refuses(
        "",
        &format!("{ALL},allow_other,allow_root"),
        &["allow_other", "allow_root"],
    );
    refuses("", "lowerdir=lower,upper=UPPER", &["upperdir"]);
    refuses("", "lowerdir=lower,upperdir=upper", &["workdir"]);
    refuses("", "upperdir=upper,workdir=work,upper=UPPER", &["lowerdir"]);
    refuses(
        "",
        &format!("{ALL},uidmapping=0:0:10:5:5:10"),
        &["uidmapping", "overlap"],
    );
    refuses("", &format!("{ALL},redirect_dir=on"), &["redirect_dir"]);
    refuses(
        "",
        &format!("{ALL},fsync=maybe"),
        &["fsync=maybe", "0 or 1"],
    );
    refuses(
        "",
        "lowerdir=lower,upperdir=upper,upper=journal,xattr_permissions=2",
        &["upper=journal", "xattr_permissions"],
    );
}

#[test]
fn layers_that_are_no_directories_are_refused_by_name() {
    refuses(
        "",
        "lowerdir=lower:nowhere",
        &["lower", "nowhere", "does not exist"],
    );
    refuses(
        "",
        "lowerdir=lower/file:lower",
        &["lower/file", "not a directory"],
    );
    refuses(
        "",
        "lowerdir=lower/file/x",
        &["lower/file/x", "not a directory"],
    );
    refuses(
        "",
        "lowerdir=lower,upperdir=nowhere,workdir=work,upper=UPPER",
        &["upper", "nowhere", "does not exist"],
    );
    refuses(
        "",
        "lowerdir=lower,upperdir=upper,workdir=nowhere,upper=UPPER",
        &["work", "nowhere", "does not exist"],
    );
    refuses(
        "touch upper/file",
        "lowerdir=lower,upperdir=upper/file,workdir=work,upper=UPPER",
        &["upper/file", "not a directory"],
    );
}

#[test]
fn layers_inside_each_other_are_refused() {
    refuses(
        "mkdir upper/low",
        "lowerdir=lower:upper/low,upperdir=upper,workdir=work,upper=UPPER",
        &["upper/low", "inside", "beside"],
    );
    refuses(
        "",
        "lowerdir=lower:upper,upperdir=upper,workdir=work,upper=UPPER",
        &["upper", "both as lower and as upper"],
    );
    refuses(
        "mkdir upper/work",
        "lowerdir=lower,upperdir=upper,workdir=upper/work,upper=UPPER",
        &["upper/work", "inside"],
    );
    refuses(
        "mkdir work/up",
        "lowerdir=lower,upperdir=work/up,workdir=work,upper=UPPER",
        &["work/up", "inside"],
    );
    // By another name it is the same directory.
    refuses(
        "ln -s upper/low low; mkdir upper/low",
        "lowerdir=low,upperdir=upper,workdir=work,upper=UPPER",
        &["upper/low", "inside"],
    );
}

#[test]
fn a_mountpoint_that_cannot_be_one_is_refused() {
    for who in Who::all() {
        for (mountpoint, words) in [
            ("nowhere", ["nowhere", "does not exist"]),
            ("lower/file", ["lower/file", "not a directory"]),
        ] {
            let layers = Layers::new(who);
            let before = layers.all();
            let out = layers
                .here(&pellicle_overlay())
                .args(["-o", "lowerdir=lower", mountpoint]);
            refused(out.run(), &words);
            assert_eq!(layers.all(), before);
        }
    }
}

#[test]
fn a_second_mount_of_an_upper_is_refused_naming_who_has_it() {
    for who in Who::all() {
        for upper in UPPERS {
            let layers = Layers::new(who);
            let options = layers.options(upper);
            layers.overlay(&options).ok();
            layers.sh("echo new >merged/new").ok();
            layers.store.directory("second");
            let servers = layers.store.servers();
            let [server] = servers[..] else {
                panic!("{servers:?}");
            };
            let second = layers
                .here(&pellicle_overlay())
                .args(["-o", &options, "second"]);
            refused(second.run(), &["upper", "in use", &server.to_string()]);
            assert_eq!(layers.sh("cat merged/new; ls second").ok(), "new");
            layers.unmount();
            // And afterwards it can be had.
            layers.overlay(&options).ok();
            assert_eq!(layers.sh("cat merged/new").ok(), "new");
            layers.unmount();
        }
    }
}

#[test]
fn a_journal_of_a_newer_version_is_refused() {
    for who in Who::all() {
        let layers = Layers::new(who);
        let options = layers.options("journal");
        layers.overlay(&options).ok();
        layers.sh("echo new >merged/new").ok();
        layers.unmount();
        let journal = layers.path("upper/journal");
        let mut bytes = fs::read(&journal).expect("the journal");
        // The version is behind the 8 bytes of the magic, and the sum of the header at 120 in every
        // version: fs/docs/JOURNAL.md.
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..120]);
        bytes[120..128].copy_from_slice(&sum.to_le_bytes());
        fs::write(&journal, bytes).expect("the journal");
        let before = layers.all();
        refused(
            layers.overlay(&options).run(),
            &["journal", "version 9", "newer"],
        );
        assert_eq!(layers.all(), before);
    }
}

#[test]
fn an_upper_of_the_other_kind_is_refused() {
    for who in Who::all() {
        let layers = Layers::new(who);
        layers.overlay(&layers.options("journal")).ok();
        layers.sh("echo new >merged/new").ok();
        layers.unmount();
        let before = layers.all();
        let out = layers.overlay("lowerdir=lower,upperdir=upper,workdir=work");
        refused(out.run(), &["upper", "upper=journal"]);
        assert_eq!(layers.all(), before);
    }
    refuses(
        "echo x >upper/x",
        "lowerdir=lower,upperdir=upper,upper=journal",
        &["upper", "upper=dir"],
    );
}

#[test]
fn a_journal_over_other_layers_is_refused() {
    for who in Who::all() {
        let layers = Layers::new(who);
        let options = layers.options("journal");
        layers.overlay(&options).ok();
        layers.sh("echo new >merged/new").ok();
        layers.unmount();
        layers.sh("echo more >lower/more").ok();
        let before = layers.all();
        refused(layers.overlay(&options).run(), &["upper", "another"]);
        assert_eq!(layers.all(), before);
    }
}

#[test]
fn a_journal_under_its_own_mountpoint_is_refused() {
    for who in Who::all() {
        let layers = Layers::new(who);
        let out =
            layers
                .here(&pellicle_overlay())
                .args(["-o", &layers.options("journal"), "upper"]);
        refused(out.run(), &["mountpoint", "upper"]);
    }
}

#[test]
fn directories_closed_to_the_user_are_refused() {
    let layers = Layers::new(Who::all()[0]);
    if layers.store.who() != Who::User {
        return skip(
            "directories_closed_to_the_user_are_refused",
            "needs an ordinary user",
        );
    }
    layers.sh("chmod 555 upper").ok();
    for upper in UPPERS {
        let before = layers.all();
        refused(
            layers.overlay(&layers.options(upper)).run(),
            &["upper", "cannot be written to", "denied"],
        );
        assert_eq!(layers.all(), before);
    }
    layers.sh("chmod 755 upper").ok();
    let out = layers.overlay(&format!("{},allow_other", layers.options("journal")));
    let allowed = fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|conf| conf.lines().any(|line| line.trim() == "user_allow_other"));
    if !allowed {
        refused(out.run(), &["user_allow_other", "/etc/fuse.conf"]);
    }
}

/// Runs `script` as root in a mount namespace of its own, in the directory of the layers.
fn in_namespace(layers: &Layers, script: &str) -> Outcome {
    let mut command = layers.store.who().command(Path::new("unshare"));
    command
        .args(["--mount", "--propagation=private", "sh", "-uc"])
        .arg(format!("{LET_GO}\n{script}"))
        .env("PROGRAM", pellicle_overlay())
        .env("PELLICLE_ROOT", layers.store.root())
        .current_dir(layers.path(""));
    Cmd::new(command).run()
}

#[test]
fn foreign_and_read_only_file_systems_are_refused() {
    let test = "foreign_and_read_only_file_systems_are_refused";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    for upper in UPPERS {
        let layers = Layers::new(Who::Root);
        let out = in_namespace(
            &layers,
            "mount --bind upper upper && mount -o remount,bind,ro upper && cd . || exit 9
             \"$PROGRAM\" -o lowerdir=lower,upperdir=upper,workdir=work,upper=KIND merged"
                .replace("KIND", upper)
                .as_str(),
        );
        refused(out, &["upper", "read-only"]);

        let out = in_namespace(
            &layers,
            "\"$PROGRAM\" -o lowerdir=lower,upperdir=/proc/sys,workdir=work,upper=KIND merged"
                .replace("KIND", upper)
                .as_str(),
        );
        refused(out, &["/proc/sys"]);
    }
    let layers = Layers::new(Who::Root);
    let out = in_namespace(
        &layers,
        "mount -t tmpfs tmpfs work || exit 9
         \"$PROGRAM\" -o lowerdir=lower,upperdir=upper,workdir=work merged",
    );
    refused(out, &["work", "upper", "another file system"]);

    // The same device by another mount: names cannot be moved between the two.
    let out = in_namespace(
        &layers,
        "mount --bind work work || exit 9
         \"$PROGRAM\" -o lowerdir=lower,upperdir=upper,workdir=work merged",
    );
    refused(out, &["work", "upper", "another file system"]);

    // On another overlay whiteouts would be its own.
    let out = in_namespace(
        &layers,
        "mkdir u w m && \"$PROGRAM\" -o lowerdir=lower,upperdir=u,workdir=w,upper=journal m || exit 9
         mkdir m/upper m/work || exit 9
         \"$PROGRAM\" -o lowerdir=lower,upperdir=m/upper,workdir=m/work merged
         code=$?; umount m; exit $code",
    );
    refused(out, &["m/upper", "FUSE"]);
    layers.served_no_more();
}

#[test]
fn without_the_device_or_the_right_to_mount_the_next_step_is_told() {
    let test = "without_the_device_or_the_right_to_mount_the_next_step_is_told";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    let layers = Layers::new(Who::Root);
    let out = in_namespace(
        &layers,
        "mount -t tmpfs -o ro tmpfs /dev && \"$PROGRAM\" -o lowerdir=lower merged",
    );
    refused(out, &["/dev/fuse", "modprobe fuse"]);
    if Command::new("setpriv").arg("--version").output().is_ok() {
        let out = layers
            .here(Path::new("setpriv"))
            .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
            .arg(pellicle_overlay())
            .args(["-o", "lowerdir=lower", "merged"]);
        refused(out.run(), &["not allowed to mount", "namespace"]);
    }
}
