//! fsx: random reads, writes, mappings, truncations, holes and copies of one file, each read compared.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pellicle_tests::{Cmd, Overlay, Way};

use crate::{can_run, full, tool, write};

const SEEDS: [u64; 3] = [1, 20_260_101, 0xdead_beef];

/// Operations of one process. fsx 0.3.2 keeps a mapping of each mapped write, and the kernel looks through
/// all of them at each truncation: 200,000 in one process take half an hour on any file system.
const AT_ONCE: u64 = 20_000;

/// Every operation that FUSE carries, each on up to `largest` bytes. `length` as the file's largest size.
fn config(length: u64, largest: u64, fixed: bool) -> String {
    format!(
        "flen = {length}\nblockmode = {fixed}\n[opsize]\nmin = 1\nmax = {largest}\n[weights]\n\
         close_open = {}\ninvalidate = 1.0\nmapread = 10.0\nmapwrite = 10.0\nread = 10.0\n\
         write = 10.0\nfsync = 0.1\nfdatasync = 0.1\nposix_fadvise = 1.0\nsendfile = 3.0\n\
         copy_file_range = 3.0\ntruncate = {}\npunch_hole = {}\nposix_fallocate = {}\n",
        if fixed { 0.0 } else { 1.0 },
        if fixed { 0.0 } else { 5.0 },
        if fixed { 0.0 } else { 3.0 },
        if fixed { 0.0 } else { 3.0 },
    )
}

#[test]
fn fsx_reads_what_it_wrote() {
    let test = "fsx_reads_what_it_wrote";
    let Some(program) = can_run(test).then(|| tool(test, "fsx")).flatten() else {
        return;
    };
    let random = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .subsec_nanos();
    eprintln!("fsx: the random seed is {random}");
    let operations: u64 = if full() { 200_000 } else { 4_000 };
    for way in Way::all() {
        let overlay = Overlay::new(way, |low, high| {
            for seed in SEEDS.into_iter().chain([random.into()]) {
                write(low.join(format!("file{seed}")), vec![b'l'; 300_000]);
            }
            write(high.join("fixed"), vec![b'f'; 200_000]);
            write(low.join("pieces"), vec![b'p'; 8_000_000]);
        });
        for seed in SEEDS.into_iter().chain([random.into()]) {
            let file = overlay.at().join(format!("file{seed}"));
            run(
                &program,
                &overlay,
                &config(262_144, 65_536, false),
                seed,
                operations,
                &file,
                way,
            );
        }
        // Without the truncation at the start: so much of the file is copied up as is written, and the
        // second stays in pieces for long.
        for (name, length, largest) in [("fixed", 200_000, 65_536), ("pieces", 8_000_000, 3_000)] {
            let fixed = config(length, largest, true);
            let file = overlay.at().join(name);
            run(
                &program,
                &overlay,
                &fixed,
                random.into(),
                operations,
                &file,
                way,
            );
            assert_eq!(fs::metadata(file).expect("stat").len(), length);
        }
    }
}

/// `operations` in several processes one after the other, each with the next seed.
fn run(
    program: &Path,
    overlay: &Overlay,
    config: &str,
    seed: u64,
    operations: u64,
    file: &Path,
    way: Way,
) {
    let path = overlay.path("fsx.toml");
    fs::write(&path, config).expect("write");
    for (seed, begun) in
        (seed..).zip((0..operations).step_by(usize::try_from(AT_ONCE).expect("fits")))
    {
        let operations = AT_ONCE.min(operations - begun);
        let done = Cmd::new(Command::new(program))
            .arg("-f")
            .arg(&path)
            .args(["-S", &seed.to_string(), "-N", &operations.to_string(), "-P"])
            .arg(overlay.path("."))
            .arg(file)
            .limit(Duration::from_secs(900))
            .run();
        assert_eq!(done.code(), 0, "fsx with seed {seed}, {way}: {done}");
    }
}
