//! An image's size costs its mount nothing. Memory only: times belong to `bench/`.

use std::{fs, io::Write as _, path::PathBuf};

use pellicle_tests::{TestStore, Who, wait_for};

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
                s.cmd(["umount"]).arg(&at).ok();
                wait_for(
                    "the first server to end",
                    std::time::Duration::from_secs(10),
                    || s.servers().is_empty().then_some(()),
                );
            }
        }
        assert!(at.join("d0/f7").is_file(), "the mount is not the image");
        let servers = s.servers();
        assert_eq!(servers.len(), 1, "one server for one mount");
        sizes.push(resident(servers[0]));
        s.cmd(["umount"]).arg(&at).ok();
    }
    assert!(
        sizes[1] < sizes[0] + 8 * 1024,
        "{} KiB for 1,000 entries, {} KiB for 1,000,000",
        sizes[0],
        sizes[1]
    );
}
