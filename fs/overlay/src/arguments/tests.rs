use std::path::Path;

use pellicle_fuse::Opens;

use super::*;
use crate::request::{Audience, Request, StatIn, UpperKind};

const ROOT: Runner = Runner {
    root: true,
    overflow: (65_534, 65_533),
};
const USER: Runner = Runner {
    root: false,
    ..ROOT
};

fn parse_as(runner: Runner, line: &[&str]) -> Result<Invocation, UsageError> {
    parse(line.iter().map(OsString::from), runner)
}

fn mount(line: &[&str]) -> (Request, Vec<String>) {
    match parse_as(ROOT, line) {
        Ok(Invocation::Mount { request, ignored }) => (*request, ignored),
        other => panic!("{line:?}: {other:?}"),
    }
}

fn with(options: &str) -> Request {
    mount(&["-o", "lowerdir=/l", "-o", options, "/m"]).0
}

fn refused(line: &[&str]) -> String {
    parse_as(ROOT, line).unwrap_err().to_string()
}

#[test]
fn the_line_podman_writes_is_taken_whole() {
    let (request, ignored) = mount(&[
        "-o",
        "lowerdir=/s/l/B:/s/l/A,upperdir=/s/c/diff,workdir=/s/c/work,volatile,\
         context=\"system_u:object_r:container_file_t:s0:c1,c2\",uidmapping=:0:100000:65536,\
         gidmapping=:0:200000:65536,xattr_permissions=2",
        "/s/c/merged",
    ]);
    assert!(ignored.is_empty(), "{ignored:?}");
    assert_eq!(request.lower, [Path::new("/s/l/B"), Path::new("/s/l/A")]);
    let upper = request.upper.unwrap();
    assert_eq!(upper.kind, UpperKind::Directory);
    assert_eq!(upper.dir, Path::new("/s/c/diff"));
    assert_eq!(upper.work.unwrap(), Path::new("/s/c/work"));
    assert_eq!(request.mountpoint, Path::new("/s/c/merged"));
    assert_eq!(request.view.uids.show(5), 100_005);
    assert_eq!(request.view.gids.keep(200_005), 5);
    assert_eq!(request.view.gids.show(70_000), 65_533);
    assert_eq!(request.stat_in, StatIn::Attribute);
    assert!(!request.fsync && !request.mount.read_only && !request.foreground);
}

#[test]
fn options_of_several_o_are_merged_and_the_last_counts() {
    let (request, _) = mount(&[
        "-olowerdir=/a,,ro",
        "/m",
        "-o",
        "rw,upperdir=/u",
        "-oworkdir=/w,lowerdir=/b",
    ]);
    assert_eq!(request.lower, [Path::new("/b")]);
    assert!(!request.mount.read_only);
    assert!(request.upper.is_some());
}

#[test]
fn what_is_unknown_is_passed_over_and_told() {
    let (request, ignored) = mount(&[
        "-z",
        "-o",
        "lowerdir=/l,private,metacopy=on,index=off,ro=1,defaults,x-systemd.automount",
        "/m",
    ]);
    assert_eq!(
        ignored,
        ["-z", "private", "metacopy=on", "index=off", "ro=1"]
    );
    assert!(request.mount.read_only, "there is no upper");
}

#[test]
fn a_source_before_the_mountpoint_names_the_mount() {
    let line = |source, options| mount(&[source, "/m", "-o", options]).0.mount.fs_name;
    assert_eq!(line("overlay", "rw,lowerdir=/l"), "overlay");
    assert_eq!(line("overlay", r"rw,lowerdir=/l,fsname=a\,b"), "a,b");
    assert_eq!(line("none", "rw,lowerdir=/l"), "pellicle-overlay");
    assert_eq!(line("", "rw,lowerdir=/l"), "pellicle-overlay");
    let (request, _) = mount(&["-o", "lowerdir=/l", "/m"]);
    assert_eq!(request.mount.fs_name, "pellicle-overlay");
    assert_eq!(request.mount.subtype, "pellicle-overlay");
}

#[test]
fn arguments_after_two_dashes_are_no_options() {
    let (request, _) = mount(&["-o", "lowerdir=/l", "--", "-m"]);
    assert_eq!(request.mountpoint, Path::new("-m"));
}

#[test]
fn paths_may_hold_any_byte() {
    let mut text = b"lowerdir=/l\\:1:/l\\,2,upperdir=/u\\,".to_vec();
    text.extend(b"\xff,workdir=/w\\\\");
    let line = [
        OsString::from("-o"),
        OsString::from_vec(text),
        OsString::from("/m"),
    ];
    let Ok(Invocation::Mount { request, .. }) = parse(line, ROOT) else {
        panic!("not taken");
    };
    assert_eq!(request.lower, [Path::new("/l:1"), Path::new("/l,2")]);
    let upper = request.upper.unwrap();
    assert_eq!(upper.dir.as_os_str().as_bytes(), b"/u,\xff");
    assert_eq!(upper.work.unwrap(), Path::new("/w\\"));
}

#[test]
fn squashing_to_an_id_goes_before_squashing_to_root_and_mapping() {
    let view = with("squash_to_root,squash_to_gid=7,uidmapping=0:10:5").view;
    assert_eq!((view.uids.show(3), view.gids.show(3)), (0, 7));
    assert_eq!((view.uids.keep(12), view.gids.keep(12)), (2, 12));
    let view = with("squash_to_uid=-1").view;
    assert_eq!(view.uids.show(3), 3);
    for bad in [
        "squash_to_uid=x",
        "squash_to_uid=-2",
        "squash_to_gid=4294967295",
        "squash_to_gid",
    ] {
        let why = refused(&["-o", &format!("lowerdir=/l,{bad}"), "/m"]);
        assert!(why.contains("squash_to_"), "{why}");
    }
}

#[test]
fn switches_and_numbers_are_checked() {
    assert!(!with("fsync=0").fsync);
    assert!(with("fsync=1").fsync);
    assert!(!with("fsync=1,volatile").fsync, "as fuse-overlayfs has it");
    assert_eq!(with("max_threads=7").threads, Some(7));
    assert_eq!(with("rw").opens, Opens::Silent);
    assert_eq!(with("opens=passthrough").opens, Opens::Passthrough);
    assert!(with("userxattr").user_marks && !with("rw").user_marks);
    assert!(with("clone_fd").clone_fd);
    assert!(with("noacl,noxattrs=1,static_nlink").view.no_acl);
    for bad in [
        "fsync=x",
        "fsync",
        "max_threads=0",
        "opens=never",
        "opens",
        "max_threads=257",
        "timeout=-1",
        "timeout=soon",
        "xino=maybe",
        "noxattrs=",
        "upper=tape",
        "redirect_dir=on",
        "xattr_permissions=3",
        "xattr_permissions=1",
        "remount",
        "uidmapping=0:1",
    ] {
        let why = refused(&["-o", &format!("lowerdir=/l,{bad}"), "/m"]);
        let option = bad.split('=').next().unwrap();
        assert!(why.contains(option), "{bad}: {why}");
    }
    for fine in [
        "timeout=0",
        "timeout=1.5e3",
        "xino=on",
        "threaded=0",
        "writeback=1",
        "ino32_t",
    ] {
        let (_, ignored) = mount(&["-o", &format!("lowerdir=/l,{fine}"), "/m"]);
        assert!(ignored.is_empty(), "{fine}: {ignored:?}");
    }
}

#[test]
fn roots_mounts_are_for_all_and_heed_set_id_bits() {
    let request = with("");
    assert_eq!(request.audience, Audience::All);
    assert!(request.mount.allow_other && !request.mount.no_suid && !request.mount.devices);
    assert!(request.mount.no_atime);

    let Ok(Invocation::Mount { request, .. }) = parse_as(USER, &["-olowerdir=/l", "/m"]) else {
        panic!("not taken");
    };
    assert_eq!(request.audience, Audience::Owner);
    assert!(!request.mount.allow_other && request.mount.no_suid);
}

#[test]
fn flags_of_the_mount_are_heeded() {
    let mount = with("nosuid,dev,noexec,atime,nodiratime,sync,dirsync").mount;
    assert!(mount.no_suid && mount.devices && mount.no_exec && mount.no_dir_atime);
    assert!(mount.sync && mount.dir_sync && !mount.no_atime);
    assert!(with("upperdir=/u,workdir=/w,ro").mount.read_only);
    let request = with("allow_root");
    assert_eq!(request.audience, Audience::OwnerAndRoot);
    assert!(request.mount.allow_other, "the kernel knows no middle way");
}

#[test]
fn contradictions_are_refused_by_name() {
    for (options, words) in [
        ("allow_other,allow_root", ["allow_other", "allow_root"]),
        ("upper=journal", ["upperdir", "value"]),
        (
            "upper=journal,upperdir=/u,xattr_permissions=2",
            ["upper=journal", "xattr_permissions"],
        ),
        ("uidmapping=0:100:10:5:300:10", ["uidmapping", "overlap"]),
        ("upperdir=/u", ["workdir", "/u"]),
    ] {
        let why = refused(&["-o", &format!("lowerdir=/l,{options}"), "/m"]);
        for word in words {
            assert!(why.contains(word), "{options}: {why}");
        }
    }
}

#[test]
fn a_journal_needs_no_workdir() {
    let request = with("upper=journal,upperdir=/u");
    assert_eq!(request.upper.unwrap().kind, UpperKind::Journal);
}

#[test]
fn what_is_missing_is_named() {
    assert_eq!(parse_as(ROOT, &["-o"]).unwrap_err(), UsageError::NoOptions);
    assert_eq!(parse_as(ROOT, &["/m"]).unwrap_err(), UsageError::NoLower);
    for line in [
        &["-o", "lowerdir=/l"][..],
        &[],
        &["-o", "lowerdir=/l", "src", ""],
    ] {
        assert_eq!(parse_as(ROOT, line).unwrap_err(), UsageError::NoMountpoint);
    }
    assert!(refused(&["-o", "lowerdir", "/m"]).contains("lowerdir"));
    assert!(refused(&["-o", "lowerdir=", "/m"]).contains("lowerdir"));
    assert!(refused(&["-o", "lowerdir=/l", "a", "b", "c"]).contains('3'));
    assert!(refused(&["-o", "lowerdir=/l", "/dev/fd/3"]).contains("drop_privileges"));
}

#[test]
fn help_and_version_need_nothing_else() {
    for word in ["-h", "--help"] {
        let got = parse_as(USER, &["-f", word]).unwrap();
        assert!(matches!(got, Invocation::Help));
    }
    for word in ["-V", "--version"] {
        let got = parse_as(USER, &["-z", word]).unwrap();
        assert!(matches!(got, Invocation::Version));
    }
}

#[test]
fn debugging_stays_in_the_foreground() {
    for line in [
        ["-d", "-olowerdir=/l"],
        ["--debug", "-olowerdir=/l"],
        ["-f", "-olowerdir=/l,debug"],
    ] {
        let (request, _) = mount(&[line[0], line[1], "/m"]);
        assert!(request.debug && request.foreground);
    }
    let (request, _) = mount(&["-f", "-s", "-olowerdir=/l", "/m"]);
    assert!(request.foreground && !request.debug);
    assert_eq!(request.threads, Some(1));
}
