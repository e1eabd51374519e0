//! Pulls that are ended, that run at the same time, and that have no room.

use std::{
    fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, process::Command, thread,
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use pellicle_tests::{
    Cmd, TestStore, Who,
    archive::{Archive, kind},
    skip,
};

use crate::{
    json, listed, noise, program,
    script::{Answer, Asked, Made, Script, digest},
};

fn made() -> Made {
    let layer = |n: u64| {
        Archive::new()
            .file(&format!("f{n}"), noise(n, 400_000))
            .end()
    };
    Made::of(&[layer(10), layer(11), layer(12), layer(13)])
}

/// The honest answer, slowly.
fn slow(image: &Made, asked: &Asked, pause: Duration) -> Option<Answer> {
    let Answer::Whole(code, headers, body) = image.answer(asked)? else {
        return None;
    };
    if body.len() < 10_000 {
        return Some(Answer::Whole(code, headers, body));
    }
    Some(Answer::Raw(Box::new(move |to| {
        write!(
            to,
            "HTTP/1.1 {code} X\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )?;
        for part in body.chunks(20_000) {
            to.write_all(part)?;
            thread::sleep(pause);
        }
        Ok(())
    })))
}

#[test]
fn a_pull_that_is_killed_leaves_nothing_listed_and_the_next_goes_on() {
    let image = made();
    let r = Script::start(move |asked| slow(&image, asked, Duration::from_millis(8)));
    let s = TestStore::new(Who::Root);
    let pull = || s.cmd(["pull", "--format", "json", "-q", &r.name("x")]);
    for after in [30, 90, 150, 220, 300] {
        let running = pull().spawn();
        thread::sleep(Duration::from_millis(after));
        running.signal(Signal::SIGKILL);
        let code = running.wait().code();
        if code == 0 {
            break;
        }
        assert_eq!(code, 128 + 9);
        // The signal may have found it with all its work done.
        if listed(&s) > 0 {
            break;
        }
    }
    let before = r.asked("/manifests/").len();
    let running = pull().spawn();
    // From then on it hears signals.
    pellicle_tests::wait_for("the request", Duration::from_secs(60), || {
        (r.asked("/manifests/").len() > before).then_some(())
    });
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    if ended.code() != 0 {
        ended.failed_clearly(130, &["interrupted"]);
    }
    // Half an image would not be whole here.
    if listed(&s) > 0 {
        s.cmd(["store", "verify"]).ok();
    }
    pull().ok();
    assert_eq!(listed(&s), 1);
    s.cmd(["store", "verify"]).ok();
    let told = json(&pull().ok());
    let layers = told["Layers"].as_array().expect("layers");
    assert!(layers.iter().all(|l| l["Fetched"] == false), "{told:#}");
}

#[test]
fn layers_that_were_complete_are_not_fetched_after_a_kill() {
    let image = made();
    let last = digest(&image.layers[3]);
    let held = last.clone();
    let r = Script::start(move |asked| {
        let pause = if asked.path.ends_with(&held) { 400 } else { 0 };
        slow(&image, asked, Duration::from_millis(pause))
    });
    let s = TestStore::new(Who::Root);
    let running = s.cmd(["pull", "-q", &r.name("x")]).spawn();
    pellicle_tests::wait_for("three layers", Duration::from_secs(60), || {
        // Blobs, and what was made of them.
        let all = ["blobs/sha256", "trees"].map(|dir| fs::read_dir(s.root().join(dir)));
        let [Ok(blobs), Ok(trees)] = all else {
            return None;
        };
        (blobs.count() >= 3 && trees.count() >= 3).then_some(())
    });
    running.signal(Signal::SIGKILL);
    let _ = running.wait();
    let told = json(&s.cmd(["pull", "-q", "--format", "json", &r.name("x")]).ok());
    let fetched: Vec<_> = told["Layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|l| l["Fetched"] == true)
        .collect();
    assert_eq!(fetched, [false, false, false, true]);
}

#[test]
fn an_interrupt_ends_a_pull_that_waits_for_the_registry() {
    let r = Script::start(|asked| {
        asked.path.contains("/manifests/").then(|| {
            Answer::Raw(Box::new(|_| {
                thread::sleep(Duration::from_secs(600));
                Ok(())
            }))
        })
    });
    let s = TestStore::new(Who::Root);
    let running = s
        .cmd(["pull", "-q", &r.name("x")])
        .limit(Duration::from_secs(120))
        .spawn();
    pellicle_tests::wait_for("the request", Duration::from_secs(60), || {
        (!r.asked("/manifests/").is_empty()).then_some(())
    });
    running.signal(Signal::SIGINT);
    running.wait().failed_clearly(130, &["interrupted"]);
}

#[test]
fn two_pulls_of_one_image_at_once_both_succeed() {
    let image = made();
    let r = Script::start(move |asked| slow(&image, asked, Duration::from_millis(3)));
    let s = TestStore::new(Who::Root);
    let both: Vec<_> = (0..2)
        .map(|_| s.cmd(["pull", "-q", &r.name("x")]).spawn())
        .collect();
    let ids: Vec<String> = both
        .into_iter()
        .map(|p| p.wait().succeeded().out())
        .collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(listed(&s), 1);
    s.cmd(["store", "verify"]).ok();
}

/// A gzip stream of an archive with one file of `size` zeros.
fn zeros(size: u64) -> Vec<u8> {
    let head = Archive::new()
        .entry(kind::FILE, "zeros", "", size, b"")
        .unfinished();
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    gz.write_all(&head).expect("memory");
    let block = vec![0; 1 << 20];
    for _ in 0..size >> 20 {
        gz.write_all(&block).expect("memory");
    }
    gz.write_all(&[0; 1024]).expect("memory");
    gz.finish().expect("memory")
}

#[test]
fn a_layer_that_unpacks_to_more_than_there_is_room_for_leaves_the_store_usable() {
    if let Some(why) = Who::Root.missing() {
        skip("a_layer_that_unpacks_to_more_than_there_is_room_for", &why);
        return;
    }
    let s = TestStore::new(Who::Root);
    let small = s.directory("small");
    let at = small.to_str().expect("plain").to_owned();
    let _ = program("mount", &["-t", "tmpfs", "-o", "size=48m", "tmpfs", &at]).succeeded();
    let cmd = |args: &[&str]| -> Cmd {
        let mut command = Command::new(pellicle_tests::pellicle());
        command.env("PELLICLE_ROOT", small.join("store"));
        Cmd::new(command).args(args)
    };
    let bomb = Made::with(vec![zeros(2 << 30)], &[digest(b"whatever")]);
    let r = Script::start(move |asked| bomb.answer(asked));
    let out = cmd(&["pull", "-q", &r.name("x")]).run();
    let tidy = cmd(&["store", "gc"]).run();
    let fine = made();
    let r = Script::start(move |asked| fine.answer(asked));
    let next = cmd(&["pull", "-q", &r.name("y")]).run();
    let count = cmd(&["images", "-q"]).run().out().lines().count();
    let _ = program("umount", &["-l", &at]).succeeded();
    out.failed_clearly(1, &["no space left"]);
    let _ = (tidy.succeeded(), next.succeeded());
    assert_eq!(count, 1);
}

#[test]
fn what_was_kept_of_a_layer_and_is_damaged_is_fetched_anew() {
    let image = Made::of(&[Archive::new().file("f", noise(20, 3_000_000)).end()]);
    let layer = image.layers[0].clone();
    let name = digest(&layer).replace("sha256:", "");
    let r = Script::start(move |asked| image.answer(asked));
    let half = &layer[..layer.len() / 2];
    let mut flipped = half.to_vec();
    flipped[1_000_000] ^= 1;
    let mut first = half.to_vec();
    first[0] ^= 1;
    type Damage<'a> = &'a dyn Fn(&Path);
    let bytes = |bytes: &[u8], path: &Path| fs::write(path, bytes).expect("write");
    let damages: [(&str, Damage<'_>); 8] = [
        ("nothing of it is wrong", &|path| bytes(half, path)),
        ("a byte is another one", &|path| bytes(&flipped, path)),
        ("it is no gzip", &|path| bytes(&first, path)),
        ("it is too long", &|path| {
            bytes(&[&layer[..], b"x"].concat(), path)
        }),
        ("a directory", &|path| {
            fs::create_dir_all(path.join("x")).expect("mkdir")
        }),
        ("a FIFO", &|path| {
            mkfifo(path, Mode::S_IRWXU).expect("mkfifo")
        }),
        ("a link out of the store", &|path| {
            let outside = path.with_file_name("../../../outside");
            fs::write(&outside, "mine").expect("write");
            std::os::unix::fs::symlink(&outside, path).expect("link");
        }),
        ("nobody may read it", &|path| {
            bytes(half, path);
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("chmod");
        }),
    ];
    for who in Who::all() {
        for (what, damage) in damages {
            let s = TestStore::new(who);
            for part in ["store", "store/registry", "store/registry/partial"] {
                s.directory(part);
            }
            let kept = s.root().join("registry/partial").join(&name);
            damage(&kept);
            let (uid, gid) = who.ids();
            std::os::unix::fs::lchown(&kept, Some(uid), Some(gid)).expect("chown");
            s.cmd(["pull", "-q", &r.name("x")]).ok();
            s.cmd(["store", "verify"]).ok();
            assert!(fs::symlink_metadata(&kept).is_err(), "{what}: it is left");
            if let Ok(outside) = fs::read_to_string(s.path("outside")) {
                assert_eq!(outside, "mine", "{what}");
            }
        }
    }
}
