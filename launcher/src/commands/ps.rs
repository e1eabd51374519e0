//! `pellicle ps`: the containers.

mod filter;
mod size;

use std::process::ExitCode;

use clap::Args;
use filter::Wanted;
use serde::Serialize;
use serde_json::{Value, json};
use size::{Size, Sizes};

use super::{
    containers,
    format::{Format, FormatArg},
};
use crate::{
    CliError, Context,
    container::{
        names,
        registry::Listed,
        state::{State, Status},
    },
    output,
};

/// List containers
///
/// Those that run, or all with -a. With -s, SIZE is what the writable layer takes up on the host, and `virtual`
/// that with all file contents of the image.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle ps -a
  pellicle ps -q --filter label=app=web
  pellicle ps -l --no-trunc                        the last one that was made
  pellicle ps -as                                  with what each takes up
  pellicle ps --format 'table {{.Names}}\t{{.Status}}'
  pellicle ps -a --filter status=exited --format json")]
pub struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// How to print; json gives one array
    #[command(flatten)]
    pub format: FormatArg,
    /// Do not shorten ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// The last N that were made, whether they run or not
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "latest")]
    pub last: Option<usize>,
    /// The last one that was made, whether it runs or not
    #[arg(short, long)]
    pub latest: bool,
    /// Also what they take up
    #[arg(short, long)]
    pub size: bool,
    /// Only those with this status, name, id, ancestor (image), label, exited (code), or without one (label!)
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// One container, as JSON has it.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    image: String,
    command: Vec<String>,
    status: String,
    created: String,
    started: Option<String>,
    finished: Option<String>,
    exit_code: Option<i32>,
    error: Option<String>,
    pid: Option<i32>,
    labels: std::collections::BTreeMap<String, String>,
    #[serde(skip)]
    image_id: String,
    #[serde(skip)]
    network: &'static str,
    #[serde(flatten)]
    size: Option<Size>,
}

/// Runs the command.
///
/// # Errors
/// If the store cannot be read, or a filter makes no sense.
pub fn run(cx: &Context, args: PsArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let registry = containers::registry(cx)?;
    registry.sweep();
    let filters = args
        .filter
        .iter()
        .map(|f| Wanted::parse(f))
        .collect::<Result<Vec<_>, _>>()?;
    let last = args.last.or(args.latest.then_some(1));
    let all = args.all || last.is_some() || filters.iter().any(Wanted::of_any_status);
    let mut rows: Vec<Row> = registry
        .list()?
        .into_iter()
        .map(row)
        .filter(|r| all || r.status == "running" || r.status == "damaged")
        .filter(|r| filters.iter().all(|f| f.takes(r)))
        .take(last.unwrap_or(usize::MAX))
        .collect();
    if (args.size || args.format.looks_at("Size")) && !args.quiet {
        let sizes = Sizes::of(cx, &registry)?;
        for row in &mut rows {
            row.size = Some(sizes.size(&row.id, &row.image_id));
        }
    }
    let id = |row: &Row| match args.no_trunc {
        true => row.id.clone(),
        false => names::short(&row.id).to_owned(),
    };
    if args.quiet {
        for row in &rows {
            cx.out.line(id(row))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if format == Format::Json {
        let mut text = serde_json::to_vec_pretty(&rows)?;
        text.push(b'\n');
        cx.out.write(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown: Vec<Value> = rows
        .iter()
        .map(|row| fields(row, id(row), args.no_trunc))
        .collect();
    let mut columns = vec![
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("NAMES", "Names"),
    ];
    if args.size {
        columns.push(("SIZE", "Size"));
    }
    format.print(&cx.out, &columns, &shown)?;
    Ok(ExitCode::SUCCESS)
}

/// A container with docker's names of fields.
fn fields(row: &Row, id: String, whole: bool) -> Value {
    let labels: Vec<String> = row.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut told = json!({
        "ID": id,
        "Image": row.image,
        "ImageID": row.image_id,
        "Command": command(&row.command, whole),
        "CreatedAt": row.created,
        "RunningFor": since(&row.created),
        "State": row.status,
        "Status": status(row),
        "Names": row.name,
        "Labels": labels.join(","),
        "Label": row.labels,
        "ExitCode": row.exit_code,
        "Pid": row.pid,
        "Ports": "",
        "Networks": row.network,
    });
    if let (Some(size), Some(told)) = (row.size, told.as_object_mut()) {
        told.insert("Size".to_owned(), size.shown().into());
    }
    told
}

fn row(listed: Listed) -> Row {
    match listed {
        Listed::Known(state) => known(*state),
        Listed::Damaged { id, error } => Row {
            id,
            name: String::new(),
            image: String::new(),
            command: Vec::new(),
            status: "damaged".to_owned(),
            created: String::new(),
            started: None,
            finished: None,
            exit_code: None,
            error: Some(error.to_string()),
            pid: None,
            labels: Default::default(),
            image_id: String::new(),
            network: "",
            size: None,
        },
    }
}

fn known(state: State) -> Row {
    Row {
        id: state.id,
        name: state.name,
        image: state.image,
        command: state.command,
        status: match state.status {
            Status::Created => "created",
            Status::Running => "running",
            Status::Exited => "exited",
        }
        .to_owned(),
        created: state.created,
        started: state.started,
        finished: state.finished,
        exit_code: state.exit_code,
        error: state.error,
        pid: state.process.map(|p| p.pid),
        labels: state.settings.labels,
        image_id: state.image_id,
        network: if state.settings.host_network {
            "host"
        } else {
            "none"
        },
        size: None,
    }
}

fn command(words: &[String], whole: bool) -> String {
    let text = words.join(" ");
    // A command may hold anything; it must not reach the terminal as control characters.
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let text = if whole || text.chars().count() <= 20 {
        text
    } else {
        format!("{}…", text.chars().take(19).collect::<String>())
    };
    format!("\"{text}\"")
}

fn since(time: &str) -> String {
    time.parse::<jiff::Timestamp>()
        .map(|t| output::ago(jiff::Timestamp::now().as_second() - t.as_second()))
        .unwrap_or_default()
}

fn status(row: &Row) -> String {
    let ago = |time: &Option<String>| since(time.as_deref().unwrap_or_default());
    match row.status.as_str() {
        "running" => format!("Up {}", ago(&row.started).trim_end_matches(" ago")),
        "exited" => format!(
            "Exited ({}) {}",
            row.exit_code.unwrap_or(0),
            ago(&row.finished)
        ),
        "damaged" => "Damaged".to_owned(),
        _ => "Created".to_owned(),
    }
}
