//! Which stages are needed for the one that was asked for, and in what order.

use std::collections::BTreeMap;

use super::{
    BuildError, Place,
    containerfile::{Containerfile, What, expand},
    mounts,
};
use crate::image::Platform;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing.
    Scratch,
    /// Another stage.
    Stage(usize),
    /// An image.
    Image(String),
}

/// Where `COPY --from` and `RUN --mount=from=` take files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Another stage.
    Stage(usize),
    /// An image.
    Image(String),
}

/// What is to be built.
#[derive(Debug)]
pub(super) struct Plan {
    /// The stages that are needed, in groups: each is behind the groups that it needs, and those of one
    /// group do not need each other. The last group is the target alone.
    pub(super) groups: Vec<Vec<usize>>,
    /// What each stage begins with.
    pub(super) bases: Vec<Base>,
    /// The machine that each stage asks for.
    pub(super) platforms: Vec<Option<Platform>>,
    /// `ARG`s before the first FROM, which a stage can ask for.
    pub(super) globals: BTreeMap<String, String>,
    /// How many steps there are, FROMs counted.
    pub(super) steps: usize,
}

/// What a variable of the platform is called, and its value.
fn platform_variables(platform: &Platform) -> Vec<(String, String)> {
    let host = Platform::host();
    let mut all = Vec::new();
    for (prefix, of) in [("TARGET", platform), ("BUILD", &host)] {
        let variant = of.variant.clone().unwrap_or_default();
        for (name, value) in [
            ("PLATFORM", of.to_string()),
            ("OS", "linux".to_owned()),
            ("ARCH", of.architecture.clone()),
            ("VARIANT", variant),
        ] {
            all.push((format!("{prefix}{name}"), value));
        }
    }
    all
}

/// Plans the build of stage `target` (its name or number; the last one without).
///
/// # Errors
/// [`BuildError::Bad`] for stages that do not exist or need each other.
pub(super) fn plan(
    file: &Containerfile,
    build_args: &BTreeMap<String, String>,
    platform: &Platform,
    target: Option<&str>,
) -> Result<Plan, BuildError> {
    let mut globals: BTreeMap<String, String> = platform_variables(platform).into_iter().collect();
    for (place, arg) in &file.args {
        let value = match (build_args.get(&arg.name), &arg.default) {
            (Some(given), _) => given.clone(),
            (None, Some(default)) => in_globals(default, file, &globals, place)?,
            (None, None) => continue,
        };
        globals.insert(arg.name.clone(), value);
    }
    let mut bases = Vec::new();
    let mut platforms = Vec::new();
    for (at, stage) in file.stages.iter().enumerate() {
        let base = in_globals(&stage.base, file, &globals, &stage.place)?;
        if base.is_empty() {
            return Err(BuildError::bad(
                &stage.place,
                format!(
                    "FROM {} is empty once its variables are replaced",
                    stage.base
                ),
                "give them with --build-arg NAME=VALUE, or defaults with ARG NAME=VALUE before the first FROM",
            ));
        }
        let earlier = file.stages.get(..at).unwrap_or_default();
        let lower = base.to_ascii_lowercase();
        let found = earlier
            .iter()
            .rposition(|s| s.name.as_ref() == Some(&lower));
        bases.push(match found {
            Some(stage) => Base::Stage(stage),
            None if base == "scratch" => Base::Scratch,
            None => Base::Image(base),
        });
        let asked = stage.platform.as_deref();
        platforms.push(match asked {
            None => None,
            Some(text) => {
                let text = in_globals(text, file, &globals, &stage.place)?;
                Some(text.parse::<Platform>().map_err(|why| {
                    BuildError::bad(&stage.place, format!("{text:?} is no platform"), why)
                })?)
            }
        });
    }
    let goal = match target {
        None => file.stages.len().saturating_sub(1),
        Some(name) => find(file, name).ok_or_else(|| {
            BuildError::request(
                format!("there is no stage {name:?} in the Containerfile"),
                format!("--target takes one of: {}", names(file)),
            )
        })?,
    };
    let mut walk = Walk {
        file,
        bases: &bases,
        open: Vec::new(),
        order: Vec::new(),
    };
    walk.visit(goal)?;
    let groups = groups(file, &bases, &walk.order)?;
    let steps = walk
        .order
        .iter()
        .filter_map(|at| file.stages.get(*at))
        .map(|s| s.instructions.len() + 1)
        .sum();
    Ok(Plan {
        groups,
        bases,
        platforms,
        globals,
        steps,
    })
}

fn in_globals(
    text: &str,
    file: &Containerfile,
    globals: &BTreeMap<String, String>,
    place: &Place,
) -> Result<String, BuildError> {
    expand(text, file.escape, &|name: &str| globals.get(name).cloned())
        .map_err(|what| BuildError::bad(place, what, "mend the variables in this line"))
}

fn names(file: &Containerfile) -> String {
    let names: Vec<String> = file
        .stages
        .iter()
        .enumerate()
        .map(|(at, s)| s.name.clone().unwrap_or_else(|| at.to_string()))
        .collect();
    names.join(", ")
}

/// The stage called `name`, or with that number.
fn find(file: &Containerfile, name: &str) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    file.stages
        .iter()
        .rposition(|s| s.name.as_ref() == Some(&lower))
        .or_else(|| name.parse().ok().filter(|at| *at < file.stages.len()))
}

/// What `--from=name` means in stage `at`.
///
/// # Errors
/// A number that no stage has.
pub(super) fn from(file: &Containerfile, place: &Place, name: &str) -> Result<From, BuildError> {
    if let Some(stage) = find(file, name) {
        return Ok(From::Stage(stage));
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BuildError::bad(
            place,
            format!("there is no stage {name}"),
            format!("the stages are: {}", names(file)),
        ));
    }
    Ok(From::Image(name.to_owned()))
}

/// The stages that stage `at` needs, and where it says so.
fn needs(
    file: &Containerfile,
    bases: &[Base],
    at: usize,
) -> Result<Vec<(Place, usize)>, BuildError> {
    let mut all = Vec::new();
    let Some(stage) = file.stages.get(at) else {
        return Ok(all);
    };
    if let Some(Base::Stage(base)) = bases.get(at) {
        all.push((stage.place.clone(), *base));
    }
    for instruction in &stage.instructions {
        let mut names: Vec<String> = Vec::new();
        match &instruction.what {
            What::Copy(copy) => names.extend(copy.from.clone()),
            What::Run(run) => names.extend(run.mounts.iter().filter_map(|m| mounts::from(m))),
            _ => {}
        }
        for name in names {
            if let From::Stage(stage) = from(file, &instruction.place, &name)? {
                all.push((instruction.place.clone(), stage));
            }
        }
    }
    Ok(all)
}

/// Stages in `order`, each behind those it needs, in groups.
fn groups(
    file: &Containerfile,
    bases: &[Base],
    order: &[usize],
) -> Result<Vec<Vec<usize>>, BuildError> {
    let mut level: BTreeMap<usize, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for at in order {
        let needed = needs(file, bases, *at)?;
        let above = needed.iter().filter_map(|(_, n)| level.get(n)).max();
        let own = above.map_or(0, |n| n + 1);
        level.insert(*at, own);
        if groups.len() <= own {
            groups.resize(own + 1, Vec::new());
        }
        if let Some(group) = groups.get_mut(own) {
            group.push(*at);
        }
    }
    Ok(groups)
}

struct Walk<'a> {
    file: &'a Containerfile,
    bases: &'a [Base],
    /// Stages on the way from the target to the one looked at.
    open: Vec<usize>,
    order: Vec<usize>,
}

impl Walk<'_> {
    /// As deep as there are stages, of which a file of [`lines::FILE_MAX`] has few.
    ///
    /// [`lines::FILE_MAX`]: super::containerfile
    fn visit(&mut self, at: usize) -> Result<(), BuildError> {
        if self.order.contains(&at) {
            return Ok(());
        }
        self.open.push(at);
        if self.open.len() > STAGES_DEEP {
            let place = self.file.stages.get(at).map(|s| s.place.clone());
            let what = format!("more than {STAGES_DEEP} stages stand on each other");
            return Err(match place {
                Some(place) => BuildError::bad(&place, what, "split the file"),
                None => BuildError::request(what, "split the file"),
            });
        }
        for (place, needed) in needs(self.file, self.bases, at)? {
            if self.open.contains(&needed) {
                let name = |at: usize| {
                    let stage = self.file.stages.get(at);
                    let name = stage.and_then(|s| s.name.clone());
                    name.unwrap_or_else(|| at.to_string())
                };
                let what = if needed == at {
                    format!("stage {} takes from itself", name(at))
                } else {
                    format!("stage {} needs {}, which needs it", name(at), name(needed))
                };
                return Err(BuildError::bad(
                    &place,
                    what,
                    "take what both need into a stage of its own",
                ));
            }
            self.visit(needed)?;
        }
        self.open.pop();
        self.order.push(at);
        Ok(())
    }
}

/// More stages than any real file stacks; bounds the recursion.
const STAGES_DEEP: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::containerfile::parse;

    fn planned(
        text: &str,
        target: Option<&str>,
        args: &[(&str, &str)],
    ) -> Result<Plan, BuildError> {
        let file = parse("F", text.as_bytes()).unwrap();
        let args = args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        plan(&file, &args.collect(), &Platform::host(), target)
    }

    const FILE: &str = "ARG V=1\nFROM x:$V AS a\nFROM a AS b\nRUN x\nFROM scratch AS unused\nRUN y\nFROM scratch\nCOPY --from=b /f /\nRUN --mount=type=bind,from=4,target=/m z\nFROM y AS last\n";

    #[test]
    fn only_what_is_needed_is_built_and_in_order() {
        let plan = planned(FILE, Some("3"), &[]).unwrap();
        assert_eq!(plan.groups, [vec![0, 4], vec![1], vec![3]]);
        assert_eq!(plan.bases[0], Base::Image("x:1".to_owned()));
        assert_eq!(plan.bases[1], Base::Stage(0));
        assert_eq!(plan.steps, 1 + 2 + 1 + 3);
        assert_eq!(planned(FILE, Some("B"), &[]).unwrap().groups, [[0], [1]]);
        assert_eq!(planned(FILE, None, &[]).unwrap().groups, [[4]]);
        let plan = planned(FILE, Some("a"), &[("V", "2")]).unwrap();
        assert_eq!(plan.bases[0], Base::Image("x:2".to_owned()));
    }

    #[test]
    fn stages_that_are_not_there_or_need_each_other_are_refused() {
        for (text, target, want) in [
            ("FROM x", Some("y"), "no stage \"y\""),
            (
                "FROM x\nCOPY --from=3 a b",
                None,
                "F:2: there is no stage 3",
            ),
            ("FROM x AS a\nCOPY --from=b a b\nFROM a AS b", None, "needs"),
            ("FROM x AS a\nCOPY --from=a a b", None, "takes from itself"),
            ("FROM $none", None, "is empty"),
            ("FROM --platform=windows/amd64 x", None, "no platform"),
        ] {
            let e = planned(text, target, &[]).unwrap_err();
            assert!(e.to_string().contains(want), "{text}: {e}");
        }
    }
}
