//! `--filter` of the prune commands.

use std::{collections::HashMap, time::SystemTime};

use jiff::Timestamp;

use super::super::{
    filter::{Filter, Label},
    moment::moment,
};
use crate::CliError;

/// What is pruned: all that every filter takes.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// Made before then.
    until: Option<Timestamp>,
    labels: Vec<Label>,
    /// Images without a name, or those with one as well.
    dangling: Option<bool>,
}

impl Filters {
    /// Reads what decides of containers and builds.
    pub(super) fn parse(all: &[String], now: Timestamp) -> Result<Self, CliError> {
        Self::read(all, now, "the keys are until, label and label!", |_, _| {
            Ok(false)
        })
    }

    /// Reads what decides of images alone: `dangling`, too.
    pub(super) fn of_images(all: &[String], now: Timestamp) -> Result<Self, CliError> {
        let keys = "the keys are dangling, until, label and label!";
        Self::read(all, now, keys, |filters, filter| {
            let here = filter.key == "dangling";
            if here {
                filters.dangling = Some(filter.boolean()?);
            }
            Ok(here)
        })
    }

    fn read(
        all: &[String],
        now: Timestamp,
        keys: &str,
        more: fn(&mut Self, &Filter<'_>) -> Result<bool, CliError>,
    ) -> Result<Self, CliError> {
        let mut filters = Self::default();
        for text in all {
            let filter = Filter::read(text)?;
            match filter.key {
                "until" => {
                    let until = moment(filter.value, now).map_err(|why| filter.bad(why))?;
                    filters.until = Some(until);
                }
                "label" | "label!" => filters.labels.push(Label::of(&filter)),
                _ if more(&mut filters, &filter)? => {}
                _ => return Err(filter.bad(keys)),
            }
        }
        Ok(filters)
    }

    /// Whether only images without a name are wanted (`dangling=true`), or others, too (`dangling=false`).
    pub(super) fn dangling(&self) -> Option<bool> {
        self.dangling
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
        self.labels.iter().all(Label::takes_unlabelled)
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
            && self
                .labels
                .iter()
                .all(|label| label.takes(|key| labels.get(key)))
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
        for bad in ["until", "until=x", "name=x", "dangling=true"] {
            assert!(Filters::parse(&[bad.to_owned()], now).is_err(), "{bad}");
        }
        let of_images = |text: &str| Filters::of_images(&[text.to_owned()], now);
        assert_eq!(of_images("dangling=false").unwrap().dangling(), Some(false));
        assert_eq!(of_images("label=x").unwrap().dangling(), None);
        assert!(of_images("dangling=x").is_err() && of_images("name=x").is_err());
    }
}
