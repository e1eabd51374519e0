//! The command line: what it mounts, how it ends, and how mount(8) calls it.

use std::{fs, path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use pellicle_tests::{Cmd, LET_GO, Who, pellicle_overlay, skip, wait_for};

use crate::layers::{Layers, UPPERS};

/// How `/proc/mounts` shows `merged`: source, type and flags.
fn mounted(layers: &Layers) -> Option<(String, String, String)> {
    let table = fs::read_to_string("/proc/self/mounts").expect("/proc");
    let merged = layers.path("merged");
    table.lines().find_map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        let (source, dir) = (words.next()?, words.next()?);
        (Path::new(&dir) == merged).then_some((source, words.next()?, words.next()?))
    })
}

#[test]
fn a_mount_can_be_used_when_the_command_returns() {
    for who in Who::all() {
        for upper in UPPERS {
            let layers = Layers::new(who);
            for round in 0..5 {
                let out = layers.overlay(&layers.options(upper)).run().succeeded();
                assert_eq!((out.out(), out.err()), (String::new(), String::new()));
                let said = layers.sh(&format!(
                    "cat merged/link; echo {round} >merged/new{round}; ls merged; mv merged/dir merged/d
                     mv merged/d merged/dir"
                ));
                let news: String = (0..=round).map(|n| format!("\nnew{n}")).collect();
                assert_eq!(said.ok(), format!("lowerdir\nfile\nlink{news}"));
                layers.unmount();
            }
            assert_eq!(layers.sh("ls lower").ok(), "dir\nfile\nlink");
        }
    }
}

#[test]
fn the_transport_can_be_chosen_and_is_told() {
    const CHOICE: &str = "PELLICLE_TRANSPORT";
    for who in Who::all() {
        let layers = Layers::new(who);
        let overlay = || layers.overlay("lowerdir=lower");
        overlay().env(CHOICE, "dev").ok();
        let said = layers.sh("getfattr --only-values -n user.pellicle.server merged");
        let said = said.ok();
        assert!(said.starts_with("/dev/fuse: as asked for\n"), "{said}");
        assert!(said.contains("GETXATTR"), "{said}");
        let listed = layers.sh("getfattr -m - merged").ok();
        assert!(!listed.contains("pellicle"), "{listed}");
        layers.unmount();
        let refused = overlay().env(CHOICE, "odd").run().exited(1);
        for word in [CHOICE, "odd", "auto, ring or dev"] {
            assert!(refused.err().contains(word), "{refused}");
        }
    }
}

#[test]
fn without_an_upper_directory_nothing_can_be_changed() {
    for who in Who::all() {
        let layers = Layers::new(who);
        layers.overlay("lowerdir=lower").ok();
        let out = layers.sh("cat merged/file; echo x >merged/file").run();
        assert_eq!(out.out(), "lower");
        assert!(out.err().contains("Read-only"), "{out}");
        layers.unmount();
    }
}

#[test]
fn read_only_with_an_upper_directory_shows_its_changes() {
    for who in Who::all() {
        for upper in UPPERS {
            let layers = Layers::new(who);
            let options = layers.options(upper);
            layers.overlay(&options).ok();
            layers.sh("echo new >merged/new; rm merged/file").ok();
            layers.unmount();
            let before = layers.all();
            layers.overlay(&format!("{options},ro")).ok();
            assert_eq!(
                layers.sh("ls merged; cat merged/new").ok(),
                "dir\nlink\nnew\nnew"
            );
            assert!(
                layers
                    .sh("touch merged/x")
                    .run()
                    .err()
                    .contains("Read-only")
            );
            layers.unmount();
            assert_eq!(layers.all(), before);
        }
    }
}

#[test]
fn upper_layers_hide_lower_ones_and_paths_may_hold_separators() {
    for who in Who::all() {
        let layers = Layers::new(who);
        layers.store.directory("top,a:b\\c");
        layers.store.file("top,a:b\\c/file", "top");
        layers.overlay(r"lowerdir=top\,a\:b\\c:lower").ok();
        assert_eq!(
            layers.sh("cat merged/file merged/dir/inner").ok(),
            "topinner"
        );
        layers.unmount();
    }
}

#[test]
fn the_mount_is_named_as_asked_and_has_the_flags_asked_for() {
    let who = Who::all()[0];
    let layers = Layers::new(who);
    layers.overlay("lowerdir=lower,noexec,,private,atime").ok();
    let (source, kind, flags) = mounted(&layers).expect("mounted");
    assert_eq!(
        (source.as_str(), kind.as_str()),
        ("pellicle-overlay", "fuse.pellicle-overlay")
    );
    for flag in ["ro", "nodev", "noexec"] {
        assert!(flags.split(',').any(|f| f == flag), "{flag}: {flags}");
    }
    assert!(!flags.contains("noatime"), "{flags}");
    layers.unmount();
}

#[test]
fn what_is_unknown_is_named_and_passed_over() {
    let layers = Layers::new(Who::all()[0]);
    let out = layers
        .overlay("lowerdir=lower,metacopy=on,,private")
        .arg("-z")
        .run()
        .succeeded();
    assert_eq!(
        out.err(),
        "unknown argument ignored: metacopy=on\nunknown argument ignored: private\n\
         unknown argument ignored: -z\n"
    );
    layers.unmount();
}

#[test]
fn with_userxattr_what_is_hidden_is_marked_as_that_of_the_kernel_looks_for_it() {
    for who in Who::all() {
        let layers = Layers::new(who);
        let options = format!("{},userxattr", layers.options("dir"));
        layers.overlay(&options).ok();
        layers
            .sh("rm -r merged/dir; mkdir merged/dir; touch merged/dir/new")
            .ok();
        layers.unmount();
        let marks = layers
            .sh("getfattr -m overlay.opaque --absolute-names --only-values upper/dir; getfattr -m overlay.opaque upper/dir")
            .ok();
        assert_eq!(marks, "y# file: upper/dir\nuser.overlay.opaque", "{who:?}");
        layers.overlay(&options).ok();
        assert_eq!(layers.sh("ls merged/dir").ok(), "new");
        layers.unmount();
    }
}

#[test]
fn help_and_version_are_told_on_standard_output() {
    let layers = Layers::new(Who::all()[0]);
    let tell = |option| layers.here(&pellicle_overlay()).arg(option).ok();
    assert!(tell("--version").contains("\nfuse-overlayfs: version 1."));
    assert_eq!(tell("-V"), tell("--version"));
    assert!(tell("--help").contains("lowerdir="));
}

#[test]
fn in_the_foreground_it_ends_with_the_mount_or_by_a_signal() {
    for who in Who::all() {
        let layers = Layers::new(who);
        for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT)] {
            let running = layers.overlay(&layers.options("journal")).arg("-f").spawn();
            wait_for("the mount", Duration::from_secs(60), || mounted(&layers));
            layers.sh("echo x >merged/x").ok();
            match signal {
                None => layers.sh("fusermount3 -u merged").ok(),
                Some(signal) => {
                    running.signal(signal);
                    String::new()
                }
            };
            let out = running.wait().succeeded();
            assert_eq!(out.err(), "", "{signal:?}");
            assert!(mounted(&layers).is_none());
        }
    }
}

/// In a mount namespace where `fuse-overlayfs` is ours, so that mount(8), which looks in the system's
/// directories only, calls it.
#[test]
fn mount_8_calls_it_with_a_source() {
    let theirs = Path::new("/usr/bin/fuse-overlayfs");
    if let Some(why) = Who::Root.missing() {
        return skip("mount_8_calls_it_with_a_source", &why);
    }
    if !theirs.exists() {
        return skip(
            "mount_8_calls_it_with_a_source",
            "fuse-overlayfs is not installed",
        );
    }
    let layers = Layers::new(Who::Root);
    let script = r#"
mount --bind "$PROGRAM" /usr/bin/fuse-overlayfs
options="lowerdir=$PWD/lower,upperdir=$PWD/upper,workdir=$PWD/work"
look() { awk -v dir="$PWD/merged" '$2 == dir { print $1, $3, $4 }' /proc/self/mounts; cat merged/file; echo; }
mount -t fuse.fuse-overlayfs images "$PWD/merged" -o "$options,,upper=journal,noexec"
look; echo x >merged/x; umount merged
mount.fuse3 images "$PWD/merged" -o "$options,upper=journal,ro,nosuid" -t fuse-overlayfs
look; cat merged/x; umount merged
mount -t fuse3 'fuse-overlayfs#images' "$PWD/merged" -o "lowerdir=$PWD/lower"
look; umount merged
mount.fuse3 fuse-overlayfs "$PWD/merged" -o "lowerdir=$PWD/lower"
look; umount merged
echo "images $PWD/merged fuse.fuse-overlayfs noauto,nofail,x-systemd.automount,lowerdir=$PWD/lower 0 0" >fstab
mount -T fstab "$PWD/merged"
look; umount merged
if mount -t fuse.fuse-overlayfs images "$PWD/merged" -o "lowerdir=$PWD/nowhere"; then exit 1; fi
if mount.fuse3 images "$PWD/merged" -o "lowerdir=$PWD/lower,drop_privileges" -t fuse-overlayfs; then exit 1; fi
"#;
    let mut command = layers.store.who().command(Path::new("unshare"));
    command
        .args(["--mount", "--propagation=private", "sh", "-euc"])
        .arg(format!("{LET_GO}\n{script}"))
        .env("PROGRAM", pellicle_overlay())
        .env("PELLICLE_ROOT", layers.store.root())
        .current_dir(layers.path(""));
    let out = Cmd::new(command).run().succeeded();
    let shown: Vec<_> = out.out().lines().map(str::to_owned).collect();
    let [
        first,
        one,
        second,
        two,
        x,
        third,
        three,
        fourth,
        four,
        fifth,
        five,
    ] = &shown[..]
    else {
        panic!("{out}");
    };
    for content in [one, two, three, four, five] {
        assert_eq!(content, "lower");
    }
    assert_eq!(x, "x");
    let flags = |line: &str, source: &str, wanted: &[&str]| {
        let start = format!("{source} fuse.pellicle-overlay ");
        let flags = line
            .strip_prefix(&start)
            .unwrap_or_else(|| panic!("{line}"));
        for flag in wanted {
            assert!(flags.split(',').any(|f| f == *flag), "{flag}: {line}");
        }
    };
    flags(first, "images", &["rw", "noexec"]);
    flags(second, "images", &["ro", "nosuid"]);
    flags(third, "images", &["ro"]);
    flags(fourth, "pellicle-overlay", &["ro"]);
    flags(fifth, "images", &["ro"]);
    assert!(out.err().contains("nowhere"), "{out}");
    assert!(out.err().contains("drop_privileges"), "{out}");
    layers.served_no_more();
}

#[test]
fn root_of_a_user_namespace_mounts_without_a_helper() {
    let layers = Layers::new(Who::all()[0]);
    if layers.store.who() != Who::User {
        return skip(
            "root_of_a_user_namespace_mounts_without_a_helper",
            "needs an ordinary user",
        );
    }
    for upper in UPPERS {
        let script = format!(
            "{} -o {},uidmapping=0:0:1,gidmapping=0:0:1 merged
             awk -v d=\"$PWD/merged\" '$2 == d {{ print $3 }}' /proc/self/mounts
             echo changed >merged/file; mkdir merged/new; stat -c %u:%g merged/new; rm merged/link
             umount merged; ls upper",
            pellicle_overlay().display(),
            layers.options(upper)
        );
        let out = layers
            .here(Path::new("unshare"))
            .args(["--user", "--map-root-user", "--mount", "sh", "-euc"])
            .arg(script)
            .ok();
        let listed = if upper == "dir" {
            "file\nlink\nnew"
        } else {
            "data\njournal\nlock"
        };
        assert_eq!(out, format!("fuse.pellicle-overlay\n0:0\n{listed}"));
        layers.served_no_more();
        layers.sh("rm -rf upper work; mkdir upper work").ok();
    }
}

/// What the two programs make of the same options on the same layers.
#[test]
fn ids_are_mapped_and_squashed_as_fuse_overlayfs_does() {
    let test = "ids_are_mapped_and_squashed_as_fuse_overlayfs_does";
    if let Some(why) = Who::Root.missing() {
        return skip(test, &why);
    }
    if Command::new("fuse-overlayfs").arg("-V").output().is_err() {
        return skip(test, "fuse-overlayfs is not installed");
    }
    for options in [
        "uidmapping=0:100000:65536,gidmapping=0:200000:65536",
        "uidmapping=:0:1000:1:1:110000:65535,gidmapping=5:50:10",
        "squash_to_root",
        "squash_to_uid=33,squash_to_gid=44",
        "squash_to_uid=33,gidmapping=0:10:100",
        "static_nlink",
    ] {
        let run = |program: &Path, extra: &str| {
            let layers = Layers::new(Who::Root);
            let said = layers
                .sh("chown 7:8 lower/file; chown 70000:70000 lower/dir/inner")
                .ok();
            assert_eq!(said, "");
            layers
                .here(program)
                .args(["-o", "lowerdir=lower,upperdir=upper,workdir=work"])
                .args(["-o", &format!("{options}{extra}"), "merged"])
                .ok();
            let look = "stat -c '%n %u:%g %h' merged merged/* merged/dir/*";
            let said = layers.sh(&format!(
                "{look}; chown 1005:55 merged/file; chgrp 51 merged/dir; touch merged/new; {look}"
            ));
            let said = said.ok();
            layers.sh("umount merged").ok();
            (layers, said)
        };
        let (theirs, shown_by_theirs) = run(Path::new("fuse-overlayfs"), "");
        for upper in UPPERS {
            let (ours, shown) = run(&pellicle_overlay(), &format!(",upper={upper}"));
            assert_eq!(shown, shown_by_theirs, "{options}, {upper}");
            ours.served_no_more();
            if upper == "dir" {
                let kept =
                    |layers: &Layers| layers.sh("cd upper; stat -c '%n %u:%g' file dir new").ok();
                assert_eq!(kept(&ours), kept(&theirs), "{options}");
            }
        }
    }
}
