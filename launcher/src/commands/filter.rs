//! `--filter` of all commands: `KEY=VALUE` texts, with docker's keys. Which keys there are, each command says.

use std::fmt::Display;

use crate::CliError;

/// One filter as it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter<'a> {
    text: &'a str,
    /// What is looked at.
    pub(super) key: &'a str,
    /// What it is to be.
    pub(super) value: &'a str,
}

impl<'a> Filter<'a> {
    /// Reads `KEY=VALUE`.
    ///
    /// # Errors
    /// If there is no `=`.
    pub(super) fn read(text: &'a str) -> Result<Self, CliError> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let filter = Self { text, key, value };
        match text.contains('=') {
            true => Ok(filter),
            false => Err(filter.bad("give KEY=VALUE")),
        }
    }

    /// The error of a filter that makes no sense.
    pub(super) fn bad(&self, why: impl Display) -> CliError {
        CliError::usage(format!("--filter {:?}: {why}", self.text))
    }

    /// The value as docker reads yes and no.
    ///
    /// # Errors
    /// If it is neither.
    pub(super) fn boolean(&self) -> Result<bool, CliError> {
        match self.value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(self.bad("give true or false")),
        }
    }
}

/// A filter `label=KEY[=VALUE]` or `label!=KEY[=VALUE]`.
#[derive(Debug)]
pub(super) struct Label {
    key: String,
    value: Option<String>,
    without: bool,
}

impl Label {
    /// What a filter says of a label; its key is `label`, or `label!` for those that do not have it.
    pub(super) fn of(filter: &Filter<'_>) -> Self {
        let (key, value) = match filter.value.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (filter.value, None),
        };
        Self {
            key: key.to_owned(),
            value,
            without: filter.key.ends_with('!'),
        }
    }

    /// Whether it takes what has no labels.
    pub(super) fn takes_unlabelled(&self) -> bool {
        self.without
    }

    /// Whether it takes what has the labels that `get` finds.
    pub(super) fn takes<'l>(&self, get: impl FnOnce(&str) -> Option<&'l String>) -> bool {
        let have = get(&self.key);
        let fits = match &self.value {
            None => have.is_some(),
            wanted => have == wanted.as_ref(),
        };
        fits != self.without
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_filter_is_split_at_its_first_equals_sign() {
        let filter = Filter::read("label=a=b=c").unwrap();
        assert_eq!((filter.key, filter.value), ("label", "a=b=c"));
        assert!(Filter::read("label").is_err() && Filter::read("").is_err());
        let boolean = |text| Filter::read(text).unwrap().boolean();
        assert!(boolean("x=true").unwrap() && boolean("x=1").unwrap());
        assert!(!boolean("x=false").unwrap() && boolean("x=maybe").is_err());
    }

    #[test]
    fn labels_are_wanted_with_any_or_one_value_or_not_at_all() {
        let labels = BTreeMap::from([("tier".to_owned(), "web".to_owned())]);
        let takes = |text| Label::of(&Filter::read(text).unwrap()).takes(|key| labels.get(key));
        assert!(takes("label=tier") && takes("label=tier=web"));
        assert!(!takes("label=tier=db") && !takes("label=other") && !takes("label=tier="));
        assert!(!takes("label!=tier") && takes("label!=tier=db") && takes("label!=other"));
    }
}
