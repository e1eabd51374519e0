//! Registries: push, pull, login; Debian's docker-registry on loopback, other programs' images, and what
//! a registry can do wrong.

mod access;
mod cuts;
mod faults;
mod limits;
mod moves;
mod names;
mod peers;
mod proxies;
mod referrers;
mod script;
mod server;
mod uploads;

use std::process::Command;

use pellicle_tests::{Cmd, Outcome, TestStore};

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

fn program(name: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(name);
    command.args(args).env("HOME", "/root");
    Cmd::new(command)
        .limit(std::time::Duration::from_secs(300))
        .run()
}

fn installed(name: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {name}")])
        .output()
        .is_ok_and(|o| o.status.success())
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

/// How many images are listed, names or not.
fn listed(s: &TestStore) -> usize {
    s.cmd(["images", "-aq"]).ok().lines().count()
}
