//! `--format`: a table, JSON (one object a line, as docker has it), or a line with
//! `{{.Field}}` in it.

use clap::Args;
use serde_json::Value;

use crate::{CliError, Output, output};

/// The option itself.
#[derive(Args, Debug)]
pub struct FormatArg {
    /// table, json, or a text with {{.Field}} in it
    #[arg(long = "format", value_name = "FORMAT")]
    text: Option<String>,
}

impl FormatArg {
    /// What was asked for; a table if nothing was.
    ///
    /// # Errors
    /// If a template is not closed.
    pub fn parse(&self) -> Result<Format, CliError> {
        match self.text.as_deref() {
            None | Some("table") => Ok(Format::Table),
            Some("json" | "{{json .}}") => Ok(Format::Json),
            Some(template) => parse_template(template)
                .map(Format::Template)
                .ok_or_else(|| {
                    CliError::usage(format!("{template:?} is no format")).with_hint(
                        "write table, json, or a text with fields such as '{{.ID}} {{.Size}}'",
                    )
                }),
        }
    }
}

/// How to print a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns with heads.
    Table,
    /// One JSON object a line.
    Json,
    /// One line an entry.
    Template(Vec<Part>),
}

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// The value of a field.
    Field(String),
}

impl Format {
    /// Prints `rows`, objects all; a table has `columns` (head, field).
    ///
    /// # Errors
    /// If a template names a field that is none, or nothing can be written.
    pub fn print(
        &self,
        out: &Output,
        columns: &[(&str, &str)],
        rows: &[Value],
    ) -> Result<(), CliError> {
        match self {
            Self::Table => {
                let heads: Vec<&str> = columns.iter().map(|c| c.0).collect();
                let cells: Vec<Vec<String>> = rows
                    .iter()
                    .map(|row| {
                        columns
                            .iter()
                            .map(|c| row.get(c.1).map(show).unwrap_or_default())
                            .collect()
                    })
                    .collect();
                out.write(output::table(&heads, &cells).as_bytes())
            }
            Self::Json => rows.iter().try_for_each(|row| out.line(row)),
            Self::Template(parts) => rows.iter().try_for_each(|row| out.line(fill(parts, row)?)),
        }
    }
}

fn fill(parts: &[Part], row: &Value) -> Result<String, CliError> {
    parts
        .iter()
        .map(|part| match part {
            Part::Text(text) => Ok(text.clone()),
            Part::Field(name) => row.get(name).map(show).ok_or_else(|| {
                let known: Vec<&str> = row
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(k, _)| k.as_str())
                    .collect();
                CliError::usage(format!("there is no field {name:?}"))
                    .with_hint(format!("the fields are {}", known.join(", ")))
            }),
        })
        .collect()
}

fn show(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn parse_template(text: &str) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, behind) = after.split_once("}}")?;
        let name = field.trim().strip_prefix('.')?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        parts.extend([Part::Text(unescape(before)), Part::Field(name.to_owned())]);
        rest = behind;
    }
    parts.push(Part::Text(unescape(rest)));
    Some(parts)
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_with_the_fields_it_names() {
        let row = serde_json::json!({"ID": "abc", "N": 3});
        let parts = parse_template(r"{{.ID}}\t{{ .N }}!").unwrap();
        assert_eq!(fill(&parts, &row).unwrap(), "abc\t3!");
        let e = fill(&parse_template("{{.Nope}}").unwrap(), &row).unwrap_err();
        assert!(e.hint().unwrap().contains("ID"));
        for bad in ["{{.ID", "{{ID}}", "{{range .}}", "{{.}}"] {
            assert!(parse_template(bad).is_none(), "{bad}");
        }
    }
}
