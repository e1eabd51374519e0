//! Which drivers a run compares.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{Driver, Kind, Opens, Transport, Upper};
use crate::machine::version_in;

/// Every driver there is: the reference and the peers, then ours. `extra` are programs that are
/// fuse-overlayfs, beside the one on the path.
pub(crate) fn all(extra: &[PathBuf]) -> Result<Vec<Driver>> {
    let mut drivers = vec![
        Driver::named(Kind::Overlayfs, "overlayfs"),
        Driver::named(Kind::Plain, "plain"),
    ];
    let on_path = find("fuse-overlayfs");
    let given: Vec<PathBuf> = extra
        .iter()
        .map(|program| {
            program
                .canonicalize()
                .with_context(|| format!("no fuse-overlayfs at {}", program.display()))
        })
        .collect::<Result<_>>()?;
    for program in on_path.into_iter().chain(given) {
        let name = format!("fuse-overlayfs-{}", version(&program)?);
        if !drivers.iter().any(|driver| driver.name == name) {
            drivers.push(Driver::named(Kind::FuseOverlayfs(program), name));
        }
    }
    for opens in [Opens::Silent, Opens::Answered, Opens::Passthrough] {
        for transport in [Transport::Ring, Transport::Dev] {
            drivers.push(native(transport, opens, false));
        }
    }
    for transport in [Transport::Ring, Transport::Dev] {
        drivers.push(native(transport, Opens::Silent, true));
    }
    for (upper, word) in [(Upper::Dir, "dir"), (Upper::Journal, "journal")] {
        for transport in [Transport::Ring, Transport::Dev] {
            let name = format!("overlay-{word}-{}", transport.word());
            drivers.push(Driver::named(Kind::DropIn { upper, transport }, name));
        }
    }
    Ok(drivers)
}

fn native(transport: Transport, opens: Opens, read_only: bool) -> Driver {
    let opens_word = match opens {
        Opens::Silent => "",
        Opens::Answered => "-answered",
        Opens::Passthrough => "-passthrough",
    };
    let read_only_word = if read_only { "-ro" } else { "" };
    let name = format!("pellicle-{}{opens_word}{read_only_word}", transport.word());
    let kind = Kind::Native {
        transport,
        opens,
        read_only,
    };
    Driver::named(kind, name)
}

/// Those that are compared unless others are named: the reference, the peers, and ours over the
/// transport that a mount would pick by itself.
pub(crate) fn defaults(all: &[Driver], ring: bool) -> Vec<Driver> {
    let transport = if ring { "ring" } else { "dev" };
    let chosen = [
        "overlayfs".to_owned(),
        "plain".to_owned(),
        format!("pellicle-{transport}"),
        format!("overlay-dir-{transport}"),
    ];
    let keep = |driver: &&Driver| {
        chosen.contains(&driver.name) || matches!(driver.kind, Kind::FuseOverlayfs(_))
    };
    all.iter().filter(keep).cloned().collect()
}

/// The drivers that `words` name: a name, the beginning of one up to a hyphen or dot
/// (`fuse-overlayfs-2`, `pellicle`), or `all`. The reference is among them in any case.
pub(crate) fn choose(all: &[Driver], words: &[String], reference: &str) -> Result<Vec<Driver>> {
    let fits = |driver: &Driver, word: &str| {
        let exact = all.iter().any(|driver| driver.name == word);
        word == "all" || driver.name == word || (!exact && begins(&driver.name, word))
    };
    for word in words.iter().map(String::as_str).chain([reference]) {
        if !all.iter().any(|driver| fits(driver, word)) {
            let names: Vec<&str> = all.iter().map(|driver| driver.name.as_str()).collect();
            bail!(
                "no driver is called {word}: there are {} and all",
                names.join(", ")
            );
        }
    }
    let mut drivers: Vec<Driver> = all
        .iter()
        .filter(|driver| driver.name == reference || words.iter().any(|word| fits(driver, word)))
        .cloned()
        .collect();
    drivers.sort_by_key(|driver| driver.name != reference);
    Ok(drivers)
}

/// Whether `word` is the beginning of `name` up to a hyphen or a dot.
fn begins(name: &str, word: &str) -> bool {
    let rest = name.strip_prefix(word);
    rest.is_some_and(|rest| rest.starts_with(['-', '.']))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// What `--version` says: `fuse-overlayfs: version 1.10`. The libraries it names come in other
/// lines.
fn version(program: &Path) -> Result<String> {
    let out = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| line.contains("overlayfs"));
    line.and_then(version_in)
        .with_context(|| format!("{} does not tell its version", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let chosen = choose(&all(&[]).unwrap(), &words, "overlayfs").unwrap();
        chosen.into_iter().map(|driver| driver.name).collect()
    }

    #[test]
    fn a_name_means_one_driver_and_its_beginning_all_of_them() {
        assert_eq!(names(&["plain"]), ["overlayfs", "plain"]);
        assert_eq!(names(&["pellicle-dev"]), ["overlayfs", "pellicle-dev"]);
        assert_eq!(names(&["overlay-dir"]).len(), 3);
        assert_eq!(names(&["pellicle"]).len(), 1 + 8);
        assert!(names(&["all"]).len() >= 14);
        assert!(begins("fuse-overlayfs-2.0.0", "fuse-overlayfs-2"));
        assert!(!begins("fuse-overlayfs-1.10", "fuse-overlayfs-1.1"));
    }

    #[test]
    fn a_name_that_no_driver_has_is_refused_with_those_there_are() {
        let all = all(&[]).unwrap();
        let error = choose(&all, &["aufs".to_owned()], "overlayfs").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("aufs") && text.contains("overlay-dir-dev"),
            "{text}"
        );
        assert!(choose(&all, &[], "btrfs").is_err());
    }

    #[test]
    fn by_default_ours_is_compared_over_one_transport() {
        let all = all(&[]).unwrap();
        let ours = |ring| {
            let chosen = defaults(&all, ring);
            let ours = chosen.into_iter().filter(Driver::ours);
            ours.map(|driver| driver.name).collect::<Vec<_>>()
        };
        assert_eq!(ours(true), ["pellicle-ring", "overlay-dir-ring"]);
        assert_eq!(ours(false), ["pellicle-dev", "overlay-dir-dev"]);
    }
}
