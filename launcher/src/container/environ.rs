//! The environment of a container's process: assignments in order, each name once.
//!
//! By name, since an image may have as many as its configuration has room for.

use std::collections::HashMap;

use super::ContainerError;

/// `NAME=VALUE` texts, in the order in which their names came first.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// `None` where one was unset.
    all: Vec<Option<String>>,
    /// Where the assignment to a name is.
    places: HashMap<String, usize>,
}

impl Environment {
    /// Takes `assignments` as they are, but those of a name that was there before.
    pub(super) fn of(assignments: impl IntoIterator<Item = String>) -> Self {
        let mut environment = Self::default();
        for assignment in assignments {
            environment.set(assignment);
        }
        environment
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Sets a name, in place if it is there.
    pub(super) fn set(&mut self, assignment: String) {
        let name = assignment.split('=').next().unwrap_or_default();
        let old = self.places.get(name).and_then(|at| self.all.get_mut(*at));
        match old {
            Some(old) => *old = Some(assignment),
            None => {
                self.places.insert(name.to_owned(), self.all.len());
                self.all.push(Some(assignment));
            }
        }
    }

    /// Applies `-e NAME=VALUE` and `-e NAME`, which takes the caller's value or unsets.
    ///
    /// # Errors
    /// [`ContainerError::Invalid`] for a name that is empty.
    pub(super) fn assign(&mut self, text: &str) -> Result<(), ContainerError> {
        let name = text.split('=').next().unwrap_or_default();
        if name.is_empty() || text.contains('\0') {
            let why = "give NAME or NAME=VALUE";
            return Err(ContainerError::invalid("environment variable", text, why));
        }
        if text.contains('=') {
            self.set(text.to_owned());
        } else if let Some(value) = std::env::var_os(name) {
            let value = value.into_string().map_err(|_| {
                ContainerError::invalid("environment variable", name, "its value is not UTF-8")
            })?;
            self.set(format!("{name}={value}"));
        } else if let Some(at) = self.places.remove(name)
            && let Some(old) = self.all.get_mut(at)
        {
            *old = None;
        }
        Ok(())
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.all.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_name_counts_at_the_place_of_the_first() {
        let of = ["A=1", "B=2", "A=3", "C=4"].map(str::to_owned);
        let mut environment = Environment::of(of);
        environment.assign("PELLICLE_NOT_SET_HERE").unwrap();
        environment.set("PELLICLE_NOT_SET_HERE=1".to_owned());
        environment.assign("PELLICLE_NOT_SET_HERE").unwrap();
        environment.assign("B=").unwrap();
        assert!(environment.has("B") && !environment.has("PELLICLE_NOT_SET_HERE"));
        assert_eq!(environment.into_vec(), ["A=3", "B=", "C=4"]);
    }

    #[test]
    fn a_hundred_thousand_are_no_trouble() {
        let mut environment = Environment::of((0..100_000).map(|n| format!("V{n}=1")));
        for n in 0..100_000 {
            environment.assign(&format!("V{n}=2")).unwrap();
        }
        assert_eq!(environment.into_vec().len(), 100_000);
    }
}
