//! `pellicle diff`: what a container changed.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use pellicle_union::{Difference, DifferenceKind};

use super::containers;
use crate::{
    CliError, Context,
    container::{
        mount_points::without_mount_points,
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
