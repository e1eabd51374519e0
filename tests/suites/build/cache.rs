//! What is done again, and what is not.

use std::{fs, time::Duration};

use pellicle_tests::Who;

use crate::support::Site;

#[test]
fn a_build_of_the_same_runs_nothing_and_gives_the_same_image() {
    for who in Who::all() {
        let b = Site::new(who);
        b.file("f", "one");
        let text = "FROM tools\nENV A=1\nRUN echo $$ >/r && head -c 8 /dev/urandom >>/r\n\
                    COPY f /f\nRUN cat /f >/g && head -c 8 /dev/urandom >>/g\nWORKDIR /w\nCMD [\"x\"]\n";
        let first = b.built(text, &[]).out();
        let again = b.built(text, &[]);
        assert_eq!(again.out(), first);
        assert_eq!(again.err().matches("Using cache").count(), 3, "{again}");
        // Times and owners of files are not looked at, contents and modes are.
        b.file("f", "one");
        assert_eq!(b.built(text, &[]).out(), first);
        b.file("f", "two");
        let changed = b.built(text, &[]);
        assert_ne!(changed.out(), first);
        assert_eq!(changed.err().matches("Using cache").count(), 1, "{changed}");
        assert!(b.says("cat /g").starts_with("two"));
        // Back to what it was.
        b.file("f", "one");
        assert_eq!(b.built(text, &[]).out(), first);
        let forced = b.built(text, &["--no-cache"]);
        assert_ne!(forced.out(), first);
        assert!(!forced.err().contains("Using cache"));
    }
}

#[test]
fn a_file_that_looks_the_same_and_is_not_is_noticed() {
    for who in Who::all().into_iter().take(1) {
        let b = Site::new(who);
        let text = "FROM tools\nCOPY big /big\n";
        let path = b.s.path("ctx/big");
        b.file("big", &"a".repeat(50_000));
        std::thread::sleep(Duration::from_millis(3100));
        b.built(text, &[]);
        assert!(b.built(text, &[]).err().contains("Using cache"));
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        b.file("big", &"b".repeat(50_000));
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(time).unwrap();
        assert!(!b.built(text, &[]).err().contains("Using cache"));
        assert_eq!(b.says("head -c 1 /big"), "b");
    }
}

#[test]
fn what_a_step_depends_on_makes_it_run_again() {
    for who in Who::all().into_iter().take(1) {
        let b = Site::new(who);
        let text = |from: &str, env: &str, arg: &str, run: &str| {
            format!("FROM {from}\nENV E={env}\nARG A={arg}\nRUN {run}; echo $A $E >/o\n")
        };
        let again = |out: pellicle_tests::Outcome| out.err().contains("Using cache");
        assert!(!again(b.built(&text("tools", "1", "1", "true"), &[])));
        assert!(again(b.built(&text("tools", "1", "1", "true"), &[])));
        assert!(!again(b.built(&text("tools", "2", "1", "true"), &[])));
        assert!(!again(b.built(&text("tools", "1", "2", "true"), &[])));
        assert_eq!(b.says("cat /o"), "2 1");
        assert!(!again(b.built(&text("tools", "1", "1", "sleep 0"), &[])));
        assert!(!again(b.built(
            &text("tools", "1", "1", "true"),
            &["--build-arg", "A=3"]
        )));
        assert!(!again(b.built(
            &text("tools", "1", "1", "true"),
            &["--network", "host"]
        )));
        b.s.cmd(["tag", "x", "other"]).ok();
        assert!(!again(b.built(&text("other", "1", "1", "true"), &[])));
        assert!(again(b.built(&text("tools", "1", "1", "true"), &[])));
    }
}

#[test]
fn ten_steps_that_are_known_are_not_done_again() {
    for who in Who::all() {
        let b = Site::new(who);
        for n in 0..20 {
            b.file(&format!("src/{n}"), &"x".repeat(10_000));
        }
        let mut text = "FROM tools\n".to_owned();
        for n in 0..5 {
            text.push_str(&format!("RUN echo {n} >/f{n}\nCOPY src /src{n}\n"));
        }
        b.built(&text, &[]);
        let out = b.built(&text, &[]);
        assert_eq!(out.err().matches("Using cache").count(), 10);
        // What the stage was between two steps leaves no tree: one for each layer, and the image's.
        let trees = fs::read_dir(b.s.root().join("trees")).unwrap().count();
        assert_eq!(trees, b.layers("x") + 1);
    }
}

#[test]
fn the_cache_goes_with_the_images_and_outlives_collection_with_them() {
    for who in Who::all() {
        let b = Site::new(who);
        let text = "FROM tools AS build\nRUN echo made >/m\nFROM tools\nCOPY --from=build /m /m\n";
        b.built(text, &[]);
        b.s.cmd(["store", "gc"]).ok();
        let again = b.built(text, &[]);
        assert_eq!(again.err().matches("Using cache").count(), 2, "{again}");
        let steps = b.s.root().join("builds/steps");
        assert!(fs::read_dir(&steps).unwrap().count() >= 2);
        b.s.cmd(["rmi", "x"]).ok();
        b.s.cmd(["store", "gc"]).ok();
        assert_eq!(fs::read_dir(&steps).unwrap().count(), 0);
        let anew = b.built(text, &[]);
        assert!(!anew.err().contains("Using cache"), "{anew}");
        b.s.cmd(["store", "verify"]).ok();
    }
}

#[test]
fn a_failed_build_goes_on_where_it_failed() {
    for who in Who::all() {
        let b = Site::new(who);
        let text = |last: &str| format!("FROM tools\nRUN head -c 8 /dev/urandom >/r\nRUN {last}\n");
        let _ = b.build(&text("false"), &[]).run().exited(1);
        let out = b.built(&text("true"), &[]);
        assert_eq!(out.err().matches("Using cache").count(), 1, "{out}");
    }
}

#[test]
fn the_same_input_gives_the_same_digest_where_a_time_is_given() {
    for who in Who::all() {
        let make = |args: &[&str], epoch: Option<&str>| {
            let b = Site::new(who);
            b.file("f", "content").file("d/e", "content");
            let text = "FROM tools\nRUN mkdir /a && echo x >/a/b && ln -s b /a/c && rm /etc/base\n\
                        COPY . /c/\nCOPY <<E /t\ntext\nE\nWORKDIR /new\nLABEL a=b\n";
            let mut cmd = b.build(text, &[&["-q", "-t", "x"], args].concat());
            if let Some(epoch) = epoch {
                cmd = cmd.env("SOURCE_DATE_EPOCH", epoch);
            }
            let id = cmd.ok();
            let times = b.says("stat -c %Y /a /a/b /c/f /t /new");
            let manifest = b.inspect("x");
            (id, times, manifest.get("Created").cloned())
        };
        // The base image says when it was imported.
        let all = |time: &str| format!("{time}\n{time}\n{time}\n{time}\n{time}");
        let (_, times, created) = make(&["--timestamp", "1000000000"], None);
        assert_eq!(times, all("1000000000"));
        assert_eq!(created.unwrap(), "2001-09-09T01:46:40Z");
        let (_, times, _) = make(&[], Some("1100000000"));
        assert_eq!(times, all("1100000000"));
    }
}

#[test]
fn from_scratch_two_stores_give_one_digest() {
    for who in Who::all().into_iter().take(1) {
        let make = || {
            let b = Site::new(who);
            b.file("f", "content").file("d/e", "content");
            let text = "FROM scratch\nCOPY . /c/\nCOPY <<E /t\ntext\nE\nWORKDIR /new\nENV a=b\n";
            let cmd = b
                .build(text, &["-q"])
                .env("SOURCE_DATE_EPOCH", "1000000000");
            cmd.ok()
        };
        let first = make();
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(make(), first);
    }
}
