//! A stage with its variables.

use std::collections::BTreeMap;

use super::{
    BuildError, Place,
    containerfile::{self, expand},
    state::State,
};

/// A stage in progress, or done.
#[derive(Clone)]
pub(super) struct Scope {
    pub(super) state: State,
    /// `ARG`s so far, with their values.
    pub(super) args: BTreeMap<String, String>,
    /// The file's escape character.
    pub(super) escape: char,
}

impl Scope {
    /// What variable `name` is here: `ENV` comes before `ARG`.
    fn variable(&self, name: &str) -> Option<String> {
        let prefix = format!("{name}=");
        let env = self.state.settings.env.iter();
        env.filter_map(|e| e.strip_prefix(&prefix))
            .next_back()
            .map(str::to_owned)
            .or_else(|| self.args.get(name).cloned())
    }

    /// `text` with its variables replaced.
    pub(super) fn expand(&self, text: &str, place: &Place) -> Result<String, BuildError> {
        expand(text, self.escape, &|name: &str| self.variable(name)).map_err(|e| wrong(place, e))
    }

    /// `text` with its variables replaced, split at spaces.
    pub(super) fn words(&self, text: &str, place: &Place) -> Result<Vec<String>, BuildError> {
        containerfile::expand_to_words(text, self.escape, &|name: &str| self.variable(name))
            .map_err(|e| wrong(place, e))
    }

    /// The text of a heredoc with its variables replaced.
    pub(super) fn body(&self, text: &str, place: &Place) -> Result<String, BuildError> {
        containerfile::expand_body(text, self.escape, &|name: &str| self.variable(name))
            .map_err(|e| wrong(place, e))
    }
}

fn wrong(place: &Place, what: String) -> BuildError {
    BuildError::bad(place, what, "mend the quotes and variables in this line")
}
