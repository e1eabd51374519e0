//! `pellicle diff`: what a container changed.

use std::{collections::HashSet, process::ExitCode};

use clap::{Args, ValueEnum};
use pellicle_union::{Difference, DifferenceKind};

use super::containers;
use crate::{
    CliError, Context,
    container::{
        root::{self, Upper},
        state::State,
    },
};

/// How differences are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line each: A, C or D and the path
    #[default]
    Text,
    /// An array of objects with `kind` and `path`
    Json,
}

/// List what a container changed
///
/// A is added, C changed (a directory also when something in it was), D deleted. The
/// container may be running.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle diff web
  pellicle diff --format json web | jq length")]
pub struct DiffArgs {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Name or id of a container
    pub container: String,
}

/// Runs the command.
///
/// # Errors
/// If its writable layer cannot be read.
pub fn run(cx: &Context, args: DiffArgs) -> Result<ExitCode, CliError> {
    let registry = containers::registry(cx)?;
    let id = registry.find(&args.container)?;
    let dir = registry.dir(&id);
    let state = State::load(&dir)?;
    let (union, _) = root::open(cx.store()?, &state, &dir, Upper::Look)?;
    let differences = without_mount_points(union.differences()?, &state.mount_points);
    let mut text = Vec::new();
    match args.format {
        Format::Text => {
            for difference in &differences {
                text.push(letter(difference.kind) as u8);
                text.push(b' ');
                text.extend_from_slice(&difference.path);
                text.push(b'\n');
            }
        }
        Format::Json => {
            let all: Vec<_> = differences.iter().map(json).collect();
            text = serde_json::to_vec(&all)?;
            text.push(b'\n');
        }
    }
    cx.out.write(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn letter(kind: DifferenceKind) -> char {
    match kind {
        DifferenceKind::Added => 'A',
        DifferenceKind::Changed => 'C',
        DifferenceKind::Deleted => 'D',
    }
}

/// A path that is not UTF-8 is given in hexadecimal too, since JSON cannot hold it.
fn json(difference: &Difference) -> serde_json::Value {
    let mut value = serde_json::json!({
        "kind": letter(difference.kind).to_string(),
        "path": String::from_utf8_lossy(&difference.path),
    });
    if std::str::from_utf8(&difference.path).is_err()
        && let Some(object) = value.as_object_mut()
    {
        object.insert("path_hex".to_owned(), hex::encode(&difference.path).into());
    }
    value
}

/// Leaves out what was made only to mount something on, and directories that changed by that alone.
fn without_mount_points(all: Vec<Difference>, points: &[String]) -> Vec<Difference> {
    // Each point, and the directories above it, which may have been made for it.
    let mut made: HashSet<&[u8]> = HashSet::new();
    for point in points {
        let mut path = point.as_bytes();
        while path.len() > 1 {
            made.insert(path);
            path = parent(path);
        }
    }
    if made.is_empty() {
        return all;
    }
    // From the end, so that what is inside a directory was seen before it.
    let mut kept: Vec<Difference> = Vec::new();
    let mut needed: HashSet<Vec<u8>> = HashSet::new();
    let mut dropped: HashSet<Vec<u8>> = HashSet::new();
    let mut sorted = all;
    sorted.sort_by(|a, b| b.path.cmp(&a.path));
    for difference in sorted {
        let is_made = made.contains(difference.path.as_slice());
        let by_that_alone = match difference.kind {
            DifferenceKind::Added => is_made,
            DifferenceKind::Changed => dropped.contains(&difference.path),
            DifferenceKind::Deleted => false,
        };
        let above = parent(&difference.path).to_vec();
        if by_that_alone && !needed.contains(&difference.path) {
            dropped.insert(above);
        } else {
            needed.insert(above);
            kept.push(difference);
        }
    }
    kept.reverse();
    kept
}

fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        None | Some(0) => b"/",
        Some(at) => path.get(..at).unwrap_or(b"/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(all: &[&str], points: &[&str]) -> Vec<String> {
        let all = all
            .iter()
            .map(|line| Difference {
                path: line.as_bytes()[2..].to_vec(),
                kind: match line.as_bytes()[0] {
                    b'A' => DifferenceKind::Added,
                    b'C' => DifferenceKind::Changed,
                    _ => DifferenceKind::Deleted,
                },
            })
            .collect();
        let points: Vec<String> = points.iter().map(|p| (*p).to_owned()).collect();
        without_mount_points(all, &points)
            .iter()
            .map(|d| format!("{} {}", letter(d.kind), String::from_utf8_lossy(&d.path)))
            .collect()
    }

    #[test]
    fn what_was_made_to_mount_on_is_left_out_and_the_person_s_changes_are_not() {
        let all = [
            "C /",
            "C /etc",
            "A /etc/hosts",
            "A /srv",
            "A /srv/data",
            "A /x",
        ];
        assert_eq!(lines(&all, &["/etc/hosts", "/srv/data"]), ["C /", "A /x"]);
        let all = [
            "C /etc",
            "A /etc/hosts",
            "A /etc/mine",
            "A /srv",
            "A /srv/data",
            "A /srv/y",
        ];
        assert_eq!(
            lines(&all, &["/etc/hosts", "/srv/data"]),
            ["C /etc", "A /etc/mine", "A /srv", "A /srv/y"]
        );
        assert_eq!(lines(&["C /etc", "D /etc/hosts"], &["/etc/hosts"]).len(), 2);
        assert_eq!(lines(&["C /a-b", "A /a-b/c", "A /a"], &["/a"]).len(), 2);
    }
}
