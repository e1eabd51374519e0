//! Over io_uring: the same file system, and what happens where a ring cannot be had.
//!
//! The kernel offers a ring only while `enable_uring` says so, which is one switch for the whole
//! machine: [`Offer`] holds it, and all other tests say that they want `/dev/fuse`.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use pellicle_fuse::{
    Message, MountOptions, Opens, ServeOptions, Served, Transport, mount_here, serve,
};
use rustix::thread::CpuSet;

use crate::{
    everyday::small_tree,
    fixture::{Mounted, TRANSPORT, can_mount, real_root},
    lower::{MemoryLower, Trouble},
};

const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
/// Set for runs of one test of this program in a process of its own.
const ALONE: &str = "PELLICLE_TEST_ALONE";

/// Whether the kernel offers rings, held until dropped; then as before.
pub(crate) struct Offer {
    before: String,
    _lock: fs::File,
}

impl Offer {
    /// `None`, with a word why, where it cannot be said.
    pub(crate) fn set(offered: bool) -> Option<Self> {
        if !real_root() {
            println!("skipped: only real root can switch the kernel's offer of rings");
            return None;
        }
        let lock = fs::File::create("/run/lock/pellicle-test-uring").unwrap();
        lock.lock().unwrap();
        let before = match fs::read_to_string(SWITCH) {
            Ok(before) => before,
            Err(e) => {
                println!("skipped: this kernel has no FUSE over io_uring: {SWITCH}: {e}");
                return None;
            }
        };
        fs::write(SWITCH, if offered { "Y" } else { "N" }).unwrap();
        Some(Self {
            before,
            _lock: lock,
        })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        fs::write(SWITCH, self.before.trim()).unwrap();
    }
}

fn ring() -> ServeOptions {
    ServeOptions {
        transport: Transport::Ring,
        ..ServeOptions::default()
    }
}

fn served(m: &Mounted) -> &Served {
    m.server.as_ref().unwrap().served()
}

/// That `m` is served over the device because of `why`, and works.
fn assert_fell_back(m: &Mounted, why: &str) {
    match served(m) {
        Served::Dev { why: said } => assert!(said.contains(why), "{said}"),
        Served::Ring { .. } => panic!("{why}: got a ring"),
    }
    assert_eq!(fs::read(m.path("a")).unwrap(), b"content of a");
    fs::write(m.path("new"), vec![1; 3 << 20]).unwrap();
    assert!(fs::read(m.path("new")).unwrap() == vec![1; 3 << 20]);
    m.assert_kernel_agrees("falling back");
}

/// Runs test `name` of this module in a process of its own, below `wrap`.
fn alone(name: &str, wrap: &[&str]) -> Command {
    let me = std::env::current_exe().unwrap();
    let mut words = wrap.iter().map(|&w| w.into()).chain([me.into_os_string()]);
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .args(["--exact", &format!("rings::{name}"), "--nocapture"])
        .env(ALONE, "1");
    command
}

fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

fn assert_ran(mut command: Command) {
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("1 passed"),
        "{said}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn every_other_test_passes_over_the_ring() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--nocapture", "--skip", "others::", "--skip", "rings::"])
        .env(TRANSPORT, "ring")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && said.contains("test result: ok"),
        "{said}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    for line in said.lines().filter(|l| l.contains("skipped:")) {
        println!("ring: {line}");
    }
}

#[test]
fn where_the_kernel_offers_no_ring_the_device_serves() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(false) else {
        return;
    };
    let m = Mounted::with(small_tree(), false, ring());
    assert_fell_back(&m, "enable_uring");
}

#[test]
fn a_ring_that_the_kernel_refuses_after_all_gives_way_in_flight() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    // Too small for the largest request, which the kernel says when it is registered: after INIT.
    let options = ServeOptions {
        ring_payload: Some(8192),
        ..ring()
    };
    let m = Mounted::with(small_tree(), false, options);
    assert_fell_back(&m, "refused to register");
}

#[test]
fn who_asks_for_the_device_gets_it() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    let options = ServeOptions {
        transport: Transport::Dev,
        ..ring()
    };
    assert_fell_back(&Mounted::with(small_tree(), false, options), "asked for");
}

#[test]
fn with_too_few_descriptors_the_device_serves() {
    if !can_mount() {
        return;
    }
    if !is_alone() {
        if let Some(_offer) = Offer::set(true) {
            assert_ran(alone(
                "with_too_few_descriptors_the_device_serves",
                &["prlimit", "--nofile=64"],
            ));
        }
        return;
    }
    let full = || {
        let mut held = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            held.push(file);
        }
        held
    };
    // What is left must do for the mount itself; then for the duplicate, the wake-up and so on.
    for left in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let fd = mount_here(dir.path(), &MountOptions::default()).unwrap();
        let (union, _) = pellicle_union::Union::open(
            std::sync::Arc::new(small_tree()),
            None,
            pellicle_union::Options { read_only: true },
        )
        .unwrap();
        let mut held = full();
        held.truncate(held.len() - left);
        let server = serve(fd, std::sync::Arc::new(union), ring()).unwrap();
        drop(held);
        match server.served() {
            Served::Dev { why } => println!("{left} left: {why}"),
            Served::Ring { .. } => panic!("{left} descriptors cannot make a ring"),
        }
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"content of a");
        pellicle_fuse::unmount(dir.path(), false).unwrap();
        server.join().unwrap();
    }
}

/// Makes `call` fail with EPERM in this thread and those it starts.
fn deny(call: i64) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let filter: BpfProgram = SeccompFilter::new(
        [(call, Vec::new())].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap()
    .try_into()
    .unwrap();
    seccompiler::apply_filter(&filter).unwrap();
}

#[test]
fn where_a_filter_denies_io_uring_the_device_serves() {
    if !can_mount() {
        return;
    }
    if !is_alone() {
        if let Some(_offer) = Offer::set(true) {
            let name = "where_a_filter_denies_io_uring_the_device_serves";
            assert_ran(alone(name, &["env"]));
        }
        return;
    }
    // Each in a thread of its own: a filter cannot be taken off.
    for call in [
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_enter,
    ] {
        std::thread::spawn(move || {
            deny(call);
            let m = Mounted::with(small_tree(), false, ring());
            assert_fell_back(&m, "switched off");
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_request_under_way_when_the_connection_is_cut_holds_nobody() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    let mut lower = small_tree();
    let slow = lower.file(pellicle_store::Ino::ROOT, "slow", b"at last");
    lower.trouble(slow, Trouble::Slow(Duration::from_secs(5)));
    let mut m = Mounted::with(lower, false, ring());
    assert!(matches!(served(&m), Served::Ring { .. }));
    let connection = fs::metadata(m.root()).unwrap().dev() & 0xfffff;
    let path = m.path("slow");
    let reader = std::thread::spawn(move || fs::read(path));
    std::thread::sleep(Duration::from_millis(100));
    let control = tempfile::tempdir().unwrap();
    let none: Option<&str> = None;
    nix::mount::mount(
        none,
        control.path(),
        Some("fusectl"),
        nix::mount::MsFlags::empty(),
        none,
    )
    .unwrap();
    fs::write(control.path().join(format!("{connection}/abort")), "1").unwrap();
    // A child of another thread may hold what was open here until it executes.
    nix::mount::umount2(control.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(reader.join().unwrap().is_err());
    m.server.take().unwrap().join().unwrap();
    let e = fs::metadata(m.path("a")).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ENOTCONN));
}

#[test]
fn programs_of_a_server_that_is_killed_are_let_go() {
    if !can_mount() {
        return;
    }
    if is_alone() {
        // Serves until it is killed.
        let dir = std::env::var_os("PELLICLE_TEST_DIR").unwrap();
        let fd = mount_here(dir.as_ref(), &MountOptions::default()).unwrap();
        let mut lower = small_tree();
        let slow = lower.file(pellicle_store::Ino::ROOT, "slow", b"never");
        lower.trouble(slow, Trouble::Slow(Duration::from_secs(3600)));
        let (union, _) = pellicle_union::Union::open(
            std::sync::Arc::new(lower),
            None,
            pellicle_union::Options { read_only: true },
        )
        .unwrap();
        let server = serve(fd, std::sync::Arc::new(union), ring()).unwrap();
        println!("served: {}", server.served());
        server.join().unwrap();
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut server = alone("programs_of_a_server_that_is_killed_are_let_go", &["env"])
        .env("PELLICLE_TEST_DIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut from = server.stdout.take().unwrap();
    while !said.contains("served: io_uring") {
        let mut some = [0; 256];
        let n = from.read(&mut some).unwrap();
        assert!(n > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&some[..n]));
    }
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"content of a");
    let path = dir.path().join("slow");
    let (began, begins) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let file = fs::File::open(path).unwrap();
        began.send(()).unwrap();
        std::io::read_to_string(file)
    });
    begins.recv().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(reader.join().unwrap().is_err());
    let e = fs::metadata(dir.path().join("b")).unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::ENOTCONN));
    pellicle_fuse::unmount(dir.path(), true).unwrap();
}

fn stay_on(cpus: &CpuSet) {
    rustix::thread::sched_setaffinity(None, cpus).unwrap();
}

#[test]
fn a_server_kept_to_one_cpu_serves_programs_on_all() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    let all = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&c| all.is_set(c)).collect();
    let only = |cpu| {
        let mut set = CpuSet::new();
        set.set(cpu);
        set
    };
    let m = std::thread::spawn(move || {
        stay_on(&only(cpus[0]));
        let m = Mounted::with(small_tree(), false, ring());
        for &cpu in &cpus {
            stay_on(&only(cpu));
            let name = m.path(&format!("from{cpu}"));
            fs::write(&name, vec![7; 300_000]).unwrap();
            assert!(fs::read(&name).unwrap() == vec![7; 300_000]);
        }
        m
    })
    .join()
    .unwrap();
    match served(&m) {
        // Two on the CPU it may use, one for all others (of which a machine may have none).
        Served::Ring { threads } => assert!((2..=3).contains(threads), "{threads}"),
        Served::Dev { why } => panic!("{why}"),
    }
    m.assert_kernel_agrees("writing from every CPU");
}

#[test]
fn passthrough_works_over_the_ring() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    let mut lower = MemoryLower::new();
    let big = lower.file(pellicle_store::Ino::ROOT, "big", &[b'p'; 300_000]);
    lower.back(big);
    let options = ServeOptions {
        opens: Opens::Passthrough,
        ..ring()
    };
    let m = Mounted::with(lower, true, options);
    assert!(matches!(served(&m), Served::Ring { .. }));
    for _ in 0..2 {
        assert!(fs::read(m.path("big")).unwrap() == [b'p'; 300_000]);
    }
    assert_eq!(m.stats().get(Message::Open), 2);
    assert_eq!(m.stats().get(Message::Read), 0);
}

#[test]
fn truncation_clears_set_id_bits_for_whom_the_kernel_says() {
    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    let m = Mounted::with(small_tree(), false, ring());
    let path = m.path("tool");
    fs::write(&path, b"some content").unwrap();
    let perm = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    let cut = |user: &[&str]| {
        fs::set_permissions(&path, perm(0o6777)).unwrap();
        let done = Command::new("setpriv")
            .args(user)
            .args(["truncate", "-s", "3"])
            .arg(&path)
            .status();
        assert!(done.unwrap().success());
        fs::metadata(&path).unwrap().mode() & 0o7777
    };
    assert_eq!(cut(&[]), 0o6777, "root may keep them");
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    assert_eq!(cut(&nobody), 0o777, "others may not");
    // Root without the capability: what /dev/fuse through fuser 0.18 does not tell apart.
    let weak = ["--bounding-set=-fsetid", "--inh-caps=-fsetid"];
    assert_eq!(cut(&weak), 0o777, "nor may root without CAP_FSETID");
}

#[test]
fn a_file_can_be_made_without_a_name_and_get_one() {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD, Mode, OFlags};

    if !can_mount() {
        return;
    }
    let Some(_offer) = Offer::set(true) else {
        return;
    };
    for opens in [Opens::Silent, Opens::Answered, Opens::Passthrough] {
        let options = ServeOptions { opens, ..ring() };
        let m = Mounted::with(small_tree(), false, options);
        let make = |flags| {
            let flags = OFlags::TMPFILE | OFlags::RDWR | flags;
            let fd = rustix::fs::open(m.path("dir"), flags, Mode::from_raw_mode(0o6640));
            fs::File::from(fd.unwrap())
        };
        let give_name = |file: &fs::File, name: &str| {
            let from = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, from, CWD, m.path(name), AtFlags::SYMLINK_FOLLOW)
        };
        let mut file = make(OFlags::empty());
        let ino = file.metadata().unwrap().ino();
        assert_eq!(file.metadata().unwrap().nlink(), 0, "{opens:?}");
        file.write_all(b"without a name").unwrap();
        let names = || fs::read_dir(m.path("dir")).unwrap().count();
        assert_eq!(names(), 3, "{opens:?}");
        give_name(&file, "dir/named").unwrap();
        let meta = fs::metadata(m.path("dir/named")).unwrap();
        assert_eq!(
            (meta.ino(), meta.nlink(), meta.mode() & 0o7777),
            (ino, 1, 0o6640)
        );
        file.write_all(b", now with one").unwrap();
        assert_eq!(
            fs::read(m.path("dir/named")).unwrap(),
            b"without a name, now with one",
            "{opens:?}"
        );
        drop(file);
        m.assert_kernel_agrees("a name for a file that had none");

        let never = make(OFlags::EXCL);
        let refused = give_name(&never, "dir/never").unwrap_err();
        assert_eq!(refused, rustix::io::Errno::NOENT, "{opens:?}");
        drop(never);
        assert_eq!(names(), 4, "{opens:?}");
        assert_eq!(m.stats().get(Message::TmpFile), 2, "{opens:?}");
    }
}
