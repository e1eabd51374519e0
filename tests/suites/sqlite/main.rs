//! A database under two writers and a reader in a mount whose server is killed again and again.
//!
//! The database begins in a lower layer. After each kill the mount comes back with every
//! transaction that was committed, in both journal modes: SQLite's own check and the application's
//! (the sum of the accounts, no gap in the transactions) hold.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use pellicle_tests::{Cmd, Overlay, Way, Who, repository, skip, wait_for};

const LIMIT: Duration = Duration::from_secs(600);

/// `bank.py ARGS...`.
fn bank() -> Command {
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/suites/sqlite/bank.py"));
    command
}

/// A role of the bank, which goes on until it is killed.
struct Role(Child);

impl Role {
    fn start(errors: &Path, args: &[&Path]) -> Self {
        let errors = fs::File::create(errors).expect("create");
        let mut command = bank();
        command.args(args).stdin(Stdio::null()).stderr(errors);
        Self(command.spawn().expect("python3"))
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_none()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // A reader would go on for ever on what the kernel has cached of the dead mount.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whole lines: the last may be torn by the death of whoever wrote it.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn kill_and_look(way: Way, mode: &str, kills: u32) {
    let mut overlay = Overlay::new(way, |low, _| {
        let mut made = bank();
        made.arg("make").arg(low.join("db")).arg(mode);
        let _ = Cmd::new(made).limit(LIMIT).ok();
    });
    let db = overlay.at().join("db");
    let beside = |name: &str| overlay.path(name);
    let (first, second, seen) = (beside("first"), beside("second"), beside("seen"));
    let errors: Vec<PathBuf> = (0..3).map(|n| beside(&format!("errors-{n}"))).collect();
    for kill in 0..kills {
        let role = |n: usize, args: &[&Path]| Role::start(&errors[n], args);
        let path = Path::new;
        let mut roles = vec![
            role(0, &[path("write"), &db, path("first"), &first]),
            role(1, &[path("write"), &db, path("second"), &second]),
            role(2, &[path("read"), &db, &seen]),
        ];
        let goals: Vec<(&Path, usize)> = [&first, &second, &seen]
            .map(|told| (told.as_path(), lines(told).len() + 2))
            .into();
        wait_for(
            "two transactions of each writer and two looks",
            LIMIT,
            || {
                for (n, role) in roles.iter_mut().enumerate() {
                    let why = || fs::read_to_string(&errors[n]).unwrap_or_default();
                    assert!(role.is_alive(), "{way}, {mode}, role {n} ended: {}", why());
                }
                goals
                    .iter()
                    .all(|(told, goal)| lines(told).len() >= *goal)
                    .then_some(())
            },
        );
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let random = u64::from(now.expect("after 1970").subsec_nanos()) / 1000 % 300;
        std::thread::sleep(Duration::from_millis(random));
        overlay.kill();
        drop(roles);
        overlay.again();
        let wrong: Vec<_> = lines(&seen)
            .into_iter()
            .filter(|line| line.starts_with("wrong"))
            .collect();
        assert!(wrong.is_empty(), "{way}, {mode}: the reader saw {wrong:?}");
        let last = |told: &Path| lines(told).pop().unwrap_or_else(|| "0".to_owned());
        let mut check = bank();
        check
            .arg("check")
            .arg(&db)
            .arg(format!("first={}", last(&first)))
            .arg(format!("second={}", last(&second)));
        let said = Cmd::new(check).limit(LIMIT).ok();
        assert_eq!(said, "fine", "{way}, {mode}, after kill {kill}");
    }
    println!(
        "{way}, {mode}: {kills} kills, {} and {} transactions, {} looks",
        lines(&first).len(),
        lines(&second).len(),
        lines(&seen).len()
    );
}

#[test]
fn a_database_loses_nothing_that_was_committed_when_the_server_is_killed() {
    let test = "a_database_loses_nothing_that_was_committed_when_the_server_is_killed";
    if let Some(why) = Who::Root.missing() {
        skip(test, &why);
        return;
    }
    if bank().arg("--help").output().is_err() {
        skip(test, "there is no python3");
        return;
    }
    let kills = if env::var_os("PELLICLE_TEST_FULL").is_some() {
        50
    } else {
        2
    };
    for way in Way::all() {
        for mode in ["wal", "delete"] {
            kill_and_look(way, mode, kills);
        }
    }
}
