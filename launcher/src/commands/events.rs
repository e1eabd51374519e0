//! `pellicle events`: what happens to containers and images.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{ArgAction, Args};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    filter::Filter,
    format::{Format, FormatArg},
    moment::moment,
};
use crate::{
    CliError, Context,
    container::names,
    events::{Event, Follow, Kind},
    interrupt,
};

/// Show what happens to containers and images
///
/// One line for each event, as it comes, until the command is interrupted. Events that were before are
/// shown with --since; --until ends the command then, and --stream=false when there are no more.
///
/// The store keeps some tens of thousands of events, the newest.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  pellicle events
  pellicle events --since 10m --until 0s
  pellicle events --stream=false --filter event=die --format '{{.Name}} {{.ContainerExitCode}}'
  pellicle events --filter type=image --format json")]
pub struct EventsArgs {
    /// Also those since then: 10m (ago), 2026-01-31T15:04:05Z, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// None after then, and no waiting beyond
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only events with this type, event, container, image or label; of several with one key any fits
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Go on waiting for events; without, all that are known are shown
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub stream: bool,
    /// Whole ids; --no-trunc=false shortens them
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub no_trunc: bool,
    /// How to print.
    #[command(flatten)]
    pub format: FormatArg,
}

/// Runs the command.
///
/// # Errors
/// If a filter, a time or a format makes no sense, or the events cannot be read.
pub fn run(cx: &Context, args: EventsArgs) -> Result<ExitCode, CliError> {
    let format = args.format.parse()?;
    let filters = Filters::parse(&args.filter)?;
    let now = Timestamp::now();
    let time = |text: &Option<String>| {
        let time = text.as_deref().map(|t| moment(t, now)).transpose();
        time.map_err(CliError::usage)
    };
    let (since, until) = (time(&args.since)?, time(&args.until)?);
    // As docker: without a beginning, only what comes from now on.
    let since = since.or_else(|| args.stream.then_some(now));
    let nanos = |t: Timestamp| i64::try_from(t.as_nanosecond()).unwrap_or(i64::MAX);
    let fits = |e: &Event| {
        since.is_none_or(|s| e.time >= nanos(s))
            && until.is_none_or(|u| e.time <= nanos(u))
            && filters.take(e)
    };
    let deadline = until.map(|until| {
        let left = nanos(until).saturating_sub(nanos(now));
        Instant::now() + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
    });
    let cancel = interrupt::cancel_on_signals()?;
    let mut follow = Follow::from_start(cx.root()?);
    let read = |e| CliError::failed("cannot read the events of the store").because(e);
    loop {
        for event in follow.more().map_err(read)?.iter().filter(|e| fits(e)) {
            print(cx, &format, event, args.no_trunc)?;
        }
        let over = deadline.is_some_and(|d| Instant::now() >= d);
        if !args.stream || over || cancel.is_cancelled() {
            return Ok(ExitCode::SUCCESS);
        }
        follow.wait(deadline).map_err(read)?;
    }
}

/// JSON always has the whole id, as what reads it compares them.
fn print(cx: &Context, format: &Format, event: &Event, whole: bool) -> Result<(), CliError> {
    let id = match whole {
        true => &event.id,
        false => short(&event.id),
    };
    match format {
        Format::Table => cx.out.line(line(event, id)),
        Format::Json => cx.out.line(as_docker(event)),
        other => other.print(&cx.out, &[], &[fields(event, id)]),
    }
}

/// The first 12 digits of a container's or an image's id.
fn short(id: &str) -> &str {
    names::short(id.strip_prefix("sha256:").unwrap_or(id))
}

fn time(event: &Event) -> String {
    Timestamp::from_nanosecond(i128::from(event.time))
        .map(|t| format!("{t:.9}"))
        .unwrap_or_default()
}

fn line(event: &Event, id: &str) -> String {
    let attributes: Vec<String> = event
        .attributes
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let text = format!(
        "{} {} {} {id} ({})",
        time(event),
        event.kind.name(),
        event.action,
        attributes.join(", ")
    );
    // A label may hold anything; it must not reach the terminal as control characters.
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The object that docker's interface has.
fn as_docker(event: &Event) -> Value {
    let mut told = json!({
        "status": event.action,
        "id": event.id,
        "Type": event.kind.name(),
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time / 1_000_000_000,
        "timeNano": event.time,
    });
    if let (Some(image), Some(told)) = (event.attributes.get("image"), told.as_object_mut()) {
        told.insert("from".to_owned(), image.clone().into());
    }
    told
}

/// Docker's and podman's names for templates.
fn fields(event: &Event, id: &str) -> Value {
    let attribute = |name: &str| event.attributes.get(name).map_or("", String::as_str);
    json!({
        "Type": event.kind.name(),
        "Action": event.action,
        "Status": event.action,
        "ID": id,
        "From": attribute("image"),
        "Image": attribute("image"),
        "Name": attribute("name"),
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "Attributes": event.attributes,
        "ContainerExitCode": attribute("exitCode"),
        "Scope": "local",
        "Time": time(event),
        "TimeNano": event.time,
    })
}

/// What is wanted: one of the values for each key.
#[derive(Default)]
struct Filters(BTreeMap<Key, Vec<String>>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Type,
    Event,
    Container,
    Image,
    Label,
}

impl Filters {
    fn parse(all: &[String]) -> Result<Self, CliError> {
        let mut filters = Self::default();
        for text in all {
            let filter = Filter::read(text)?;
            let key = match filter.key {
                "type" => Key::Type,
                "event" => Key::Event,
                "container" => Key::Container,
                "image" => Key::Image,
                "label" => Key::Label,
                _ => return Err(filter.bad("the keys are type, event, container, image and label")),
            };
            filters
                .0
                .entry(key)
                .or_default()
                .push(filter.value.to_owned());
        }
        Ok(filters)
    }

    fn take(&self, event: &Event) -> bool {
        let attribute = |name: &str| event.attributes.get(name).map_or("", String::as_str);
        self.0.iter().all(|(key, values)| {
            values.iter().any(|value| match key {
                Key::Type => event.kind.name() == value,
                Key::Event => event.action == *value,
                Key::Container => {
                    event.kind == Kind::Container
                        && (attribute("name") == value || starts(&event.id, value))
                }
                Key::Image => match event.kind {
                    Kind::Image => is_image(attribute("name"), value) || starts(&event.id, value),
                    Kind::Container => is_image(attribute("image"), value),
                },
                Key::Label => match value.split_once('=') {
                    Some((k, v)) => event.attributes.get(k).is_some_and(|have| have == v),
                    None => event.attributes.contains_key(value),
                },
            })
        })
    }
}

fn starts(id: &str, with: &str) -> bool {
    !with.is_empty()
        && (id.starts_with(with)
            || id
                .strip_prefix("sha256:")
                .is_some_and(|hex| hex.starts_with(with)))
}

/// `debian` is any tag of it.
fn is_image(name: &str, wanted: &str) -> bool {
    name == wanted
        || name
            .rsplit_once(':')
            .is_some_and(|(repository, _)| repository == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, action: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes = attributes.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        Event {
            time: 1_700_000_000_000_000_001,
            kind,
            action: action.into(),
            id: "c0ffee".into(),
            attributes: attributes.collect(),
        }
    }

    #[test]
    fn filters_of_one_key_widen_and_of_several_narrow() {
        let die = event(
            Kind::Container,
            "die",
            &[("name", "web"), ("image", "app:1"), ("tier", "x")],
        );
        let takes = |all: &[&str]| {
            let all: Vec<String> = all.iter().map(|f| (*f).to_owned()).collect();
            Filters::parse(&all).unwrap().take(&die)
        };
        assert!(takes(&[]));
        assert!(takes(&["event=start", "event=die"]) && !takes(&["event=start"]));
        assert!(takes(&["event=die", "type=container"]) && !takes(&["event=die", "type=image"]));
        assert!(
            takes(&["container=web"]) && takes(&["container=c0ff"]) && !takes(&["container=we"])
        );
        assert!(takes(&["image=app"]) && takes(&["image=app:1"]) && !takes(&["image=ap"]));
        assert!(takes(&["label=tier"]) && takes(&["label=tier=x"]) && !takes(&["label=tier=y"]));
        for bad in ["type", "nope=1"] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err());
        }
    }

    #[test]
    fn a_line_has_time_kind_action_and_attributes_and_no_control_characters() {
        let e = event(Kind::Image, "pull", &[("name", "x\u{1b}[2J")]);
        assert_eq!(
            line(&e, &e.id),
            "2023-11-14T22:13:20.000000001Z image pull c0ffee (name=x?[2J)"
        );
        let id = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(
            (short(&id), short(&id[7..])),
            ("0123456789ab", "0123456789ab")
        );
        assert_eq!(as_docker(&e)["timeNano"], 1_700_000_000_000_000_001_i64);
    }
}
