//! What `pellicle store verify` has to say, as text for a person or as one object for each damage.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{CliError, Output, commands::format::Format};

/// One damaged thing.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// `object`, `blob`, `tree`, `directory`, `image`, `list`, `container`, `journal`, `content`.
    pub(super) kind: &'static str,
    /// Its digest or id, if it has one.
    pub(super) id: String,
    pub(super) path: PathBuf,
    pub(super) detail: String,
    /// Names of the images that need it.
    pub(super) images: Vec<String>,
    /// Names of the containers that need it.
    pub(super) containers: Vec<String>,
    /// What a repair did about it.
    pub(super) outcome: Option<String>,
    /// Where the damaged thing is now.
    pub(super) aside: Option<PathBuf>,
    /// What to do about it; empty if there is nothing to do.
    pub(super) next: String,
    /// Whether it is whole again, or not missed.
    pub(super) well: bool,
}

impl Finding {
    fn row(&self) -> Value {
        json!({
            "Kind": self.kind,
            "ID": self.id,
            "Path": self.path.display().to_string(),
            "Damage": self.detail,
            "Images": self.images.join(", "),
            "Containers": self.containers.join(", "),
            "Outcome": self.outcome.as_deref().unwrap_or_default(),
            "SetAside": self.aside.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            "Next": self.next,
            "Well": self.well,
        })
    }

    fn text(&self) -> String {
        let space = if self.id.is_empty() { "" } else { " " };
        let mut text = format!(
            "damaged {}{space}{}: {}\n  file: {}\n",
            self.kind,
            self.id,
            self.detail,
            self.path.display()
        );
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("  {name}: {value}\n"));
            }
        };
        line("images", &self.images.join(", "));
        line("containers", &self.containers.join(", "));
        line("repair", self.outcome.as_deref().unwrap_or_default());
        if let Some(aside) = &self.aside {
            line("set aside", &aside.display().to_string());
        }
        line("next", &self.next);
        text
    }
}

/// Prints all of them.
///
/// # Errors
/// If nothing can be written, or a template names a field that is none.
pub(super) fn print(out: &Output, format: &Format, findings: &[Finding]) -> Result<(), CliError> {
    if !matches!(format, Format::Table) {
        let rows: Vec<Value> = findings.iter().map(Finding::row).collect();
        return format.print(out, &[], &rows);
    }
    for finding in findings {
        out.write(finding.text().as_bytes())?;
    }
    if findings.is_empty() {
        out.line("no damage found")?;
    }
    Ok(())
}
