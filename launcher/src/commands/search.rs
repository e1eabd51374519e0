//! `pellicle search`: what registries have.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{
    filter::Filter,
    format::FormatArg,
    registry_args::{TransferArgs, clearly},
};
use crate::{
    CliError, Context,
    image::Reference,
    interrupt,
    registry::{
        Client,
        search::{Hit, search},
    },
};

/// Longest description that is shown unless --no-trunc is given.
const DESCRIPTION: usize = 45;

/// Search registries for images
///
/// TERM may begin with a registry: registry.lan:5000/app looks there, registry.lan:5000/ lists all that it
/// has. Without, the registries that registries.conf has under unqualified-search-registries are searched,
/// or docker.io. A registry without an index of its own is searched by the names of its repositories.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle search debian
  pellicle search --limit 5 --filter is-official=true python
  pellicle search registry.lan:5000/
  pellicle search --list-tags registry.lan:5000/app")]
pub struct SearchArgs {
    /// At most so many of each registry
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..))]
    pub limit: u16,
    /// The tags of the image instead
    #[arg(long)]
    pub list_tags: bool,
    /// Only those with stars=N (or more), is-official=BOOL or is-automated=BOOL
    #[arg(short, long, value_name = "KEY=VALUE", conflicts_with = "list_tags")]
    pub filter: Vec<String>,
    /// Do not shorten descriptions
    #[arg(long)]
    pub no_trunc: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArg,
    /// What to look for
    pub term: String,
    /// How the registry is reached.
    #[command(flatten)]
    pub transfer: TransferArgs,
}

/// Runs the command.
///
/// # Errors
/// If a registry cannot be searched.
pub fn run(cx: &Context, args: SearchArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let filters = args
        .filter
        .iter()
        .map(|f| Wanted::parse(f))
        .collect::<Result<Vec<_>, _>>()?;
    let access = args.transfer.access(interrupt::cancel_on_signals()?)?;
    let limit = usize::from(args.limit);
    let (columns, rows): (&[(&str, &str)], Vec<Value>) = if args.list_tags {
        let reference: Reference = args.term.parse()?;
        let place = access.registries.home(&reference, access.tls_verify);
        let tags = place
            .and_then(|place| Client::connect(&access, place)?.tags())
            .map_err(clearly)?;
        let name = reference.repository();
        let rows = tags.into_iter().take(limit);
        (
            &[("NAME", "Name"), ("TAG", "Tag")],
            rows.map(|tag| json!({"Name": name, "Tag": tag})).collect(),
        )
    } else {
        let hits = search(&access, &args.term, limit).map_err(clearly)?;
        let hits = hits.iter().filter(|h| filters.iter().all(|f| f.takes(h)));
        (
            &[
                ("NAME", "Name"),
                ("DESCRIPTION", "Description"),
                ("STARS", "Stars"),
                ("OFFICIAL", "Official"),
            ],
            hits.map(|h| row(h, args.no_trunc)).collect(),
        )
    };
    format.print(&cx.out, columns, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn row(hit: &Hit, whole: bool) -> Value {
    let found = &hit.found;
    let text = found.description.as_deref().unwrap_or_default();
    // It comes from elsewhere and goes to a terminal.
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let description: String = if whole || text.chars().count() <= DESCRIPTION {
        plain.collect()
    } else {
        plain.take(DESCRIPTION - 1).chain(['…']).collect()
    };
    let mark = |is: bool| if is { "[OK]" } else { "" };
    let name: String = found.name.chars().filter(|c| !c.is_control()).collect();
    json!({
        "Index": hit.registry,
        "Name": format!("{}/{name}", hit.registry),
        "Description": description,
        "Stars": found.star_count,
        "Official": mark(found.is_official),
        "Automated": mark(found.is_automated),
    })
}

enum Wanted {
    Stars(u64),
    Official(bool),
    Automated(bool),
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, CliError> {
        let filter = Filter::read(text)?;
        let number = || {
            filter
                .value
                .parse()
                .map_err(|_| filter.bad("give a number"))
        };
        Ok(match filter.key {
            "stars" => Self::Stars(number()?),
            "is-official" => Self::Official(filter.boolean()?),
            "is-automated" => Self::Automated(filter.boolean()?),
            _ => return Err(filter.bad("the keys are stars, is-official and is-automated")),
        })
    }

    fn takes(&self, hit: &Hit) -> bool {
        match self {
            Self::Stars(least) => hit.found.star_count >= *least,
            Self::Official(is) => hit.found.is_official == *is,
            Self::Automated(is) => hit.found.is_automated == *is,
        }
    }
}
