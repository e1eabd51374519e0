//! What scripts live on: places of images, formats, events, and tidying up.

mod events;
mod formats;
mod lists;
mod prune;
mod transports;

use std::process::Command;

use pellicle_tests::{Cmd, Outcome};

fn program(name: &str, args: &[&str]) -> Outcome {
    let mut command = Command::new(name);
    command.args(args).env("HOME", "/root");
    Cmd::new(command).run()
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
