//! What costs no memory and no room: an image's size, what was walked and forgotten, what was made
//! and removed. Times belong to `bench/`.

use std::{env, fs, io::Write as _, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use pellicle_tests::{TestStore, Who, skip, wait_for};

/// What a server may have grown by when it has nothing more to remember, KiB.
const GROWTH: u64 = 32 * 1024;

/// Writes a tar of `entries` empty files, 1,000 to a directory.
fn synthetic(s: &TestStore, name: &str, entries: u32) -> PathBuf {
    let path = s.file(name, "");
    let mut tar = tar::Builder::new(std::io::BufWriter::with_capacity(
        1 << 20,
        fs::File::create(&path).expect("create"),
    ));
    let mut header = tar::Header::new_gnu();
    for n in 0..entries {
        if n % 1000 == 0 {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            tar.append_data(&mut header, format!("d{}/", n / 1000), std::io::empty())
                .expect("write");
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
        }
        tar.append_data(&mut header, format!("d{}/f{n}", n / 1000), std::io::empty())
            .expect("write");
    }
    tar.into_inner().expect("write").flush().expect("write");
    path
}

/// The resident memory of a process in KiB.
fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("status");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

#[test]
fn the_servers_memory_does_not_grow_with_the_image() {
    let who = Who::all()
        .into_iter()
        .find(|w| *w == Who::Root)
        .unwrap_or(Who::User);
    let mut sizes = Vec::new();
    for entries in [1_000, 1_000_000] {
        let s = TestStore::new(who);
        let tar = synthetic(&s, "a.tar", entries);
        s.cmd(["import"])
            .arg(&tar)
            .arg("a")
            .limit(std::time::Duration::from_secs(300))
            .ok();
        fs::remove_file(&tar).expect("remove");
        let at = s.directory("at");
        // The first mount makes the image's tree; the second is the one that is looked at.
        for round in 0..2 {
            s.cmd(["mount", "a"])
                .arg(&at)
                .limit(std::time::Duration::from_secs(120))
                .ok();
            if round == 0 {
                s.unmount(&at);
                wait_for(
                    "the first server to end",
                    std::time::Duration::from_secs(60),
                    || s.servers().is_empty().then_some(()),
                );
            }
        }
        assert!(at.join("d0/f7").is_file(), "the mount is not the image");
        let servers = s.servers();
        assert_eq!(servers.len(), 1, "one server for one mount");
        sizes.push(resident(servers[0]));
        s.unmount(&at);
    }
    assert!(
        sizes[1] < sizes[0] + 8 * 1024,
        "{} KiB for 1,000 entries, {} KiB for 1,000,000",
        sizes[0],
        sizes[1]
    );
}

/// Names below `dir`, each asked about.
fn walk(dir: &std::path::Path) -> u64 {
    let mut seen = 0;
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("a name");
        let meta = entry.metadata().expect("stat");
        seen += 1;
        if meta.is_dir() {
            seen += walk(&entry.path());
        }
    }
    seen
}

#[test]
fn what_was_walked_and_forgotten_takes_no_memory() {
    let test = "what_was_walked_and_forgotten_takes_no_memory";
    if let Some(why) = Who::Root.missing() {
        skip(test, &why);
        return;
    }
    let s = TestStore::new(Who::Root);
    let tar = synthetic(&s, "a.tar", 1_000_000);
    s.cmd(["import"])
        .arg(&tar)
        .arg("a")
        .limit(Duration::from_secs(300))
        .ok();
    fs::remove_file(&tar).expect("remove");
    let at = s.directory("at");
    s.cmd(["mount", "a"])
        .arg(&at)
        .limit(Duration::from_secs(120))
        .ok();
    assert!(at.join("d0/f7").is_file(), "the mount is not the image");
    let servers = s.servers();
    assert_eq!(servers.len(), 1, "one server for one mount");
    let before = resident(servers[0]);
    assert_eq!(walk(&at), 1_001_000);
    let full = resident(servers[0]);
    // Has the kernel forget every inode that nobody uses.
    wait_for(
        "the server to be small again",
        Duration::from_secs(60),
        || {
            fs::write("/proc/sys/vm/drop_caches", "2").expect("root may do this");
            (resident(servers[0]) < before + GROWTH).then_some(())
        },
    );
    println!(
        "{before} KiB before, {full} KiB after walking, {} KiB after forgetting",
        resident(servers[0])
    );
    s.unmount(&at);
}

/// Bytes that the files of `dir` take on the host.
fn room(dir: &std::path::Path) -> u64 {
    // Removed meanwhile.
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.map(|entry| {
        let entry = entry.expect("a name");
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => room(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        }
    });
    sizes.sum()
}

/// Files are made in a container, 500 at a time, and removed again: neither the server's memory
/// nor the container's directory grows with their number.
#[test]
fn what_was_made_and_removed_takes_no_memory_and_no_room() {
    // A hundred thousand messages for a round of 25,000 files.
    let rounds = if env::var_os("PELLICLE_TEST_FULL").is_some() {
        100
    } else {
        3
    };
    for who in Who::all() {
        let s = TestStore::with_tools(who);
        let bind = s.directory("acks");
        let mount = format!("{}:/acks", bind.display());
        let script = "mkdir /w; cd /w; r=0; while :; do b=0; while [ $b -lt 50 ]; do \
            i=0; while [ $i -lt 500 ]; do echo $i > f$i; i=$((i+1)); done; \
            rm f*; b=$((b+1)); done; r=$((r+1)); echo $r > /acks/new; mv /acks/new /acks/round; done";
        s.cmd([
            "run", "-d", "--name", "churn", "-v", &mount, "tools", "sh", "-c", script,
        ])
        .ok();
        let round = || {
            fs::read_to_string(bind.join("round"))
                .ok()
                .and_then(|n| n.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        let until = |goal: u64| {
            wait_for("25,000 files", Duration::from_secs(600), || {
                (round() >= goal).then_some(())
            });
        };
        let memory = || s.servers().into_iter().map(resident).sum::<u64>();
        until(1);
        let (at_first, containers) = (memory(), s.root().join("containers"));
        let (mut most, mut largest) = (0, 0);
        for goal in 2..=rounds {
            until(goal);
            most = most.max(memory());
            largest = largest.max(room(&containers));
        }
        println!(
            "{who:?}: {at_first} KiB at first, {most} KiB at most, {largest} bytes of files at most"
        );
        assert!(
            most < at_first + GROWTH,
            "{at_first} KiB grew to {most} KiB"
        );
        // A log of 4 MiB is not worth compacting; its room is allocated ahead, twice at most.
        assert!(
            largest < 64 << 20,
            "{largest} bytes for a few hundred files"
        );
        s.cmd(["rm", "-f", "churn"]).ok();
    }
}
