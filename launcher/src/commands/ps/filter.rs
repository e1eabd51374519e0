//! `--filter` of `pellicle ps`.

use super::{
    super::filter::{Filter, Label},
    Row,
};
use crate::CliError;

/// What a container is to be, to be listed.
#[derive(Debug)]
pub(super) enum Wanted {
    Status(String),
    Exited(i32),
    Name(String),
    Id(String),
    Image(String),
    Label(Label),
}

impl Wanted {
    /// Reads `KEY=VALUE`.
    ///
    /// # Errors
    /// If it makes no sense.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let filter = Filter::read(text)?;
        let value = filter.value.to_owned();
        Ok(match filter.key {
            "status" => match filter.value {
                "created" | "running" | "exited" | "damaged" => Self::Status(value),
                _ => return Err(filter.bad("status is created, running, exited or damaged")),
            },
            "exited" => Self::Exited(value.parse().map_err(|_| filter.bad("give an exit code"))?),
            "name" => Self::Name(value),
            "id" => Self::Id(value),
            "ancestor" => Self::Image(value),
            "label" | "label!" => Self::Label(Label::of(&filter)),
            _ => {
                return Err(
                    filter.bad("the keys are status, exited, name, id, ancestor, label and label!")
                );
            }
        })
    }

    /// Whether it is for containers that do not run as well.
    pub(super) fn of_any_status(&self) -> bool {
        matches!(self, Self::Status(_) | Self::Exited(_))
    }

    /// Whether a container is that.
    pub(super) fn takes(&self, row: &Row) -> bool {
        match self {
            Self::Status(status) => row.status == *status,
            Self::Exited(code) => row.status == "exited" && row.exit_code == Some(*code),
            Self::Name(part) => row.name.contains(part.as_str()),
            Self::Id(start) => row.id.starts_with(start.as_str()),
            Self::Image(image) => row.image == *image,
            Self::Label(label) => label.takes(|key| row.labels.get(key)),
        }
    }
}
