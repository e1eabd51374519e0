//! Workloads that are a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::{Caches, Round, Tree, Work, Writes};
use crate::setup::{Lower, Setup, quiet, succeed};

/// What such a file says (TOML).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Custom {
    name: String,
    #[serde(default)]
    about: String,
    /// `image`, `empty`, or a directory of the host's.
    #[serde(default = "image")]
    lower: String,
    /// `cold`, `fresh` or `warm`.
    #[serde(default)]
    caches: Option<String>,
    /// The work changes nothing: a plain directory needs no copy, read-only drivers take part.
    #[serde(default)]
    read_only: bool,
    /// Lines of shell before the time counts.
    #[serde(default)]
    setup: Vec<String>,
    /// Those that are measured.
    run: Vec<String>,
    /// And those after.
    #[serde(default)]
    cleanup: Vec<String>,
}

fn image() -> String {
    "image".to_owned()
}

impl Custom {
    /// Reads one.
    pub(crate) fn read(path: &Path) -> Result<Tree> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the workload {}", path.display()))?;
        let custom: Self = toml::from_str(&text).with_context(|| {
            format!(
                "{} is no workload: bench/example.toml shows what one looks like",
                path.display()
            )
        })?;
        custom
            .into_tree()
            .with_context(|| format!("in the workload {}", path.display()))
    }

    fn into_tree(self) -> Result<Tree> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_/.".contains(c);
        if self.name.is_empty() || !self.name.chars().all(plain) {
            bail!("the name {:?} is not letters, digits and -_/.", self.name);
        }
        if self.run.is_empty() {
            bail!("run has no lines: there is nothing to measure");
        }
        let lower = match self.lower.as_str() {
            "image" => Lower::Image,
            "empty" => Lower::Empty,
            dir if dir.starts_with('/') => Lower::Directory(PathBuf::from(dir)),
            other => bail!("lower is {other:?}: it is image, empty or an absolute path"),
        };
        let caches = match self.caches.as_deref() {
            Some("cold") => Caches::Cold,
            Some("fresh") | None => Caches::Fresh,
            Some("warm") => Caches::Warm(1),
            Some(other) => bail!("caches is {other:?}: it is cold, fresh or warm"),
        };
        let writes = if self.read_only {
            Writes::Nothing
        } else {
            Writes::Anywhere
        };
        let (before, run, after) = (self.setup, self.run, self.cleanup);
        let tree = Tree::new(self.name, self.about, lower, move |round| {
            shell(round, &run)?;
            Ok(Work::default())
        });
        Ok(tree
            .caches(caches)
            .writes(writes)
            .prepare(move |round| shell(round, &before))
            .cleanup(move |round| shell(round, &after)))
    }
}

fn shell(round: &Round<'_>, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let script = filled(lines, round.at, round.setup)?;
    succeed(
        quiet("sh")
            .args(["-e", "-c", &script])
            .current_dir(round.at),
    )
    .context("its shell lines failed")
}

/// `{dir}` is the tree, `{work}` a directory beside it that no driver has a part in.
fn filled(lines: &[String], at: &Path, setup: &Setup) -> Result<String> {
    let work = setup.directory("custom")?;
    Ok(fill(lines, at, &work))
}

fn fill(lines: &[String], at: &Path, work: &Path) -> String {
    let script = lines.join("\n");
    script
        .replace("{dir}", &at.to_string_lossy())
        .replace("{work}", &work.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Tree> {
        toml::from_str::<Custom>(text)?.into_tree()
    }

    #[test]
    fn the_example_is_a_workload() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml");
        let tree = Custom::read(&example).unwrap();
        assert!(!tree.name.is_empty() && !tree.about.is_empty());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        for (text, word) in [
            ("run = ['true']", "name"),
            ("name = 'a'", "run"),
            ("name = 'a'\nrun = []", "run"),
            ("name = 'a b'\nrun = ['true']", "a b"),
            ("name = 'a'\nrun = ['true']\nlower = 'x'", "lower"),
            ("name = 'a'\nrun = ['true']\ncaches = 'x'", "caches"),
            ("name = 'a'\nrun = ['true']\nrum = 1", "rum"),
        ] {
            let error = parse(text).err().expect(text);
            assert!(format!("{error:#}").contains(word), "{text}: {error:#}");
        }
    }

    #[test]
    fn directories_are_put_into_the_lines() {
        let lines = ["cd {dir}".to_owned(), "ls {work} {dir}".to_owned()];
        assert_eq!(
            fill(&lines, Path::new("/m"), Path::new("/w")),
            "cd /m\nls /w /m"
        );
    }
}
