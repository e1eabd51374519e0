//! Streams and random accesses of one large file, by fio, which also tells how long they took.

use anyhow::{Context as _, Result};

use super::{Round, Tree, Work, Writes};
use crate::setup::{Lower, quiet, said};

const SIZE: u64 = 512 << 20;
/// Bytes of random accesses.
const RANDOM: u64 = 64 << 20;

pub(super) fn all() -> Vec<Tree> {
    let tree = |name: &str, about: &str, mode: &'static str, block: &'static str, bytes: u64| {
        let writes = mode.contains("write");
        let fresh = mode == "write";
        let lower = if fresh {
            Lower::Empty
        } else {
            Lower::LargeFile(SIZE)
        };
        Tree::new(name, about, lower, move |round| {
            let wrote = (mode == "randwrite").then_some(bytes);
            let seconds = fio(round, mode, block, bytes)?;
            Ok(Work {
                seconds: Some(seconds),
                wrote,
                seen: None,
            })
        })
        .writes(if writes {
            Writes::Anywhere
        } else {
            Writes::Nothing
        })
        .programs(["fio"])
    };
    vec![
        tree(
            "seq-write",
            "write a new file of 512 MiB in blocks of 1 MiB",
            "write",
            "1m",
            SIZE,
        )
        .floors(1.1, 1.5),
        tree(
            "seq-read",
            "read a lower file of 512 MiB in blocks of 1 MiB, fresh mount",
            "read",
            "1m",
            SIZE,
        )
        .floors(1.1, 1.5),
        tree(
            "rand-read",
            "read 16,384 random blocks of 4 KiB of a lower file of 512 MiB, fresh mount",
            "randread",
            "4k",
            RANDOM,
        )
        .floors(1.1, 1.5),
        tree(
            "rand-write",
            "write 16,384 random blocks of 4 KiB into a lower file of 512 MiB",
            "randwrite",
            "4k",
            RANDOM,
        ),
    ]
}

fn fio(round: &Round<'_>, mode: &str, block: &str, bytes: u64) -> Result<f64> {
    let mut command = quiet("fio");
    command
        .args(["--name=bench", "--ioengine=psync", "--output-format=json"])
        // fio would drop the file's pages first, those of the lower file with them; and what it
        // allocates ahead is not what is measured.
        .args(["--invalidate=0", "--fallocate=none", "--randrepeat=1"])
        .arg(format!("--filename={}", round.at.join("large").display()))
        .arg(format!("--rw={mode}"))
        .arg(format!("--bs={block}"))
        .arg(format!("--size={SIZE}"))
        .arg(format!("--io_size={bytes}"))
        .stdout(std::process::Stdio::piped());
    let text = said(&mut command)?;
    // Notes may come before the document.
    let json = text.find('{').and_then(|at| text.get(at..));
    let value: serde_json::Value =
        serde_json::from_str(json.unwrap_or_default()).context("fio's output is no JSON")?;
    time(&value, mode.contains("write")).context("fio tells no time")
}

/// Seconds: what was moved by how fast it was.
fn time(value: &serde_json::Value, writes: bool) -> Option<f64> {
    let job = value.get("jobs")?.get(0)?;
    let part = job.get(if writes { "write" } else { "read" })?;
    let number = |name: &str| part.get(name)?.as_f64().filter(|n| *n > 0.0);
    Some(number("io_bytes")? / number("bw_bytes")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_bytes_by_bytes_a_second_of_the_right_direction() {
        let json = serde_json::json!({ "jobs": [{
            "read": { "io_bytes": 0, "bw_bytes": 0 },
            "write": { "io_bytes": 1000, "bw_bytes": 4000 },
        }] });
        assert_eq!(time(&json, true), Some(0.25));
        assert_eq!(time(&json, false), None);
        assert_eq!(time(&serde_json::json!({}), true), None);
    }
}
