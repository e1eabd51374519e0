//! Which containers a store has, and which one a person means.

use std::fs;

use super::{Registry, entries};
use crate::container::{ContainerError, names, state::State};

/// One container of a listing.
#[derive(Debug)]
pub enum Listed {
    /// As its state says.
    Known(Box<State>),
    /// Its state cannot be read.
    Damaged {
        /// Its id.
        id: String,
        /// Why.
        error: ContainerError,
    },
}

impl Listed {
    /// When it was made; empty if unknown.
    #[must_use]
    pub fn created(&self) -> &str {
        match self {
            Self::Known(state) => &state.created,
            Self::Damaged { .. } => "",
        }
    }
}

impl Registry {
    /// The id of the container that `wanted` names: a name, an id, or the unique start of one.
    ///
    /// # Errors
    /// [`ContainerError::NotFound`], [`ContainerError::Ambiguous`].
    pub fn find(&self, wanted: &str) -> Result<String, ContainerError> {
        let not_found = || ContainerError::NotFound(wanted.to_owned());
        if names::is_id(wanted) && self.dir(wanted).is_dir() {
            return Ok(wanted.to_owned());
        }
        if names::check(wanted).is_ok()
            && let Ok(target) = fs::read_link(self.name_link(wanted))
            && let Some(id) = target.to_str().filter(|id| names::is_id(id))
            && self.dir(id).is_dir()
        {
            return Ok(id.to_owned());
        }
        if wanted.is_empty() || !wanted.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(not_found());
        }
        let mut hits = self.ids()?.into_iter().filter(|id| id.starts_with(wanted));
        let hit = hits.next().ok_or_else(not_found)?;
        match hits.next() {
            None => Ok(hit),
            Some(_) => Err(ContainerError::Ambiguous(wanted.to_owned())),
        }
    }

    /// The ids of all containers, in no order.
    ///
    /// # Errors
    /// The host's; a store without containers has none.
    pub fn ids(&self) -> Result<Vec<String>, ContainerError> {
        entries(&self.root.join("containers"))
            .map(|names| names.into_iter().filter(|n| names::is_id(n)).collect())
    }

    /// All containers, the newest first.
    ///
    /// # Errors
    /// The host's. A container that goes away meanwhile is left out.
    pub fn list(&self) -> Result<Vec<Listed>, ContainerError> {
        let mut all: Vec<Listed> = Vec::new();
        for id in self.ids()? {
            let dir = self.dir(&id);
            match State::load(&dir) {
                Ok(state) => all.push(Listed::Known(Box::new(state))),
                Err(_) if !dir.exists() => {}
                Err(error) => all.push(Listed::Damaged { id, error }),
            }
        }
        all.sort_by(|a, b| b.created().cmp(a.created()));
        Ok(all)
    }
}
