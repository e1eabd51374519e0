//! `pellicle inspect`: everything about an image or a container.

mod container;
mod image;

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    containers,
    format::{Format, FormatOneArg},
};
use crate::{CliError, Context, container::ContainerError, image::ImageError};

/// Tell everything about images and containers, as JSON
///
/// Prints a list with one object for each, with docker's names of members. Where a container and an image
/// have the same name, the container is meant, unless --type says otherwise.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle inspect debian:12
  pellicle inspect web --format '{{.State.Status}} {{.State.ExitCode}}'
  pellicle inspect -f '{{json .Config.Env}}' debian:12
  pellicle inspect debian:12 | jq '.[0].Config.Env'")]
pub struct InspectArgs {
    /// How to print.
    #[command(flatten)]
    pub format: FormatOneArg,
    /// Only things of this kind
    #[arg(long = "type", value_enum)]
    pub kind: Option<Kind>,
    /// Names or ids of images and containers
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

impl InspectArgs {
    /// The same for things of one kind.
    #[must_use]
    pub fn only(self, kind: Kind) -> Self {
        Self {
            kind: Some(kind),
            ..self
        }
    }
}

/// What is inspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Containers
    Container,
    /// Images
    Image,
}

/// Runs the command.
///
/// # Errors
/// If there is no such image or container, or it is damaged.
pub fn run(cx: &Context, args: InspectArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let all = args
        .names
        .iter()
        .map(|name| describe(cx, name, args.kind))
        .collect::<Result<Vec<_>, _>>()?;
    if format == Format::Table {
        let text = serde_json::to_string_pretty(&all)
            .map_err(|e| CliError::failed("cannot print as JSON").because(e))?;
        cx.out.line(text)?;
    } else {
        format.print(&cx.out, &[], &all)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(cx: &Context, name: &str, kind: Option<Kind>) -> Result<Value, CliError> {
    let registry = containers::registry(cx)?;
    let container = match kind {
        Some(Kind::Image) => None,
        _ => match registry.find(name) {
            Ok(id) => Some(id),
            Err(ContainerError::NotFound(_) | ContainerError::Invalid { .. }) if kind.is_none() => {
                None
            }
            Err(e) => return Err(e.into()),
        },
    };
    if let Some(id) = container {
        return container::describe(&registry, &id);
    }
    image::describe(cx, name).map_err(|e| match kind {
        None if image::is_missing(cx, name) => CliError::failed(
            ImageError::NotFound(name.to_owned()).to_string() + ", and no container of that name",
        )
        .with_hint("`pellicle images` and `pellicle ps -a` list what there is; `pellicle pull`, `pellicle load` and `pellicle import` add images"),
        _ => e,
    })
}
