//! `--filter` of the prune commands.

use std::{collections::HashMap, time::SystemTime};

use jiff::Timestamp;

use super::super::moment::moment;
use crate::CliError;

/// What is pruned: all that every filter takes.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// Made before then.
    until: Option<Timestamp>,
    labels: Vec<Label>,
}

#[derive(Debug)]
struct Label {
    key: String,
    value: Option<String>,
    /// Those that do not have it.
    without: bool,
}

impl Filters {
    /// Reads `KEY=VALUE` texts.
    pub(super) fn parse(all: &[String], now: Timestamp) -> Result<Self, CliError> {
        let mut filters = Self::default();
        for text in all {
            let bad = |why: String| CliError::usage(format!("--filter {text:?}: {why}"));
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| bad("give KEY=VALUE".to_owned()))?;
            match key {
                "until" => filters.until = Some(moment(value, now).map_err(bad)?),
                "label" | "label!" => {
                    let (key, wanted) = match value.split_once('=') {
                        Some((key, wanted)) => (key, Some(wanted.to_owned())),
                        None => (value, None),
                    };
                    filters.labels.push(Label {
                        key: key.to_owned(),
                        value: wanted,
                        without: text.starts_with("label!"),
                    });
                }
                _ => return Err(bad("the keys are until, label and label!".to_owned())),
            }
        }
        Ok(filters)
    }

    /// What is older than this, if age decides.
    pub(super) fn until(&self) -> Option<SystemTime> {
        self.until.map(SystemTime::from)
    }

    /// Whether labels are asked for.
    pub(super) fn has_labels(&self) -> bool {
        !self.labels.is_empty()
    }

    /// Whether what has no labels may be taken.
    pub(super) fn take_unlabelled(&self) -> bool {
        self.labels.iter().all(|label| label.without)
    }

    /// Whether all of them take what was made then and has these labels.
    pub(super) fn take(&self, created: Option<&str>, labels: &HashMap<String, String>) -> bool {
        let in_time = self.until.is_none_or(|until| {
            // What does not say how old it is may be new.
            created
                .and_then(|t| t.parse::<Timestamp>().ok())
                .is_some_and(|t| t <= until)
        });
        in_time
            && self.labels.iter().all(|label| {
                let have = labels.get(&label.key);
                let fits = match (&label.value, have) {
                    (None, have) => have.is_some(),
                    (Some(wanted), have) => have == Some(wanted),
                };
                fits != label.without
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_and_labels_decide() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let labels = HashMap::from([("keep".to_owned(), "yes".to_owned())]);
        let takes = |filters: &[&str], created: Option<&str>| {
            let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
            Filters::parse(&filters, now)
                .unwrap()
                .take(created, &labels)
        };
        let (old, new) = (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T23:30:00Z"));
        assert!(takes(&[], None));
        assert!(takes(&["until=1h"], old) && !takes(&["until=1h"], new));
        assert!(!takes(&["until=1h"], None), "of unknown age");
        assert!(takes(&["label=keep"], None) && takes(&["label=keep=yes"], None));
        assert!(!takes(&["label=keep=no"], None) && !takes(&["label=other"], None));
        assert!(!takes(&["label!=keep"], None) && takes(&["label!=other"], None));
        let parse = |text: &str| Filters::parse(&[text.to_owned()], now).unwrap();
        assert!(!parse("label=keep").take_unlabelled() && parse("label!=keep").take_unlabelled());
        let hour = std::time::Duration::from_secs(3600);
        assert_eq!(
            parse("until=1h").until(),
            Some(SystemTime::from(now) - hour)
        );
        for bad in ["until", "until=x", "name=x"] {
            assert!(Filters::parse(&[bad.to_owned()], now).is_err(), "{bad}");
        }
    }
}
