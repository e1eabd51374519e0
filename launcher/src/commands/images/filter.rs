//! `--filter` of `pellicle images`.

use globset::GlobMatcher;
use jiff::Timestamp;

use super::super::{
    filter::{Filter, Label},
    moment::moment,
};
use crate::{
    CliError,
    build::go_pattern,
    image::{Image, Images, Reference},
};

/// Which images are listed: those that every filter takes, and of names those that any pattern takes.
#[derive(Debug, Default)]
pub(super) struct Filters {
    dangling: Option<bool>,
    references: Vec<GlobMatcher>,
    labels: Vec<Label>,
    /// All of these bounds are kept.
    before: Vec<Timestamp>,
    since: Vec<Timestamp>,
    until: Vec<Timestamp>,
}

impl Filters {
    /// Reads `KEY=VALUE` texts; `before` and `since` name images.
    ///
    /// # Errors
    /// If one makes no sense, or an image that it names is not there.
    pub(super) fn parse(all: &[String], images: &Images, now: Timestamp) -> Result<Self, CliError> {
        let mut filters = Self::default();
        for text in all {
            let filter = Filter::read(text)?;
            match filter.key {
                "dangling" => filters.dangling = Some(filter.boolean()?),
                "reference" => {
                    let pattern = go_pattern(filter.value).map_err(|why| filter.bad(why))?;
                    filters.references.push(pattern);
                }
                "label" | "label!" => filters.labels.push(Label::of(&filter)),
                "until" => {
                    let until = moment(filter.value, now).map_err(|why| filter.bad(why))?;
                    filters.until.push(until);
                }
                "before" => filters.before.push(made(images, &filter)?),
                "since" => filters.since.push(made(images, &filter)?),
                _ => {
                    return Err(filter.bad(
                        "the keys are dangling, reference, label, label!, before, since and until",
                    ));
                }
            }
        }
        Ok(filters)
    }

    /// Whether they take the image; `pulled` says that it was pulled by a digest, which is a name, too.
    pub(super) fn take(&self, image: &Image, pulled: bool) -> bool {
        let nameless = image.names.is_empty() && !pulled;
        if self.dangling.is_some_and(|wanted| wanted != nameless) {
            return false;
        }
        let labels = image.config.config().as_ref();
        let labels = labels.and_then(|c| c.labels().as_ref());
        let get = |key: &str| labels.and_then(|all| all.get(key));
        self.in_time(created(image)) && self.labels.iter().all(|label| label.takes(get))
    }

    /// What does not say how old it is is neither old nor new.
    fn in_time(&self, created: Option<Timestamp>) -> bool {
        let all = |bounds: &[Timestamp], fits: fn(Timestamp, Timestamp) -> bool| {
            bounds
                .iter()
                .all(|bound| created.is_some_and(|at| fits(at, *bound)))
        };
        all(&self.before, |at, bound| at < bound)
            && all(&self.since, |at, bound| at > bound)
            && all(&self.until, |at, bound| at <= bound)
    }

    /// Whether only images with certain names are wanted.
    pub(super) fn by_name(&self) -> bool {
        !self.references.is_empty()
    }

    /// Whether a name of an image is wanted: as people write it or as a whole, with its tag or without.
    pub(super) fn take_name(&self, name: &Reference) -> bool {
        if self.references.is_empty() {
            return true;
        }
        let short = name.familiar_repository();
        // A name that was given here without a registry is found without it.
        let bare = short.strip_prefix("localhost/").unwrap_or(&short);
        let tag = name.tag().unwrap_or_default();
        [bare, &short, &name.repository()].iter().any(|repository| {
            self.references
                .iter()
                .any(|p| p.is_match(repository) || p.is_match(format!("{repository}:{tag}")))
        })
    }
}

fn created(image: &Image) -> Option<Timestamp> {
    image.config.created().as_ref()?.parse().ok()
}

/// When the image that a filter names was made.
fn made(images: &Images, filter: &Filter<'_>) -> Result<Timestamp, CliError> {
    let image = images.resolve(filter.value)?;
    created(&image).ok_or_else(|| {
        filter
            .bad("that image does not say when it was made")
            .with_hint("name another image, or give a time with --filter until=TIME")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_in_each_way_of_writing_it_and_a_star_stops_at_a_slash() {
        let fits = |pattern: &str, name: &str| {
            let filters = Filters {
                references: vec![go_pattern(pattern).unwrap()],
                ..Filters::default()
            };
            filters.take_name(&name.parse().unwrap())
        };
        for pattern in [
            "debian",
            "deb*",
            "debian:12",
            "*:12",
            "docker.io/library/debian",
            "docker.io/library/*:1[0-9]",
        ] {
            assert!(fits(pattern, "debian:12"), "{pattern}");
        }
        for pattern in ["ebian", "debian:1", "*:13", "library/debian", "*/*"] {
            assert!(!fits(pattern, "debian:12"), "{pattern}");
        }
        assert!(fits("web", "localhost/web:1") && fits("localhost/*", "localhost/web:1"));
        assert!(!fits("*", "quay.io/a/b") && fits("quay.io/*/b", "quay.io/a/b"));
        assert!(!fits("{debian,x}", "debian"));
    }

    #[test]
    fn bounds_of_time_are_all_kept_and_need_a_time() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let (one, two) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        let before = Filters {
            before: vec![two],
            ..Filters::default()
        };
        assert!(before.in_time(Some(one)) && !before.in_time(Some(two)));
        let between = Filters {
            since: vec![one],
            until: vec![two],
            ..Filters::default()
        };
        assert!(!between.in_time(Some(one)) && between.in_time(Some(two)));
        assert!(!between.in_time(None) && Filters::default().in_time(None));
    }
}
