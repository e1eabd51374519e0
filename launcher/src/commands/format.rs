//! `--format`: a table, JSON (one object a line, as docker has it), or a template of Go's.

use clap::Args;
use serde_json::{Map, Value};

use crate::{
    CliError, Output, output,
    template::{Mode, Template, TemplateError},
};

/// What a template that makes no sense exits with, as podman does.
const BAD_TEMPLATE: u8 = 125;

/// The option itself.
#[derive(Args, Debug, Default)]
pub struct FormatArg {
    /// table, json, a Go template such as '{{.ID}} {{json .}}', or table with a template
    #[arg(long = "format", value_name = "FORMAT")]
    text: Option<String>,
}

/// The option with a short form, for one thing instead of a list.
#[derive(Args, Debug, Default)]
pub struct FormatOneArg {
    /// json, or a Go template such as '{{.Id}} {{json .Config}}'
    #[arg(short = 'f', long = "format", value_name = "FORMAT")]
    text: Option<String>,
}

impl FormatArg {
    /// What was asked for; a table if nothing was.
    ///
    /// # Errors
    /// If a template makes no sense.
    pub fn parse(&self) -> Result<Format, CliError> {
        Format::parse(self.text.as_deref())
    }

    /// Whether a template is asked for that looks at `field`.
    pub fn looks_at(&self, field: &str) -> bool {
        let text = self.text.as_deref().unwrap_or_default();
        text.split("{{").skip(1).any(|action| {
            let words = action.split("}}").next().unwrap_or_default();
            words
                .split(|c: char| !(c == '.' || c.is_alphanumeric()))
                .any(|word| word.strip_prefix('.') == Some(field))
        })
    }
}

impl FormatOneArg {
    /// What was asked for; a table (what the command prints by itself) if nothing was.
    ///
    /// # Errors
    /// If a template makes no sense.
    pub fn parse(&self) -> Result<Format, CliError> {
        Format::parse(self.text.as_deref())
    }
}

/// How to print a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Columns with heads.
    Table,
    /// One JSON object a line.
    Json,
    /// One text an entry.
    Template(Template),
    /// A template whose parts between tabs are columns.
    Columns(Template),
}

impl Format {
    fn parse(text: Option<&str>) -> Result<Self, CliError> {
        let template = |text: &str| {
            Template::parse(&unescape(text)).map_err(|e| {
                CliError::usage(format!("{text:?} is no format"))
                    .because(e)
                    .with_code(BAD_TEMPLATE)
                    .with_hint(
                        "write table, json, or a Go template with fields such as '{{.ID}} {{.Size}}'",
                    )
            })
        };
        match text {
            None | Some("table" | "text" | "") => Ok(Self::Table),
            Some("json") => Ok(Self::Json),
            Some(text) => match text.strip_prefix("table ") {
                Some(columns) => template(columns.trim_start()).map(Self::Columns),
                // A template without any action is a word that was meant to be one of the above.
                None if !text.contains("{{") && text.chars().all(char::is_alphanumeric) => {
                    Err(CliError::usage(format!("there is no format {text:?}"))
                        .with_code(BAD_TEMPLATE)
                        .with_hint("write table, json, or a Go template such as '{{.ID}}'"))
                }
                None => template(text).map(Self::Template),
            },
        }
    }

    /// Prints `rows`, objects all; a table has `columns` (head, field). Nothing is printed if one of them
    /// cannot be.
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
            Self::Template(template) => {
                let mut text = String::new();
                for row in rows {
                    text.push_str(&fill(template, row)?);
                    text.push('\n');
                }
                out.write(text.as_bytes())
            }
            Self::Columns(template) => {
                let cells = rows
                    .iter()
                    .map(|row| Ok(cells_of(&fill(template, row)?)))
                    .collect::<Result<Vec<_>, CliError>>()?;
                let fields = rows.first().and_then(Value::as_object);
                let heads = heads(columns, fields);
                let heads = template.render(&heads, Mode::Heads).map_err(unfit)?;
                let heads: Vec<String> = cells_of(&heads);
                let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
                out.write(output::table(&heads, &cells).as_bytes())
            }
        }
    }

    /// Prints one thing; `plain` is what is printed if no format was asked for.
    ///
    /// # Errors
    /// As [`Format::print`].
    pub fn print_one(
        &self,
        out: &Output,
        value: &Value,
        plain: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        match self {
            Self::Table => out.write(plain().as_bytes()),
            Self::Json => out.line(value),
            Self::Template(template) | Self::Columns(template) => out.line(fill(template, value)?),
        }
    }
}

fn fill(template: &Template, row: &Value) -> Result<String, CliError> {
    template.render(row, Mode::Values).map_err(unfit)
}

fn unfit(error: TemplateError) -> CliError {
    let hint = match &error {
        TemplateError::NoField { known, .. } => {
            Some(format!("the fields are {}", known.join(", ")))
        }
        _ => None,
    };
    let e = CliError::usage("the format does not fit what is to be printed")
        .because(error)
        .with_code(BAD_TEMPLATE);
    hint.into_iter().fold(e, CliError::with_hint)
}

fn cells_of(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// The head of each field: that of its column, else its name in words.
fn heads(columns: &[(&str, &str)], fields: Option<&Map<String, Value>>) -> Value {
    let mut heads = Map::new();
    for field in fields.into_iter().flat_map(Map::keys) {
        heads.insert(field.clone(), in_words(field).into());
    }
    for (head, field) in columns {
        heads.insert((*field).to_owned(), (*head).into());
    }
    Value::Object(heads)
}

/// `CreatedAt` as `CREATED AT`.
fn in_words(field: &str) -> String {
    let mut words = String::new();
    let mut before = None;
    for c in field.chars() {
        if c.is_uppercase() && before.is_some_and(char::is_lowercase) {
            words.push(' ');
        }
        words.extend(c.to_uppercase());
        before = Some(c);
    }
    words
}

fn show(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Format, CliError> {
        Format::parse(Some(text))
    }

    #[test]
    fn words_and_templates_are_told_apart_and_nonsense_is_refused() {
        assert_eq!(parse("table").unwrap(), Format::Table);
        assert_eq!(parse("json").unwrap(), Format::Json);
        assert!(matches!(
            parse("table {{.ID}}").unwrap(),
            Format::Columns(_)
        ));
        assert!(matches!(parse("{{json .}}").unwrap(), Format::Template(_)));
        for bad in ["{{.ID", "{{ID}}", "{{range .}}", "jsn"] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), Some(125), "{bad}");
        }
    }

    #[test]
    fn a_template_looks_at_the_fields_that_it_names() {
        let looks = |text: &str| {
            let text = Some(text.to_owned());
            FormatArg { text }.looks_at("Size")
        };
        assert!(looks("{{.ID}} {{.Size}}") && looks("table {{upper .Size}}"));
        assert!(!looks(".Size {{.ID}} .Size") && !looks("{{.SizeRw}}") && !looks("json"));
    }

    #[test]
    fn a_field_that_is_none_is_named_with_those_there_are() {
        let row = serde_json::json!({"ID": "abc", "N": 3});
        let Format::Template(t) = parse(r"{{.ID}}\t{{ .N }}!").unwrap() else {
            panic!("a template");
        };
        assert_eq!(fill(&t, &row).unwrap(), "abc\t3!");
        let Format::Template(t) = parse("{{.Nope}}").unwrap() else {
            panic!("a template");
        };
        assert!(fill(&t, &row).unwrap_err().hint().unwrap().contains("ID"));
    }

    #[test]
    fn heads_are_those_of_columns_or_made_of_names() {
        let row = serde_json::json!({"ID": 1, "CreatedAt": 2});
        let heads = heads(&[("IMAGE ID", "ID")], row.as_object());
        assert_eq!(heads["ID"], "IMAGE ID");
        assert_eq!(heads["CreatedAt"], "CREATED AT");
    }
}
