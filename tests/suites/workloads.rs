//! What people do in containers, in the Debian image, without root: everything works, `diff` lists
//! exactly what changed, and another container sees none of it.

use std::{collections::BTreeSet, time::Duration};

use pellicle_tests::{TestStore, Who, kill_9, skip, wait_for};

/// Runs `script` in a container of Debian as an ordinary user; gives its output and diff.
fn in_debian(test: &str, script: &str) -> Option<(TestStore, String, BTreeSet<String>)> {
    if let Some(why) = Who::User.missing() {
        skip(test, &why);
        return None;
    }
    let Some(s) = TestStore::with_debian(Who::User) else {
        skip(
            test,
            "the Debian image could not be made: no mirror answers",
        );
        return None;
    };
    let out = s
        .cmd([
            "run", "--name", "work", "debian", "bash", "-euo", "pipefail", "-c", script,
        ])
        .limit(Duration::from_secs(900))
        .run()
        .succeeded()
        .out();
    let diff = s.cmd(["diff", "work"]).ok();
    Some((s, out, diff.lines().map(str::to_owned).collect()))
}

/// The second container: `path` must not be there. Then the first is removed.
fn unseen_by_others(s: &TestStore, path: &str) {
    assert_eq!(
        s.sh("debian", &format!("test -e {path} || echo none")).ok(),
        "none"
    );
    s.cmd(["rm", "work"]).ok();
}

fn has(diff: &BTreeSet<String>, lines: &[&str]) {
    for line in lines {
        assert!(
            diff.contains(*line),
            "{line:?} is not in the diff:\n{diff:#?}"
        );
    }
}

/// Everything in the diff is at or below one of `places`, or a parent directory of one.
fn only(diff: &BTreeSet<String>, places: &[&str]) {
    for line in diff {
        let path = &line[2..];
        let fits = places.iter().any(|place| {
            path == *place
                || path.starts_with(&format!("{place}/"))
                || (line.starts_with('C') && place.starts_with(&format!("{path}/")))
        });
        assert!(fits, "unexpected in the diff: {line}");
    }
}

#[test]
fn the_image_is_what_its_layers_say() {
    let test = "the_image_is_what_its_layers_say";
    let script = "cat /etc/motd /opt/app/app.conf.linked; python3 /opt/app/bin/hello; ls /usr/share/doc; test -e /etc/debian_version || echo removed; stat -c %h /opt/app/app.conf";
    let Some((s, out, diff)) = in_debian(test, script) else {
        return;
    };
    assert_eq!(
        out,
        "Pellicle demo image\ngreeting = hello from layer three\nhello from layer three\nREADME\nremoved\n2"
    );
    only(&diff, &["/opt/app/__pycache__"]);
    s.cmd(["rm", "work"]).ok();
}

#[test]
fn a_package_is_built_and_installed() {
    let test = "a_package_is_built_and_installed";
    let script = "mkdir -p /tmp/p/DEBIAN /tmp/p/usr/share/pellicle-demo
printf 'Package: pellicle-demo\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@y>\\nDescription: demo\\n' > /tmp/p/DEBIAN/control
echo installed > /tmp/p/usr/share/pellicle-demo/file
dpkg-deb --build /tmp/p /tmp/demo.deb > /dev/null
dpkg -i /tmp/demo.deb > /dev/null
rm -r /tmp/p /tmp/demo.deb
dpkg -s pellicle-demo | grep Status; cat /usr/share/pellicle-demo/file
for deb in /opt/debs/*.deb; do if [ -e $deb ]; then dpkg -i $deb > /dev/null && hello; fi; done
dpkg --audit";
    let Some((s, out, diff)) = in_debian(test, script) else {
        return;
    };
    assert!(
        out.starts_with("Status: install ok installed\ninstalled"),
        "{out}"
    );
    has(
        &diff,
        &[
            "A /usr/share/pellicle-demo",
            "A /usr/share/pellicle-demo/file",
            "C /var/lib/dpkg/status",
            "A /var/lib/dpkg/info/pellicle-demo.list",
        ],
    );
    only(
        &diff,
        &["/usr", "/var/lib/dpkg", "/var/log", "/var/cache", "/tmp"],
    );
    unseen_by_others(&s, "/usr/share/pellicle-demo");
}

#[test]
fn a_python_environment_is_made_and_used() {
    let test = "a_python_environment_is_made_and_used";
    let script = "python3 -m venv /srv/env && /srv/env/bin/python -c 'import sys, json; print(sys.prefix, json.dumps([1]))' && /srv/env/bin/pip --version | cut -d' ' -f1";
    let Some((s, out, diff)) = in_debian(test, script) else {
        return;
    };
    assert_eq!(out, "/srv/env [1]\npip");
    has(
        &diff,
        &[
            "C /srv",
            "A /srv/env",
            "A /srv/env/bin/pip",
            "A /srv/env/pyvenv.cfg",
        ],
    );
    unseen_by_others(&s, "/srv/env");
}

#[test]
fn a_c_program_is_compiled_and_run() {
    let test = "a_c_program_is_compiled_and_run";
    let script = "cd /root; printf '#include <stdio.h>\\n#include <math.h>\\nint main(int c, char **v) { printf(\"%%d %%.3f\\\\n\", c, sqrt(2.0 + c - 1)); return 3; }\\n' > a.c; gcc -O2 -o a a.c -lm; code=0; ./a x y || code=$?; echo $code";
    let Some((s, out, diff)) = in_debian(test, script) else {
        return;
    };
    assert_eq!(out, "3 2.000\n3");
    // The compiler has had files in /tmp, which leaves that directory changed.
    assert_eq!(
        diff,
        ["A /root/a", "A /root/a.c", "C /root", "C /tmp"]
            .map(str::to_owned)
            .into()
    );
    unseen_by_others(&s, "/root/a");
}

#[test]
fn ten_thousand_files_are_unpacked_and_removed() {
    let test = "ten_thousand_files_are_unpacked_and_removed";
    let script = "mkdir /tmp/src; cd /tmp/src; for d in $(seq 100); do mkdir $d; for f in $(seq 100); do echo $d $f > $d/$f; done; done
tar cf /tmp/all.tar . ; mkdir /out; tar xf /tmp/all.tar -C /out; rm -r /tmp/src /tmp/all.tar
find /out -type f | wc -l; cat /out/37/73; find /out -type f -print0 | sort -z | xargs -0 cat | sha256sum > /tmp/sum1
for d in $(seq 100); do for f in $(seq 100); do echo $d $f; done; done | sort > /tmp/a; find /out -type f -print0 | xargs -0 cat | sort > /tmp/b; cmp /tmp/a /tmp/b && echo same
rm -r /out/1 /tmp/a /tmp/b /tmp/sum1; find /out -type f | wc -l";
    let Some((s, out, diff)) = in_debian(test, script) else {
        return;
    };
    assert_eq!(out, "10000\n37 73\nsame\n9900");
    let added = diff.iter().filter(|l| l.starts_with("A /out/")).count();
    assert_eq!(added, 99 + 9900, "entries added below /out");
    only(&diff, &["/out", "/tmp"]);
    assert!(
        !diff.iter().any(|l| l.starts_with("A /tmp")),
        "removed files are in the diff"
    );
    unseen_by_others(&s, "/out");
}

#[test]
fn a_repository_is_cloned_and_whole() {
    let test = "a_repository_is_cloned_and_whole";
    let script = "export HOME=/root GIT_CONFIG_NOSYSTEM=1; git config --global user.email a@b; git config --global user.name n; git config --global init.defaultBranch main
mkdir /src; cd /src; git init -q; cp -r /usr/lib/python3.11/json /usr/lib/python3.11/email . ; git add .; git commit -qm one
for n in 1 2 3 4 5; do echo $n >> f; git add f; git commit -qm $n; done
git clone -q --no-local /src /clone; cd /clone; git fsck --full --strict; git status --porcelain | wc -l; git log --oneline | wc -l; git gc -q; git fsck; git status --porcelain | wc -l";
    let Some((s, out, diff)) = in_debian(test, script) else {
        return;
    };
    assert_eq!(out, "0\n6\n0");
    has(
        &diff,
        &[
            "A /clone/.git/HEAD",
            "A /clone/json/decoder.py",
            "A /root/.gitconfig",
        ],
    );
    only(&diff, &["/src", "/clone", "/root", "/tmp"]);
    unseen_by_others(&s, "/clone");
}

#[test]
fn a_database_keeps_its_integrity_in_both_journal_modes() {
    let test = "a_database_keeps_its_integrity_in_both_journal_modes";
    let script = "cd /var/lib/app; for mode in wal delete; do rm -f db*
sqlite3 db \"pragma journal_mode=$mode; create table t(a integer primary key, b text); create index i on t(b);\" > /dev/null
(for n in $(seq 40); do sqlite3 -cmd '.timeout 300000' db \"begin immediate; insert into t(b) select hex(randomblob(50)) from generate_series(1,200); commit;\"; done) &
(for n in $(seq 40); do sqlite3 -cmd '.timeout 300000' db \"begin immediate; insert into t(b) select hex(randomblob(50)) from generate_series(1,200); delete from t where a % 7 = 3 and a < 1000; commit;\"; done) &
wait; sqlite3 db 'pragma integrity_check; select count(*) > 13000 from t; vacuum; pragma integrity_check;'; done";
    let Some((s, out, diff)) = in_debian(test, script) else {
        return;
    };
    assert_eq!(out, "ok\n1\nok\nok\n1\nok");
    has(&diff, &["A /var/lib/app/db"]);
    only(&diff, &["/var/lib/app", "/tmp", "/var/tmp"]);
    unseen_by_others(&s, "/var/lib/app/db");
}

/// Works on four things at once, and notes in /acks what is done: nothing that is noted may be gone or
/// wrong when it is started anew. Its first deed is to see to that.
const AT_WORK: &str = r#"
cd /srv
if [ ! -e source.tar ]; then
  mkdir source
  for i in $(seq 400); do echo "content of $i" >source/$i; ln -s $i source/link-$i; done
  tar cf source.tar source
  git init -q repo; git -C repo config user.name n; git -C repo config user.email e@x
  sqlite3 bank.db 'PRAGMA journal_mode=WAL; CREATE TABLE t(n INTEGER PRIMARY KEY, text);' >/dev/null
  touch ready
else
  bad=
  for i in $(tail -n 12 /acks/tar); do diff -r --no-dereference source t$i/source >/dev/null || bad="$bad t$i"; done
  for n in $(cat /acks/sql); do echo "SELECT CASE (SELECT text FROM t WHERE n=$n) WHEN 'row $n' THEN '' ELSE 'row $n' END;"; done >q.sql
  bad="$bad $(sqlite3 bank.db <q.sql | grep . | head -3)"
  [ "$(sqlite3 bank.db 'PRAGMA integrity_check')" = ok ] || bad="$bad integrity"
  rm -f repo/.git/*.lock repo/.git/refs/heads/*.lock
  git -C repo fsck --full >/acks/fsck 2>&1 || bad="$bad fsck"
  for c in $(cat /acks/git); do git -C repo cat-file -e "$c" || bad="$bad $c"; done
  for i in $(cat /acks/gcc); do [ "$(./prog$i)" = "program $i" ] || bad="$bad prog$i"; done
  echo "${bad// /}" >/acks/result.new; mv /acks/result.new /acks/result
fi
from=$(cat /acks/round 2>/dev/null || echo 0); echo $((from + 100000)) >/acks/round
( for ((i = from; ; i++)); do mkdir t$i && tar xf source.tar -C t$i && echo $i >>/acks/tar; done ) &
( for ((i = from; ; i++)); do sqlite3 bank.db "INSERT INTO t VALUES($i, 'row $i');" && echo $i >>/acks/sql; done ) &
( for ((i = from; ; i++)); do echo $i >repo/f$((i % 50)); git -C repo add -A; git -C repo commit -qm "$i"; git -C repo rev-parse HEAD >>/acks/git; done ) &
( for ((i = from; ; i++)); do printf '#include <stdio.h>\nint main() { puts("program %d"); }\n' $i >p.c; gcc -o prog$i p.c && echo $i >>/acks/gcc; done ) &
wait
"#;

#[test]
fn nothing_that_was_done_is_lost_when_the_supervisor_is_killed_in_the_middle() {
    let test = "nothing_that_was_done_is_lost_when_the_supervisor_is_killed_in_the_middle";
    if let Some(why) = Who::User.missing() {
        return skip(test, &why);
    }
    let Some(s) = TestStore::with_debian(Who::User) else {
        return skip(
            test,
            "the Debian image could not be made: no mirror answers",
        );
    };
    let acks = s.directory("acks");
    let done = |what: &str| {
        let text = std::fs::read_to_string(acks.join(what)).unwrap_or_default();
        text.lines().count()
    };
    let bind = format!("{}:/acks", acks.display());
    s.cmd(["run", "-d", "--name", "work", "-v", &bind, "debian"])
        .args(["bash", "-c", AT_WORK])
        .ok();
    for round in 0..3 {
        let all = ["tar", "sql", "git", "gcc"];
        let before = all.map(done);
        wait_for("some of everything", Duration::from_secs(600), || {
            let some = all.iter().zip(before).all(|(what, n)| done(what) > n + 3);
            some.then_some(())
        });
        let servers = s.servers();
        assert!(!servers.is_empty(), "no supervisor in round {round}");
        kill_9(&servers);
        wait_for("the container to end", Duration::from_secs(60), || {
            let left = s.leftovers();
            left.iter().all(|l| !l.starts_with("process")).then_some(())
        });
        // A last line that the kill has torn says nothing.
        for what in all {
            let text = std::fs::read_to_string(acks.join(what)).expect("acks");
            let whole = text.rfind('\n').map_or("", |at| &text[..=at]);
            std::fs::write(acks.join(what), whole).expect("write");
        }
        s.cmd(["start", "work"]).ok();
        let result = acks.join("result");
        let bad = wait_for("it to be checked", Duration::from_secs(600), || {
            std::fs::read_to_string(&result).ok()
        });
        assert_eq!(bad.trim(), "", "round {round}");
        std::fs::remove_file(result).expect("remove");
    }
    s.cmd(["rm", "-f", "work"]).ok();
}
